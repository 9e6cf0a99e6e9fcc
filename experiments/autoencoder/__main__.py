"""The deep autoencoder of DeepRecommender: ratings in, ratings of everything out, with re-feeding.

    python -m experiments.autoencoder train --dataset ml-1m --data-dir PATH --seed 0 --run-dir DIR
    python -m experiments.autoencoder train --preset netflix-3m --dataset netflix --data-dir OUT/3m --run-dir DIR
    python -m experiments.autoencoder recommend --run-dir DIR --user 1
    python -m experiments.autoencoder recommend --run-dir DIR --ratings my_ratings.txt

Times and scores, with their commands, stand in BUILD_NOTES.md. The folders of `--dataset netflix` are
written by `python -m jrec.data.netflix`.
"""

import dataclasses
import math
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.table import Column, Table

from experiments.hardware import open_run, using
from experiments.rating_system import costs_in_user_unit, in_standard_unit
from jrec.command_line import parse_command
from jrec.console import plain_console
from jrec.data.rating_parts import RatingParts, RatingRows
from jrec.data.rating_scale import scale_of_ratings
from jrec.errors import InputError, run_command
from jrec.models.autoencoder import Autoencoder
from jrec.report import MetricsLog, environment
from jrec.serving.profiles import (
    export_profile_model,
    held_out_of_user,
    load_profile_model,
    profile_of_user,
    rank_items,
    read_profile,
)
from jrec.train.checkpoints import Checkpoints
from jrec.train.devices import (
    Devices,
    axis_of,
    make_chunk_on,
    on_one,
    replicated,
    split_order,
)
from jrec.train.loop import Progress, Schedule, fit, stop_on_signals
from jrec.train.processes import agreed, is_first
from jrec.train.progress import watch_training
from jrec.train.read_once import read_once
from jrec.train.step import TrainState, init_state
from jrec.train.stream import epoch_order

from .batches import (
    device_rows,
    gather_users,
    room_for_batches,
)
from .centring import Centre, fit_centre
from .held_out import make_held_out_predictor, star_errors
from .report import (
    finish_autoencoder_run,
    show_parts,
    write_predictions,
    write_whole_test,
)
from .settings import Train, load_parts, with_preset
from .system import (
    build_optimizer,
    build_step,
    make_predict,
    parts_pay,
    predict_pairs,
)


@dataclass
class Recommend:
    """Rank all items for a user of the training data, or for a new one with the given ratings."""

    run_dir: Path
    """A finished run."""
    user: str | None = None
    """A user's id in the data set."""
    ratings: Path | None = None
    """A new user's ratings instead: a text file with `item rating` on each line."""
    count: int = 10
    """How many items to print."""
    seen: bool = False
    """Rank the items that the user has rated, too."""


def record(settings: Train, parts: RatingParts) -> dict[str, Any]:
    """What `settings.json` keeps, and a resumed run must agree with."""
    # What may differ between a run and its continuation.
    free = ("resume", "run_dir", "data_dir", "hardware")
    kept = {k: v for k, v in dataclasses.asdict(settings).items() if k not in free}
    sizes = {part: len(getattr(parts, part)) for part in ("train", "valid", "test")}
    source = dataclasses.asdict(parts.source) | {"location": None}
    unit = {} if parts.source.in_stars else {"unit": "standard"}
    return kept | unit | {"data_source": source, "sizes": sizes}


def centred(train: RatingRows, items: int) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """The fields of the training ratings' `Centre`, its user biases, and the ratings as distances from both."""
    centre = fit_centre(train, items)
    user_bias = centre.user(train)
    rest = (train.rating - centre.of(train, user_bias)).astype(np.float32)
    return vars(centre), user_bias, rest


def train(settings: Train) -> None:
    """Runs the experiment on the devices that the settings name."""
    with using(settings.hardware, settings.run_dir) as devices:
        train_on(devices, settings)


