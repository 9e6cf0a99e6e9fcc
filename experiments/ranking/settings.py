"""Settings of the ranking experiment: which impressions, which network, how it is trained."""

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from experiments.hardware import Hardware
from jrec.data.impression_maker import ImpressionSize, make_impressions
from jrec.data.impressions import Impressions, ImpressionSplit, split_by_time
from jrec.data.kuairand import china_midnight
from jrec.data.kuairand_impressions import read_kuairand_impressions
from jrec.errors import InputError
from jrec.losses.watch_time import Unit
from jrec.models.matmul import Compute


@dataclass
class Data:
    """Which impressions, and which of them are held out."""

    dataset: Literal["synthetic", "kuairand-pure"] = "synthetic"
    """Which data set; `synthetic` is a log made on the spot, with known expected watch times."""
    data_dir: Path | None = None
    """Archive or folder that holds KuaiRand-Pure."""
    synthetic: ImpressionSize = field(default_factory=ImpressionSize)
    """Sizes of `--dataset synthetic`."""
    earlier: bool = True
    """Whether kuairand-pure's histories begin with the sequences before its log (needs pyarrow)."""
    valid_days: int = 1
    """The last days before the test, which choose the best epoch; 0: the last epoch is reported."""
    split_seed: int = 0
    """Seed of `--dataset synthetic`; the same for all training seeds."""


@dataclass
class Train:
    """Train and evaluate; the run directory explains itself."""

    data: Annotated[Data, tyro.conf.arg(name="")] = field(default_factory=Data)
    """Which impressions, and which of them are held out."""
    tower: tuple[int, ...] = (1024, 512, 256)
    """Widths of the ReLU layers; `--tower` alone leaves them out: logistic regression."""
    powers: bool = True
    """Give continuous features x as x, x^2 and sqrt(x)."""
    history: bool = True
    """Read what the user was shown and watched before."""
    watched: int = 10
    """How many last watched items are read, as one bag; 0: none."""
    user_id: bool = True
    """Whether each user has a vector."""
    id_width: int = 32
    """Width of vectors of users and items."""
    feature_width: int = 8
    """Width of vectors of all other features."""
    dropout: float = 0.0
    """After each layer."""
    weights: Literal["watch", "equal"] = "watch"
    """What a click weighs: its watch time in seconds, or 1 (plain logistic regression)."""
    longest_watch: float | None = None
    """Watch times beyond so many seconds count as so many, in training and in evaluation (left out:
    600 for kuairand-pure; a made-up log, whose true means are of whole watch times, is not cut)."""
    unit: Unit = "all"
    """Negative side of the loss: `unclicked` impressions (paper), or `all`, which is calibrated."""
    choose_by: Literal["weighted_loss", "watch_loss"] = "weighted_loss"
    """What chooses the epoch on validation: the paper's ranking loss, or the loss that is trained."""
    calibrate: bool = True
    """Bend the logits by a rising parabola fitted on validation, which changes no order."""
    click_weight: float = 0.0
    """Weight of the log loss of a second head that foretells clicks; 0: no such head."""
    completion_weight: float = 0.0
    """The same for completed watches."""
    tables: Literal["rows", "dense"] = "rows"
    """Update the rows of tables that a batch reads, or whole tables."""
    learning_rate: float = 0.001
    """Of Adam at the beginning; it falls to 0 along a line."""
    epochs: int = 3
    """Passes over the training impressions."""
    batch_size: int = 512
    """Impressions a step."""
    compute: Compute = "float32"
    """Format of the factors of matrix products; all else is float32."""
    seed: int = 0
    """Of the initial parameters, the order of impressions and dropout."""
    run_dir: Path | None = None
    """Where the run goes; by default runs/ranking-DATASET-TIME."""
    resume: bool = False
    """Go on with the run in --run-dir from its last checkpoint."""
    hardware: Annotated[Hardware, tyro.conf.arg(name="")] = field(default_factory=Hardware)
    """Devices and processes; free to change when a run goes on."""
    chunk_steps: int = 200
    """Steps between two looks of the host at the device."""
    checkpoint_steps: int = 0
    """Save a checkpoint also every so many steps; 0: after each epoch."""
    patience: int = 0
    """Stop after so many epochs without a better validation loss; 0: never."""


def check(settings: Train) -> None:
    """Raises InputError for a setting that makes no sense."""
    at_least = {"epochs": 1, "batch_size": 1, "chunk_steps": 1, "id_width": 1, "feature_width": 1}
    at_least |= {"checkpoint_steps": 0, "patience": 0, "seed": 0, "watched": 0}
    for name, lowest in at_least.items():
        value = getattr(settings, name)
        if not lowest <= value < 2**31:
            flag = name.replace("_", "-")
            raise InputError(f"--{flag} must be {lowest} or more (and below 2^31), but is {value}.")
    for name in ("learning_rate", "longest_watch"):
        value = getattr(settings, name)
        if value is not None and not 0 < value < float(np.finfo(np.float32).max):
            raise InputError(f"--{name.replace('_', '-')} must be above 0, but is {value}.")
    for name in ("click_weight", "completion_weight"):
        value = getattr(settings, name)
        if not (value >= 0 and math.isfinite(value)):
            raise InputError(f"--{name.replace('_', '-')} must be 0 or more, but is {value}.")
    if not 0 <= settings.dropout < 1:
        raise InputError(f"--dropout must be 0 or more and below 1, but is {settings.dropout}.")
    if settings.tower and min(settings.tower) < 1:
        raise InputError(f"--tower must be widths of 1 or more, but is {settings.tower}.")
    if settings.data.valid_days < 0:
        raise InputError(f"--valid-days must be 0 or more, but is {settings.data.valid_days}.")
    if settings.patience and not settings.data.valid_days:
        raise InputError("--patience needs a validation part; set --valid-days above 0.")
    if settings.resume and settings.run_dir is None:
        raise InputError("--resume needs --run-dir, to know which run to go on with.")


def load(data: Data, longest_watch: float | None) -> tuple[Impressions, ImpressionSplit]:
    """The impressions, long watch times cut, and their parts.

    KuaiRand-Pure is tested on 1 to 8 May, a made-up log on its last fifth of days (at least one).
    """
    day = 86_400
    if data.dataset == "synthetic":
        if data.data_dir is not None:
            raise InputError("--data-dir has no meaning for --dataset synthetic; leave it out.")
        found = make_impressions(data.synthetic, data.split_seed)
        begin = int(found.timestamp.min()) // day * day
        days = data.synthetic.days
        test_from, until = begin + (days - max(1, days // 5)) * day, None
    else:
        if data.data_dir is None:
            raise InputError(
                "--dataset kuairand-pure is not fetched; give its place with --data-dir."
            )
        found = read_kuairand_impressions(data.data_dir, data.earlier)
        test_from, until = china_midnight("2022-05-01"), china_midnight("2022-05-09")
    split = split_by_time(found, test_from - data.valid_days * day, test_from, until)
    if longest_watch is None:
        longest_watch = 600.0 if data.dataset == "kuairand-pure" else np.inf
    watch = np.minimum(found.watch_seconds, np.float32(longest_watch))
    return dataclasses.replace(found, watch_seconds=watch), split
