"""Candidate generation of Paddle's youtube_recall: a click log in, recall on the whole catalogue out.

    python -m experiments.candidates prepare --log click.log --out prepared
    python -m experiments.candidates train --dataset click-log --data-dir prepared --run-dir DIR
    python -m experiments.candidates train --dataset ml-1m-sas --data-dir ml-1m_sas.txt.gz --seed 0 --run-dir DIR
    python -m experiments.candidates evaluate --run-dir DIR

Times and scores, with their commands, stand in BUILD_NOTES.md.
"""

import dataclasses
import math
import sys
import time
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console

from experiments.candidates_evaluation import KS, make_evaluate, write_test
from experiments.candidates_presets import PRESETS, TABLE_WIDTHS, PresetName
from experiments.candidates_report import finish_candidates_run, popularity_metrics, show_split
from experiments.candidates_system import (
    FormName,
    LossName,
    NoiseName,
    OptimizerName,
    build_optimizers,
    build_sampler,
    build_step,
    feature_columns,
    loss,
)
from jrec.command_line import parse_command
from jrec.data.click_examples import (
    ClickSplit,
    count_items,
    held_out_examples,
    leave_one_out,
    time_cut,
    training_examples,
)
from jrec.data.click_log import prepare_click_log
from jrec.data.click_sources import CLICK_DATASETS, load_clicks_dataset
from jrec.data.click_truth import ClickSize
from jrec.data.clicks import Clicks
from jrec.data.kuairand import Watched
from jrec.data.vocabulary import FIRST
from jrec.errors import InputError, run_command
from jrec.files import read_json, write_json
from jrec.models.candidates import CandidateNetwork, EncoderName
from jrec.progress import watch_training
from jrec.report import MetricsLog, environment, open_run_directory
from jrec.sampling import frequency
from jrec.train.checkpoints import Checkpoints
from jrec.train.click_batches import (
    device_clicks,
    make_segment_gather,
    make_window_gather,
    segment_data,
    window_data,
)
from jrec.train.loop import Progress, Schedule, fit, stop_on_signals
from jrec.train.step import TrainState
from jrec.train.stream import epoch_order, make_chunk


@dataclass
class Prepare:
    """Turn a click log into arrays: dictionaries, item frequencies, everything that training reads."""

    log: Path
    """The log: lines of `user TAB province TAB city TAB video:category:tag1_tag2;… TAB phone`."""
    out: Path
    """Folder for the prepared form; give it to `train` as --data-dir."""
    feat_appear_limit: int = 20
    """A value keeps a row of its own if it appears more often than this."""
    user_appear_limit: int | None = None
    """The same for users; left out, the same limit."""
    skip_bad_lines: bool = False
    """Leave malformed lines out and count them, instead of stopping."""


@dataclass
class Data:
    """Which clicks, and which of them are held out."""

    dataset: Literal[CLICK_DATASETS] = "synthetic"  # type: ignore[valid-type]
    """Which data set; `synthetic` is a click log made on the spot."""
    data_dir: Path | None = None
    """File, folder or archive that holds it."""
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
    """With time-cut: the day (YYYY-MM-DD, UTC) on which validation begins."""
    test_from: str = ""
    """With time-cut: the day on which the test begins."""
    split_seed: int = 0
    """Seed of `--dataset synthetic`; the same for all training seeds."""