def train_on(devices: Devices, settings: Train) -> None:
    """Runs the experiment from data to export."""
    settings = with_preset(settings)
    console = plain_console(quiet=not is_first())
    parts, whole = load_parts(settings)
    items, users = len(parts.items), len(parts.users)
    if not len(parts.test):
        raise InputError(
            f"No test rating of {parts.name} is of a user and an item that training has, so nothing can be "
            f"measured; use another split or more data."
        )
    stamp = time.strftime("%Y%m%d-%H%M%S")
    run_dir = settings.run_dir or Path("runs") / f"autoencoder-{settings.dataset}-{stamp}"
    standard, scale = in_standard_unit(
        parts.source,
        parts.train.rating,
        lambda: scale_of_ratings(parts.train.rating),
        settings.run_dir,
    )
    if settings.last_activation and not settings.centre and standard.min() < 0:
        raise InputError(
            f"Ratings below {scale.user(0.0):g} are out of reach of {settings.activation} after the last layer; "
            f"add --centre True and --last-activation False."
        )
    open_run(run_dir, settings.resume, lambda: record(settings, parts))
    if is_first():
        show_parts(parts, console)

    rows = RatingRows(parts.train.offsets, parts.train.item, standard)
    centre = Centre(0.0, np.zeros(items, np.float32), 0.0)
    user_bias = np.zeros(users, np.float32)
    if settings.centre:
        fields, user_bias, rest = read_once(lambda: centred(rows, items), settings.run_dir)
        centre, rows = Centre(**fields), RatingRows(rows.offsets, rows.item, rest)
    data = device_rows(rows, devices)
    room = room_for_batches(rows, items, settings.batch_size)
    pays = parts_pay(items, settings.batch_size, room) and jax.default_backend() == "cpu"
    dense = settings.form == "dense" or (settings.form == "auto" and not pays)
    model = Autoencoder(
        items,
        settings.hidden,
        settings.activation,
        settings.last_activation,
        settings.tied,
        settings.dropout,
        settings.input_noise,
        axis_name=axis_of(devices),
        compute=settings.compute,
    )
    steps_per_epoch = math.ceil(users / settings.batch_size)
    optimizer = build_optimizer(
        settings.optimizer,
        settings.learning_rate,
        settings.milestones,
        settings.weight_decay,
        steps_per_epoch * (1 + settings.refeed),
    )
    step = build_step(
        model,
        optimizer,
        None if dense else room,
        settings.refeed,
        settings.refeed_target,
    )
    init_key, step_key, order_key = jax.random.split(jax.random.key(settings.seed), 3)
    params = jax.jit(model.init)(init_key, jnp.zeros((1, items), jnp.float32))
    state = replicated(init_state(params, optimizer, step_key), devices)
    template = jax.eval_shape(lambda: state)

    predictors = {
        part: make_held_out_predictor(
            partial(predict_pairs, model), data, getattr(parts, part), devices=devices
        )
        for part in ("valid", "test")
    }

    def predicted(part: str, params: Any) -> np.ndarray:
        return scale.user(predictors[part](params) + centre.of(getattr(parts, part), user_bias))

    def errors(part: str, stars: np.ndarray) -> dict[str, float]:
        measured = star_errors(stars, getattr(parts, part).rating)
        return {f"{part}_{name}": value for name, value in measured.items()}

    def evaluate(state: TrainState) -> dict[str, float]:
        return errors("valid", predicted("valid", state.params))

    schedule = Schedule(
        epochs=settings.epochs,
        steps_per_epoch=steps_per_epoch,
        chunk_steps=settings.chunk_steps,
        checkpoint_steps=settings.checkpoint_steps,
        watch="valid_rmse" if len(parts.valid) else None,
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

    def order(epoch: int) -> jax.Array:
        whole = epoch_order(order_key, epoch, users, settings.batch_size)
        return split_order(whole, settings.batch_size, devices)

    chunk = make_chunk_on(devices, step, gather_users, users, settings.batch_size)
    log = MetricsLog(run_dir, first_step, write=is_first())
    with closing(log), stop_on_signals() as should_stop:
        reports = fit(
            state,
            data,
            chunk,
            order,
            evaluate,
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
    test = predicted("test", chosen.params)
    if not is_first():
        return
    arrays = {
        "params": on_one(chosen.params),
        "mean": np.full(1, centre.mean, np.float32),
        "item": centre.item,
        "centred": np.full(1, settings.centre, np.float32),
    }
    export_profile_model(
        run_dir / "export", make_predict(model, centre.regularisation, scale), arrays, parts
    )
    write_predictions(run_dir / "predictions.tsv", parts, parts.test, test)
    results = saved["metrics"] | errors("test", test)
    if whole is not None:
        results |= write_whole_test(run_dir, *whole, test)
    results |= {
        "best_epoch": saved["epoch"] - 1,
        "epochs": progress.epoch - 1,
        "seconds": seconds,
        "examples_per_second": _users_per_second(progress, len(parts.train) / users),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(chosen.params)),
        "form": "dense" if dense else "rated",
        "seed": settings.seed,
        "split": "netflix" if settings.dataset == "netflix" else settings.split,
        "split_seed": settings.split_seed,
    }
    kept = dataclasses.asdict(settings) | {"data_source": dataclasses.asdict(parts.source)}
    finish_autoencoder_run(run_dir, kept, environment(), results, parts, console)


def _users_per_second(progress: Progress, ratings_per_user: float) -> float | None:
    """An example is a user here; the loop counts ratings, which are what the loss counts."""
    if not progress.seconds:
        return None
    return progress.examples / progress.seconds / ratings_per_user


def recommend(settings: Recommend) -> None:
    """Prints the ranked items."""
    if (settings.user is None) == (settings.ratings is None):
        raise InputError("recommend needs either --user or --ratings; give one of them.")
    model = load_profile_model(settings.run_dir / "export")
    if settings.ratings is not None:
        profile, notes, held = read_profile(settings.ratings), [], []
    else:
        profile, notes = profile_of_user(model, settings.user)
        held = held_out_of_user(model, settings.user)
    ranked, more = rank_items(model, profile, settings.count, settings.seen, held)
    for note in notes + more:
        print(f"note: {note}")
    if not ranked:
        return
    table = Table(Column("item", overflow="fold"), "title", "stars")
    for item, title, stars in ranked:
        table.add_row(str(item), title, f"{stars:.2f}")
    plain_console().print(table)


def main(arguments: list[str] | None = None) -> None:
    """The command line; `arguments` are the process's own by default."""
    settings = parse_command((Train, Recommend), __doc__, arguments)
    {Train: train, Recommend: recommend}[type(settings)](settings)


if __name__ == "__main__":
    run_command(main)
