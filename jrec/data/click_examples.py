"""Next-item examples out of clicks, and what is held out: index arrays, padded on the device."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from jrec.data.clicks import Clicks
from jrec.data.vocabulary import UNKNOWN
from jrec.errors import InputError


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
        start, end: int64 [E], positions of clicks; `end` is `target`.
        target: int64 [E], positions of clicks.
        starts_with_unknown: bool [E].
        age: float32 [E], see `example_ages`; 0 for held-out examples, as at serving.
    """

    user: np.ndarray
    start: np.ndarray
    end: np.ndarray
    target: np.ndarray
    starts_with_unknown: np.ndarray
    age: np.ndarray

    def __len__(self) -> int:
        return len(self.target)


def leave_one_out(clicks: Clicks) -> ClickSplit:
    """Each user's last click is test, the one before it validation.

    Users with under 3 clicks stay in train. Raises InputError where nobody has as many.
    """
    ends = clicks.offsets[1:]
    held_out = np.diff(clicks.offsets) >= 3
    if not held_out.any():
        raise InputError(
            f"No user of {clicks.source.location} has 3 clicks, so none can be held out; "
            f"use more clicks or the cut in time."
        )
    return _split(clicks, "leave-one-out", ends - 2 * held_out, ends - held_out)


def time_cut(clicks: Clicks, valid_from: int, test_from: int) -> ClickSplit:
    """Validation from one moment on, test from a later one; equal times fall on one side.

    Args:
        valid_from, test_from: seconds, as in `clicks.timestamp`; equal for no validation.

    Raises InputError where the clicks have no times or train or test would be empty.
    """
    if not clicks.timed:
        raise InputError(
            f"{clicks.source.location} holds no times to cut at; hold out the last click instead."
        )
    if valid_from > test_from:
        raise InputError(
            f"Validation must begin before the test, but begins at {valid_from} and the test at "
            f"{test_from}."
        )
    ends = []
    for moment in (valid_from, test_from):
        before = np.concatenate([[0], np.cumsum(clicks.timestamp < moment)])
        ends.append(clicks.offsets[:-1] + np.diff(before[clicks.offsets]))
    split = _split(clicks, "time-cut", *ends)
    if len(split.train) == 0 or len(split.test) == 0:
        raise InputError(
            f"The cut at {valid_from} and {test_from} leaves train {len(split.train)}, test "
            f"{len(split.test)} of {len(clicks)} clicks; their times lie between "
            f"{clicks.timestamp.min()} and {clicks.timestamp.max()}."
        )
    return split


def training_examples(
    clicks: Clicks,
    split: ClickSplit,
    window: int | None = 20,
    cap: int | None = None,
    seed: int = 0,
) -> Examples:
    """One example for each training click, in the clicks' order.

    Args:
        window: the most clicks a history has; None for all.
        cap: the most examples a user gives, drawn without repeats (the YouTube paper, 3.3, weighs
            users equally so); None for all.
        seed: of that draw.
    """
    user = np.repeat(np.arange(clicks.users), split.train_end - clicks.offsets[:-1])
    target = split.train
    if cap is not None:
        kept = _capped(user, cap, seed)
        user, target = user[kept], target[kept]
    return _examples(clicks, user, target, example_ages(clicks, split)[target], window)


def example_ages(clicks: Clicks, split: ClickSplit) -> np.ndarray:
    """Returns float32 [n], the share of the training clicks that are later than each click, in [0, 1).

    This is the example age of the YouTube paper (3.3), normalised by its training quantiles. 0 where there
    are no times.
    """
    if not clicks.timed:
        return np.zeros(len(clicks), np.float32)
    times = np.sort(clicks.timestamp[split.train])
    later = len(times) - np.searchsorted(times, clicks.timestamp, "right")
    return (later / max(len(times), 1)).astype(np.float32)


def held_out_examples(
    clicks: Clicks, split: ClickSplit, part: Literal["valid", "test"]
) -> Examples:
    """One example for each held-out click, in the clicks' order; its history is all that came before."""
    if part not in ("valid", "test"):
        raise InputError(f"There is no held-out part {part!r}; choose valid or test.")
    begins, ends = (
        (split.train_end, split.valid_end)
        if part == "valid"
        else (split.valid_end, clicks.offsets[1:])
    )
    user = np.repeat(np.arange(clicks.users), ends - begins)
    target = split.valid if part == "valid" else split.test
    return _examples(clicks, user, target, np.zeros(len(target)), None)


def history_of(clicks: Clicks, examples: Examples, k: int) -> np.ndarray:
    """int32, item rows of example k's history, the unknown click included."""
    seen = clicks.item[examples.start[k] : examples.end[k]]
    lead = [UNKNOWN] if examples.starts_with_unknown[k] else []
    return np.concatenate([lead, seen]).astype(np.int32)


def repeated_targets(clicks: Clicks, examples: Examples) -> np.ndarray:
    """bool [E], targets that the user had clicked by then (before `end`)."""
    rows = clicks.vocabularies["item"].rows
    pair = clicks.user_of_event * rows + clicks.item
    _, first, place = np.unique(pair, return_index=True, return_inverse=True)
    return first[place[examples.target]] < examples.end


def count_items(clicks: Clicks, positions: np.ndarray) -> np.ndarray:
    """int64 [V_item], clicks of each item row among `positions` (`split.train`)."""
    rows = clicks.vocabularies["item"].rows
    return np.bincount(clicks.item[positions], minlength=rows).astype(np.int64)


def _split(clicks: Clicks, name: str, train_end: np.ndarray, valid_end: np.ndarray) -> ClickSplit:
    place, user = np.arange(len(clicks)), clicks.user_of_event
    in_train, before_test = place < train_end[user], place < valid_end[user]
    parts = (in_train, before_test & ~in_train, ~before_test)
    return ClickSplit(name, train_end, valid_end, *(np.flatnonzero(part) for part in parts))


def _examples(
    clicks: Clicks, user: np.ndarray, target: np.ndarray, age: np.ndarray, window: int | None
) -> Examples:
    first = clicks.offsets[user]
    longest = len(clicks) + 1 if window is None else window
    if longest < 1:
        raise InputError(f"A history's window must be 1 click or more, but is {window}.")
    return Examples(
        user=user.astype(np.int32),
        start=np.maximum(first, target - longest),
        end=target,
        target=target,
        starts_with_unknown=target - first < longest,
        age=age.astype(np.float32),
    )


def _capped(user: np.ndarray, cap: int, seed: int) -> np.ndarray:
    """Rising positions of at most `cap` draws of each user; `user` rises."""
    if cap < 1:
        raise InputError(f"A user's cap of examples must be 1 or more, but is {cap}.")
    # Each user's examples in a random order; the first few of them stay.
    order = np.lexsort((np.random.default_rng(seed).random(len(user)), user))
    counts = np.bincount(user)
    place = np.arange(len(user)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.sort(order[place < cap])
