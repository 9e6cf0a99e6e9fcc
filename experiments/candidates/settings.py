"""Settings of the candidate experiment: which clicks, which network, how it is trained."""

import dataclasses
import math
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from experiments.hardware import Hardware
from jrec.data.click_examples import ClickSplit, leave_one_out, time_cut
from jrec.data.click_sources import CLICK_DATASETS, load_clicks_dataset
from jrec.data.click_truth import ClickSize
from jrec.data.clicks import Clicks
from jrec.data.kuairand import Watched, china_midnight
from jrec.data.own_csv import CsvClicks
from jrec.data.quantiles import normalised
from jrec.errors import InputError
from jrec.evaluate.repeated_targets import RepeatedTargets
from jrec.models.candidates import EncoderName
from jrec.models.matmul import Compute

from .presets import PRESETS, PresetName
from .system import FormName, LossName, NoiseName, OptimizerName


@dataclass
class Data:
    """Which clicks, and which of them are held out."""

    dataset: Literal[CLICK_DATASETS] = "synthetic"  # type: ignore[valid-type]
    """Which data set; `synthetic` is a click log made on the spot."""
    data_dir: Path | None = None
    """File, folder or archive that holds it."""
    csv: CsvClicks = field(default_factory=CsvClicks)
    """Columns of `--dataset csv`, a file of your own that --data-dir names."""
    synthetic: ClickSize = field(default_factory=ClickSize)
    """Sizes of `--dataset synthetic`."""
    watched: Watched = "long_view"
    """Which rows of kuairand-pure count as clicks."""
    earlier: bool = True
    """Whether kuairand-pure begins with the sequences before its log (needs pyarrow)."""
    feat_appear_limit: int = 20
    """A value of a click-log keeps a row of its own if it appears more often than this."""
    skip_bad_lines: bool = False
    """Leave malformed lines of a click-log out and count them, instead of stopping."""
    split: Literal["leave-one-out", "time-cut"] = "leave-one-out"
    """Hold out each user's last clicks, or everything from a moment on."""
    valid_from: str = ""
    """With time-cut: the day (YYYY-MM-DD) on which validation begins; kuairand-pure: in China, else in UTC."""
    test_from: str = ""
    """With time-cut: the day on which the test begins."""
    split_seed: int = 0
    """Seed of `--dataset synthetic`; the same for all training seeds."""


@dataclass
class Train:
    """Train, and evaluate on the whole catalogue; the run directory explains itself."""

    data: Annotated[Data, tyro.conf.arg(name="")] = field(default_factory=Data)
    """Which clicks, and which of them are held out."""
    preset: PresetName | None = None
    """Fills in what is left open (left out: `improved` for ml-1m-sas, else `small`)."""
    encoder: EncoderName | None = None
    """What reads the history."""
    form: FormName | None = None
    """`window`: one example a click, with the clicks before it; `prefix`: one pass trains all clicks."""
    length: int | None = None
    """Clicks of a history (window), or of a pass (prefix)."""
    item_width: int | None = None
    """Width of item vectors."""
    state_width: int | None = None
    """Width of the LSTM."""
    layers: int = 2
    """Attention layers."""
    heads: int = 2
    """Attention heads."""
    tower: tuple[int, ...] | None = None
    """Widths of the ReLU layers after the encoder; `--tower` alone leaves them out."""
    tied: bool | None = None
    """Score items with the very vectors that histories are read with."""
    dropout: float | None = None
    """On item vectors and in attention."""
    table_scale: float | None = None
    """Standard deviation of new tables."""
    feature_width: int = 16
    """Of vectors of features that the source does not have."""
    user_id: bool | None = None
    """Whether each user has a vector."""
    user_features: tuple[str, ...] | None = None
    """Users' features that are read, by name; `all`: every one; `--user-features` alone: none."""
    item_features: tuple[str, ...] | None = None
    """The same for the items in the history."""
    example_age: bool = False
    """Read each training example's age: the share of the training clicks that are later. Held-out ones have 0."""
    loss: LossName | None = None
    """What is minimised."""
    negatives: int | None = None
    """Noise samples, of each example or shared."""
    shared_negatives: bool | None = None
    """All examples of a step share their negatives."""
    noise: NoiseName | None = None
    """Distribution of the negatives."""
    noise_power: float = 1.0
    """Of the frequencies of `--noise frequency`."""
    calibration: float = 0.75
    """t of gBCE."""
    bias_start: Literal["level", "zero"] = "level"
    """Items' biases under nce, bce and gbce: the loss's best without knowing users, or 0."""
    cap: int | None = None
    """The most training examples a user gives (window form)."""
    whole_histories: bool = True
    """In the prefix form train on all clicks of long histories, not only on the last --length."""
    tables: Literal["rows", "dense"] = "rows"
    """Update the rows of tables that a batch reads, or whole tables."""
    optimizer: OptimizerName | None = None
    """The update rule."""
    learning_rate: float | None = None
    """Of the optimizer."""
    weight_decay: float | None = None
    """L2."""
    warmup: int | None = None
    """Steps over which the rate rises from 0."""
    cooldown: float = 0.0
    """Share of the steps, the last ones, over which the rate falls to 0."""
    epochs: int | None = None
    """Passes over the examples."""
    batch_size: int | None = None
    """Examples (window) or histories (prefix) a step."""
    remove_seen: bool = True
    """Leave items that the user has clicked out of rankings."""
    repeated_targets: RepeatedTargets = "miss"
    """With seen items removed, a target that the user has clicked before is a `miss`, is left out of the means
    (`exclude`), or is ranked as if it were new (`rank`)."""
    compute: Compute = "float32"
    """Format of the factors of matrix products; all else is float32."""
    seed: int = 0
    """Of the initial parameters, the order of examples, noise and dropout."""
    run_dir: Path | None = None
    """Where the run goes; by default runs/candidates-DATASET-TIME."""
    resume: bool = False
    """Go on with the run in --run-dir from its last checkpoint."""
    hardware: Annotated[Hardware, tyro.conf.arg(name="")] = field(default_factory=Hardware)
    """Devices and processes; free to change when a run goes on."""
    chunk_steps: int = 200
    """Steps between two looks of the host at the device."""
    checkpoint_steps: int = 0
    """Save a checkpoint also every so many steps; 0: after each epoch."""
    patience: int = 0
    """Stop after so many epochs without a better validation NDCG@10; 0: never."""


