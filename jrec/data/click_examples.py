"""Next-item examples out of clicks, and what is held out: index arrays, padded on the device."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from jrec.data.clicks import Clicks
from jrec.data.vocabulary import UNKNOWN
from jrec.errors import InputError

_DAY = 86_400


@dataclass(frozen=True)
class ClickSplit:
    """A user's clicks in three runs: train, then validation, then test (each may be empty).

    Attributes:
        name: the rule.
        train_end: int64 [N]; user r trains on clicks `offsets[r]:train_end[r]`.
        valid_end: int64 [N]; validates on `train_end[r]:valid_end[r]`, tests on what remains.
        train, valid, test: int64, the same as positions of clicks, rising.
    """

    name: str
    train_end: np.ndarray
    valid_end: np.ndarray
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray


@dataclass(frozen=True)
class Examples:
    """E next-item examples: what `user` clicked at `target` after `item[start:end]`.

    An unknown click (row 1) stands before a user's first, as in the source: an example's history is
    that click and then `item[start:end]` where `starts_with_unknown`, else `item[start:end]`. So it
    is never empty and, with a window, never longer than that. Everything that the user had clicked
    by then, to leave out of a ranking, is `item[offsets[user]:end]`.

    Attributes:
        user: int32 [E], 0 to N - 1.
        start, end: int64 [E], positions of clicks; `end <= target`.
        target: int64 [E], positions of clicks.
        starts_with_unknown: bool [E].
        age_days: float32 [E], days from the click to the latest training click; 0 for held-out
            examples, as at serving.
        window: the most clicks a history has; None for no bound.
    """

    user: np.ndarray
    start: np.ndarray
    end: np.ndarray
    target: np.ndarray
    starts_with_unknown: np.ndarray
    age_days: np.ndarray
    window: int | None

    def __len__(self) -> int:
        return len(self.target)


def leave_one_out(clicks: Clicks, shortest: int = 3) -> ClickSplit:
    """Each user's last click is test, the one before it validation.

    Users with under `shortest` clicks stay in train. Raises InputError where nobody has as many.
    """
    raise NotImplementedError


def time_cut(clicks: Clicks, valid_from: int, test_from: int) -> ClickSplit:
    """Validation from one moment on, test from a later one; equal times fall on one side.

    Args:
        valid_from, test_from: seconds, as in `clicks.timestamp`; equal for no validation.

    Raises InputError where the clicks have no times or train or test would be empty.
    """
    raise NotImplementedError


def training_examples(
    clicks: Clicks,
    split: ClickSplit,
    window: int | None = 20,
    cap: int | None = None,
    seed: int = 0,
    first: bool = True,
) -> Examples:
    """One example for each training click, in the clicks' order.

    Args:
        window: the most clicks a history has; None for all.
        cap: the most examples a user gives, drawn without repeats (the YouTube paper, 3.3, weighs
            users equally so); None for all.
        seed: of that draw.
        first: whether a user's first click, whose history is the unknown click alone, counts (as
            in the source).
    """
    raise NotImplementedError


def held_out_examples(
    clicks: Clicks,
    split: ClickSplit,
    part: Literal["valid", "test"],
    window: int | None = None,
    running: bool = True,
) -> Examples:
    """One example for each held-out click, in the clicks' order; its history is what came before.

    Args:
        window: the most clicks a history has; None for all (the source's at inference).
        running: whether earlier held-out clicks of the same part are history, too; else every
            history ends where the part begins, as of a system that serves the whole part at once.
    """
    raise NotImplementedError


def history_of(clicks: Clicks, examples: Examples, k: int) -> np.ndarray:
    """int32, item rows of example k's history, the unknown click included."""
    raise NotImplementedError


def count_items(clicks: Clicks, positions: np.ndarray) -> np.ndarray:
    """int64 [V_item], clicks of each item row among `positions` (`split.train`)."""
    raise NotImplementedError