@dataclass
class Train:
    """Train, evaluate on the whole catalogue and export; the run directory explains itself."""

    data: Annotated[Data, tyro.conf.arg(name="")] = field(default_factory=Data)
    """Which clicks, and which of them are held out."""
    preset: PresetName | None = None
    """Fills in what is left open (left out: `improved` for ml-1m-sas, else `source`)."""
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
    features: bool | None = None
    """Whether users' and items' features are read."""
    example_age: bool = False
    """Read the age of each training example; held-out ones have age 0."""
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
    epochs: int | None = None
    """Passes over the examples."""
    batch_size: int | None = None
    """Examples (window) or histories (prefix) a step."""
    remove_seen: bool = True
    """Leave items that the user has clicked out of rankings."""
    seed: int = 0
    """Of the initial parameters, the order of examples, noise and dropout."""
    run_dir: Path | None = None
    """Where the run goes; by default runs/candidates-DATASET-TIME."""
    resume: bool = False
    """Go on with the run in --run-dir from its last checkpoint."""
    chunk_steps: int = 200
    """Steps between two looks of the host at the device."""
    checkpoint_steps: int = 0
    """Save a checkpoint also every so many steps; 0: after each epoch."""
    patience: int = 0
    """Stop after so many epochs without a better validation NDCG@10; 0: never."""


@dataclass
class Evaluate:
    """Measure a finished run again, perhaps with other choices."""

    run_dir: Path
    """A finished run."""
    remove_seen: bool = True
    """Leave items that the user has clicked out of rankings."""
    part: Literal["valid", "test"] = "test"
    """Which clicks to rank."""


def with_preset(settings: Train) -> Train:
    """The settings with what was left open filled in; raises InputError for what makes no sense."""
    name = settings.preset or ("improved" if settings.data.dataset == "ml-1m-sas" else "source")
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
    """The clicks, and what is held out of them."""
    clicks = load_clicks_dataset(
        data.dataset,
        data.data_dir,
        data.watched,
        data.earlier,
        data.feat_appear_limit,
        skip_bad_lines=data.skip_bad_lines,
        size=data.synthetic,
        seed=data.split_seed,
    )
    if data.split == "leave-one-out":
        return clicks, leave_one_out(clicks)
    moments = []
    for flag, day in (("valid-from", data.valid_from), ("test-from", data.test_from)):
        try:
            moments.append(int(datetime.fromisoformat(f"{day}T00:00:00+00:00").timestamp()))
        except ValueError:
            raise InputError(f"--{flag} must be a day as 2022-05-01, but is {day!r}.") from None
    return clicks, time_cut(clicks, *moments)


def build_model(settings: Train, clicks: Clicks) -> CandidateNetwork:
    """The network for a data set's tables."""
    columns = feature_columns(clicks, settings.user_id, settings.features)
    model = CandidateNetwork(
        item_rows=clicks.vocabularies["item"].rows,
        table_rows={name: vocabulary.rows for name, vocabulary in clicks.vocabularies.items()},
        table_widths={
            name: TABLE_WIDTHS.get(name, settings.feature_width) for name in clicks.vocabularies
        },
        columns=columns,
        example_age=settings.example_age,
        encoder=settings.encoder,
        item_width=settings.item_width,
        state_width=settings.state_width,
        layers=settings.layers,
        heads=settings.heads,
        tower=settings.tower,
        tied=settings.tied,
        dropout=settings.dropout,
        table_scale=settings.table_scale,
    )
    if not settings.tower and (columns or settings.example_age):
        raise InputError(
            "Without --tower nothing can read features; add --no-features etc. or layers."
        )
    if settings.tied and model.vector_width != settings.item_width:
        raise InputError(
            f"--tied needs user vectors of --item-width {settings.item_width}, but the network gives "
            f"{model.vector_width}."
        )
    return model


