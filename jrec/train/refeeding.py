"""Dense re-feeding: a model's own output as its next input, with an update of its own."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from jrec.embeddings.batch_axis import summed
from jrec.losses.ratings import squared_error
from jrec.train.step import Batch, Metrics, Parameters, Step, TrainState

Outputs = jax.Array
RefeedTarget = Literal["output", "ratings"]
Loss = Callable[..., tuple[jax.Array, jax.Array, Outputs]]
Gradient = Callable[..., tuple[tuple[jax.Array, jax.Array, Outputs], Parameters]]


def with_gradient(loss: Loss) -> Gradient:
    """(params, ...) -> (sum, count, outputs) as (params, ...) -> ((sum, count, outputs), gradient of sum)."""

    def summed(params: Parameters, *rest: Any) -> tuple[jax.Array, tuple[jax.Array, Outputs]]:
        loss_sum, count, outputs = loss(params, *rest)
        return loss_sum, (count, outputs)

    def gradient(params: Parameters, *rest: Any) -> tuple[tuple, Parameters]:
        (loss_sum, (count, outputs)), gradient = jax.value_and_grad(summed, has_aux=True)(
            params, *rest
        )
        return (loss_sum, count, outputs), gradient

    return gradient


def choose_gradient(
    fits: Callable[[Batch], jax.Array], small: Gradient, large: Gradient
) -> Gradient:
    """`small` on the batches that fit it, `large` on the others; both compute the same.

    The choice is outside what is differentiated, so that only the chosen side's intermediates exist.
    """

    def gradient(params: Parameters, batch: Batch, key: jax.Array) -> tuple[tuple, Parameters]:
        return jax.lax.cond(fits(batch), small, large, params, batch, key)

    return gradient


def make_refeeding_step(
    first: Gradient,
    refed: Callable[[Parameters, Outputs, jax.Array], Outputs],
    known: Callable[[Outputs, Batch], tuple[jax.Array, jax.Array]],
    optimizer: optax.GradientTransformation,
    times: int = 1,
    target: RefeedTarget = "output",
    axis_name: str | None = None,
) -> Step:
    """An ordinary step, then `times` steps on the model's own outputs (Kuchaiev and Ginsburg 2017, 2.3).

    The k-th re-fed step takes as inputs the outputs of the forward pass before it, as that pass
    computed them in training, without a gradient; it draws fresh dropout and takes an optimizer
    update of its own. Where a model is a perfect fixed point, f(x) = f(f(x)), the gradients of the
    target `output` are zero.

    Args:
        first: from `with_gradient` (or `choose_gradient`), (params, batch, key) -> ((loss sum, count,
            outputs [B, M]), gradient); computes no outputs where `times` is 0, as nothing asks for them.
        refed: (params, inputs [B, M], key) -> outputs [B, M].
        known: (outputs [B, M], batch) -> (loss sum, count) against the batch's true ratings.
        optimizer: sees `1 + times` updates a step: schedules count them.
        times: re-fed steps after each ordinary one; 0 leaves them out.
        target: what re-fed outputs should be. `output`: the inputs, every item counted (the source's
            program); `ratings`: the true ratings, where there are any (the other reading of its text).
        axis_name: as for `jrec.train.step.make_step`.

    Returns:
        A pure function (state, batch) -> (state, metrics); the batch has `mask` bool [B]. Metrics are
        the ordinary step's; `state.step` counts batches.
    """

    def again(
        params: Parameters, inputs: Outputs, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, jax.Array, Outputs]:
        outputs = refed(params, inputs, key)
        if target == "ratings":
            return *known(outputs, batch), outputs
        counted_BM = jnp.broadcast_to(batch["mask"][:, None], outputs.shape)
        return *squared_error(outputs, inputs, counted_BM), outputs

    def descend(
        params: Parameters, opt_state: Any, gradient: Parameters, count: jax.Array
    ) -> tuple[Parameters, Any]:
        gradient = jax.tree.map(lambda g: g / jnp.maximum(count, 1), gradient)
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(state.key, state.step)
        (loss_sum, count, outputs), gradient = first(state.params, batch, key)
        loss_sum, count, gradient = summed((loss_sum, count, gradient), axis_name)
        params, opt_state = descend(state.params, state.opt_state, gradient, count)
        for k in range(times):
            inputs = jax.lax.stop_gradient(outputs)
            fresh = jax.random.fold_in(key, k + 1)
            (_, again_count, outputs), gradient = with_gradient(again)(params, inputs, batch, fresh)
            again_count, gradient = summed((again_count, gradient), axis_name)
            params, opt_state = descend(params, opt_state, gradient, again_count)
        state = TrainState(state.step + 1, state.key, params, opt_state)
        return state, {"loss_sum": loss_sum, "count": count}

    return step
