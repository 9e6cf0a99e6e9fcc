"""Rating baselines in closed form, which any model must beat."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Biases:
    """mean + user[u] + film[i]; rows without training ratings have bias 0."""

    mean: float
    user: np.ndarray
    film: np.ndarray

    def predict(self, user: np.ndarray, film: np.ndarray) -> np.ndarray:
        """Stars for int rows [n] and [n] -> float [n]."""
        return self.mean + self.user[user] + self.film[film]


def shrunk_means(
    rows: np.ndarray, values: np.ndarray, count: int, regularisation: float
) -> np.ndarray:
    """float64 [count]: sum of each row's values / (their number + regularisation); 0 without any."""
    sums = np.bincount(rows, values, count)
    counts = np.bincount(rows, minlength=count)
    return sums / np.maximum(counts + regularisation, 1e-12) * (counts > 0)


def fit_biases(
    user: np.ndarray,
    film: np.ndarray,
    rating: np.ndarray,
    users: int,
    films: int,
    regularisation: float | None = 5.0,
    sweeps: int = 20,
) -> Biases:
    """Minimises sum of (r - mean - b_u - b_i)^2 + regularisation * (|b_u|^2 + |b_i|^2).

    Alternates the two closed-form solutions (Koren, Bell, Volinsky 2009, equation 3, without
    factors).

    Args:
        user, film: int rows [n]. rating: [n], stars. users, films: table rows.
        regularisation: in ratings; None leaves both biases out (the global mean).
    """
    mean = float(np.mean(rating, dtype=np.float64))
    b_user, b_film = np.zeros(users), np.zeros(films)
    if regularisation is not None:
        for _ in range(sweeps):
            b_film = shrunk_means(film, rating - mean - b_user[user], films, regularisation)
            b_user = shrunk_means(user, rating - mean - b_film[film], users, regularisation)
    return Biases(mean, b_user, b_film)


def fit_means(rows: np.ndarray, rating: np.ndarray, count: int) -> tuple[float, np.ndarray]:
    """The global mean, and each row's difference from it (0 without ratings)."""
    mean = float(np.mean(rating, dtype=np.float64))
    return mean, shrunk_means(rows, rating - mean, count, 0.0)
