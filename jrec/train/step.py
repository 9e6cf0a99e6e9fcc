"""One train step as a pure function `(state, batch) -> (state, metrics)`."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jrec.embeddings.batch_axis import on_all, summed

Parameters = Any
Batch = Mapping[str, Any]
Metrics = dict[str, jax.Array]
Loss = Callable[[Parameters, Batch, jax.Array], tuple[jax.Array, jax.Array]]


class TrainState(NamedTuple):
    """All that training changes, and the key that all of its randomness comes from.

    Attributes:
        step: int32 scalar, steps taken.
        key: typed PRNG key; never changes, each step folds its number in.
        params, opt_state: pytrees.
    """

    step: jax.Array
    key: jax.Array
    params: Parameters
    opt_state: optax.OptState


Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def init_state(
    params: Parameters, optimizer: optax.GradientTransformation, key: jax.Array
) -> TrainState:
    """The state before the first step."""
    return TrainState(jnp.zeros((), jnp.int32), key, params, optimizer.init(params))


def make_step(
    loss: Loss, optimizer: optax.GradientTransformation, axis_name: str | None = None
) -> Step:
    """A step that descends the mean of a loss over what it counts.

    Args:
        loss: (params, batch, key) -> (sum, count), float32 scalars; the key is the step's own.
        axis_name: where the batch is split over devices, the name of that axis: sums and counts are
            added over it before they are divided, so that N devices take the step that one takes.

    Returns:
        A pure function; its metrics are `loss_sum` and `count` of the whole batch.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(state.key, state.step)
        (loss_sum, count), gradient = jax.value_and_grad(loss, has_aux=True)(
            state.params, batch, key
        )
        loss_sum, count, gradient = summed((loss_sum, count, gradient), axis_name)
        gradient = jax.tree.map(lambda g: g / jnp.maximum(count, 1), gradient)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        state = TrainState(state.step + 1, state.key, params, opt_state)
        return state, {"loss_sum": loss_sum, "count": count}

    return step


def choose_step(
    fits: Callable[[Batch], jax.Array], small: Step, large: Step, axis_name: str | None = None
) -> Step:
    """A step that runs `small` on the batches that fit it and `large` on the others.

    Both take the same step in exact arithmetic; `small` computes less because it relies on something
    that nearly every batch has (few title words, say). `fits` gives a bool scalar; over devices all
    must fit, so that they take the same side.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        return jax.lax.cond(on_all(fits(batch), axis_name), small, large, state, batch)

    return step