def train(settings: Train) -> None:
    """Runs the experiment from data to export."""
    settings = with_preset(settings)
    console = Console()
    clicks, split = load(settings.data)
    model = build_model(settings, clicks)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    run_dir = settings.run_dir or Path("runs") / f"candidates-{settings.data.dataset}-{stamp}"
    open_run_directory(run_dir, settings.resume, record(settings, clicks))
    show_split(clicks, split, console)

    init_key, step_key, order_key = jax.random.split(jax.random.key(settings.seed), 3)
    columns = [[c.name for c in model.columns if c.of == of] for of in ("user", "item")]
    held_data = device_clicks(clicks, *columns)
    counts = count_items(clicks, split.train)
    if settings.form == "window":
        examples = training_examples(clicks, split, settings.length, settings.cap, settings.seed)
        data, count = window_data(held_data, examples), len(examples)
        inner = make_window_gather(settings.length)
    else:
        data = segment_data(held_data, clicks, split, settings.length, settings.whole_histories)
        count = len(data["segments"]["user"])
        inner = make_segment_gather(settings.length)
    constants = {
        "sampler": build_sampler(settings.noise, settings.noise_power, counts),
        "frequency": frequency(counts),
        "items": jnp.arange(model.item_rows) >= FIRST,
    }
    data |= constants

    def gather(data: dict[str, Any], positions: jax.Array, mask: jax.Array) -> dict[str, Any]:
        return inner(data, positions, mask) | {name: data[name] for name in constants}

    first = gather(data, jnp.zeros(1, jnp.int32), jnp.ones(1, bool))
    if settings.form == "prefix":
        first = first | {"age": first["age"][:, 0]}
    params = jax.jit(model.init)(init_key, {k: v for k, v in first.items() if k not in constants})
    each = partial(
        loss,
        model,
        settings.loss,
        settings.form,
        settings.negatives,
        settings.shared_negatives,
        settings.calibration,
    )
    optimizers = build_optimizers(
        settings.optimizer, settings.learning_rate, settings.weight_decay, settings.warmup
    )
    rows, whole = settings.tables == "rows", settings.loss == "full-softmax"
    state, step = build_step(each, model, params, optimizers, rows, whole, step_key)
    template = jax.eval_shape(lambda: state)

    held_out = {part: held_out_examples(clicks, split, part) for part in ("valid", "test")}
    measure = make_evaluate(settings.length, model, settings.remove_seen)

    def evaluate(state: TrainState) -> dict[str, float]:
        if not len(held_out["valid"]):
            return {}
        means, _ = measure(state.params, clicks, held_data, held_out["valid"])
        return {f"valid_{name}": means[name] for name in ("ndcg@10", "hr@10", "mrr", "recall@100")}

    schedule = Schedule(
        epochs=settings.epochs,
        steps_per_epoch=math.ceil(count / settings.batch_size),
        chunk_steps=settings.chunk_steps,
        checkpoint_steps=settings.checkpoint_steps,
        watch="valid_ndcg@10" if len(held_out["valid"]) else None,
        patience=settings.patience,
        highest=bool(len(held_out["valid"])),
    )
    last, best = Checkpoints(run_dir / "last", keep=2), Checkpoints(run_dir / "best", keep=1)
    progress = Progress()
    if settings.resume and last.latest_step() is not None:
        state, saved = last.restore(template)
        progress = Progress(**saved)
    first_step = int(state.step)
    order = partial(epoch_order, order_key, count=count, batch_size=settings.batch_size)
    chunk = make_chunk(step, gather, count, settings.batch_size)
    started = time.perf_counter()
    with closing(MetricsLog(run_dir, first_step)) as log, stop_on_signals() as should_stop:
        reports = fit(
            state, data, chunk, order, evaluate, schedule, last, best, progress, should_stop
        )
        stopped = watch_training(reports, schedule, log, console, first_step)
    if stopped:
        console.print(
            f"Stopped at step {stopped.step}, saved; go on with --resume --run-dir {run_dir}."
        )
        sys.exit(130)

    chosen, saved = best.restore(template._replace(opt_state=()))
    means, by_example = measure(chosen.params, clicks, held_data, held_out["test"])
    write_test(run_dir, clicks, held_out["test"], by_example)
    results = saved["metrics"] | {f"test_{name}": value for name, value in means.items()}
    results |= {
        "best_epoch": saved["epoch"] - 1,
        "epochs": progress.epoch - 1,
        "seconds": time.perf_counter() - started,
        "examples_per_second": progress.examples / progress.seconds if progress.seconds else None,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(chosen.params)),
        "seed": settings.seed,
        "split": settings.data.split,
        "remove_seen": settings.remove_seen,
    }
    popular = popularity_metrics(clicks, counts, held_out["test"], settings.remove_seen, KS)
    kept = dataclasses.asdict(settings) | {"data_source": dataclasses.asdict(clicks.source)}
    finish_candidates_run(run_dir, kept, environment(), results, popular, clicks, console)


