"""Seeded synthetic ratings with planted factors, in the form of real ones, for scale tests."""

from dataclasses import dataclass

import numpy as np

from jrec.data.origin import Source
from jrec.data.ratings import ATTRIBUTE_CODES, Items, Ratings, Users, build
from jrec.errors import InputError

_GENRES = ("Action", "Adventure", "Animation", "Comedy", "Crime", "Drama", "Horror", "Romance")
_WORDS = tuple(
    first + last
    for first in ["b", "d", "f", "g", "k", "l", "m", "n", "p", "r"]
    for last in ["a", "e", "i", "o", "u"]
)


@dataclass(frozen=True)
class SyntheticSize:
    """How much to make.

    Attributes:
        users, items, ratings: how many of each; (user, item) pairs that repeat are dropped later.
        factors: width of the planted taste vectors.
        noise: standard deviation, in stars, of what no model can predict.
    """

    users: int = 1_000
    items: int = 500
    ratings: int = 50_000
    factors: int = 4
    noise: float = 0.5


def synthetic_columns(size: SyntheticSize, seed: int) -> dict[str, np.ndarray]:
    """Raw rating columns (ids from 1) with Zipf-like popular items, users in order of activity.

    Stars = 3.5 + user bias + item bias + taste, rounded to whole stars in 1..5.
    Raises InputError where a count is below 1.
    """
    counts = (size.users, size.items, size.ratings, size.factors)
    if min(counts) < 1 or max(counts) >= 2**31 or not 0 <= size.noise < np.inf:
        raise InputError(f"Synthetic data needs positive sizes, but was given {size}.")
    if seed < 0:
        raise InputError(f"--seed must be 0 or more, but is {seed}.")
    generator = np.random.default_rng(seed)
    user = generator.integers(0, size.users, size.ratings)
    # Inverse of the cumulative Zipf weights, without a table of ratings x items.
    weight = 1.0 / (np.arange(size.items) + 10.0)
    item = np.searchsorted(np.cumsum(weight / weight.sum()), generator.random(size.ratings))
    item = np.minimum(item, size.items - 1)
    taste_user = generator.normal(0, 1, (size.users, size.factors)).astype(np.float32)
    taste_item = generator.normal(0, 1, (size.items, size.factors)).astype(np.float32)
    bias_user = generator.normal(0, 0.4, size.users).astype(np.float32)
    bias_item = generator.normal(0, 0.4, size.items).astype(np.float32)
    stars = 3.5 + bias_user[user] + bias_item[item]
    for factor in range(size.factors):  # one factor at a time: memory stays O(ratings)
        stars += 0.5 / np.sqrt(size.factors) * taste_user[user, factor] * taste_item[item, factor]
    stars += generator.normal(0, size.noise, size.ratings).astype(np.float32)
    return {
        "user": user + 1,
        "item": item + 1,
        "rating": np.clip(np.rint(stars), 1, 5).astype(np.float32),
        "timestamp": 978_300_000 + np.arange(size.ratings, dtype=np.int64),
    }


def synthetic_ratings(size: SyntheticSize, seed: int) -> Ratings:
    """A whole synthetic data set with user attributes, genres and titles of MovieLens' form."""
    columns = synthetic_columns(size, seed)
    generator = np.random.default_rng((seed, 1))
    attributes = {
        name: generator.choice(codes, size.users).astype(np.int64)
        for name, codes in ATTRIBUTE_CODES.items()
    }
    users = Users(np.arange(1, size.users + 1), attributes)
    genres = [
        sorted(generator.choice(_GENRES, generator.integers(1, 4), replace=False).tolist())
        for _ in range(size.items)
    ]
    titles = [
        f"{' '.join(generator.choice(_WORDS, generator.integers(1, 6))).title()} (2000)"
        for _ in range(size.items)
    ]
    items = Items(np.arange(1, size.items + 1), titles, genres)
    source = Source("synthetic", f"{size}, seed {seed}", "", "made-up data with planted factors")
    return build("synthetic", source, columns, users, items, (1.0, 5.0))
