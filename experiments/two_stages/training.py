"""The second stage's training on lists of candidates, and its logits of them."""

import math
import sys
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console

from experiments.ranking.system import loss
from jrec.embeddings import optimizers as row_optimizers
from jrec.embeddings.row_step import init_row_state, make_row_step
from jrec.evaluate.ranking_metrics import mean_metrics
from jrec.models.ranking import RankingNetwork
from jrec.report import MetricsLog
from jrec.train.checkpoints import Checkpoints
from jrec.train.loop import Progress, Schedule, fit, stop_on_signals
from jrec.train.progress import watch_training
from jrec.train.step import TrainState
from jrec.train.stream import Gather, epoch_order, make_chunk

from .lists import Lists
from .settings import Train
from .system import list_data, list_metrics


def second_stage(
    settings: Train,
    model: RankingNetwork,
    gather: Gather,
    predict: Callable[[Any, dict[str, Any], Lists], dict[str, np.ndarray]],
    features: dict[str, Any],
    lists: dict[str, Lists],
    run_dir: Path,
    console: Console,
) -> tuple[Any, dict[str, Any]]:
    """Trains the ranking network on lists; its best parameters, and what is known of the training."""
    init_key, step_key, order_key = jax.random.split(jax.random.key(settings.seed), 3)
    count = len(lists["train"])
    data = list_data(lists["train"], features, np.arange(count))
    one = jax.jit(gather)(data, jnp.zeros(1, jnp.int32), jnp.ones(1, bool))
    params = jax.jit(model.init)(init_key, one)
    steps = math.ceil(count / settings.batch_lists)
    rate = optax.linear_schedule(settings.learning_rate, 0.0, settings.epochs * steps)
    optimizer, row_optimizer = optax.adam(rate), row_optimizers.adam(rate)
    state = init_row_state(params, optimizer, row_optimizer, step_key)
    each = partial(loss, model, "all", settings.click_weight, settings.completion_weight)
    step = make_row_step(each, optimizer, row_optimizer)

    def evaluate(state: TrainState) -> dict[str, float]:
        logits = predict(state.params, features, lists["valid"])
        order = logits[settings.rank_by]
        means = mean_metrics(list_metrics(lists["valid"], order, settings.repeated_targets))
        return {f"valid_{name}": means[name] for name in ("ndcg@10", "hr@10", "recall@50")}

    schedule = Schedule(
        epochs=settings.epochs,
        steps_per_epoch=steps,
        chunk_steps=settings.chunk_steps,
        checkpoint_steps=0,
        watch="valid_ndcg@10",
        patience=0,
        highest=True,
    )
    template = jax.eval_shape(lambda: state)
    last, best = Checkpoints(run_dir / "last", keep=2), Checkpoints(run_dir / "best", keep=1)
    progress = Progress()
    if settings.resume and last.latest_step() is not None:
        state, saved = last.restore(template)
        progress = Progress(**saved)
    first_step = int(state.step)
    order = partial(epoch_order, order_key, count=count, batch_size=settings.batch_lists)
    chunk = make_chunk(step, gather, count, settings.batch_lists)
    with closing(MetricsLog(run_dir, first_step)) as metrics, stop_on_signals() as should_stop:
        reports = fit(
            state, data, chunk, order, evaluate, schedule, last, best, progress, should_stop
        )
        stopped = watch_training(reports, schedule, metrics, console, first_step)
    if stopped:
        console.print(
            f"Stopped at step {stopped.step}, saved; go on with --resume --run-dir {run_dir}."
        )
        sys.exit(130)
    chosen, saved = best.restore(template._replace(opt_state=()))
    pace = progress.examples / progress.seconds if progress.seconds else None
    known = {"best_epoch": saved["epoch"] - 1, "candidates_per_second": pace, "seed": settings.seed}
    return chosen.params, known | saved["metrics"]


def make_predict(
    model: RankingNetwork, gather: Gather, batch: int = 32, block: int = 128
) -> Callable[[Any, dict[str, Any], Lists], dict[str, np.ndarray]]:
    """A function (params, features, lists) -> each head's logits [Q, C].

    Args:
        batch: lists at once. block: batches on the device at a time.
    """

    @jax.jit
    def of_block(params: Any, data: dict[str, Any]) -> dict[str, jax.Array]:
        def one(start: jax.Array) -> dict[str, jax.Array]:
            positions = start + jnp.arange(batch, dtype=jnp.int32)
            return model.apply(params, gather(data, positions, jnp.ones(batch, bool)))

        return jax.lax.map(one, jnp.arange(0, len(data["lists"]["late"]), batch, dtype=jnp.int32))

    def of_lists(params: Any, features: dict[str, Any], lists: Lists) -> dict[str, np.ndarray]:
        count, found = min(block, -(-len(lists) // batch)) * batch, []
        features = jax.tree.map(jnp.asarray, features)  # once, not with every block
        for start in range(0, len(lists), count):
            some = np.minimum(np.arange(start, start + count), len(lists) - 1)
            found.append(of_block(params, list_data(lists, features, some)))
        C = lists.found.rows.shape[1]
        return {
            name: np.concatenate([np.asarray(one[name]).reshape(-1, C) for one in found])[
                : len(lists)
            ]
            for name in found[0]
        }

    return of_lists
