"""Ranking of the YouTube paper: impressions in, an expected watch time for each out.

    python -m experiments.ranking train --run-dir DIR
    python -m experiments.ranking train --dataset kuairand-pure --data-dir KuaiRand-Pure.zip --seed 0 --run-dir DIR
    python -m experiments.ranking evaluate --run-dir DIR

KuaiRand-Pure: training on 25 to 30 April, of which the last --valid-days choose the epoch; test on
1 to 8 May. The log names no pages: what a user was shown on one day in one tab counts as one.
"""

import dataclasses
import math
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.hardware import open_run, using
from jrec.command_line import parse_command
from jrec.console import plain_console
from jrec.data.impression_maker import ImpressionSize
from jrec.data.impressions import Impressions, ImpressionSplit
from jrec.embeddings import optimizers as row_optimizers
from jrec.embeddings.row_step import init_row_state, make_row_step
from jrec.errors import InputError, run_command
from jrec.evaluate.auc import group_auc
from jrec.evaluate.per_user import write_per_user
from jrec.evaluate.watch_time import calibration, group_losses
from jrec.files import read_json, write_json
from jrec.models.ranking import RankingNetwork
from jrec.report import MetricsLog, environment
from jrec.train.checkpoints import Checkpoints
from jrec.train.devices import (
    Devices,
    axis_of,
    first_batch,
    make_chunk_on,
    replicated,
    split_order,
)
from jrec.train.loop import Progress, Schedule, fit, stop_on_signals
from jrec.train.processes import agreed, is_first
from jrec.train.progress import watch_training
from jrec.train.read_once import read_once
from jrec.train.step import TrainState, init_state, make_step
from jrec.train.stream import epoch_order

from .batches import (
    device_impressions,
    gather_impressions,
    impression_columns,
    make_predict,
)
from .report import finish_ranking_run, show_impressions
from .settings import Data, Train, check, load
from .system import (
    build_model,
    extra_features,
    loss,
    measure,
    popularity_scores,
    watch_seconds_of,
)
from .watch_scaling import Scaling, fit_scaling


@dataclass
class Evaluate:
    """Measure a finished run again."""

    run_dir: Path
    """A finished run."""
    part: Literal["valid", "test"] = "test"
    """Which impressions to measure on."""


def prepare(
    settings: Train,
    impressions: Impressions,
    split: ImpressionSplit,
    devices: Devices = (),
) -> tuple[dict[str, Any], RankingNetwork]:
    """The impressions and their features on the devices, and the network that reads them."""

    def on_host() -> tuple[dict[str, Any], list[tuple[str, str, bool]], list[str]]:
        extra = extra_features(impressions, settings.history, settings.watched)
        weight = impressions.watch_seconds
        if settings.weights == "equal":
            weight = np.ones_like(weight)
        return impression_columns(impressions, extra, split.train, weight, settings.user_id)

    columns, ids, numbers = read_once(on_host, settings.run_dir)
    data = device_impressions(columns, devices)
    return data, build_model(settings, impressions, ids, numbers, axis_of(devices))


def train(settings: Train) -> None:
    """Runs the experiment from data to report."""
    check(settings)
    with using(settings.hardware, settings.run_dir) as devices:
        held = read_once(lambda: load(settings.data, settings.longest_watch), settings.run_dir)
        train_on(settings, *held, devices)


