"""Train, validation and test: each split is seeded, drawn once, and kept as index arrays."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from jrec.data.date_splits import NETFLIX_WINDOWS, DateWindow, goes_to_test, window_parts
from jrec.data.ratings import Ratings
from jrec.errors import InputError

SplitName = Literal[
    "random",
    "user-time",
    "global-time",
    "leave-one-out",
    "user-70-30",
    "netflix-3m",
    "netflix-6m",
    "netflix-1y",
    "netflix-full",
]


@dataclass(frozen=True)
class Split:
    """Positions of ratings, each in file order, each rating in one part at most.

    Attributes:
        train, valid, test: int64 positions into the columns of `Ratings`.
    """

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray


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
            windows of `jrec.data.date_splits`; ratings outside them are in no part. These last two
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
    if name == "random":
        part = _random(len(ratings), seed, test_fraction, valid_fraction)
    elif name == "global-time":
        part = _global_time(ratings.timestamp, test_fraction, valid_fraction)
    elif name == "user-time":
        part = _user_time(ratings, test_fraction, valid_fraction)
    elif name == "leave-one-out":
        part = _leave_one_out(ratings)
    elif name == "user-70-30":
        part = _user_70_30(ratings, seed)
    elif name in NETFLIX_WINDOWS:
        return split_by_dates(ratings, NETFLIX_WINDOWS[name], seed, name)
    else:
        raise InputError(f"There is no split {name!r}; choose from {SplitName.__args__}.")
    return _split(part, name)


def split_by_dates(
    ratings: Ratings, window: DateWindow, seed: int = 0, name: str = "date"
) -> Split:
    """Splits by any date window; each held-out rating goes to valid or test by a seeded coin.

    Raises InputError where train or test would be empty.
    """
    return _split(window_parts(ratings.timestamp, window, seed), name)


def _split(part: np.ndarray, name: str) -> Split:
    train, valid, test = (np.flatnonzero(part == k) for k in (0, 1, 2))
    if len(train) == 0 or len(test) == 0:
        raise InputError(
            f"The {name} split of {len(part)} ratings leaves train {len(train)}, test {len(test)};"
            f" use more ratings or another split."
        )
    return Split(train, valid, test)


def _random(count: int, seed: int, test_fraction: float, valid_fraction: float) -> np.ndarray:
    test = np.random.RandomState(seed).random_sample(count) < test_fraction
    valid = np.random.default_rng((seed, 1)).random(count) < valid_fraction
    return np.where(test, 2, valid.astype(np.int8))


def _global_time(time: np.ndarray, test_fraction: float, valid_fraction: float) -> np.ndarray:
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


def _user_time(ratings: Ratings, test_fraction: float, valid_fraction: float) -> np.ndarray:
    place, count = _places(ratings)
    before_test = np.ceil(count * (1 - test_fraction))
    before_valid = np.ceil(before_test * (1 - valid_fraction))
    return np.where(place >= before_test, 2, (place >= before_valid).astype(np.int8))


def _leave_one_out(ratings: Ratings) -> np.ndarray:
    place, count = _places(ratings)
    left = count - place
    return np.where(count < 3, 0, np.where(left == 1, 2, (left == 2).astype(np.int8)))


def _user_70_30(ratings: Ratings, seed: int) -> np.ndarray:
    place, count = _places(ratings)
    held = 1 + goes_to_test(int(ratings.user.max()) + 1, seed).astype(np.int8)[ratings.user]
    # Rounded as the original does, in floating point: 0.7 * 90 is just under 63.
    part = np.where(place < np.floor(0.7 * count), 0, held)
    return np.where(count < 2, -1, part)
