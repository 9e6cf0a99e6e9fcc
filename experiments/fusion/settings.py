"""Settings of the fusion experiment: flags, presets, checks, the data that they name."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from experiments.hardware import Hardware
from jrec.data.own_csv import CsvRatings
from jrec.data.ratings import Ratings
from jrec.data.sources import DATASETS, load_ratings
from jrec.data.splits import Split, SplitName, split_ratings
from jrec.data.synthetic import SyntheticSize
from jrec.errors import InputError

from .improved import Improved, check_improved
from .source import Source, check_source


@dataclass
class Train:
    """Train, evaluate and export; the run directory explains itself."""

    preset: Literal["source", "improved"] = "source"
    """`source`: the Paddle book's network and settings; `improved`: experiments.fusion.improved."""
    dataset: Literal[DATASETS] = "ml-100k"  # type: ignore[valid-type]
    """Which data set; `synthetic` is made up on the spot."""
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
    """Share of the ratings that is test."""
    valid_fraction: float = 0.01
    """Share of the rest that chooses the best epoch; 0: the last epoch is reported."""
    epochs: int | None = None
    """Passes over the training ratings (source 20, improved 30)."""
    batch_size: int = 256
    """Ratings a step (source), about so many items a step (improved)."""
    learning_rate: float | None = None
    """Of stochastic gradient descent (source 0.2), of Adam at its height (improved 0.006)."""
    source: Annotated[Source, tyro.conf.arg(name="")] = field(default_factory=Source)
    """Settings of the source preset alone."""
    improved: Improved = field(default_factory=Improved)
    """Settings of the improved preset alone."""
    seed: int = 0
    """Of the initial parameters and the order of the ratings."""
    run_dir: Path | None = None
    """Where the run goes; by default runs/fusion-DATASET-TIME."""
    resume: bool = False
    """Go on with the run in --run-dir from its last checkpoint."""
    hardware: Annotated[Hardware, tyro.conf.arg(name="")] = field(default_factory=Hardware)
    """Devices and processes; free to change when a run goes on."""
    chunk_steps: int = 500
    """Steps between two looks of the host at the device."""
    checkpoint_steps: int = 0
    """Save a checkpoint also every so many steps; 0: after each epoch."""
    patience: int = 0
    """Stop after so many epochs without a better validation error; 0: never."""


_PRESETS = {
    "source": {"epochs": 20, "learning_rate": 0.2},
    "improved": {"epochs": 30, "learning_rate": 0.006},
}


def with_preset(settings: Train) -> Train:
    """The settings with what was left open filled in; raises InputError for what makes no sense."""
    preset = _PRESETS[settings.preset]
    missing = {name: value for name, value in preset.items() if getattr(settings, name) is None}
    settings = dataclasses.replace(settings, **missing)
    check(settings)
    return settings


def check(settings: Train) -> None:
    """Raises InputError for a setting that makes no sense."""
    check_source(settings.source)
    check_improved(settings.improved)
    at_least = {"epochs": 1, "batch_size": 1, "chunk_steps": 1}
    at_least |= {"checkpoint_steps": 0, "patience": 0, "seed": 0, "split_seed": 0}
    for name, lowest in at_least.items():
        value = getattr(settings, name)
        if not lowest <= value < 2**31:
            flag = name.replace("_", "-")
            raise InputError(f"--{flag} must be {lowest} or more (and below 2^31), but is {value}.")
    if not 0 < settings.learning_rate < float(np.finfo(np.float32).max):
        raise InputError(f"--learning-rate must be above 0, but is {settings.learning_rate}.")
    if settings.patience and not settings.valid_fraction:
        raise InputError("--patience needs validation ratings; set --valid-fraction above 0.")
    if settings.resume and settings.run_dir is None:
        raise InputError("--resume needs --run-dir, to know which run to go on with.")


def load(settings: Train) -> tuple[Ratings, Split]:
    """The data set and its parts."""
    ratings = load_ratings(
        settings.dataset,
        settings.data_dir,
        settings.synthetic,
        settings.split_seed,
        settings.csv,
    )
    split = split_ratings(
        ratings,
        settings.split,
        settings.split_seed,
        settings.test_fraction,
        settings.valid_fraction,
    )
    return ratings, split
