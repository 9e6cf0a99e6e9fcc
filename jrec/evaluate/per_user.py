"""A run's metrics by user, `per_user.npz`: what two runs are compared by."""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jrec.errors import InputError
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


def read_per_user(folder: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(user [N], rising; float32 [N] by metric) of a run directory.

    Raises InputError where the file is missing, damaged, or not of this form.
    """
    path = folder / FILE
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; give the run directory of a finished run.")
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            # One array that was saved alone is not an archive.
            columns = {} if isinstance(archive, np.ndarray) else dict(archive)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; is {folder} a finished run?") from error
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} is damaged ({reason}); evaluate the run again.") from error
    user = columns.pop("user", None)
    good = user is not None and user.ndim == 1 and user.dtype.kind in "iuU" and len(columns) > 0
    good = good and all(v.shape == user.shape and v.dtype.kind == "f" for v in columns.values())
    if not good:
        raise InputError(
            f"{path} must hold `user` and one float array of its length a metric; evaluate the run again."
        )
    rising, order = np.unique(user, return_index=True)
    if len(rising) != len(user):
        raise InputError(f"{path} has a user more than once; evaluate the run again.")
    return rising, {name: value[order] for name, value in columns.items()}
