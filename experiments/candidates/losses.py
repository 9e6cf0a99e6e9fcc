"""The losses of candidate generation by name: what each makes of a batch, and where biases start.

To add one, write a function of `Scores` (or of the whole batch, as `_full_softmax`) and add it to `LOSSES`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jrec.data.vocabulary import FIRST
from jrec.embeddings.batch_axis import gathered, local_part, own_rows, whole_rows
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
from jrec.train.step import Batch

FormName = Literal["window", "prefix"]
Sums = tuple[jax.Array, jax.Array]
"""A loss's sum over the targets of a batch, and how many count."""


@dataclass(frozen=True)
class Options:
    """What a loss depends on beside its name.

    Attributes:
        form: `window` (one target an example) or `prefix` (one a position).
        negatives: K, as many for each example or, `shared`, for all of a batch.
        calibration: t of gBCE.
    """

    form: FormName
    negatives: int
    shared: bool
    calibration: float


class Scores(NamedTuple):
    """What a sampled loss combines; the targets' shape is [...].

    Attributes:
        true: [...], logits of the targets. noise: [..., K], of the negatives.
        target: int32 [...]. ids: int32 [K] or [..., K], the negatives. log_q: of their shape.
        counted: bool [...]. sampler: the negatives' distribution. items: M.
    """

    true: jax.Array
    noise: jax.Array
    target: jax.Array
    ids: jax.Array
    log_q: jax.Array
    counted: jax.Array
    sampler: Sampler
    items: int


def _nce(scores: Scores, options: Options) -> Sums:
    log_q = scores.sampler.log_q(scores.target)
    return nce(scores.true, scores.noise, log_q, scores.log_q, scores.counted)


def _sampled_softmax(scores: Scores, options: Options) -> Sums:
    rest = scores.target, scores.ids, scores.log_q, scores.counted
    return sampled_softmax(scores.true, scores.noise, *rest)


def _uncorrected_softmax(scores: Scores, options: Options) -> Sums:
    rest = scores.target, scores.ids, None, scores.counted
    return sampled_softmax(scores.true, scores.noise, *rest)


def _bce(scores: Scores, options: Options, beta: float = 1.0) -> Sums:
    rest = scores.target, scores.ids, scores.counted, None, beta
    return binary_cross_entropy(scores.true, scores.noise, *rest)


def _gbce(scores: Scores, options: Options) -> Sums:
    return _bce(scores, options, _beta(options, scores.items))


def _beta(options: Options, items: int) -> float:
    if options.negatives >= items:
        raise InputError(
            f"--loss gbce needs fewer --negatives than the {items - 1} other items of the catalogue, but "
            f"was given {options.negatives}."
        )
    return gbce_beta(options.negatives, items, options.calibration)


def sampled(combine: Callable[[Scores, Options], Sums]) -> Callable[..., Sums]:
    """Returns the loss of a batch that scores targets and drawn negatives, and combines them."""

    def loss(
        model: CandidateNetwork,
        options: Options,
        params: Any,
        batch: Batch,
        key: jax.Array,
        apply: Callable = nn.Module.apply,
    ) -> Sums:
        drop_key, noise_key = jax.random.split(key)
        target, sampler = batch["target"], batch["sampler"]
        if options.shared:
            ids, log_q = sampler.sample(noise_key, (options.negatives,))
        else:
            rows = whole_rows(len(target), model.axis_name)
            drawn = sampler.sample(noise_key, (rows, *target.shape[1:], options.negatives))
            ids, log_q = (local_part(values, model.axis_name) for values in drawn)

        def score(m: CandidateNetwork) -> tuple[jax.Array, jax.Array]:
            users = _vectors(m, options, batch)
            true_rows, true_bias = m.outputs(target)
            rows, bias = m.outputs(ids)
            true = (users * true_rows).sum(-1) + true_bias
            if not options.shared:
                return true, jnp.einsum("...d,...kd->...k", users, rows) + bias
            noise = users @ rows.T
            return true, noise + jnp.broadcast_to(bias, noise.shape)

        true, noise = apply(model, params, method=score, rngs={"dropout": drop_key})
        items = model.item_rows - FIRST
        scores = Scores(true, noise, target, ids, log_q, batch["counted"], sampler, items)
        return combine(scores, options)

    return loss


