"""Settings of the autoencoder experiment, complete for each preset, and the source's published table."""

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import tyro

from experiments.rating_data import RatingData, load
from jrec.data.rating_parts import RatingParts, load_rating_parts, rating_parts
from jrec.data.ratings import Ratings
from jrec.data.sources import DATASETS
from jrec.data.splits import Split, SplitName
from jrec.errors import InputError
from jrec.models.autoencoder import ACTIVATIONS
from jrec.models.matmul import Compute
from jrec.train.flags import RunFlags, check_at_least, check_rate
from jrec.train.read_once import load_checked, read_once
from jrec.train.refeeding import RefeedTarget

from .system import FormName, OptimizerName


@dataclass(frozen=True)
class Data(RatingData):
    """Ratings and their split."""

    dataset: Literal["netflix", *DATASETS] = "ml-100k"  # type: ignore[valid-type]
    """Which data set; `netflix` is a folder that `python -m jrec.data.netflix` wrote, split as there."""
    split: SplitName = "user-70-30"
    """How ratings are held out (see jrec.data.splits)."""
    valid_fraction: float = 0.05
    """Share of the rest that is validation, where the split has no share of its own."""


@dataclass(frozen=True)
class Train:
    """Train, evaluate and export; the run directory explains itself."""

    preset: Literal[
        "ml-1m",
        "improved",
        "netflix-3m",
        "netflix-3m-notebook",
        "netflix-6m",
        "netflix-1y",
        "netflix-full",
    ] = "ml-1m"
    """The source's settings for each data set, or the best found here (`improved`)."""
    data: Annotated[Data, tyro.conf.arg(name="")] = field(default_factory=Data)
    """Ratings and their split."""
    hidden: tuple[int, ...] = (128, 256, 256)
    """Widths of the encoder's layers; the decoder mirrors them."""
    activation: Literal[tuple(ACTIVATIONS)] = "selu"  # type: ignore[valid-type]
    """After every layer."""
    last_activation: bool = True
    """Also after the last layer; not with sigmoid and tanh, which end at 1."""
    tied: bool = False
    """Use the encoder's kernels, transposed, in the decoder ("constrained" in the source)."""
    dropout: float = 0.65
    """Share of the code that is dropped in training."""
    input_noise: float = 0.0
    """Share of the inputs that is dropped in training."""
    centre: bool = False
    """Predict what biases of items and users leave over, not the ratings themselves."""
    refeed: int = 1
    """Steps on the model's own output after each ordinary step."""
    refeed_target: RefeedTarget = "output"
    """What a re-fed output should be: its input (the source's program), or the true ratings."""
    batch_size: int = 128
    """Users a step."""
    learning_rate: float = 0.005
    """Of the optimizer, at the start."""
    optimizer: OptimizerName = "momentum"
    """The update rule."""
    milestones: tuple[int, ...] = (24, 36, 48, 66, 72)
    """Epochs after which the rate is halved; with momentum alone, as in the source."""
    weight_decay: float = 0.0
    """Added to the gradient, times the parameter (L2)."""
    form: FormName = "auto"
    """Compute the ordinary step in two parts (`rated`: often rated items as columns, the others as a list),
    densely, or as pays for this data."""
    compute: Compute = "float32"
    """Format of the factors of matrix products; all else is float32."""
    run: Annotated[RunFlags, tyro.conf.arg(name="")] = RunFlags(epochs=41, chunk_steps=100)
    """The run."""


def ml_1m() -> Train:
    """The original program's settings: RMSE .9351 (seed 0) to .9384 on MovieLens-1M; 57 s on 2 cores."""
    return Train()


def improved() -> Train:
    """Inputs dropped too, ratings centred: RMSE .8930 to .8941 on MovieLens-1M; 133 s on 2 cores."""
    return Train(
        preset="improved",
        dropout=0.5,
        learning_rate=0.03,
        input_noise=0.7,
        centre=True,
        run=RunFlags(epochs=80, chunk_steps=100),
    )


def netflix_3m() -> Train:
    """Published test RMSE .9373 on 3 months; not run here, needs the data."""
    return _netflix(Train(preset="netflix-3m"))


