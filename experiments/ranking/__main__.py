"""Ranking of the YouTube paper: impressions in, an expected watch time for each out.

    python -m experiments.ranking train --run-dir DIR
    python -m experiments.ranking train --preset kuairand --data-dir KuaiRand-Pure.zip --seed 0 --run-dir DIR
    python -m experiments.ranking evaluate --run-dir DIR

KuaiRand-Pure: training on 25 to 30 April, of which the last --valid-days choose the epoch; test on
1 to 8 May. The log names no pages: what a user was shown on one day in one tab counts as one.
"""

import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jrec.command_line import parse_command
from jrec.data.impressions import Impressions, ImpressionSplit
from jrec.embeddings import optimizers as row_optimizers
from jrec.embeddings.row_step import init_row_state, make_row_step
from jrec.errors import InputError, run_command
from jrec.evaluate.auc import group_auc
from jrec.evaluate.per_user import write_per_user
from jrec.evaluate.watch_time import calibration, group_losses
from jrec.files import read_json, write_json
from jrec.models.ranking import RankingNetwork
from jrec.train.checkpoints import Checkpoints
from jrec.train.devices import device_axis, first_batch
from jrec.train.flags import kept_settings, settings_of
from jrec.train.loop import Plan
from jrec.train.read_once import read_once
from jrec.train.run import run, running
from jrec.train.step import Step, TrainState, init_state, make_step
from jrec.train.streams import DeviceStream

from .batches import (
    device_impressions,
    gather_impressions,
    impression_columns,
    make_predict,
)
from .report import finish_ranking_run, show_impressions
from .settings import PRESETS, Train, check, load
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
    settings: Train, impressions: Impressions, split: ImpressionSplit
) -> tuple[dict[str, Any], RankingNetwork]:
    """Returns the impressions and their features on the devices, and the network that reads them."""

    def on_host() -> tuple[dict[str, Any], list[tuple[str, str, bool]], list[str]]:
        extra = extra_features(impressions, settings.history, settings.watched)
        weight = impressions.watch_seconds
        if settings.weights == "equal":
            weight = np.ones_like(weight)
        return impression_columns(impressions, extra, split.train, weight, settings.user_id)

    columns, ids, numbers = read_once(on_host)
    data = device_impressions(columns)
    return data, build_model(settings, impressions, ids, numbers, device_axis())


def train(settings: Train, loaded: tuple[Impressions, ImpressionSplit] | None = None) -> None:
    """Loads, plans, trains and reports.

    Args:
        loaded: the impressions that `settings.data` describes, where they are there already.
    """
    check(settings)
    with running(settings.run, f"ranking-{settings.data.dataset}") as (folder, console):
        impressions, split = loaded or read_once(
            lambda: load(settings.data, settings.longest_watch)
        )
        show_impressions(impressions, split, console)
        init_key, step_key, order_key = jax.random.split(jax.random.key(settings.run.seed), 3)
        data, model = prepare(settings, impressions, split)
        size, count = settings.batch_size, len(split.train)
        stream = DeviceStream(data, gather_impressions, count, size, order_key)
        params = jax.jit(model.init)(init_key, first_batch(gather_impressions, data))
        state, step = build_training(settings, model, params, stream.steps, step_key)
        predict = make_predict(model.apply)

        def evaluate_valid(state: TrainState) -> dict[str, float]:
            if not len(split.valid):
                return {}
            found = measure(impressions, split.valid, predict(state.params, data, split.valid))
            return {f"valid_{name}": value for name, value in found.items()}

        watch = f"valid_{settings.choose_by}" if len(split.valid) else None
        plan = Plan(state, step, stream, evaluate_valid, watch)
        trained = run(plan, settings.run, folder, record(settings, impressions))
        scaling = Scaling()
        if settings.calibrate and len(split.valid):
            logits = predict(trained.params, data, split.valid)["watch"]
            scaling = scaling_of(settings, impressions, split.valid, logits)
        logits = predict(trained.params, data, split.test)
        if not trained.writes:
            return
        raw = measure(impressions, split.test, logits)
        logits["watch"] = scaling(logits["watch"])
        found = measure(impressions, split.test, logits)
        results = trained.results | {f"test_{name}": value for name, value in found.items()}
        changed = ("watch_mae", "watch_rmse", "watch_bias", "planted_worst_decile")
        results |= {f"test_unscaled_{name}": raw[name] for name in changed if name in raw}
        results["scaling"] = dataclasses.asdict(scaling)
        write_users(folder, impressions, split.test, logits["watch"])
        popular = popularity_scores(impressions, split.train, split.test)
        popular = measure(impressions, split.test, {"watch": popular})
        actual = impressions.expected_watch_seconds
        if actual is None:
            actual = np.where(impressions.clicked, impressions.watch_seconds, 0)
        bins = calibration(watch_seconds_of(logits["watch"]), actual[split.test])
        finish_ranking_run(folder, settings, results, popular, bins, console)


def build_training(
    settings: Train, model: RankingNetwork, params: Any, steps: int, key: jax.Array
) -> tuple[TrainState, Step]:
    """Returns the state before the first step, and the step; `steps` are those of an epoch."""
    weights = settings.unit, settings.click_weight, settings.completion_weight
    each = partial(loss, model, *weights)
    rate = optax.linear_schedule(settings.learning_rate, 0.0, settings.run.epochs * steps)
    optimizer = optax.adam(rate)
    if settings.tables == "dense":
        return init_state(params, optimizer, key), make_step(each, optimizer, device_axis())
    rows = row_optimizers.adam(rate)
    state = init_row_state(params, optimizer, rows, key)
    return state, make_row_step(each, optimizer, rows, device_axis())


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
    """Returns what `settings.json` keeps, and a resumed run must agree with."""
    source = dataclasses.asdict(impressions.source) | {"location": None}
    return kept_settings(settings) | {"data_source": source, "impressions": len(impressions)}


def evaluate(settings: Evaluate) -> None:
    """Prints and writes the metrics of a finished run's best checkpoint."""
    file = settings.run_dir / "results.json"
    written = read_json(file)
    if "run_settings" not in written or "calibration" not in written:
        raise InputError(f"{settings.run_dir} holds no finished run of this experiment.")
    again = settings_of(Train, written["run_settings"], file)
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


COMMANDS = {Train: train, Evaluate: evaluate}


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line; `arguments` are the process's own by default."""
    settings = parse_command(list(COMMANDS), __doc__, arguments, PRESETS)
    COMMANDS[type(settings)](settings)


if __name__ == "__main__":
    run_command(main)