def train_on(
    settings: Train,
    impressions: Impressions,
    split: ImpressionSplit,
    devices: Devices = (),
) -> None:
    """The same on impressions that are there; `settings.data` says where they are from."""
    console = plain_console(quiet=not is_first())
    stamp = time.strftime("%Y%m%d-%H%M%S")
    run_dir = settings.run_dir or Path("runs") / f"ranking-{settings.data.dataset}-{stamp}"
    open_run(run_dir, settings.resume, lambda: record(settings, impressions))
    if is_first():
        show_impressions(impressions, split, console)

    init_key, step_key, order_key = jax.random.split(jax.random.key(settings.seed), 3)
    axis_name = axis_of(devices)
    data, model = prepare(settings, impressions, split, devices)
    one = first_batch(gather_impressions, data, devices)
    params = jax.jit(model.init)(init_key, one)
    each = partial(loss, model, settings.unit, settings.click_weight, settings.completion_weight)
    count = len(split.train)
    steps_per_epoch = math.ceil(count / settings.batch_size)
    rate = optax.linear_schedule(settings.learning_rate, 0.0, settings.epochs * steps_per_epoch)
    optimizer = optax.adam(rate)
    if settings.tables == "rows":
        row_optimizer = row_optimizers.adam(rate)
        state = init_row_state(params, optimizer, row_optimizer, step_key)
        step = make_row_step(each, optimizer, row_optimizer, axis_name)
    else:
        state = init_state(params, optimizer, step_key)
        step = make_step(each, optimizer, axis_name)
    state = replicated(state, devices)
    template = jax.eval_shape(lambda: state)
    predict = make_predict(model.apply, devices=devices)

    def evaluate(state: TrainState) -> dict[str, float]:
        if not len(split.valid):
            return {}
        found = measure(impressions, split.valid, predict(state.params, data, split.valid))
        return {f"valid_{name}": value for name, value in found.items()}

    schedule = Schedule(
        epochs=settings.epochs,
        steps_per_epoch=steps_per_epoch,
        chunk_steps=settings.chunk_steps,
        checkpoint_steps=settings.checkpoint_steps,
        watch=f"valid_{settings.choose_by}" if len(split.valid) else None,
        patience=settings.patience,
    )
    last = Checkpoints(run_dir / "last", 2, devices)
    best = Checkpoints(run_dir / "best", 1, devices)
    progress = Progress()
    if settings.resume and last.latest_step() is not None:
        state, saved = last.restore(template)
        progress = Progress(**saved)
    first_step = int(state.step)

    def order(epoch: int) -> jax.Array:
        whole = epoch_order(order_key, epoch, count, settings.batch_size)
        return split_order(whole, settings.batch_size, devices)

    chunk = make_chunk_on(devices, step, gather_impressions, count, settings.batch_size)
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
        stopped = watch_training(reports, schedule, log, console, first_step)
    if stopped:
        console.print(
            f"Stopped at step {stopped.step}, saved; go on with --resume --run-dir {run_dir}."
        )
        sys.exit(130)

    chosen, saved = best.restore(template._replace(opt_state=()))
    scaling = Scaling()
    if settings.calibrate and len(split.valid):
        scaling = scaling_of(
            settings, impressions, split.valid, predict(chosen.params, data, split.valid)["watch"]
        )
    logits = predict(chosen.params, data, split.test)
    if not is_first():
        return
    raw = measure(impressions, split.test, logits)
    logits["watch"] = scaling(logits["watch"])
    found = measure(impressions, split.test, logits)
    results = saved["metrics"] | {f"test_{name}": value for name, value in found.items()}
    changed = ("watch_mae", "watch_rmse", "watch_bias", "planted_worst_decile")
    results |= {f"test_unscaled_{name}": raw[name] for name in changed if name in raw}
    results |= {
        "best_epoch": saved["epoch"] - 1,
        "epochs": progress.epoch - 1,
        "examples_per_second": progress.examples / progress.seconds if progress.seconds else None,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(chosen.params)),
        "seed": settings.seed,
        "scaling": dataclasses.asdict(scaling),
    }
    write_users(run_dir, impressions, split.test, logits["watch"])
    popular = popularity_scores(impressions, split.train, split.test)
    popular = measure(impressions, split.test, {"watch": popular})
    actual = impressions.expected_watch_seconds
    if actual is None:
        actual = np.where(impressions.clicked, impressions.watch_seconds, 0)
    bins = calibration(watch_seconds_of(logits["watch"]), actual[split.test])
    kept = dataclasses.asdict(settings) | {"data_source": dataclasses.asdict(impressions.source)}
    finish_ranking_run(run_dir, kept, environment(), results, popular, bins, console)


