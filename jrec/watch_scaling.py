"""Two numbers that make a trained ranker's expected watch times come out right on later impressions."""

from typing import NamedTuple

import numpy as np

from jrec.ranking_losses import Unit

_STEPS = 100


class Scaling(NamedTuple):
    """Logits z become slope x z + intercept: a slope below 1 draws overconfident ones together."""

    slope: float
    intercept: float

    def __call__(self, logit: np.ndarray) -> np.ndarray:
        """float64, the shape of `logit`."""
        return self.slope * np.asarray(logit, np.float64) + self.intercept


def fit_scaling(
    logit: np.ndarray, clicked: np.ndarray, watch: np.ndarray, unit: Unit = "all"
) -> Scaling:
    """The scaling of the least weighted logistic loss on impressions that the ranker did not train on.

    The loss is that of `jrec.ranking_losses.weighted_logistic` and convex in both numbers: Newton's method
    with halved steps. With `all`, exp of the result is E[clicked x watch] on average at the optimum, and not
    correlated with the logit where it is wrong.

    Args:
        logit: float [n], finite. clicked: bool [n]. watch: float [n], 0 or more.

    Returns the scaling that changes nothing where nobody watched, or all logits are equal.

    Source: Platt (1999), "Probabilistic outputs for support vector machines", for labels without weights.
    """
    z = np.asarray(logit, np.float64)
    positive = np.where(clicked, np.asarray(watch, np.float64), 0)
    negative = (~np.asarray(clicked, bool)).astype(np.float64) if unit == "unclicked" else 1.0
    if positive.sum() == 0 or np.ptp(z) == 0:
        return Scaling(1.0, 0.0)
    x = np.stack([z, np.ones_like(z)], 1)

    def loss(theta: np.ndarray) -> float:
        y = x @ theta
        return float((positive * np.logaddexp(0, -y) + negative * np.logaddexp(0, y)).sum())

    theta = np.array([1.0, 0.0])
    for _ in range(_STEPS):
        share = 1 / (1 + np.exp(-np.clip(x @ theta, -700, 700)))
        gradient = x.T @ (negative * share - positive * (1 - share))
        curve = x.T @ (x * ((positive + negative) * share * (1 - share))[:, None])
        move = np.linalg.solve(curve + 1e-9 * np.trace(curve) * np.eye(2), gradient)
        size, before = 1.0, loss(theta)
        while size > 1e-10 and loss(theta - size * move) > before:
            size /= 2
        theta = theta - size * move
        if np.abs(size * move).max() < 1e-10:
            break
    return Scaling(float(theta[0]), float(theta[1]))
