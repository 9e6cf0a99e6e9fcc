"""Arrays that XLA is to compute once on a CPU, not again in each loop that reads them."""

from typing import TypeVar

import jax
import jax.numpy as jnp

Tree = TypeVar("Tree")


def computed_once(tree: Tree, true: jax.Array) -> Tree:
    """The same arrays, computed before anything that reads them.

    XLA puts cheap operations (which row a click reads, whether it counts) into every loop that reads their
    result, and repeats them there for each of a row's numbers. On a CPU it removes optimization barriers
    before it does so; what comes out of a condition stays whole. Elsewhere it is a barrier.

    Args:
        tree: arrays of any shapes and types. No gradient is wanted through them.
        true: bool scalar, always true, which the compiler must not know: `step >= 0`.
    """
    if jax.default_backend() != "cpu":
        return jax.lax.optimization_barrier(tree)
    return jax.lax.cond(true, lambda given: given, _zeros, tree)


def _zeros(tree: Tree) -> Tree:
    return jax.tree.map(jnp.zeros_like, tree)
