"""Clicks in memory: one form, whatever log they came from; features are described by the data."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from jrec.data.origin import Source
from jrec.data.ragged import Ragged
from jrec.data.vocabulary import FIRST, PADDING, UNKNOWN, Vocabulary
from jrec.errors import InputError


@dataclass(frozen=True)
class Categorical:
    """One value a row.

    Attributes:
        rows: int32 [rows], rows of the named vocabulary.
        vocabulary: its name in `Clicks.vocabularies`; columns may share one.
    """

    rows: np.ndarray
    vocabulary: str

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Bag:
    """Any number of values a row, in no order that matters.

    Attributes:
        rows: Ragged of rows of the named vocabulary.
        vocabulary: its name in `Clicks.vocabularies`; columns may share one.
    """

    rows: Ragged
    vocabulary: str

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Continuous:
    """One number a row.

    Attributes:
        values: float32 [rows], 0 where unknown.
        known: bool [rows].
    """

    values: np.ndarray
    known: np.ndarray

    def __len__(self) -> int:
        return len(self.values)


Column = Categorical | Bag | Continuous


@dataclass(frozen=True)
class Clicks:
    """One data set: n clicks of N users, user by user, each user's in time order.

    Attributes:
        offsets: int64 [N + 1]; user r's clicks are `item[offsets[r]:offsets[r + 1]]`, maybe none.
        item: int32 [n], rows of `vocabularies["item"]`, never padding (0) nor unknown (1).
        timestamp: int64 [n], seconds, rounded down after sorting; the place from the user's first click
            (0) where not `timed`.
        timed: whether the times are known.
        user_row: int32 [N], rows of `vocabularies["user"]`; 1 for a user that it does not hold.
        vocabularies: `user`, `item` and those that columns name.
        item_counts: int64 [V_item], clicks of each item row (see `click_examples.count_items` for
            those of the training part alone).
        user_features: columns of N rows. item_features: of V_item rows; row 0 (padding) holds
            padding or nothing, row 1 the unknown item's.
        event_features: columns of n rows. Most are known only after the click (a rating, a watch
            time): they may describe a history, never the click that is to be foretold.
        dropped: what was left out and how often, by reason.
        unknown: how many values fell on the unknown row, by vocabulary.
    """

    name: str
    source: Source
    offsets: np.ndarray
    item: np.ndarray
    timestamp: np.ndarray
    timed: bool
    user_row: np.ndarray
    vocabularies: dict[str, Vocabulary]
    item_counts: np.ndarray
    user_features: dict[str, Column] = field(default_factory=dict)
    item_features: dict[str, Column] = field(default_factory=dict)
    event_features: dict[str, Column] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    unknown: dict[str, int] = field(default_factory=dict)

    @property
    def users(self) -> int:
        """N."""
        return len(self.user_row)

    @property
    def user_of_event(self) -> np.ndarray:
        """int64 [n], each click's user, 0 to N - 1."""
        return np.repeat(np.arange(self.users), np.diff(self.offsets))

    def __len__(self) -> int:
        return len(self.item)


def build_clicks(
    name: str,
    source: Source,
    user: np.ndarray,
    item: np.ndarray,
    timestamp: np.ndarray | None,
    user_row: np.ndarray,
    vocabularies: Mapping[str, Vocabulary],
    user_features: Mapping[str, Column] | None = None,
    item_features: Mapping[str, Column] | None = None,
    event_features: Mapping[str, Column] | None = None,
    dropped: Mapping[str, int] | None = None,
) -> Clicks:
    """Clicks from columns in any order of users: groups them, sorts each user's by time, counts.

    Args:
        user: int [n], 0 to N - 1. item: int [n], rows from 2 on.
        timestamp: int or float [n], seconds with their fraction, which decides the order; None where
            unknown: then the given order is the time order, as it is among equal times.
        event_features: columns in the given order of events.

    Raises InputError where there are no clicks or a column does not fit.
    """
    if len(item) == 0:
        raise InputError(f"{source.location} holds no clicks that can be kept; check the file.")
    users = len(user_row)
    timed = timestamp is not None
    order = np.lexsort((timestamp, user)) if timed else np.argsort(user, kind="stable")
    offsets = np.zeros(users + 1, np.int64)
    np.cumsum(np.bincount(user, minlength=users), out=offsets[1:])
    place = np.arange(len(item)) - np.repeat(offsets[:-1], np.diff(offsets))
    features = (dict(user_features or {}), dict(item_features or {}), dict(event_features or {}))
    clicks = Clicks(
        name=name,
        source=source,
        offsets=offsets,
        item=np.asarray(item[order], np.int32),
        timestamp=np.floor(timestamp[order]).astype(np.int64) if timed else place,
        timed=timed,
        user_row=np.asarray(user_row, np.int32),
        vocabularies=dict(vocabularies),
        item_counts=np.bincount(item, minlength=vocabularies["item"].rows).astype(np.int64),
        user_features=features[0],
        item_features=features[1],
        event_features={key: take(column, order) for key, column in features[2].items()},
        dropped=dict(dropped or {}),
        unknown=_count_unknown(user_row, features),
    )
    check_clicks(clicks)
    return clicks


