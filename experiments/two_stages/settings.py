"""Settings of the two-stage experiment: which log, which days train which stage, how."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from experiments.candidates.losses import LossName
from experiments.candidates.settings import Data as CandidateData
from experiments.candidates.settings import Train as CandidateTrain
from experiments.ranking.settings import Data
from jrec.data.clicks import Clicks, build_clicks
from jrec.data.impressions import Impressions
from jrec.data.kuairand import read_kuairand
from jrec.errors import InputError
from jrec.models.encoders import EncoderName
from jrec.models.ranking import HeadName
from jrec.serving.two_stages import StageSizes
from jrec.train.flags import RunFlags, check_at_least, check_rate


@dataclass(frozen=True)
class Train:
    """Train both stages and measure them on held-out days; the run directory explains itself."""

    data: Annotated[Data, tyro.conf.arg(name="")] = field(default_factory=Data)
    """Which log; its --valid-days choose the second stage's epoch."""
    list_days: int = 2
    """Days before validation whose lists train the second stage; the first trains on what is before."""
    sizes: StageSizes = field(default_factory=StageSizes)
    """Candidates of each source, and how much of a user's log is read."""
    fresh_first: bool = False
    """Also train a first stage on all days before validation, and measure its order: the second stage's scores
    come from one that has not seen the days of its lists."""
    recent_days: int = 3
    """Days that an item's recent watches are counted over."""
    first_epochs: int = 6
    """Of the first stage (preset `small` of `experiments.candidates`)."""
    first_encoder: EncoderName = "attention"
    """What reads the history in the first stage."""
    first_loss: LossName = "sampled-softmax"
    """Of the first stage, with 256 shared negatives by frequency where it draws any."""
    first_width: int = 64
    """Of the first stage's vectors."""
    tower: tuple[int, ...] = (256, 128)
    """Widths of the second stage's ReLU layers."""
    powers: bool = True
    """Give continuous features x as x, x^2 and sqrt(x)."""
    user_id: bool = False
    """Whether each user has a vector in the second stage."""
    id_width: int = 32
    """Width of vectors of users and items."""
    feature_width: int = 8
    """Width of vectors of all other features."""
    dropout: float = 0.1
    """After each layer."""
    click_weight: float = 0.0
    """Weight of the log loss of a head that foretells clicks; 0: no such head."""
    completion_weight: float = 5.0
    """The same for completed watches (long views)."""
    rank_by: HeadName = "completion"
    """Head whose logits rank."""
    repeated_targets: Literal["miss", "exclude"] = "miss"
    """A target that the user has watched before, which no list holds, is a miss or is left out of the means."""
    learning_rate: float = 0.001
    """Of Adam at the beginning; it falls to 0 along a line."""
    batch_lists: int = 8
    """Lists a step, all candidates of each."""
    run: Annotated[RunFlags, tyro.conf.arg(name="")] = RunFlags(epochs=2, chunk_steps=200)
    """The run; --seed is of both stages, --epochs are passes of the second over the lists."""


def check(settings: Train) -> None:
    """Raises InputError for a setting that makes no sense."""
    lowest = {"first_epochs": 1, "batch_lists": 1, "list_days": 1, "first_width": 2}
    lowest |= {"id_width": 1, "feature_width": 1, "recent_days": 1}
    check_at_least(settings, lowest)
    sizes = ("network", "hottest", "similar", "last", "events", "watched")
    check_at_least(settings.sizes, dict.fromkeys(sizes, 1), "sizes.")
    check_at_least(settings.data, {"valid_days": 1})
    check_rate(settings.learning_rate)
    if settings.run.coordinator is not None or settings.run.devices not in (None, 1):
        raise InputError("Both stages train on one device; leave --devices and --coordinator out.")
    if settings.first_width % 2:
        raise InputError(f"--first-width must be even, but is {settings.first_width}.")
    for name in ("click_weight", "completion_weight"):
        value = getattr(settings, name)
        if not (value >= 0 and math.isfinite(value)):
            raise InputError(f"--{name.replace('_', '-')} must be 0 or more, but is {value}.")
    for name in ("click", "completion"):
        if settings.rank_by == name and not getattr(settings, f"{name}_weight"):
            raise InputError(f"--rank-by {name} needs --{name}-weight above 0.")
    if not 0 <= settings.dropout < 1:
        raise InputError(f"--dropout must be 0 or more and below 1, but is {settings.dropout}.")
    if settings.tower and min(settings.tower) < 1:
        raise InputError(f"--tower must be widths of 1 or more, but is {settings.tower}.")


def first_stage_clicks(data: Data, impressions: Impressions) -> Clicks:
    """What the first stage trains on: KuaiRand's long views and earlier ones, else what was clicked.

    Items have the same rows as the impressions'.
    """
    if data.dataset == "kuairand-pure":
        clicks = read_kuairand(data.data_dir, "long_view", data.earlier)
        items = clicks.vocabularies["item"].values, impressions.vocabularies["item"].values
        if not np.array_equal(*items):
            raise InputError(f"{data.data_dir}: its sequences and its log name other videos.")
        return clicks
    watched = impressions.clicked
    return build_clicks(
        impressions.name,
        impressions.source,
        impressions.user[watched],
        impressions.item[watched],
        impressions.timestamp[watched],
        impressions.user_row,
        impressions.vocabularies,
    )


def first_stage_settings(settings: Train, folder: Path) -> CandidateTrain:
    """Returns the first stage as a run of `experiments.candidates`, which reads items alone."""
    return CandidateTrain(
        data=CandidateData(dataset=settings.data.dataset, data_dir=settings.data.data_dir),
        encoder=settings.first_encoder,
        loss=settings.first_loss,
        negatives=256,
        noise="frequency",
        batch_size=64,
        item_width=settings.first_width,
        repeated_targets=settings.repeated_targets,
        run=RunFlags(
            run_dir=folder,
            resume=(folder / "settings.json").exists(),
            seed=settings.run.seed,
            epochs=settings.first_epochs,
            chunk_steps=200,
        ),
    )
