"""Settings of the candidate experiment, complete for each preset: which clicks, which network, how it is trained."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jrec.data.click_truth import ClickSize
from jrec.data.kuairand import Watched
from jrec.data.own_csv import CsvClicks
from jrec.errors import InputError
from jrec.evaluate.repeated_targets import RepeatedTargets
from jrec.models.encoders import EncoderName
from jrec.models.matmul import Compute
from jrec.train.flags import RunFlags, check_at_least, check_rate

from .losses import FormName, LossName, NoiseName

# What `.data` reads, as `jrec.data.click_sources` names it.
CLICK_DATASETS = ("ml-100k", "ml-1m", "ml-10m", "ml-20m", "ml-25m", "ml-latest", "ml-latest-small")
CLICK_DATASETS += ("ml-1m-sas", "kuairand-pure", "click-log", "csv", "synthetic")
# Widths of the source's tables, by the data's names of vocabularies; others take --feature-width.
# A click log calls its tags `tags`, KuaiRand-Pure `tag`.
TABLE_WIDTHS = {"user": 64, "category": 8, "tags": 64, "tag": 64}
TABLE_WIDTHS |= {"province": 8, "city": 16, "phone": 16}
# In place of the names of features.
ALL = "all"
OptimizerName = Literal["adagrad", "adam"]


@dataclass(frozen=True)
class Data:
    """Which clicks, and which of them are held out."""

    dataset: Literal[CLICK_DATASETS] = "synthetic"  # type: ignore[valid-type]
    """Which data set; `synthetic` is a click log drawn on the spot."""
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


@dataclass(frozen=True)
class Train:
    """Train, and evaluate on the whole catalogue; the run directory explains itself."""

    preset: Literal["small", "improved", "source", "source-listing"] = "small"
    """`small`: attention, for histories of some 20 clicks; `improved`: attention, for long ones; `source`: Paddle's
    network and settings; `source-listing`: with the inputs that its document lists."""
    data: Annotated[Data, tyro.conf.arg(name="")] = field(default_factory=Data)
    """Which clicks, and which of them are held out."""
    encoder: EncoderName = "attention"
    """What reads the history."""
    form: FormName = "prefix"
    """`window`: one example a click, with the clicks before it; `prefix`: one pass trains all clicks."""
    length: int = 50
    """Clicks of a history (window), or of a pass (prefix)."""
    item_width: int = 64
    """Width of item vectors."""
    state_width: int = 64
    """Width of the LSTM."""
    layers: int = 2
    """Attention layers."""
    heads: int = 2
    """Attention heads."""
    tower: tuple[int, ...] = ()
    """Widths of the ReLU layers after the encoder; `--tower` alone leaves them out."""
    tied: bool = True
    """Score items with the very vectors that histories are read with."""
    dropout: float = 0.1
    """On item vectors and in attention."""
    table_scale: float = 0.02
    """Standard deviation of new tables."""
    feature_width: int = 16
    """Of vectors of features that the source does not have."""
    user_id: bool = False
    """Whether each user has a vector."""
    user_features: tuple[str, ...] = ()
    """Users' features that are read, by name; `all`: every one; `--user-features` alone: none."""
    item_features: tuple[str, ...] = ()
    """The same for the items in the history."""
    example_age: bool = False
    """Read each training example's age: the share of the training clicks that are later. Held-out ones have 0."""
    loss: LossName = "full-softmax"
    """What is minimised."""
    negatives: int = 512
    """Noise samples, of each example or shared."""
    shared_negatives: bool = True
    """All examples of a step share their negatives."""
    noise: NoiseName = "uniform"
    """Distribution of the negatives."""
    noise_power: float = 1.0
    """Of the frequencies of `--noise frequency`."""
    calibration: float = 0.75
    """t of gBCE."""
    bias_start: Literal["level", "zero"] = "level"
    """Items' biases under nce, bce and gbce: the loss's best without knowing users, or 0."""
    cap: int = 0
    """The most training examples a user gives (window form); 0: all."""
    whole_histories: bool = True
    """In the prefix form train on all clicks of long histories, not only on the last --length."""
    tables: Literal["rows", "dense"] = "rows"
    """Update the rows of tables that a batch reads, or whole tables."""
    optimizer: OptimizerName = "adam"
    """The update rule."""
    learning_rate: float = 2e-3
    """Of the optimizer."""
    weight_decay: float = 0.0
    """L2."""
    warmup: int = 100
    """Steps over which the rate rises from 0."""
    cooldown: float = 0.0
    """Share of the steps, the last ones, over which the rate falls to 0."""
    batch_size: int = 32
    """Examples (window) or histories (prefix) a step."""
    remove_seen: bool = True
    """Leave items that the user has clicked out of rankings."""
    repeated_targets: RepeatedTargets = "miss"
    """With seen items removed, a target that the user has clicked before is a `miss`, is left out of the means
    (`exclude`), or is ranked as if it were new (`rank`)."""
    compute: Compute = "float32"
    """Format of the factors of matrix products; all else is float32."""
    run: Annotated[RunFlags, tyro.conf.arg(name="")] = RunFlags(epochs=12, chunk_steps=200)
    """The run."""


def small() -> Train:
    """Chosen on the synthetic log's validation clicks: NDCG@10 .1091 on MovieLens-100K; minutes on 2 cores."""
    return Train()


def improved() -> Train:
    """SASRec-style attention, full softmax: NDCG@10 .1962 to .2006 on ml-1m_sas; 285 to 368 s on 2 shared cores."""
    return Train(
        preset="improved",
        length=200,
        item_width=128,
        state_width=128,
        dropout=0.3,
        learning_rate=1e-3,
        batch_size=64,
        run=RunFlags(epochs=60, chunk_steps=200),
    )


def source() -> Train:
    """Paddle's youtube_recall, LSTM and NCE: recall@50 .2108 on the synthetic log, popularity .2129."""
    return Train(
        preset="source",
        encoder="lstm-max",
        form="window",
        length=20,
        tower=(256, 31),
        tied=False,
        dropout=0.0,
        table_scale=0.001,
        user_id=True,
        user_features=(ALL,),
        item_features=(ALL,),
        loss="nce",
        negatives=5,
        shared_negatives=False,
        noise="frequency",
        optimizer="adagrad",
        learning_rate=0.1,
        weight_decay=1e-3,
        warmup=0,
        batch_size=50,
        run=RunFlags(epochs=1, chunk_steps=200),
    )


def source_listing() -> Train:
    """The same with the inputs of the first layer as the source's document lists them; its program has all."""
    return replace(
        source(), preset="source-listing", user_features=("city", "phone"), item_features=()
    )


PRESETS = {
    "small": small,
    "improved": improved,
    "source": source,
    "source-listing": source_listing,
}


def check(settings: Train) -> None:
    """Raises InputError for a setting that makes no sense."""
    lowest = {"batch_size": 1, "length": 1, "item_width": 1, "state_width": 1, "layers": 1}
    lowest |= {"heads": 1, "feature_width": 1, "negatives": 1, "warmup": 0, "cap": 0}
    check_at_least(settings, lowest)
    check_rate(settings.learning_rate)
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
