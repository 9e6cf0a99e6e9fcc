"""Settings of the ranking experiment: which impressions, which network, how it is trained."""

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from jrec.data.impression_maker import ImpressionSize, make_impressions
from jrec.data.impressions import Impressions, ImpressionSplit, split_by_time
from jrec.data.kuairand import china_midnight
from jrec.data.kuairand_impressions import read_kuairand_impressions
from jrec.errors import InputError
from jrec.losses.watch_time import Unit
from jrec.models.matmul import Compute
from jrec.train.flags import RunFlags, check_at_least, check_rate

KUAIRAND_LONGEST = 600.0
"""Seconds that KuaiRand-Pure's watch times are cut at."""


@dataclass(frozen=True)
class Data:
    """Which impressions, and which of them are held out."""

    dataset: Literal["synthetic", "kuairand-pure"] = "synthetic"
    """Which data set; `synthetic` is a log drawn on the spot, with known expected watch times."""
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


@dataclass(frozen=True)
class Train:
    """Train and evaluate; the run directory explains itself."""

    preset: Literal["synthetic", "kuairand"] = "synthetic"
    """Settings for each data set."""
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
    longest_watch: float = 0.0
    """Watch times beyond so many seconds count as so many, in training and in evaluation; 0: they are not cut,
    as suits a synthetic log, whose true means are of whole watch times."""
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
    batch_size: int = 512
    """Impressions a step."""
    compute: Compute = "float32"
    """Format of the factors of matrix products; all else is float32."""
    run: Annotated[RunFlags, tyro.conf.arg(name="")] = RunFlags(epochs=3, chunk_steps=200)
    """The run."""


def synthetic() -> Train:
    """A synthetic log with known expected watch times; a minute on 2 cores."""
    return Train()


def kuairand() -> Train:
    """KuaiRand-Pure, watch times cut at ten minutes; scores of `experiments.ranking.table` are in README.md."""
    return Train(
        preset="kuairand", data=Data(dataset="kuairand-pure"), longest_watch=KUAIRAND_LONGEST
    )


PRESETS = {"synthetic": synthetic, "kuairand": kuairand}


def check(settings: Train) -> None:
    """Raises InputError for a setting that makes no sense."""
    check_at_least(settings, {"batch_size": 1, "id_width": 1, "feature_width": 1, "watched": 0})
    check_rate(settings.learning_rate)
    if not 0 <= settings.longest_watch < float(np.finfo(np.float32).max):
        raise InputError(f"--longest-watch must be 0 or more, but is {settings.longest_watch}.")
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
    if settings.run.patience and not settings.data.valid_days:
        raise InputError("--patience needs a validation part; set --valid-days above 0.")


def load(data: Data, longest_watch: float) -> tuple[Impressions, ImpressionSplit]:
    """Returns the impressions, long watch times cut, and their parts.

    KuaiRand-Pure is tested on 1 to 8 May, a synthetic log on its last fifth of days (at least one).
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
    watch = np.minimum(found.watch_seconds, np.float32(longest_watch or np.inf))
    return dataclasses.replace(found, watch_seconds=watch), split
