"""Candidate generation as functions of its settings: batches, state and train step."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jrec.data.click_examples import ClickSplit, training_examples
from jrec.data.clicks import Clicks
from jrec.data.vocabulary import FIRST
from jrec.embeddings import optimizers as row_optimizers
from jrec.embeddings.optimizers import RowOptimizer
from jrec.embeddings.row_step import embedding_tables, init_row_state, make_row_step
from jrec.losses.samplers import frequency
from jrec.models.candidates import CandidateNetwork
from jrec.train.devices import first_batch
from jrec.train.read_once import read_once
from jrec.train.step import Batch, Step, TrainState, init_state, make_step
from jrec.train.streams import DeviceStream

from .batches import (
    make_segment_gather,
    make_window_gather,
    segment_data,
    training_segments,
    window_data,
)
from .losses import SAMPLERS, Options, loss_of, start_biases
from .settings import OptimizerName, Train

OPTIMIZERS = {
    "adagrad": (optax.adagrad, row_optimizers.adagrad),
    "adam": (optax.adam, row_optimizers.adam),
}


def build_stream(
    settings: Train,
    clicks: Clicks,
    split: ClickSplit,
    counts: np.ndarray,
    data: dict[str, Any],
    key: jax.Array,
) -> DeviceStream:
    """Returns the training batches of the settings' form, with what losses read beside them.

    Args:
        counts: [V], training clicks of each item row. data: from `device_clicks`. key: of the epochs' orders.
    """
    if settings.form == "window":
        cap, seed = settings.cap or None, settings.run.seed
        examples = read_once(lambda: training_examples(clicks, split, settings.length, cap, seed))
        data, count = window_data(data, examples), len(examples)
        gather_clicks = make_window_gather(settings.length)
    else:
        segments = read_once(
            lambda: training_segments(clicks, split, settings.length, settings.whole_histories)
        )
        data = segment_data(data, segments)
        count = len(segments["segments"]["user"])
        gather_clicks = make_segment_gather(settings.length)
    constants = {
        "sampler": SAMPLERS[settings.noise](counts, settings.noise_power),
        "frequency": frequency(counts),
        "items": jnp.arange(len(counts), dtype=jnp.int32) >= FIRST,
    }

    def gather(data: dict[str, Any], positions: jax.Array, mask: jax.Array) -> Batch:
        return gather_clicks(data, positions, mask) | {name: data[name] for name in constants}

    return DeviceStream(data | constants, gather, count, settings.batch_size, key)


def build_training(
    settings: Train,
    model: CandidateNetwork,
    stream: DeviceStream,
    counts: np.ndarray,
    init_key: jax.Array,
    step_key: jax.Array,
) -> tuple[TrainState, Step]:
    """Returns the state before the first step, and the step."""
    options = Options(
        settings.form, settings.negatives, settings.shared_negatives, settings.calibration
    )
    first = first_batch(stream.gather, stream.data)
    first = {
        name: first[name] for name in ("item", "mask", "user_features", "item_features", "age")
    }
    if settings.form == "prefix":
        first["age"] = first["age"][:, 0]
    params = jax.jit(model.init)(init_key, first)
    if settings.bias_start == "level":
        params = start_biases(params, settings.loss, counts, stream.data["sampler"], options)
    network, rows = build_optimizers(
        settings.optimizer,
        settings.learning_rate,
        settings.weight_decay,
        settings.warmup,
        settings.run.epochs * stream.steps,
        settings.cooldown,
    )
    loss = loss_of(settings.loss, model, options)
    rows_alone = settings.tables == "rows"
    return build_step(
        loss, model, params, (network, rows), rows_alone, settings.loss == "full-softmax", step_key
    )


def build_step(
    loss: Callable[..., tuple[jax.Array, jax.Array]],
    model: CandidateNetwork,
    params: Any,
    optimizers: tuple[optax.GradientTransformation, RowOptimizer],
    rows: bool,
    whole_output: bool,
    key: jax.Array,
) -> tuple[TrainState, Step]:
    """Returns the state before the first step, and the step.

    Args:
        loss: (params, batch, key, apply) -> (sum, count).
        rows: update tables by the rows read. whole_output: but not those that score all items, which
            a full softmax reads whole.
    """
    network, row_optimizer = optimizers
    if not rows:
        return init_state(params, network, key), make_step(loss, network, model.axis_name)
    names = embedding_tables(params)
    if whole_output:
        scoring = ("item_table" if model.tied else "output_table", "bias_table")
        names = [name for name in names if name.split(".")[-2] not in scoring]
    state = init_row_state(params, network, row_optimizer, key, names)
    return state, make_row_step(loss, network, row_optimizer, model.axis_name, names)


def build_optimizers(
    name: OptimizerName,
    rate: float,
    weight_decay: float,
    warmup: int,
    steps: int = 0,
    cooldown: float = 0.0,
) -> tuple[optax.GradientTransformation, RowOptimizer]:
    """Returns the rule of the network, and that of the rows of its tables; L2 on both, on tables for what a step reads.

    Args:
        warmup: steps over which the rate rises. steps: of the whole run.
        cooldown: the share of them, the last ones, over which the rate falls to 0 in a straight line.
    """
    schedule = optax.linear_schedule(rate / max(warmup, 1), rate, warmup) if warmup else rate
    if falling := round(cooldown * steps):
        rising = schedule if warmup else optax.constant_schedule(rate)

        def schedule(step: jax.Array) -> jax.Array:
            return rising(step) * jnp.clip((steps - step) / falling, 0, 1)

    rule, rows = OPTIMIZERS[name]
    network, tables = rule(schedule), rows(schedule)
    if weight_decay:
        network = optax.chain(optax.add_decayed_weights(weight_decay), network)
        tables = row_optimizers.decay_rows(tables, weight_decay)
    return network, tables
