"""Settings of the embedding MLP experiment, complete for each preset."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from experiments.rating_data import RatingData
from jrec.train.flags import RunFlags, check_at_least, check_patience, check_rate

from .improved import Improved, check_improved
from .source import Source, check_source


@dataclass(frozen=True)
class Train:
    """Train, evaluate and export; the run directory explains itself."""

    preset: Literal["source", "source-20m", "improved"] = "source"
    """`source`: the notebook's network and settings; `source-20m`: the notebook's run on MovieLens-20M;
    `improved`: factors and biases beside the layers, several heads."""
    data: Annotated[RatingData, tyro.conf.arg(name="")] = RatingData(
        test_fraction=0.2, valid_fraction=0.0
    )
    """Ratings and their split."""
    batch_size: int = 1024
    """Ratings a step."""
    learning_rate: float = 0.08
    """Of stochastic gradient descent (source), of Adam at its height (improved)."""
    clip: bool = False
    """Keep predictions inside the data set's range of ratings."""
    source: Annotated[Source, tyro.conf.arg(name="")] = field(default_factory=Source)
    """Settings of the source presets alone."""
    improved: Improved = field(default_factory=Improved)
    """Settings of the improved preset alone."""
    run: Annotated[RunFlags, tyro.conf.arg(name="")] = RunFlags(epochs=25)
    """The run."""


def source() -> Train:
    """The notebook's settings: RMSE .8675 to .8697 on MovieLens-1M 80/20; 48 s on 2 cores."""
    return Train()


def source_20m() -> Train:
    """The notebook's run on MovieLens-20M, with TensorFlow 2.0's sparse momentum: not run, needs the data."""
    data = RatingData(dataset="ml-20m", test_fraction=0.2, valid_fraction=0.0)
    return Train(preset="source-20m", data=data, source=Source(tables="rows"))


def improved() -> Train:
    """Factors, biases, several heads: RMSE .8436 to .8439 on MovieLens-1M 80/20; 130 s on 2 cores."""
    data = RatingData(test_fraction=0.2, valid_fraction=0.01)
    return Train(
        preset="improved", data=data, learning_rate=0.003, clip=True, run=RunFlags(epochs=10)
    )


PRESETS = {"source": source, "source-20m": source_20m, "improved": improved}


def check(settings: Train) -> None:
    """Raises InputError for a setting that makes no sense."""
    check_source(settings.source)
    check_improved(settings.improved)
    check_at_least(settings, {"batch_size": 1})
    check_at_least(settings.data, {"split_seed": 0})
    check_rate(settings.learning_rate)
    check_patience(settings.run, settings.data.valid_fraction > 0)
