"""A run's metrics by user, `per_user.npz`, which `jrec.evaluate.significance` compares."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jrec.files import replacing

FILE = "per_user.npz"


def write_per_user(folder: Path, user: np.ndarray, metrics: Mapping[str, np.ndarray]) -> None:
    """Writes `per_user.npz` into a run directory, whole or not at all.

    Args:
        user: [N], integers or strings, each user once. metrics: float [N] by name (`ndcg@10`); NaN
            where a user has no value.

    Raises ValueError for repeated users, other lengths, or a metric called `user`.
    """
    user = np.asarray(user)
    if user.ndim != 1 or len(np.unique(user)) != len(user):
        raise ValueError("Each user must stand there once.")
    if "user" in metrics or any(np.shape(value) != user.shape for value in metrics.values()):
        raise ValueError("A metric must have one value a user, and not be called `user`.")
    columns = {name: np.asarray(value, np.float32) for name, value in metrics.items()}
    with replacing(folder / FILE) as temporary:
        np.savez_compressed(temporary, user=user, **columns)


def means_by(place: np.ndarray, values: np.ndarray, users: int) -> np.ndarray:
    """float64 [N]: each user's mean of the values that are numbers; NaN for users without any.

    Args:
        place: int [E], 0 to N - 1, whose each value is. values: float [E], NaN where there is none.
    """
    has = ~np.isnan(values)
    number = np.bincount(place[has], minlength=users)
    total = np.bincount(place[has], values[has], minlength=users)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)
