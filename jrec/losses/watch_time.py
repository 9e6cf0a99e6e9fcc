"""Losses of rankers that are trained on impressions: (sum, count) over what a mask counts."""

from typing import Literal

import jax
import jax.numpy as jnp

Unit = Literal["unclicked", "all"]
"""Which impressions stand with weight 1 on the negative side of `weighted_logistic`."""


def weighted_logistic(
    logit: jax.Array,
    clicked: jax.Array,
    weight: jax.Array,
    mask: jax.Array,
    unit: Unit = "unclicked",
) -> tuple[jax.Array, jax.Array]:
    """Weighted logistic regression: clicks weighted by their watch times T, negatives by 1.

    The sum over counted impressions of

        clicked T log(1 + exp(-z)) + u log(1 + exp(z)).

    With `unclicked`, u = 1 - clicked: the paper's form, whose odds exp(z) are at the optimum
    E[clicked T] / P(not clicked), about E[clicked T] (1 + P(clicked)) where few impressions are
    clicked. With `all`, u = 1: a click is an impression, too, and the odds are E[clicked T] whatever
    the rate of clicks.

    Args:
        logit: float, any one shape. clicked: bool, the same. weight: float, T, 0 or more, the same.
        mask: bool, the same; what it leaves out has no gradient, even if it is not finite.
        unit: see above.

    Returns:
        float32 scalars (sum, count of impressions); over devices, sum both first. The count is not
        the sum of the weights: so each step's gradient is that of a mean over impressions.

    Source: Covington, Adams and Sargin (2016), "Deep neural networks for YouTube recommendations",
    section 4.2, for `unclicked`; `all` is ours.
    """
    if unit not in ("unclicked", "all"):
        raise ValueError(f"unit must be 'unclicked' or 'all', but is {unit!r}.")
    logit = jnp.where(mask, logit, 0).astype(jnp.float32)
    positive = jnp.where(mask & clicked, weight, 0).astype(jnp.float32)
    negative = (mask & ~clicked if unit == "unclicked" else mask).astype(jnp.float32)
    loss = positive * jax.nn.softplus(-logit) + negative * jax.nn.softplus(logit)
    return loss.sum(), mask.sum().astype(jnp.float32)


def logistic(logit: jax.Array, label: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Log loss of probabilities 1 / (1 + exp(-logit)) of bool labels, and how many count.

    Args:
        logit: float, any one shape. label: bool, the same. mask: bool, as for `weighted_logistic`.
    """
    return weighted_logistic(logit, label, jnp.ones_like(logit), mask)