def record(settings: Train, clicks: Clicks) -> dict[str, Any]:
    """What `settings.json` keeps, and a resumed run must agree with."""
    free = ("resume", "run_dir")  # may differ between a run and its continuation
    kept = {k: v for k, v in dataclasses.asdict(settings).items() if k not in free}
    kept["data"] = {k: v for k, v in kept["data"].items() if k != "data_dir"}
    source = dataclasses.asdict(clicks.source) | {"location": None}
    return kept | {"data_source": source, "clicks": len(clicks)}


def evaluate(settings: Evaluate) -> None:
    """Prints and writes the metrics of a finished run's best checkpoint."""
    written = read_json(settings.run_dir / "results.json")
    if "run_settings" not in written:
        raise InputError(f"{settings.run_dir} holds no finished run of this experiment.")
    given = dict(written["run_settings"])
    data = dict(given.pop("data"))
    data["synthetic"] = ClickSize(**data["synthetic"])
    data["data_dir"] = None if data["data_dir"] is None else Path(data["data_dir"])
    tower = given.pop("tower")
    given = {k: v for k, v in given.items() if k not in ("run_dir", "resume", "data_source")}
    again = Train(data=Data(**data), tower=tuple(tower), **given)
    clicks, split = load(again.data)
    model = build_model(again, clicks)
    columns = [[c.name for c in model.columns if c.of == of] for of in ("user", "item")]
    held_data = device_clicks(clicks, *columns)
    examples = held_out_examples(clicks, split, settings.part)
    batch = make_window_gather(again.length)(
        window_data(held_data, examples), jnp.zeros(1, jnp.int32), jnp.ones(1, bool)
    )
    params = jax.eval_shape(model.init, jax.random.key(0), batch)
    template = TrainState(jnp.zeros((), jnp.int32), jax.random.key(0), params, ())
    chosen, _ = Checkpoints(settings.run_dir / "best", keep=1).restore(template)
    measure = make_evaluate(again.length, model, settings.remove_seen)
    means, _ = measure(chosen.params, clicks, held_data, examples)
    seen = "removed" if settings.remove_seen else "kept"
    print(f"{settings.part}, whole catalogue, seen items {seen}")
    for name, value in means.items():
        print(f"{name:>14}  {value:.4f}")
    write_json(
        settings.run_dir / f"evaluation-{settings.part}-seen-{seen}.json",
        means | {"part": settings.part, "remove_seen": settings.remove_seen},
    )


def prepare(settings: Prepare) -> None:
    """Writes the prepared form of a log, and says what is in it."""
    clicks = prepare_click_log(
        settings.log,
        settings.out,
        settings.feat_appear_limit,
        settings.skip_bad_lines,
        settings.user_appear_limit,
    )
    print(
        f"{len(clicks):,} clicks of {clicks.users:,} users on "
        f"{clicks.vocabularies['item'].rows - FIRST:,} items in {settings.out}"
    )
    for what, count in (clicks.dropped | clicks.unknown).items():
        if count:
            print(f"  {count:,}: {what}")


def main(arguments: list[str] | None = None) -> None:
    """The command line; `arguments` are the process's own by default."""
    settings = parse_command((Prepare, Train, Evaluate), __doc__, arguments)
    {Prepare: prepare, Train: train, Evaluate: evaluate}[type(settings)](settings)


if __name__ == "__main__":
    run_command(main)
