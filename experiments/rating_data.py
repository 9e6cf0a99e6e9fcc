"""Which ratings a rating experiment reads, and which of them are held out."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from jrec.data.own_csv import CsvRatings
from jrec.data.ratings import Ratings
from jrec.data.sources import DATASETS, load_ratings
from jrec.data.splits import Split, SplitName, split_ratings
from jrec.data.synthetic import SyntheticSize


@dataclass(frozen=True)
class RatingData:
    """Ratings and their split."""

    dataset: Literal[DATASETS] = "ml-100k"  # type: ignore[valid-type]
    """Which data set; `synthetic` is drawn on the spot."""
    data_dir: Path | None = None
    """Folder or archive that holds it. Left out: the cache, else the network."""
    csv: CsvRatings = field(default_factory=CsvRatings)
    """Columns of `--dataset csv`, a file of your own that --data-dir names."""
    synthetic: SyntheticSize = field(default_factory=SyntheticSize)
    """Sizes of `--dataset synthetic`."""
    split: SplitName = "random"
    """How test ratings are held out (see jrec.data.splits)."""
    split_seed: int = 0
    """Seed of the split; the same for all training seeds, so that their scores compare."""
    test_fraction: float = 0.1
    """Share of the ratings that is test, where the split has no share of its own."""
    valid_fraction: float = 0.01
    """Share of the rest that is validation, likewise; 0: the last epoch is reported."""


def load(data: RatingData) -> tuple[Ratings, Split]:
    """Returns the data set and its parts."""
    ratings = load_ratings(data.dataset, data.data_dir, data.synthetic, data.split_seed, data.csv)
    return ratings, split_ratings(
        ratings, data.split, data.split_seed, data.test_fraction, data.valid_fraction
    )
