"""Matrix products in a chosen number format: factors are rounded to it, sums and results are float32.

The backward products are computed likewise. Parameters, activations between the products, reductions and losses
stay float32, so that a format is a setting and no change of the model.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint

Compute = Literal["float32", "bfloat16"]


def product(x: jax.Array, kernel: jax.Array, compute: Compute = "float32") -> jax.Array:
    """x @ kernel: float32 [..., C] and [C, F] -> [..., F]."""
    if compute == "float32":
        return x @ kernel
    flat = _rounded(x.reshape(-1, x.shape[-1]), kernel)
    return flat.reshape(*x.shape[:-1], kernel.shape[-1])


def products(x: jax.Array, y: jax.Array, compute: Compute = "float32") -> jax.Array:
    """A product for each of the leading axes: float32 [..., N, C] and [..., C, F] -> [..., N, F]."""
    if compute == "float32":
        return x @ y
    many = _rounded
    for _ in x.shape[:-2]:
        many = jax.vmap(many)
    return many(x, y)


def dot_general_in(compute: Compute) -> Callable[..., jax.Array]:
    """`lax.dot_general` for Linen's `Dense` and `DenseGeneral` (last axes of one, first of the other)."""
    if compute == "float32":
        return jax.lax.dot_general

    def dot_general(x: jax.Array, kernel: jax.Array, numbers: Any, **_: Any) -> jax.Array:
        (contracted, firsts), batched = numbers
        count = len(contracted)
        kept = x.ndim - count
        if tuple(contracted) != tuple(range(kept, x.ndim)) or batched != ((), ()):
            raise ValueError(f"This product is not a dense layer's: {numbers}.")
        assert tuple(firsts) == tuple(range(count))
        size = math.prod(kernel.shape[:count])
        flat = _rounded(x.reshape(-1, size), kernel.reshape(size, -1))
        return flat.reshape(*x.shape[:kept], *kernel.shape[count:])

    return dot_general


def turned(x: jax.Array) -> jax.Array:
    """x.T [C, N] of [N, C], on a CPU copied row by row.

    XLA's products there are fast only of factors that lie row by row: in bfloat16 of both, in float32 of the
    first, which a kernel's gradient would read by columns (figures stand in BUILD_NOTES.md).
    """
    if jax.default_backend() != "cpu":
        return x.T
    return with_layout_constraint(jnp.asarray(x).T, Layout((0, 1)))


@jax.custom_vjp
def _rounded(x_NC: jax.Array, y_CF: jax.Array) -> jax.Array:
    return _forward(x_NC, y_CF)[0]


def _forward(x_NC: jax.Array, y_CF: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    x_NC, y_CF = x_NC.astype(jnp.bfloat16), y_CF.astype(jnp.bfloat16)
    return _dot(x_NC, y_CF), (x_NC, y_CF)


def _backward(
    kept: tuple[jax.Array, jax.Array], gradient_NF: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x_NC, y_CF = kept
    gradient_NF = gradient_NF.astype(jnp.bfloat16)
    by_x, by_y = _dot(gradient_NF, turned(y_CF)), _dot(turned(x_NC), gradient_NF)
    # XLA would turn a product that is turned after it into one of turned factors, whatever their layout,
    # and then not know how to compute it.
    return jax.lax.optimization_barrier((by_x, by_y))


def _dot(x: jax.Array, y: jax.Array) -> jax.Array:
    return jax.lax.dot(x, y, preferred_element_type=jnp.float32)


_rounded.defvjp(_forward, _backward)