def _full_softmax(
    model: CandidateNetwork,
    options: Options,
    params: Any,
    batch: Batch,
    key: jax.Array,
    apply: Callable = nn.Module.apply,
) -> Sums:
    streams = {"dropout": jax.random.split(key)[0]}
    users = apply(model, params, method=lambda m: _vectors(m, options, batch), rngs=streams)
    tables = params["params"]
    table = tables["item_table" if model.tied else "output_table"]["embedding"]
    bias_V = tables["bias_table"]["embedding"][:, 0]
    flat = (users.reshape(-1, users.shape[-1]), table, bias_V)
    block = 384 if jax.default_backend() == "cpu" else 8192
    target, counted = batch["target"].ravel(), batch["counted"].ravel()
    return full_softmax(*flat, target, counted, batch["items"], block)


def _in_batch_softmax(
    model: CandidateNetwork,
    options: Options,
    params: Any,
    batch: Batch,
    key: jax.Array,
    apply: Callable = nn.Module.apply,
) -> Sums:
    target, counted = batch["target"], batch["counted"]

    def among_targets(m: CandidateNetwork) -> jax.Array:
        rows_CD, bias_C = gathered(m.outputs(target), model.axis_name)
        return _vectors(m, options, batch) @ rows_CD.T + bias_C[None]

    streams = {"dropout": jax.random.split(key)[0]}
    logits_BC = apply(model, params, method=among_targets, rngs=streams)
    target_C, counted_C = gathered((target, counted), model.axis_name)
    log_q_C = batch["frequency"].log_q(target_C)
    own_B = own_rows(len(target), model.axis_name)
    return in_batch_softmax(logits_BC, target_C, log_q_C, counted_C, own_B)


def _vectors(model: CandidateNetwork, options: Options, batch: Batch) -> jax.Array:
    """Returns user vectors [B, D] (window) or [B, L, D] (prefix)."""
    read = model.last_vectors if options.form == "window" else model.all_vectors
    return read(batch=batch, train=True)


LOSSES: dict[str, Callable[..., Sums]] = {
    "nce": sampled(_nce),
    "sampled-softmax": sampled(_sampled_softmax),
    "sampled-softmax-no-logq": sampled(_uncorrected_softmax),
    "in-batch-softmax": _in_batch_softmax,
    "full-softmax": _full_softmax,
    "bce": sampled(_bce),
    "gbce": sampled(_gbce),
}
"""(model, options, params, batch, key, apply) -> `Sums`.

Batches are those of `.batches`, with `sampler` (see `SAMPLERS`), `frequency` (the items' own, for
`in-batch-softmax`) and `items` bool [V], the rows that are items.
"""
LossName = Literal[tuple(LOSSES)]  # type: ignore[valid-type]


def _level_of_bce(
    counts: np.ndarray, sampler: Sampler, options: Options, beta: float = 1.0
) -> np.ndarray:
    log_q_V = np.asarray(sampler.log_q(jnp.arange(len(counts), dtype=jnp.int32)))
    return level_logits(counts, log_q_V, options.negatives, beta)


LEVELS: dict[str, Callable[[np.ndarray, Sampler, Options], np.ndarray]] = {
    "nce": lambda counts, sampler, options: level_logits(counts),
    "bce": _level_of_bce,
    "gbce": lambda counts, sampler, options: _level_of_bce(
        counts, sampler, options, _beta(options, len(counts) - FIRST)
    ),
}
"""(training clicks [V], sampler, options) -> the biases [V] that a loss is least with, users unknown."""

SAMPLERS: dict[str, Callable[[np.ndarray, float], Sampler]] = {
    "uniform": lambda counts, power: Uniform(len(counts) - 1),
    "log-uniform": lambda counts, power: log_uniform(counts),
    "frequency": frequency,
}
"""(training clicks [V], power of their frequencies) -> the distribution of negatives."""
NoiseName = Literal[tuple(SAMPLERS)]  # type: ignore[valid-type]


def start_biases(
    params: Any, name: LossName, counts: np.ndarray, sampler: Sampler, options: Options
) -> Any:
    """Returns the parameters with biases at the level that the loss asks for, where it asks for one."""
    if name not in LEVELS:
        return params
    level_V = LEVELS[name](counts, sampler, options)
    level_V[:FIRST] = 0  # padding and unknown are no items
    table = {"embedding": jnp.asarray(level_V)[:, None]}
    return {"params": params["params"] | {"bias_table": table}}


def loss_of(name: LossName, model: CandidateNetwork, options: Options) -> Callable[..., Sums]:
    """Returns the named loss as a function (params, batch, key, apply)."""
    return partial(LOSSES[name], model, options)
