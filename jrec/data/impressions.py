"""Impressions in memory: what was shown to whom, and what became of it."""

from dataclasses import dataclass, field

import numpy as np

from jrec.data.clicks import Column
from jrec.data.origin import Source
from jrec.data.vocabulary import Vocabulary
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