def take(column: Column, rows: np.ndarray) -> Column:
    """The column's rows at int positions `rows`."""
    if isinstance(column, Categorical):
        return Categorical(column.rows[rows], column.vocabulary)
    if isinstance(column, Continuous):
        return Continuous(column.values[rows], column.known[rows])
    lengths = column.rows.lengths[rows]
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    shift = np.repeat(column.rows.offsets[rows] - offsets[:-1], lengths)
    return Bag(
        Ragged(column.rows.values[shift + np.arange(offsets[-1])], offsets), column.vocabulary
    )


def check_clicks(clicks: Clicks) -> None:
    """Raises InputError where lengths, offsets, vocabularies or rows do not fit together."""
    known = clicks.vocabularies

    def need(fits: bool, fault: str) -> None:
        if not fits:
            raise InputError(
                f"The clicks of {clicks.source.location} do not fit together: {fault}."
            )

    def need_offsets(what: str, offsets: np.ndarray, total: int) -> None:
        rises = offsets[0] == 0 and offsets[-1] == total and not (np.diff(offsets) < 0).any()
        need(rises, f"the {what} offsets do not rise from 0 to {total}")

    def need_rows(what: str, rows: np.ndarray, low: int, vocabulary: str) -> None:
        high = known[vocabulary].rows
        inside = len(rows) == 0 or (low <= rows.min() and rows.max() < high)
        need(inside, f"a row of {what} lies outside {low} to {high - 1}")

    def need_column(what: str, column: Column, length: int) -> None:
        fault = f"{what} has {len(column)} rows where there should be {length}"
        need(len(column) == length, fault)
        if isinstance(column, Continuous):
            whole = len(column.known) == length and np.isfinite(column.values).all()
            need(whole, f"{what} is not finite or lacks its mask")
            return
        fault = f"{what} names the vocabulary {column.vocabulary!r}, which is missing"
        need(column.vocabulary in known, fault)
        rows = column.rows
        if isinstance(rows, Ragged):
            need_offsets(what, rows.offsets, len(rows.values))
            rows = rows.values
        need_rows(what, rows, 0, column.vocabulary)

    need({"user", "item"} <= known.keys(), "the user or item vocabulary is missing")
    for what, values, length in (
        ("offset", clicks.offsets, clicks.users + 1),
        ("timestamp", clicks.timestamp, len(clicks)),
        ("item count", clicks.item_counts, known["item"].rows),
    ):
        fault = f"{len(values)} {what}s stand where there should be {length}"
        need(len(values) == length, fault)
    need_offsets("user", clicks.offsets, len(clicks))
    need_rows("item", clicks.item, FIRST, "item")
    need_rows("user", clicks.user_row, UNKNOWN, "user")
    for what, columns, length in (
        ("user", clicks.user_features, clicks.users),
        ("item", clicks.item_features, known["item"].rows),
        ("event", clicks.event_features, len(clicks)),
    ):
        for name, column in columns.items():
            need_column(f"{what} feature {name!r}", column, length)


def with_stand_ins(column: Column) -> Column:
    """A column of the known items with the rows of padding (0, empty) and the unknown item put in front."""
    if isinstance(column, Categorical):
        stand_ins = np.array([PADDING, UNKNOWN], np.int32)
        return Categorical(np.concatenate([stand_ins, column.rows]), column.vocabulary)
    if isinstance(column, Continuous):
        values, known = np.zeros(FIRST, np.float32), np.zeros(FIRST, bool)
        return Continuous(np.append(values, column.values), np.append(known, column.known))
    unknown = np.array([UNKNOWN], np.int32)
    values = np.concatenate([unknown, column.rows.values])
    return Bag(Ragged(values, np.append([0, 0], column.rows.offsets + 1)), column.vocabulary)


def _count_unknown(user_row: np.ndarray, features: Iterable[dict[str, Column]]) -> dict[str, int]:
    counts = {"user": int((user_row == UNKNOWN).sum())}
    # The unknown item's own row stands for no value of the log.
    for first, columns in zip((0, FIRST, 0), features, strict=True):
        for column in columns.values():
            if isinstance(column, Continuous):
                continue
            rows = column.rows
            rows = rows.values[rows.offsets[first] :] if isinstance(rows, Ragged) else rows[first:]
            counts[column.vocabulary] = counts.get(column.vocabulary, 0) + int(
                (rows == UNKNOWN).sum()
            )
    return counts
