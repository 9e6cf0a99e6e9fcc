"""Settings of the autoencoder experiment: which ratings, which network, how it is trained."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from experiments.hardware import Hardware
from jrec.data.own_csv import CsvRatings
from jrec.data.rating_parts import RatingParts, load_rating_parts, rating_parts
from jrec.data.ratings import Ratings
from jrec.data.sources import DATASETS, load_ratings
from jrec.data.splits import Split, SplitName, split_ratings
from jrec.data.synthetic import SyntheticSize
from jrec.errors import InputError
from jrec.models.autoencoder import ACTIVATIONS
from jrec.models.matmul import Compute
from jrec.train.processes import by_first
from jrec.train.read_once import read_once
from jrec.train.refeeding import RefeedTarget

from .presets import PRESETS, PresetName
from .system import FormName, OptimizerName


@dataclass
class Train:
    """Train, evaluate and export; the run directory explains itself."""

    preset: PresetName = "ml-1m"
    """Fills in what is left open: the source's settings for each data set, or the one found here."""
    dataset: Literal["netflix", *DATASETS] = "ml-100k"  # type: ignore[valid-type]
    """Which data set; `netflix` is a folder that `python -m jrec.data.netflix` wrote."""
    data_dir: Path | None = None
    """Folder or archive that holds it. Left out: the cache, else the network."""
    csv: CsvRatings = field(default_factory=CsvRatings)
    """Columns of `--dataset csv`, a file of your own that --data-dir names."""
    synthetic: SyntheticSize = field(default_factory=SyntheticSize)
    """Sizes of `--dataset synthetic`."""
    split: SplitName = "user-70-30"
    """How ratings are held out (see jrec.data.splits); converted Netflix folders have their own."""
    split_seed: int = 0
    """Seed of the split; the same for all training seeds, so that their scores compare."""
    test_fraction: float = 0.1
    """Share of the ratings that is test; `user-70-30` and the netflix splits have their own."""
    valid_fraction: float = 0.05
    """Share of the rest that is validation; again not in the splits that have their own."""
    hidden: tuple[int, ...] | None = None
    """Widths of the encoder's layers; the decoder mirrors them."""
    activation: Literal[tuple(ACTIVATIONS)] | None = None  # type: ignore[valid-type]
    """After every layer."""
    last_activation: bool | None = None
    """Also after the last layer (left out: yes, but not for sigmoid and tanh, which end at 1)."""
    tied: bool = False
    """Use the encoder's kernels, transposed, in the decoder ("constrained" in the source)."""
    dropout: float | None = None
    """Share of the code that is dropped in training."""
    input_noise: float | None = None
    """Share of the inputs that is dropped in training."""
    centre: bool | None = None
    """Predict what biases of items and users leave over, not the ratings themselves."""
    refeed: int | None = None
    """Steps on the model's own output after each ordinary step."""
    refeed_target: RefeedTarget = "output"
    """What a re-fed output should be: its input (the source's program), or the true ratings."""
    epochs: int | None = None
    """Passes over the users."""
    batch_size: int | None = None
    """Users a step."""
    learning_rate: float | None = None
    """Of the optimizer, at the start."""
    optimizer: OptimizerName | None = None
    """The update rule."""
    milestones: tuple[int, ...] | None = None
    """Epochs after which the rate is halved; with momentum alone, as in the source."""
    weight_decay: float | None = None
    """Added to the gradient, times the parameter (L2)."""
    form: FormName = "auto"
    """Compute the ordinary step in two parts (`rated`: often rated items as columns, the others as a list),
    densely, or as pays for this data."""
    compute: Compute = "float32"
    """Format of the factors of matrix products; all else is float32."""
    seed: int = 0
    """Of the initial parameters, the order of the users and dropout."""
    run_dir: Path | None = None
    """Where the run goes; by default runs/autoencoder-DATASET-TIME."""
    resume: bool = False
    """Go on with the run in --run-dir from its last checkpoint."""
    hardware: Annotated[Hardware, tyro.conf.arg(name="")] = field(default_factory=Hardware)
    """Devices and processes; free to change when a run goes on."""
    chunk_steps: int = 100
    """Steps between two looks of the host at the device."""
    checkpoint_steps: int = 0
    """Save a checkpoint also every so many steps; 0: after each epoch."""
    patience: int = 0
    """Stop after so many epochs without a better validation error; 0: never."""


def with_preset(settings: Train) -> Train:
    """The settings with what was left open filled in; raises InputError for what makes no sense."""
    preset = PRESETS[settings.preset]
    missing = {name: value for name, value in preset.items() if getattr(settings, name) is None}
    settings = dataclasses.replace(settings, **missing)
    if settings.last_activation is None:
        reaches = settings.activation not in ("sigmoid", "tanh")
        settings = dataclasses.replace(settings, last_activation=reaches)
    check(settings)
    return settings


def check(settings: Train) -> None:
    """Raises InputError for a setting that makes no sense."""
    at_least = {"epochs": 1, "batch_size": 1, "chunk_steps": 1, "refeed": 0}
    at_least |= {"checkpoint_steps": 0, "patience": 0, "seed": 0, "split_seed": 0}
    for name, lowest in at_least.items():
        value = getattr(settings, name)
        if not lowest <= value < 2**31:
            flag = name.replace("_", "-")
            raise InputError(f"--{flag} must be {lowest} or more (and below 2^31), but is {value}.")
    if not settings.hidden or not all(1 <= width < 2**20 for width in settings.hidden):
        raise InputError(f"--hidden must be widths of 1 or more, but is {settings.hidden}.")
    for name in ("dropout", "input_noise"):
        if not 0 <= getattr(settings, name) < 1:
            flag, value = name.replace("_", "-"), getattr(settings, name)
            raise InputError(f"--{flag} must be 0 or more and below 1, but is {value}.")
    if not 0 < settings.learning_rate < float(np.finfo(np.float32).max):
        raise InputError(f"--learning-rate must be above 0, but is {settings.learning_rate}.")
    if not 0 <= settings.weight_decay < 1:
        raise InputError(f"--weight-decay must lie in [0, 1), but is {settings.weight_decay}.")
    if any(epoch < 1 for epoch in settings.milestones):
        raise InputError(f"--milestones must be 1 or more, but are {settings.milestones}.")
    if settings.last_activation and settings.activation in ("sigmoid", "tanh"):
        raise InputError(
            f"--last-activation with {settings.activation} cannot reach a rating of 5; leave it out."
        )
    if settings.resume and settings.run_dir is None:
        raise InputError("--resume needs --run-dir, to know which run to go on with.")
    if settings.dataset == "netflix" and settings.data_dir is None:
        raise InputError(
            "--dataset netflix needs --data-dir, a folder that python -m jrec.data.netflix wrote."
        )


def load_parts(settings: Train) -> tuple[RatingParts, tuple[Ratings, Split] | None]:
    """The data set's train, validation and test ratings by user, and as they were before (not Netflix)."""
    if settings.dataset != "netflix":
        return read_once(lambda: _parts(settings), settings.run_dir)

    def check() -> None:
        load_rating_parts(settings.data_dir)

    by_first(check)
    return load_rating_parts(settings.data_dir, check=False), None


def _parts(settings: Train) -> tuple[RatingParts, tuple[Ratings, Split]]:
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
    return rating_parts(ratings, split), (ratings, split)
