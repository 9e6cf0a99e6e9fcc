"""Settings of the fusion experiment, complete for each preset."""

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

    preset: Literal["source", "improved"] = "source"
    """`source`: the Paddle book's network and settings; `improved`: rating profiles in the item tower."""
    data: Annotated[RatingData, tyro.conf.arg(name="")] = field(default_factory=RatingData)
    """Ratings and their split."""
    batch_size: int = 256
    """Ratings a step (source), about so many items a step (improved)."""
    learning_rate: float = 0.2
    """Of stochastic gradient descent (source), of Adam at its height (improved)."""
    source: Annotated[Source, tyro.conf.arg(name="")] = field(default_factory=Source)
    """Settings of the source preset alone."""
    improved: Improved = field(default_factory=Improved)
    """Settings of the improved preset alone."""
    run: Annotated[RunFlags, tyro.conf.arg(name="")] = RunFlags(epochs=20)
    """The run."""


def source() -> Train:
    """The source's run: RMSE .8522 to .8525 on MovieLens-1M; 367 to 685 s on 2 busy cores."""
    return Train()


def improved() -> Train:
    """The strongest fusion model here: RMSE .8972 to .9004 on MovieLens-100K; 69 to 123 s on 2 busy cores."""
    return Train(preset="improved", learning_rate=0.006, run=RunFlags(epochs=30))


PRESETS = {"source": source, "improved": improved}


def check(settings: Train) -> None:
    """Raises InputError for a setting that makes no sense."""
    check_source(settings.source)
    check_improved(settings.improved)
    check_at_least(settings, {"batch_size": 1})
    check_at_least(settings.data, {"split_seed": 0})
    check_rate(settings.learning_rate)
    check_patience(settings.run, settings.data.valid_fraction > 0)
