"""Rating baselines in closed form, which any model must beat."""

from dataclasses import dataclass

import numpy as np

from jrec.errors import InputError
from jrec.finite import check_finite

_AT_ONCE = 1 << 22  # ratings whose temporary float64 arrays are in memory


@dataclass(frozen=True)
class Biases:
    """mean + user[u] + item[i]; rows without training ratings have bias 0."""

    mean: float
    user: np.ndarray
    item: np.ndarray

    def predict(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        """Stars for int rows [n] and [n] -> float [n]."""
        return self.mean + self.user[user] + self.item[item]


def _shrunk(sums: np.ndarray, counts: np.ndarray, regularisation: float) -> np.ndarray:
    """float64 [rows]: each row's sum / (number + regularisation); 0 without any."""
    return sums / np.maximum(counts + regularisation, 1e-12) * (counts > 0)


@np.errstate(all="ignore")  # what overflows is told by `check_finite`, in one sentence
def fit_biases(
    user: np.ndarray,
    item: np.ndarray,
    rating: np.ndarray,
    users: int,
    items: int,
    regularisation: float | None = 5.0,
    sweeps: int = 20,
) -> Biases:
    """Minimises sum of (r - mean - b_u - b_i)^2 + regularisation * (|b_u|^2 + |b_i|^2).

    Alternates the two closed-form solutions (Koren, Bell, Volinsky 2009, equation 3, without
    factors).

    Args:
        user, item: int rows [n]. rating: [n], stars. users, items: table rows.
        regularisation: in ratings; None leaves both biases out (the global mean).

    Raises InputError where there are no ratings, or what they give is not finite.
    """
    mean = _mean(rating)
    b_user, b_item = np.zeros(users), np.zeros(items)
    if regularisation is None:
        return Biases(mean, b_user, b_item)
    blocks = [slice(k, k + _AT_ONCE) for k in range(0, max(len(rating), 1), _AT_ONCE)]
    user_counts = sum(np.bincount(user[block], minlength=users) for block in blocks)
    item_counts = sum(np.bincount(item[block], minlength=items) for block in blocks)

    def rest_sums(rows: np.ndarray, count: int, others: np.ndarray, bias: np.ndarray) -> np.ndarray:
        """float64 [count]: each row's sum of what the mean and the other side's biases leave over."""
        rests = ((rows[b], rating[b] - mean - bias[others[b]]) for b in blocks)
        return sum(np.bincount(row, rest, count) for row, rest in rests)

    for _ in range(sweeps):
        b_item = _shrunk(rest_sums(item, items, user, b_user), item_counts, regularisation)
        b_user = _shrunk(rest_sums(user, users, item, b_item), user_counts, regularisation)
    remedy = f"check the ratings and --biases.regularisation, which is {regularisation:g}"
    check_finite("The biases are", remedy, b_user, b_item)
    return Biases(mean, b_user, b_item)


@np.errstate(all="ignore")  # what overflows is told by `check_finite`, in one sentence
def fit_means(rows: np.ndarray, rating: np.ndarray, count: int) -> tuple[float, np.ndarray]:
    """The global mean, and each row's difference from it (0 without ratings)."""
    mean = _mean(rating)
    sums, counts = np.bincount(rows, rating - mean, count), np.bincount(rows, minlength=count)
    differences = _shrunk(sums, counts, 0.0)
    check_finite("The means of rows are", "check the ratings", differences)
    return mean, differences


def _mean(rating: np.ndarray) -> float:
    if len(rating) == 0:
        raise InputError("There are no training ratings, so they have no mean; use another split.")
    mean = float(np.mean(rating, dtype=np.float64))
    check_finite("The mean rating is", "check the ratings", mean)
    return mean