def netflix_3m_notebook() -> Train:
    """The run that the source's notebook prints, .9746 after 10 epochs; not run here, needs the data."""
    run = RunFlags(epochs=10, chunk_steps=100)
    return replace(
        _netflix(Train(preset="netflix-3m-notebook", dropout=0.8)), hidden=(512, 512, 1024), run=run
    )


def netflix_6m() -> Train:
    """Published test RMSE .9207 on 6 months; not run here, needs the data."""
    return _netflix(Train(preset="netflix-6m", hidden=(256, 256, 512), dropout=0.8))


def netflix_1y() -> Train:
    """Published test RMSE .9225 on 1 year; not run here, needs the data."""
    return _netflix(Train(preset="netflix-1y", hidden=(256, 256, 512), dropout=0.8))


def netflix_full() -> Train:
    """Published test RMSE .9099 on all ratings; not run here, needs the data."""
    return _netflix(Train(preset="netflix-full", hidden=(512, 512, 1024), dropout=0.8))


def _netflix(settings: Train) -> Train:
    return replace(settings, run=RunFlags(epochs=100, chunk_steps=100))


PRESETS = {
    "ml-1m": ml_1m,
    "improved": improved,
    "netflix-3m": netflix_3m,
    "netflix-3m-notebook": netflix_3m_notebook,
    "netflix-6m": netflix_6m,
    "netflix-1y": netflix_1y,
    "netflix-full": netflix_full,
}


@dataclass(frozen=True)
class Published:
    """A figure of the source: test RMSE in stars after training on a date split."""

    split: str
    rmse: float
    layers: str


PUBLISHED = (
    Published("Netflix 3 months", 0.9373, "n,128,256,256,dp .65,256,128,n"),
    Published("Netflix 3 months, 10 epochs", 0.9746, "n,512,512,1024,dp .8,512,512,n"),
    Published("Netflix 6 months", 0.9207, "n,256,256,512,dp .8,256,256,n"),
    Published("Netflix 1 year", 0.9225, "n,256,256,512,dp .8,256,256,n"),
    Published("Netflix full", 0.9099, "n,512,512,1024,dp .8,512,512,n"),
)


def check(settings: Train) -> None:
    """Raises InputError for a setting that makes no sense."""
    check_at_least(settings, {"batch_size": 1, "refeed": 0})
    check_at_least(settings.data, {"split_seed": 0})
    if not settings.hidden or not all(1 <= width < 2**20 for width in settings.hidden):
        raise InputError(f"--hidden must be widths of 1 or more, but is {settings.hidden}.")
    for name in ("dropout", "input_noise"):
        if not 0 <= getattr(settings, name) < 1:
            flag, value = name.replace("_", "-"), getattr(settings, name)
            raise InputError(f"--{flag} must be 0 or more and below 1, but is {value}.")
    check_rate(settings.learning_rate)
    if not 0 <= settings.weight_decay < 1:
        raise InputError(f"--weight-decay must lie in [0, 1), but is {settings.weight_decay}.")
    if any(epoch < 1 for epoch in settings.milestones):
        raise InputError(f"--milestones must be 1 or more, but are {settings.milestones}.")
    if settings.last_activation and settings.activation in ("sigmoid", "tanh"):
        raise InputError(
            f"--last-activation with {settings.activation} cannot reach a rating of 5; add --no-last-activation."
        )
    if settings.data.dataset == "netflix" and settings.data.data_dir is None:
        raise InputError(
            "--dataset netflix needs --data-dir, a folder that python -m jrec.data.netflix wrote."
        )


def load_parts(data: Data) -> tuple[RatingParts, tuple[Ratings, Split] | None]:
    """Returns train, validation and test ratings by user, and as they were before (None for Netflix)."""
    if data.dataset == "netflix":
        return load_checked(lambda check: load_rating_parts(data.data_dir, check)), None

    def parts() -> tuple[RatingParts, tuple[Ratings, Split]]:
        ratings, split = load(data)
        return rating_parts(ratings, split), (ratings, split)

    return read_once(parts)
