"""Optimizers that see only the rows a step touched: pure functions (init, accumulate, move).

`accumulate` takes rows [U, D], their state and their summed gradient, and gives the new state; `move` takes
the new state instead and gives the new rows. `jrec.embeddings.updates` gathers and scatters. (Apart, because a
state that is written before the rows are moved needs no copy of what it was.) A row is touched when its summed gradient is not all zero: so
masked examples and padding touch nothing, even where a rule would move a row without gradient.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

RowState = dict[str, jax.Array]
Rate = float | Callable[[jax.Array], jax.Array]
"""A learning rate, or a function of the int32 number of steps taken before, as in Optax."""


class RowOptimizer(NamedTuple):
    """A rule for the rows of a table.

    Attributes:
        init: table float32 [V, D] -> state, a dict of arrays whose first axis is V.
        accumulate: (rows [U, D], their state, gradient [U, D], steps taken before) -> state, for touched
            rows; each row's result depends on that row alone.
        move: (rows [U, D], the state that `accumulate` gave, gradient, steps taken before) -> rows.
        linear: steps taken before -> rate, where the update is `rows - rate * gradient` and no more,
            so that duplicates need not be summed first.
        idle: whether a gradient of zero leaves a row and its state as they are, to the bit.
    """

    init: Callable[[jax.Array], RowState]
    accumulate: Callable[[jax.Array, RowState, jax.Array, jax.Array], RowState]
    move: Callable[[jax.Array, RowState, jax.Array, jax.Array], jax.Array]
    linear: Callable[[jax.Array], jax.Array] | None = None
    idle: bool = False


def sgd(learning_rate: Rate) -> RowOptimizer:
    """Stochastic gradient descent: row - rate * g. The same as dense."""
    rate = _schedule(learning_rate)

    def accumulate(rows_UD, state, gradient_UD, step):
        return state

    def move(rows_UD, state, gradient_UD, step):
        return rows_UD - rate(step) * gradient_UD

    return RowOptimizer(lambda table: {}, accumulate, move, linear=rate)


def momentum(learning_rate: Rate, decay: float = 0.9, nesterov: bool = False) -> RowOptimizer:
    """Lazy momentum: v = decay * v - rate * g, row + v; untouched rows' v stays and moves nothing.

    Source: the sparse update of TensorFlow's Keras SGD before Keras 3
    (`ResourceSparseApplyKerasMomentum`); Nesterov: row + decay * v - rate * g, with the new v.
    TensorFlow also decays a row that was read but has a gradient of exactly zero.
    """
    rate = _schedule(learning_rate)

    def accumulate(rows_UD, state, gradient_UD, step):
        return {"velocity": decay * state["velocity"] - rate(step) * gradient_UD}

    def move(rows_UD, state, gradient_UD, step):
        if nesterov:
            return rows_UD + decay * state["velocity"] - rate(step) * gradient_UD
        return rows_UD + state["velocity"]

    return RowOptimizer(lambda table: {"velocity": jnp.zeros_like(table)}, accumulate, move)


def adagrad(learning_rate: Rate, initial: float = 0.1, eps: float = 1e-7) -> RowOptimizer:
    """Adagrad: s = s + g^2, row - rate * g / sqrt(s + eps). The same as Optax's dense one.

    Source: Duchi, Hazan and Singer (2011), equation 1, diagonal form.
    """
    rate = _schedule(learning_rate)

    def init(table_VD):
        return {"squares": jnp.full_like(table_VD, initial)}

    def accumulate(rows_UD, state, gradient_UD, step):
        return {"squares": state["squares"] + gradient_UD**2}

    def move(rows_UD, state, gradient_UD, step):
        return rows_UD - rate(step) * gradient_UD * jax.lax.rsqrt(state["squares"] + eps)

    return RowOptimizer(init, accumulate, move, idle=True)


def rowwise_adagrad(learning_rate: Rate, initial: float = 0.1, eps: float = 1e-7) -> RowOptimizer:
    """Adagrad with one accumulator a row: s = s + mean(g^2), row - rate * g / sqrt(s + eps).

    Source: Mudigere et al. (2021), "Software-hardware co-design for fast and scalable training of
    deep learning recommendation models", section 4.1.4. State: 4 bytes a row.
    """
    rate = _schedule(learning_rate)

    def init(table_VD):
        return {"squares": jnp.full(len(table_VD), initial, jnp.float32)}

    def accumulate(rows_UD, state, gradient_UD, step):
        return {"squares": state["squares"] + (gradient_UD**2).mean(1)}

    def move(rows_UD, state, gradient_UD, step):
        root_U1 = jax.lax.rsqrt(state["squares"] + eps)[:, None]
        return rows_UD - rate(step) * gradient_UD * root_U1

    return RowOptimizer(init, accumulate, move, idle=True)


def adam(
    learning_rate: Rate,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    skipped: Literal["ignored", "decayed"] = "ignored",
) -> RowOptimizer:
    """Lazy Adam: moments of touched rows only, bias corrected by the number t of all steps.

    m = b1^k m + (1 - b1) g, v = b2^k v + (1 - b2) g^2,
    row - rate * m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps).

    Args:
        skipped: what steps count that did not touch the row. `ignored`: k = 1, as PyTorch's
            SparseAdam and TensorFlow's LazyAdam. `decayed`: k is the number of steps since the row
            was last touched (kept in an int32 a row), so that m and v are at each touch what dense
            Adam's would be. Either way a row stays where it is between touches; dense Adam's does not.

    Source: Kingma and Ba (2015), algorithm 1.
    """
    rate = _schedule(learning_rate)

    def init(table_VD):
        state = {"mean": jnp.zeros_like(table_VD), "squares": jnp.zeros_like(table_VD)}
        return state if skipped == "ignored" else state | {"last": jnp.zeros(len(table_VD), int)}

    def accumulate(rows_UD, state, gradient_UD, step):
        time = step + 1
        keep_m, keep_v, last = b1, b2, {}
        if skipped == "decayed":
            elapsed_U1 = (time - state["last"]).astype(jnp.float32)[:, None]
            keep_m, keep_v = b1**elapsed_U1, b2**elapsed_U1
            last = {"last": jnp.full_like(state["last"], time)}
        mean_UD = keep_m * state["mean"] + (1 - b1) * gradient_UD
        squares_UD = keep_v * state["squares"] + (1 - b2) * gradient_UD**2
        return {"mean": mean_UD, "squares": squares_UD} | last

    def move(rows_UD, state, gradient_UD, step):
        time = step + 1
        root_UD = jnp.sqrt(state["squares"] / _one_less_power(b2, time)) + eps
        return rows_UD - rate(step) / _one_less_power(b1, time) * state["mean"] / root_UD

    return RowOptimizer(init, accumulate, move)


def decay_rows(optimizer: RowOptimizer, decay: float, decoupled: bool = False) -> RowOptimizer:
    """Weight decay of touched rows.

    Args:
        decay: added to the gradient as `decay * row` (L2, as the sources have it).
        decoupled: instead, each touch first shrinks the row by the factor `1 - decay`, outside of
            the optimizer and its rate (Loshchilov and Hutter, 2019).
    """

    def decayed(rows_UD, gradient_UD):
        if decoupled:
            return (1 - decay) * rows_UD, gradient_UD
        return rows_UD, gradient_UD + decay * rows_UD

    def accumulate(rows_UD, state, gradient_UD, step):
        rows_UD, gradient_UD = decayed(rows_UD, gradient_UD)
        return optimizer.accumulate(rows_UD, state, gradient_UD, step)

    def move(rows_UD, state, gradient_UD, step):
        rows_UD, gradient_UD = decayed(rows_UD, gradient_UD)
        return optimizer.move(rows_UD, state, gradient_UD, step)

    return RowOptimizer(optimizer.init, accumulate, move)


def _one_less_power(base: float, exponent: jax.Array) -> jax.Array:
    """1 - base^exponent without the cancellation that costs 0.999^1 four of float32's digits."""
    return -jnp.expm1(exponent * (math.log(base) if base else -math.inf))


def _schedule(rate: Rate) -> Callable[[jax.Array], jax.Array]:
    return rate if callable(rate) else lambda step: jnp.asarray(rate, jnp.float32)
