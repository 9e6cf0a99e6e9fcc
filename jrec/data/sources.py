"""Data sets of ratings by name."""

from collections.abc import Callable
from pathlib import Path

from jrec.data.grouplens import load_movielens
from jrec.data.movielens import DATASET_LAYOUTS
from jrec.data.own_csv import CsvRatings
from jrec.data.ratings import Ratings
from jrec.data.ratings_csv import read_ratings_csv
from jrec.data.synthetic import SyntheticSize, synthetic_ratings
from jrec.errors import InputError


def load_ratings(
    name: str,
    data_dir: Path | None = None,
    size: SyntheticSize | None = None,
    seed: int = 0,
    csv: CsvRatings | None = None,
) -> Ratings:
    """Returns a data set by name.

    Args:
        name: one of `DATASETS`. A MovieLens is found as `load_movielens` has it; synthetic data comes only
            under the name `synthetic`.
        size, seed: of the synthetic data; not used otherwise.
        csv: what the columns of `csv`, a file of your own, are; not used otherwise.

    Raises InputError for an unknown name, missing or damaged files, or no reachable source.
    """
    if name not in _READERS:
        raise InputError(f"There is no data set {name!r}; choose from {', '.join(DATASETS)}.")
    return _READERS[name](name, data_dir, size or SyntheticSize(), seed, csv or CsvRatings())


def _movielens(name: str, data_dir: Path | None, *_: object) -> Ratings:
    return load_movielens(name, data_dir)


def _csv(_: str, data_dir: Path | None, size: SyntheticSize, seed: int, csv: CsvRatings) -> Ratings:
    if data_dir is None:
        raise InputError("--dataset csv needs --data-dir, the file of ratings.")
    return read_ratings_csv(Path(data_dir), csv)


def _synthetic(
    _: str, data_dir: Path | None, size: SyntheticSize, seed: int, *__: object
) -> Ratings:
    if data_dir is not None:
        raise InputError("--data-dir has no meaning for --dataset synthetic; leave it out.")
    return synthetic_ratings(size, seed)


_READERS: dict[str, Callable[..., Ratings]] = {
    **dict.fromkeys(DATASET_LAYOUTS, _movielens),
    "csv": _csv,
    "synthetic": _synthetic,
}
DATASETS = tuple(_READERS)
