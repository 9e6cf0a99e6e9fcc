"""Impressions in memory: what was shown to whom, what became of it, and the history before it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from jrec.data.clicks import Bag, Categorical, Column, Continuous, take
from jrec.data.impression_history import earlier_in_group, last_watched
from jrec.data.origin import Source
from jrec.data.ragged import Ragged
from jrec.data.vocabulary import FIRST, Vocabulary
from jrec.errors import InputError


@dataclass(frozen=True)
class Impressions:
    """n impressions of N users, in no order that matters.

    Attributes:
        user: int32 [n], 0 to N - 1. item: int32 [n], rows of `vocabularies["item"]`.
        timestamp: int64 [n], seconds.
        page: int64 [n]; what is ranked together has one number, which belongs to one user.
        clicked, completed: bool [n]. watch_seconds: float32 [n], 0 or more, whether clicked or not.
        history_only: bool [n]; rows known to have been watched, but not what else was shown or for
            how long: they may describe a history, and are neither trained nor tested on.
        user_row: int32 [N], rows of `vocabularies["user"]`.
        user_features: columns of N rows. item_features: of V_item rows. context_features: of n rows,
            known when the impression is shown.
        expected_watch_seconds: float32 [n], the true mean of the watch time of a click, 0 without
            one, where it was planted; None in a real log.
    """

    name: str
    source: Source
    user: np.ndarray
    item: np.ndarray
    timestamp: np.ndarray
    page: np.ndarray
    clicked: np.ndarray
    completed: np.ndarray
    watch_seconds: np.ndarray
    history_only: np.ndarray
    user_row: np.ndarray
    vocabularies: dict[str, Vocabulary]
    user_features: dict[str, Column] = field(default_factory=dict)
    item_features: dict[str, Column] = field(default_factory=dict)
    context_features: dict[str, Column] = field(default_factory=dict)
    expected_watch_seconds: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.item)


@dataclass(frozen=True)
class ImpressionSplit:
    """Positions of impressions by part, rising, `history_only` left out.

    Attributes:
        train, valid, test: int64.
    """

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray


def split_by_time(
    impressions: Impressions, valid_from: int, test_from: int, test_until: int | None = None
) -> ImpressionSplit:
    """Validation from one moment on, test from a later one; equal times fall on one side.

    Args:
        valid_from, test_from, test_until: seconds; the first two equal for no validation.

    Raises InputError where train or test would be empty.
    """
    if valid_from > test_from:
        raise InputError(
            f"Validation must begin before the test, but begins at {valid_from} and the test at "
            f"{test_from}."
        )
    time, real = impressions.timestamp, ~impressions.history_only
    before_end = time < test_until if test_until is not None else np.ones(len(time), bool)
    split = ImpressionSplit(
        train=np.flatnonzero(real & (time < valid_from)),
        valid=np.flatnonzero(real & (time >= valid_from) & (time < test_from)),
        test=np.flatnonzero(real & (time >= test_from) & before_end),
    )
    if len(split.train) == 0 or len(split.test) == 0:
        raise InputError(
            f"The cut at {valid_from} and {test_from} leaves train {len(split.train)}, test "
            f"{len(split.test)} of {len(time)} impressions; choose other days."
        )
    return split


def history_features(impressions: Impressions, keys: Mapping[str, Column]) -> dict[str, Column]:
    """Features of each impression from the same user's strictly earlier ones, as a server knew them.

    Impressions of one moment do not see each other, so later rows, and rows of the same moment,
    change nothing. (A click and its watch time count as known from the next moment on.)

    Args:
        impressions: all of them, training and test together: each sees its own past alone.
        keys: item columns by name (author, category), of V_item rows.

    Returns:
        Continuous columns of n rows, for `item` and for each key: `NAME_shown`, how many earlier
        impressions had the same value (for a bag, one for each value in common);
        `NAME_idle_seconds`, the time since the last watch of the same value (for a bag, of any of its
        values), unknown where there was none. Padding and unknown values are no values.
    """
    items = Categorical(np.arange(impressions.vocabularies["item"].rows), "item")
    columns: dict[str, Column] = {}
    for name, key in {"item": items, **keys}.items():
        row, value = _values_of(key, impressions.item)
        group = impressions.user[row].astype(np.int64) * (int(value.max(initial=0)) + 1) + value
        time = impressions.timestamp[row]
        shown, last = earlier_in_group(group, time, impressions.clicked[row])
        known = np.zeros(len(impressions), bool)
        known[row[last >= 0]] = True
        latest = np.full(len(impressions), np.iinfo(np.int64).min)
        np.maximum.at(latest, row[last >= 0], time[last[last >= 0]])
        idle = np.where(known, impressions.timestamp - np.where(known, latest, 0), 0)
        count = np.bincount(row, shown, len(impressions))
        columns[f"{name}_shown"] = Continuous(count.astype(np.float32), np.ones(len(count), bool))
        columns[f"{name}_idle_seconds"] = Continuous(idle.astype(np.float32), known)
    return columns


def _values_of(key: Column, item: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(impression, value) int64 pairs of an item column; padding and unknown values are left out."""
    taken = take(key, item)
    if isinstance(taken, Bag):
        row, value = np.repeat(np.arange(len(item)), taken.rows.lengths), taken.rows.values
    elif isinstance(taken, Categorical):
        row, value = np.arange(len(item)), taken.rows
    else:
        raise ValueError("A number is no key: use a categorical column or a bag.")
    kept = value >= FIRST
    return row[kept], value[kept].astype(np.int64)


def watched_before(impressions: Impressions, count: int) -> Bag:
    """Each impression's last `count` watched items of the same user, strictly earlier ones."""
    place, offsets = last_watched(
        impressions.user, impressions.timestamp, impressions.clicked, count
    )
    return Bag(Ragged(impressions.item[place], offsets), "item")
