"""The second stage's training on lists of candidates, and its logits of them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.ranking.system import loss
from jrec.embeddings import optimizers as row_optimizers
from jrec.embeddings.row_step import init_row_state, make_row_step
from jrec.evaluate.ranking_metrics import mean_metrics
from jrec.models.ranking import RankingNetwork
from jrec.train.chunk import Gather
from jrec.train.devices import first_batch
from jrec.train.loop import Plan
from jrec.train.step import TrainState
from jrec.train.streams import DeviceStream

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
) -> Plan:
    """Returns the training of the ranking network on lists."""
    init_key, step_key, order_key = jax.random.split(jax.random.key(settings.run.seed), 3)
    count = len(lists["train"])
    data = list_data(lists["train"], features, np.arange(count))
    stream = DeviceStream(data, gather, count, settings.batch_lists, order_key)
    params = jax.jit(model.init)(init_key, first_batch(gather, data))
    steps = settings.run.epochs * stream.steps
    rate = optax.linear_schedule(settings.learning_rate, 0.0, steps)
    optimizer, row_optimizer = optax.adam(rate), row_optimizers.adam(rate)
    each = partial(loss, model, "all", settings.click_weight, settings.completion_weight)

    def evaluate(state: TrainState) -> dict[str, float]:
        logits = predict(state.params, features, lists["valid"])
        order = logits[settings.rank_by]
        means = mean_metrics(list_metrics(lists["valid"], order, settings.repeated_targets))
        return {f"valid_{name}": means[name] for name in ("ndcg@10", "hr@10", "recall@50")}

    return Plan(
        init_row_state(params, optimizer, row_optimizer, step_key),
        make_row_step(each, optimizer, row_optimizer),
        stream,
        evaluate,
        watch="valid_ndcg@10",
        highest=True,
    )


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
