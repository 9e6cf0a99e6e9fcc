"""Train, validation and test: each split is seeded, drawn once, and kept as index arrays."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from jrec.data.ratings import Ratings
from jrec.errors import InputError


@dataclass(frozen=True)
class DateWindow:
    """Days to train on and days to hold out, as (first, last), both included; UTC."""

    train: tuple[str, str]
    held_out: tuple[str, str]

    def days(self) -> tuple[int, int, int, int]:
        """The four days as numbers of days since 1970-01-01."""
        return tuple(int(np.datetime64(day, "D").astype(int)) for day in self.train + self.held_out)


# Kuchaiev and Ginsburg 2017 (arXiv:1708.01715), as their program cuts.
NETFLIX_WINDOWS = {
    "netflix-3m": DateWindow(("2005-09-01", "2005-11-30"), ("2005-12-01", "2005-12-31")),
    "netflix-6m": DateWindow(("2005-06-01", "2005-11-30"), ("2005-12-01", "2005-12-31")),
    "netflix-1y": DateWindow(("2004-06-01", "2005-05-31"), ("2005-06-01", "2005-06-30")),
    "netflix-full": DateWindow(("1999-12-01", "2005-11-30"), ("2005-12-01", "2005-12-31")),
}

_SECONDS_A_DAY = 86_400


@dataclass(frozen=True)
class Split:
    """Positions of ratings, each in file order, each rating in one part at most.

    Attributes:
        train, valid, test: int64 positions into the columns of `Ratings`.
    """

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray


def goes_to_test(count: int, seed: int) -> np.ndarray:
    """bool [count]: one fair coin for each held-out rating (or user), in order."""
    return np.random.default_rng(seed).random(count) >= 0.5


def window_parts(timestamp: np.ndarray, window: DateWindow, seed: int) -> np.ndarray:
    """int8 by rating: 0 train, 1 valid, 2 test, -1 outside the window.

    The coins are thrown in time order (equal times: file order), so windows with the same held-out
    days, and data sets that differ in older ratings only, get the same valid and test.

    Args:
        timestamp: seconds since 1970-01-01.
    """
    day = timestamp // _SECONDS_A_DAY
    first, last, held_first, held_last = window.days()
    part = np.full(len(day), -1, np.int8)
    part[(day >= first) & (day <= last)] = 0
    held = np.flatnonzero((day >= held_first) & (day <= held_last))
    held = held[np.argsort(timestamp[held], kind="stable")]
    part[held] = 1 + goes_to_test(len(held), seed)
    return part


def _random(ratings: Ratings, seed: int, test_fraction: float, valid_fraction: float) -> np.ndarray:
    count = len(ratings)
    test = np.random.RandomState(seed).random_sample(count) < test_fraction
    valid = np.random.default_rng((seed, 1)).random(count) < valid_fraction
    return np.where(test, 2, valid.astype(np.int8))


def _global_time(
    ratings: Ratings, seed: int, test_fraction: float, valid_fraction: float
) -> np.ndarray:
    time = ratings.timestamp
    ordered = np.sort(time)

    def moment(before: float) -> np.generic:
        return ordered[min(int(before * len(ordered)), len(ordered) - 1)]

    test_from = moment(1 - test_fraction)
    valid_from = moment((1 - test_fraction) * (1 - valid_fraction)) if valid_fraction else test_from
    return np.where(time >= test_from, 2, (time >= valid_from).astype(np.int8))


def _places(ratings: Ratings) -> tuple[np.ndarray, np.ndarray]:
    """Each rating's place from its user's first (0), and the user's count, by rating."""
    order = np.lexsort((ratings.timestamp, ratings.user))  # stable: ties keep file order
    counts = np.bincount(ratings.user)
    starts = np.cumsum(counts) - counts
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order)) - starts[ratings.user[order]]
    return place, counts[ratings.user]


def _user_time(
    ratings: Ratings, seed: int, test_fraction: float, valid_fraction: float
) -> np.ndarray:
    place, count = _places(ratings)
    before_test = np.ceil(count * (1 - test_fraction))
    before_valid = np.ceil(before_test * (1 - valid_fraction))
    return np.where(place >= before_test, 2, (place >= before_valid).astype(np.int8))


def _leave_one_out(ratings: Ratings, *_: float) -> np.ndarray:
    place, count = _places(ratings)
    left = count - place
    return np.where(count < 3, 0, np.where(left == 1, 2, (left == 2).astype(np.int8)))


def _user_70_30(ratings: Ratings, seed: int, *_: float) -> np.ndarray:
    place, count = _places(ratings)
    held = 1 + goes_to_test(int(ratings.user.max()) + 1, seed).astype(np.int8)[ratings.user]
    # Rounded as the original does, in floating point: 0.7 * 90 is just under 63.
    part = np.where(place < np.floor(0.7 * count), 0, held)
    return np.where(count < 2, -1, part)


def _by_dates(window: DateWindow) -> Callable[..., np.ndarray]:
    return lambda ratings, seed, *_: window_parts(ratings.timestamp, window, seed)


# (ratings, seed, test fraction, validation fraction) -> by rating: 0 train, 1 valid, 2 test, -1 no part.
_RULES: dict[str, Callable[..., np.ndarray]] = {
    "random": _random,
    "user-time": _user_time,
    "global-time": _global_time,
    "leave-one-out": _leave_one_out,
    "user-70-30": _user_70_30,
    **{name: _by_dates(window) for name, window in NETFLIX_WINDOWS.items()},
}
SplitName = Literal[tuple(_RULES)]  # type: ignore[valid-type]


def split_ratings(
    ratings: Ratings,
    name: SplitName = "random",
    seed: int = 0,
    test_fraction: float = 0.1,
    valid_fraction: float = 0.05,
) -> Split:
    """Splits ratings.

    Args:
        name: `random`: one uniform draw a rating in file order, test where it is below
            `test_fraction` (the rule of the Paddle book, drawn once; NumPy's legacy generator).
            `user-time`: each user's last ratings. `global-time`: everything from a moment on; equal
            times never fall on both sides. `leave-one-out`: each user's last rating is test, the
            one before it validation (users with under three ratings stay in train). Ties in a
            user's time keep file order. `user-70-30`: each user's first 70% (rounded down) are
            train, and one coin decides whether all the rest of the user is valid or test; users
            with one rating are in no part (the MovieLens rule of DeepRecommender). `netflix-…`: the
            windows of `NETFLIX_WINDOWS`; ratings outside them are in no part. These last two
            kinds have no use for the fractions.
        seed: of the random draws; the other rules have none.
        test_fraction: of all ratings (`user-time`: of each user's).
        valid_fraction: of what is not test; drawn, or cut off by time, as the test part is. May be 0.

    Raises InputError for fractions outside [0, 1) and where train or test would be empty.
    """
    if not (0 < test_fraction < 1 and 0 <= valid_fraction < 1):
        raise InputError(
            f"Split fractions must lie between 0 and 1, but were test {test_fraction:g} and "
            f"validation {valid_fraction:g}."
        )
    if name not in _RULES:
        raise InputError(f"There is no split {name!r}; choose from {tuple(_RULES)}.")
    part = _RULES[name](ratings, seed, test_fraction, valid_fraction)
    train, valid, test = (np.flatnonzero(part == k) for k in (0, 1, 2))
    if len(train) == 0 or len(test) == 0:
        raise InputError(
            f"The {name} split of {len(part)} ratings leaves train {len(train)}, test {len(test)};"
            f" use more ratings or another split."
        )
    return Split(train, valid, test)