def scaling_of(
    settings: Train, impressions: Impressions, rows: np.ndarray, logit: np.ndarray
) -> Scaling:
    """What makes the expected watch times of these impressions come out right."""
    weight = impressions.watch_seconds[rows]
    if settings.weights == "equal":
        weight = np.ones_like(weight)
    return fit_scaling(logit, impressions.clicked[rows], weight, settings.unit)


def write_users(
    run_dir: Path, impressions: Impressions, rows: np.ndarray, score: np.ndarray
) -> None:
    """Writes each user's losses and AUCs, for `python -m jrec.evaluate.significance`."""
    user, clicked = impressions.user[rows], impressions.clicked[rows]
    ids, losses = group_losses(score, clicked, impressions.watch_seconds[rows], user)
    by_label = {"click_auc": clicked, "completion_auc": impressions.completed[rows]}
    metrics = {name: group_auc(score, label, user)[1] for name, label in by_label.items()}
    write_per_user(run_dir, ids, metrics | {"weighted_loss": losses})


def record(settings: Train, impressions: Impressions) -> dict[str, Any]:
    """What `settings.json` keeps, and a resumed run must agree with."""
    # What may differ between a run and its continuation.
    free = ("resume", "run_dir", "hardware")
    kept = {k: v for k, v in dataclasses.asdict(settings).items() if k not in free}
    kept["data"] = {k: v for k, v in kept["data"].items() if k != "data_dir"}
    source = dataclasses.asdict(impressions.source) | {"location": None}
    return kept | {"data_source": source, "impressions": len(impressions)}


def evaluate(settings: Evaluate) -> None:
    """Prints and writes the metrics of a finished run's best checkpoint."""
    written = read_json(settings.run_dir / "results.json")
    if "run_settings" not in written or "calibration" not in written:
        raise InputError(f"{settings.run_dir} holds no finished run of this experiment.")
    given = dict(written["run_settings"])
    data = dict(given.pop("data"))
    data["synthetic"] = ImpressionSize(**data["synthetic"])
    data["data_dir"] = None if data["data_dir"] is None else Path(data["data_dir"])
    tower = given.pop("tower")
    given = {
        k: v for k, v in given.items() if k not in ("run_dir", "resume", "hardware", "data_source")
    }
    again = Train(data=Data(**data), tower=tuple(tower), **given)
    impressions, split = load(again.data, again.longest_watch)
    rows = split.valid if settings.part == "valid" else split.test
    if not len(rows):
        raise InputError(f"{settings.run_dir} was run without a {settings.part} part.")
    arrays, model = prepare(again, impressions, split)
    one = jax.jit(gather_impressions)(arrays, jnp.zeros(1, jnp.int32), jnp.ones(1, bool))
    params = jax.eval_shape(model.init, jax.random.key(0), one)
    template = TrainState(jnp.zeros((), jnp.int32), jax.random.key(0), params, ())
    chosen, _ = Checkpoints(settings.run_dir / "best", keep=1).restore(template)
    logits = make_predict(model.apply)(chosen.params, arrays, rows)
    logits["watch"] = Scaling(**written["scaling"])(logits["watch"])
    found = measure(impressions, rows, logits)
    print(f"{settings.part}, {len(rows):,} impressions")
    for name, value in found.items():
        print(f"{name:>24}  {value:.4f}")
    write_json(settings.run_dir / f"evaluation-{settings.part}.json", found)


def main(arguments: list[str] | None = None) -> None:
    """The command line; `arguments` are the process's own by default."""
    settings = parse_command((Train, Evaluate), __doc__, arguments)
    {Train: train, Evaluate: evaluate}[type(settings)](settings)


if __name__ == "__main__":
    run_command(main)