def with_preset(settings: Train) -> Train:
    """The settings with what was left open filled in; raises InputError for what makes no sense."""
    name = settings.preset or ("improved" if settings.data.dataset == "ml-1m-sas" else "small")
    missing = {k: v for k, v in PRESETS[name].items() if getattr(settings, k) is None}
    settings = dataclasses.replace(settings, preset=name, **missing)
    check(settings)
    return settings


def check(settings: Train) -> None:
    """Raises InputError for a setting that makes no sense."""
    at_least = {"epochs": 1, "batch_size": 1, "chunk_steps": 1, "length": 1, "item_width": 1}
    at_least |= {"state_width": 1, "layers": 1, "heads": 1, "feature_width": 1, "negatives": 1}
    at_least |= {"checkpoint_steps": 0, "patience": 0, "seed": 0, "warmup": 0}
    for name, lowest in at_least.items():
        value = getattr(settings, name)
        if not lowest <= value < 2**31:
            flag = name.replace("_", "-")
            raise InputError(f"--{flag} must be {lowest} or more (and below 2^31), but is {value}.")
    if not 0 < settings.learning_rate < float(np.finfo(np.float32).max):
        raise InputError(f"--learning-rate must be above 0, but is {settings.learning_rate}.")
    for name in ("dropout", "weight_decay"):
        if not 0 <= getattr(settings, name) < 1:
            flag, value = name.replace("_", "-"), getattr(settings, name)
            raise InputError(f"--{flag} must be 0 or more and below 1, but is {value}.")
    if not 0 <= settings.cooldown <= 1:
        raise InputError(f"--cooldown must lie between 0 and 1, but is {settings.cooldown}.")
    if settings.tower and min(settings.tower) < 1:
        raise InputError(f"--tower must be widths of 1 or more, but is {settings.tower}.")
    if not 0 <= settings.calibration <= 1:
        raise InputError(f"--calibration must lie between 0 and 1, but is {settings.calibration}.")
    if not (settings.table_scale > 0 and math.isfinite(settings.table_scale)):
        raise InputError(f"--table-scale must be above 0, but is {settings.table_scale}.")
    if settings.encoder == "attention" and settings.item_width % settings.heads:
        raise InputError(
            f"--item-width {settings.item_width} cannot be shared by --heads {settings.heads}."
        )
    if settings.form == "prefix" and settings.loss == "in-batch-softmax":
        raise InputError("--loss in-batch-softmax needs --form window.")
    if settings.resume and settings.run_dir is None:
        raise InputError("--resume needs --run-dir, to know which run to go on with.")


def load(data: Data) -> tuple[Clicks, ClickSplit]:
    """The clicks, and what is held out of them; numbers of users and items are in [0, 1], see `normalised`."""
    clicks = load_clicks_dataset(
        data.dataset,
        data.data_dir,
        data.watched,
        data.earlier,
        data.feat_appear_limit,
        skip_bad_lines=data.skip_bad_lines,
        size=data.synthetic,
        seed=data.split_seed,
        csv=data.csv,
    )
    split = _split(data, clicks)
    return normalised(clicks, split.train), split


def _split(data: Data, clicks: Clicks) -> ClickSplit:
    if data.split == "leave-one-out":
        return leave_one_out(clicks)
    midnight = china_midnight if data.dataset == "kuairand-pure" else _utc_midnight
    moments = []
    for flag, day in (("valid-from", data.valid_from), ("test-from", data.test_from)):
        try:
            moments.append(midnight(day))
        except (ValueError, InputError):
            raise InputError(f"--{flag} must be a day as 2022-05-01, but is {day!r}.") from None
    return time_cut(clicks, *moments)


def _utc_midnight(day: str) -> int:
    return int(datetime.fromisoformat(f"{day}T00:00:00+00:00").timestamp())
