"""Losses as pure functions: sums over what a mask counts, with the count beside them."""

import jax
import jax.numpy as jnp


def squared_error(
    prediction: jax.Array, target: jax.Array, mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Sum of (prediction - target)^2 over counted elements, and their number.

    Args:
        prediction, target: float, any one shape.
        mask: bool, the same shape; what it leaves out has no gradient, even if it is not finite.

    Returns:
        float32 scalars (sum, count). The mean squared error is sum / count; over devices, sum both
        first.
    """
    difference = jnp.where(mask, prediction - target, 0).astype(jnp.float32)
    return (difference**2).sum(), mask.sum().astype(jnp.float32)


def weighted_squared_error(
    prediction: jax.Array, target: jax.Array, weight: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Sum of weight * (prediction - target)^2, and the sum of the weights.

    Args:
        prediction, target: float, any one shape.
        weight: float, 0 or more, the same shape; 0 leaves an element out, even one not finite.

    Returns:
        float32 scalars (sum, count), as `squared_error`.
    """
    difference = jnp.where(weight > 0, prediction - target, 0).astype(jnp.float32)
    weight = weight.astype(jnp.float32)
    return (weight * difference**2).sum(), weight.sum()
