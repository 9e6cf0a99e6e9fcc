"""Ratings as distances from what biases alone predict, for models that predict the rest."""

from dataclasses import dataclass

import numpy as np

from jrec.baselines.biases import fit_biases
from jrec.data.rating_parts import RatingRows
from jrec.finite import check_finite

_USERS_AT_ONCE = 1 << 14


@dataclass(frozen=True)
class Centre:
    """mean + item[i] + b_u, where b_u follows from the user's ratings alone, so that it is known for new users.

    Attributes:
        mean: stars. item: float32 [M], stars. regularisation: ratings that pull a user's bias to 0.
    """

    mean: float
    item: np.ndarray
    regularisation: float

    def user(self, rows: RatingRows) -> np.ndarray:
        """float32 [N], b_u = sum of (r - mean - item) / (number + regularisation); 0 without ratings."""
        counts = np.diff(rows.offsets)
        sums = np.zeros(len(counts))
        # Some users at a time: of all ratings at once, float64 would need more than the ratings do.
        for first in range(0, len(counts), _USERS_AT_ONCE):
            users = slice(first, first + _USERS_AT_ONCE)
            begin = rows.offsets[first]
            end = begin + counts[users].sum()
            rest = rows.rating[begin:end] - self.mean - self.item[rows.item[begin:end]]
            places = np.repeat(np.arange(len(counts[users])), counts[users])
            sums[users] = np.bincount(places, rest, len(counts[users]))
        return (sums / (counts + self.regularisation)).astype(np.float32)

    def of(self, rows: RatingRows, user: np.ndarray) -> np.ndarray:
        """float32 [n], what the biases predict for each rating; `user` is b_u [N]."""
        by_rating = np.repeat(user, np.diff(rows.offsets))
        return (self.mean + self.item[rows.item] + by_rating).astype(np.float32)


@np.errstate(all="ignore")  # what overflows is told by `check_finite`, in one sentence
def fit_centre(rows: RatingRows, items: int, regularisation: float = 5.0) -> Centre:
    """Biases of the training ratings, alternately solved as in `jrec.baselines.biases.fit_biases`."""
    counts = np.diff(rows.offsets)
    users = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    biases = fit_biases(users, rows.item, rows.rating, len(counts), items, regularisation)
    item = biases.item.astype(np.float32)
    check_finite("The items' biases are", "check the ratings", item)
    return Centre(biases.mean, item, regularisation)
