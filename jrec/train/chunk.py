"""The order of an epoch, and the compiled loop that takes many steps of it."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jrec.train.step import Batch, Step, TrainState

Gather = Callable[[Any, jax.Array, jax.Array], Batch]


@partial(jax.jit, static_argnums=(2, 3))
def epoch_order(key: jax.Array, epoch: int, count: int, batch_size: int) -> jax.Array:
    """int32 [steps * batch_size]: a permutation of 0..count-1 from (key, epoch), filled up with count.

    The number `count` marks the places of the last batch that hold no example.
    """
    order = jax.random.permutation(jax.random.fold_in(key, epoch), count)
    missing = -count % batch_size
    return jnp.concatenate([order.astype(jnp.int32), jnp.full(missing, count, jnp.int32)])


@partial(jax.jit, static_argnums=(2, 3))
def mixed_order(key: jax.Array, epoch: int, count: int, batch_size: int) -> jax.Array:
    """As `epoch_order`, without its sorts: 0.1 s instead of 17 s for 16 million examples on a CPU.

    A keyed one-to-one function of 0..count-1, computed for each place by itself (a Feistel network on
    the two digits of a number; what lands beyond the count is sent through again). It draws from
    2^256 of the permutations: enough to shuffle with, not a sample of all of them.

    Source: Mitchell, Stokes, Frank and Holmes (2022), "Bandwidth-optimal random shuffling for GPUs".
    """
    high = math.isqrt(count - 1) + 1  # at most 2^16, as the products below need
    low = -(-count // high)
    keys = jax.random.bits(jax.random.fold_in(key, epoch), (8,), jnp.uint32)

    def mix(digit: jax.Array, key: jax.Array, below: int) -> jax.Array:
        """A hash of one digit, from 0 to below - 1 (its constants: Wellons' `lowbias32`)."""
        digit = (digit ^ key) * jnp.uint32(0x7FEB352D)
        digit = (digit ^ (digit >> 15)) * jnp.uint32(0x846CA68B)
        return ((digit ^ (digit >> 16)) >> 16) * jnp.uint32(below) >> 16

    def move(place: jax.Array) -> jax.Array:
        first, second = place // low, place % low
        for one, other in keys.reshape(4, 2):
            first = first + mix(second, one, high)
            first = jnp.where(first >= high, first - high, first)
            second = second + mix(first, other, low)
            second = jnp.where(second >= low, second - low, second)
        return first * low + second

    # Fewer than one number in sqrt(count) lies beyond, so two or three turns bring all inside.
    order = jax.lax.while_loop(
        lambda order: (order >= count).any(),
        lambda order: jnp.where(order >= count, move(order), order),
        move(jnp.arange(count, dtype=jnp.uint32)),
    )
    missing = -count % batch_size
    return jnp.concatenate([order.astype(jnp.int32), jnp.full(missing, count, jnp.int32)])


CPU_OPTIONS = {
    "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
    "xla_cpu_prefer_vector_width": 512,
}
"""How XLA compiles steps for a CPU: in an order that keeps less in memory at once, with the widest vectors."""


def make_chunk(step: Step, gather: Gather, count: int, batch_size: int) -> Callable:
    """`many_steps`, jitted for one device. The state is donated."""
    options = CPU_OPTIONS if jax.default_backend() == "cpu" else None
    steps = many_steps(step, gather, count, batch_size)
    return jax.jit(steps, donate_argnums=0, compiler_options=options)


def many_steps(step: Step, gather: Gather, count: int, batch_size: int) -> Callable:
    """A run of many steps without the host; pure, so that `jit` or `pmap` may take it.

    The loop's length is a traced number (a `scan` whose length need not be known to the compiler), so
    one compilation serves every chunk, the short one at an epoch's end included. It stops after the
    first step whose loss is not finite.

    Args:
        step: the train step.
        gather: (data, positions int32 [B], mask bool [B]) -> batch; positions are valid everywhere.
        count: examples in the data. batch_size: B.

    Returns:
        A function (state, data, order, first, steps) -> (state, sums, bad_step): takes steps `first`
        to `first + steps` of the epoch that `order` describes; sums are the steps' metrics added up;
        bad_step is the number of the step whose loss was not finite, -1 where none was.
    """

    def chunk(
        state: TrainState, data: Any, order: jax.Array, first: jax.Array, steps: jax.Array
    ) -> tuple[TrainState, dict[str, jax.Array], jax.Array]:
        def body(carry: tuple) -> tuple:
            taken, state, sums, _ = carry
            start = (first + taken) * batch_size
            positions = jax.lax.dynamic_slice(order, (start,), (batch_size,))
            mask = positions < count
            state, metrics = step(state, gather(data, jnp.where(mask, positions, 0), mask))
            sums = jax.tree.map(lambda sum, value: sum + value.astype(sum.dtype), sums, metrics)
            bad_step = jnp.where(jnp.isfinite(metrics["loss_sum"]), -1, state.step)
            return taken + 1, state, sums, bad_step

        def more(carry: tuple) -> jax.Array:
            taken, _, _, bad_step = carry
            return (taken < steps) & (bad_step < 0)

        sums = {"loss_sum": jnp.zeros((), jnp.float32), "count": jnp.zeros((), jnp.float32)}
        start = (jnp.zeros((), jnp.int32), state, sums, jnp.full((), -1, jnp.int32))
        _, state, sums, bad_step = jax.lax.while_loop(more, body, start)
        return state, sums, bad_step

    return chunk
