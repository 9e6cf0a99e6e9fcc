"""The embedding MLP of the TensorFlow 2 recommender notebook on MovieLens.

    python -m experiments.embedding_mlp train --dataset ml-1m --data-dir PATH --epochs 25 --seed 0 --run-dir DIR
    python -m experiments.embedding_mlp predict --run-dir DIR --user 1 --item 783
    python -m experiments.embedding_mlp recommend --run-dir DIR --user 1

The notebook's held-out fifth, which it calls validation, is the test part here: nothing is chosen on
it. Times and scores of the presets, with their commands, stand in BUILD_NOTES.md.
"""

import dataclasses
import hashlib
import math
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from experiments.hardware import open_run, using
from experiments.rating_report import (
    finish_rating_run,
    show_prediction,
    show_ratings,
    show_recommendations,
)
from experiments.rating_system import (
    System,
    costs_in_user_unit,
    in_user_unit,
    with_standard_unit,
)
from jrec.command_line import parse_command
from jrec.console import plain_console
from jrec.data.rating_scale import scale_of_ratings
from jrec.data.ratings import Ratings
from jrec.data.splits import Split
from jrec.errors import run_command
from jrec.evaluate.rating_errors import make_rating_errors
from jrec.report import MetricsLog, environment
from jrec.serving.ratings import export_rating_model, load_rating_model
from jrec.train.checkpoints import Checkpoints
from jrec.train.devices import (
    Devices,
    make_chunk_on,
    on_one,
    replicated,
    split_order,
)
from jrec.train.loop import Progress, Schedule, fit, stop_on_signals
from jrec.train.processes import agreed, is_first
from jrec.train.progress import watch_training
from jrec.train.rating_batches import device_ratings
from jrec.train.read_once import read_once
from jrec.train.step import Batch, TrainState
from jrec.train.stream import mixed_order

from .improved import improved_system
from .settings import Train, load, with_preset
from .source import mean_rating, source_system


@dataclass
class Predict:
    """Predict the stars that one user gives one item."""

    run_dir: Path
    """A finished run."""
    user: str = "1"
    """The user's id in the data set."""
    item: str = "783"
    """The item's id in the data set."""


@dataclass
class Recommend:
    """Rank all items for one user, best first."""

    run_dir: Path
    """A finished run."""
    user: str = "1"
    """The user's id in the data set."""
    count: int = 10
    """How many items to print."""
    seen: bool = False
    """Rank the items that the user has rated, too."""


def record(settings: Train, ratings: Ratings, split: Split) -> dict[str, Any]:
    """What `settings.json` keeps, and a resumed run must agree with."""
    # What may differ between a run and its continuation.
    free = ("resume", "run_dir", "data_dir", "hardware")
    kept = {k: v for k, v in dataclasses.asdict(settings).items() if k not in free}
    parts = b"".join(part.tobytes() for part in (split.train, split.valid, split.test))
    source = dataclasses.asdict(ratings.source) | {"location": None}
    unit = {} if ratings.source.in_stars else {"unit": "standard"}
    split_sha256 = hashlib.sha256(parts).hexdigest()
    return kept | unit | {"data_source": source, "split_sha256": split_sha256}


def train(settings: Train) -> None:
    """Runs the experiment on the devices that the settings name."""
    with using(settings.hardware, settings.run_dir) as devices:
        train_on(devices, settings)


