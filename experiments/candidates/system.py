"""Candidate generation as functions of its settings: noise, loss, train step."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jrec.data.vocabulary import FIRST
from jrec.embeddings import optimizers as row_optimizers
from jrec.embeddings.batch_axis import gathered, local_part, own_rows, whole_rows
from jrec.embeddings.optimizers import RowOptimizer
from jrec.embeddings.row_step import embedding_tables, init_row_state, make_row_step
from jrec.errors import InputError
from jrec.losses.full_softmax import full_softmax
from jrec.losses.sampled import (
    binary_cross_entropy,
    gbce_beta,
    in_batch_softmax,
    level_logits,
    nce,
    sampled_softmax,
)
from jrec.losses.samplers import Sampler, Uniform, frequency, log_uniform
from jrec.models.candidates import CandidateNetwork
from jrec.train.step import Batch, Step, TrainState, init_state, make_step

LossName = Literal[
    "nce",
    "sampled-softmax",
    "sampled-softmax-no-logq",
    "in-batch-softmax",
    "full-softmax",
    "bce",
    "gbce",
]
NoiseName = Literal["uniform", "log-uniform", "frequency"]
OptimizerName = Literal["adagrad", "adam"]
FormName = Literal["window", "prefix"]


def build_sampler(noise: NoiseName, power: float, counts: np.ndarray) -> Sampler:
    """The noise distribution over item rows; `counts` are the training clicks of each."""
    if noise == "uniform":
        return Uniform(len(counts) - 1)
    if noise == "log-uniform":
        return log_uniform(counts)
    return frequency(counts, power)


def start_biases(
    params: Any,
    name: LossName,
    counts: np.ndarray,
    sampler: Sampler,
    negatives: int,
    calibration: float,
) -> Any:
    """The parameters with biases at the level that a loss asks for (see `level_logits`)."""
    if name not in ("nce", "bce", "gbce"):
        return params
    if name == "nce":
        level_V = level_logits(counts)
    else:
        log_q_V = np.asarray(sampler.log_q(jnp.arange(len(counts), dtype=jnp.int32)))
        beta = _beta(name, negatives, len(counts) - FIRST, calibration)
        level_V = level_logits(counts, log_q_V, negatives, beta)
    level_V[:FIRST] = 0  # padding and unknown are no items
    table = {"embedding": jnp.asarray(level_V)[:, None]}
    return {"params": params["params"] | {"bias_table": table}}


def _beta(name: LossName, negatives: int, items: int, calibration: float) -> float:
    if name != "gbce":
        return 1.0
    if negatives >= items:
        raise InputError(
            f"--loss gbce needs fewer --negatives than the {items - 1} other items of the catalogue, but "
            f"was given {negatives}."
        )
    return gbce_beta(negatives, items, calibration)


def loss(
    model: CandidateNetwork,
    name: LossName,
    form: FormName,
    negatives: int,
    shared: bool,
    calibration: float,
    params: Any,
    batch: Batch,
    key: jax.Array,
    apply: Callable = nn.Module.apply,
) -> tuple[jax.Array, jax.Array]:
    """Loss of the targets of a batch, and how many count.

    Args:
        batch: from `experiments.candidates.batches`, with `sampler` (see `build_sampler`), `frequency` (the
            items' own, for `in-batch-softmax`) and `items` bool [V], the rows that are items.
        negatives: K, as many for each example or, `shared`, for all of them.
    """
    drop_key, noise_key = jax.random.split(key)
    target, counted = batch["target"], batch["counted"]
    vectors = partial(
        CandidateNetwork.last_vectors if form == "window" else CandidateNetwork.all_vectors,
        batch=batch,
        train=True,
    )
    streams = {"dropout": drop_key}
    if name == "full-softmax":
        users = apply(model, params, method=lambda m: vectors(m), rngs=streams)
        tables = params["params"]
        table = tables["item_table" if model.tied else "output_table"]["embedding"]
        bias_V = tables["bias_table"]["embedding"][:, 0]
        flat = (users.reshape(-1, users.shape[-1]), table, bias_V)
        block = 384 if jax.default_backend() == "cpu" else 8192
        return full_softmax(*flat, target.ravel(), counted.ravel(), batch["items"], block)
    if name == "in-batch-softmax":

        def among_targets(m: CandidateNetwork) -> jax.Array:
            rows_CD, bias_C = gathered(m.outputs(target), model.axis_name)
            return vectors(m) @ rows_CD.T + bias_C[None]

        logits_BC = apply(model, params, method=among_targets, rngs=streams)
        target_C, counted_C = gathered((target, counted), model.axis_name)
        log_q_C = batch["frequency"].log_q(target_C)
        own_B = own_rows(len(target), model.axis_name)
        return in_batch_softmax(logits_BC, target_C, log_q_C, counted_C, own_B)

    if shared:
        ids, log_q = batch["sampler"].sample(noise_key, (negatives,))
    else:
        shape = (whole_rows(len(target), model.axis_name), *target.shape[1:], negatives)
        drawn = batch["sampler"].sample(noise_key, shape)
        ids, log_q = (local_part(values, model.axis_name) for values in drawn)

    def scores(m: CandidateNetwork) -> tuple[jax.Array, jax.Array]:
        users = vectors(m)
        true_rows, true_bias = m.outputs(target)
        rows, bias = m.outputs(ids)
        true = (users * true_rows).sum(-1) + true_bias
        if not shared:
            return true, jnp.einsum("...d,...kd->...k", users, rows) + bias
        noise = users @ rows.T
        return true, noise + jnp.broadcast_to(bias, noise.shape)

    true, noise = apply(model, params, method=scores, rngs=streams)
    if name == "nce":
        return nce(true, noise, batch["sampler"].log_q(target), log_q, counted)
    if name.startswith("sampled-softmax"):
        correction = None if name.endswith("no-logq") else log_q
        return sampled_softmax(true, noise, target, ids, correction, counted)
    beta = _beta(name, negatives, model.item_rows - FIRST, calibration)
    return binary_cross_entropy(true, noise, target, ids, counted, None, beta)


def build_optimizers(
    name: OptimizerName,
    rate: float,
    weight_decay: float,
    warmup: int,
    steps: int = 0,
    cooldown: float = 0.0,
) -> tuple[optax.GradientTransformation, RowOptimizer]:
    """Of the network, and of the rows of its tables; L2 on both, on tables for what a step reads.

    Args:
        warmup: steps over which the rate rises. steps: of the whole run.
        cooldown: the share of them, the last ones, over which the rate falls to 0 in a straight line.
    """
    schedule = optax.linear_schedule(rate / max(warmup, 1), rate, warmup) if warmup else rate
    if falling := round(cooldown * steps):
        rising = schedule if warmup else optax.constant_schedule(rate)

        def schedule(step: jax.Array) -> jax.Array:
            return rising(step) * jnp.clip((steps - step) / falling, 0, 1)

    rule, rows = {
        "adagrad": (optax.adagrad, row_optimizers.adagrad),
        "adam": (optax.adam, row_optimizers.adam),
    }[name]
    network, tables = rule(schedule), rows(schedule)
    if weight_decay:
        network = optax.chain(optax.add_decayed_weights(weight_decay), network)
        tables = row_optimizers.decay_rows(tables, weight_decay)
    return network, tables


def build_step(
    each: Callable[..., tuple[jax.Array, jax.Array]],
    model: CandidateNetwork,
    params: Any,
    optimizers: tuple[optax.GradientTransformation, RowOptimizer],
    rows: bool,
    whole_output: bool,
    key: jax.Array,
) -> tuple[TrainState, Step]:
    """The state before the first step, and the step.

    Args:
        rows: update tables by the rows read. whole_output: but not those that score all items, which
            a full softmax reads whole.
    """
    network, row_optimizer = optimizers
    if not rows:
        return init_state(params, network, key), make_step(each, network, model.axis_name)
    names: Sequence[str] = embedding_tables(params)
    if whole_output:
        scoring = ("item_table" if model.tied else "output_table", "bias_table")
        names = [name for name in names if name.split(".")[-2] not in scoring]
    state = init_row_state(params, network, row_optimizer, key, names)
    return state, make_row_step(each, network, row_optimizer, model.axis_name, names)