def train_on(devices: Devices, settings: Train) -> None:
    """Runs the experiment from data to export."""
    settings = with_preset(settings)
    console = plain_console(quiet=not is_first())
    ratings, split = read_once(lambda: load(settings), settings.run_dir)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    run_dir = settings.run_dir or Path("runs") / f"embedding_mlp-{settings.dataset}-{stamp}"
    open_run(run_dir, settings.resume, lambda: record(settings, ratings, split))
    show_ratings(ratings, split, console)

    # Three keys: the state's own is donated with it, chunk by chunk.
    init_key, step_key, order_key = jax.random.split(jax.random.key(settings.seed), 3)
    standard, scale = with_standard_unit(
        ratings, lambda: scale_of_ratings(ratings.rating[split.train]), settings.run_dir
    )
    system = build_system(settings, standard, split, init_key, step_key, devices)
    system = in_user_unit(system, scale, ratings.rating_range if settings.clip else None)
    state = replicated(system.state, devices)
    template = jax.eval_shape(lambda: state)

    def order(epoch: int) -> jax.Array:
        whole = mixed_order(order_key, epoch, system.count, system.batch_size)
        return split_order(whole, system.batch_size, devices)

    schedule = Schedule(
        epochs=settings.epochs,
        steps_per_epoch=math.ceil(system.count / system.batch_size),
        chunk_steps=settings.chunk_steps,
        checkpoint_steps=settings.checkpoint_steps,
        watch="valid_rmse" if len(split.valid) else None,
        patience=settings.patience,
    )
    last = Checkpoints(run_dir / "last", 2, devices)
    best = Checkpoints(run_dir / "best", 1, devices)
    progress = Progress()
    if settings.resume and last.latest_step() is not None:
        state, saved = last.restore(template)
        progress = Progress(**saved)
    first_step = int(state.step)
    started = time.perf_counter()
    log = MetricsLog(run_dir, first_step, write=is_first())
    with closing(log), stop_on_signals() as should_stop:
        reports = fit(
            state,
            replicated(system.data, devices),
            make_chunk_on(devices, system.step, system.gather, system.count, system.batch_size),
            order,
            evaluator(system, ratings, split, devices),
            schedule,
            last,
            best,
            progress,
            agreed(should_stop),
        )
        reports = costs_in_user_unit(reports, scale)
        stopped = watch_training(reports, schedule, log, console, first_step)
    if stopped:
        console.print(
            f"Stopped at step {stopped.step}, saved; go on with --resume --run-dir {run_dir}."
        )
        sys.exit(130)

    seconds = time.perf_counter() - started
    chosen, saved = best.restore(template._replace(opt_state=()))
    arrays = on_one(system.predictor(chosen.params))
    if not is_first():
        return
    export_rating_model(run_dir / "export", system.predict, arrays, ratings, split)
    results = {"valid_rmse": None} | saved["metrics"]
    results |= {
        "best_epoch": saved["epoch"] - 1,
        "epochs": progress.epoch - 1,
        "seconds": seconds,
        "examples_per_second": progress.examples / progress.seconds if progress.seconds else None,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(chosen.params)),
        "seed": settings.seed,
        "split": settings.split,
        "split_seed": settings.split_seed,
    }
    kept = dataclasses.asdict(settings) | {"data_source": dataclasses.asdict(ratings.source)}
    finish_rating_run(
        run_dir,
        "embedding_mlp",
        kept,
        environment(),
        results,
        ratings,
        split,
        console,
        cost="mean squared error",
    )


def build_system(
    settings: Train,
    ratings: Ratings,
    split: Split,
    init_key: jax.Array,
    step_key: jax.Array,
    devices: Devices = (),
) -> System:
    """The chosen preset, ready to train."""
    size, rate = settings.batch_size, settings.learning_rate
    mean = read_once(lambda: mean_rating(ratings, split.train), settings.run_dir)
    if settings.preset == "improved":
        return improved_system(
            settings.improved,
            ratings,
            split,
            mean,
            size,
            rate,
            settings.epochs,
            init_key,
            step_key,
            devices,
        )
    return source_system(
        settings.source,
        ratings,
        split,
        mean,
        size,
        rate,
        settings.clip,
        init_key,
        step_key,
        devices,
    )


def evaluator(
    system: System, ratings: Ratings, split: Split, devices: Devices
) -> Callable[[TrainState], dict[str, float]]:
    """Test and validation errors in stars; the costs are their squares, as the notebook prints them."""

    def gather(data: Any, positions: jax.Array, mask: jax.Array) -> Batch:
        return {name: data[name][positions] for name in ("user", "item", "rating")}

    errors = make_rating_errors(
        lambda arrays, batch: system.predict(arrays, batch["user"], batch["item"]),
        gather,
        devices=devices,
    )
    parts = {"test": device_ratings(ratings, split.test, {})}
    if len(split.valid):
        parts["valid"] = device_ratings(ratings, split.valid, {})

    def evaluate(state: TrainState) -> dict[str, float]:
        arrays = system.predictor(state.params)
        metrics = {}
        for part, data in parts.items():
            found = errors(arrays, data)
            metrics |= {f"{part}_cost": found["rmse"] ** 2, f"{part}_rmse": found["rmse"]}
            metrics |= {f"{part}_mae": found["mae"]}
        return metrics

    return evaluate


def predict(settings: Predict) -> None:
    """Prints the predicted stars, and the actual ones where the data set has them."""
    model = load_rating_model(settings.run_dir / "export")
    show_prediction(model, settings.user, settings.item)


def recommend(settings: Recommend) -> None:
    """Prints the ranked items."""
    model = load_rating_model(settings.run_dir / "export")
    show_recommendations(model, settings.user, settings.count, settings.seen, plain_console())


def main(arguments: list[str] | None = None) -> None:
    """The command line; `arguments` are the process's own by default."""
    settings = parse_command((Train, Predict, Recommend), __doc__, arguments)
    {Train: train, Predict: predict, Recommend: recommend}[type(settings)](settings)


if __name__ == "__main__":
    run_command(main)
