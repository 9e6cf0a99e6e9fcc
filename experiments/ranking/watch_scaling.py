"""A few numbers that make a trained ranker's expected watch times come out right on later impressions."""

from dataclasses import dataclass

import numpy as np
from numpy.polynomial import Polynomial, polynomial

from jrec.losses.watch_time import Unit

_STEPS, _PULL = 100, 1e-7


@dataclass(frozen=True)
class Scaling:
    """Logits z become a rising polynomial of z, so that no order changes.

    Attributes:
        coefficients: of 1, z, z^2, …; (0, 1) changes nothing.
        low, high: between them the polynomial holds; beyond, its tangents.
    """

    coefficients: tuple[float, ...] = (0.0, 1.0)
    low: float = 0.0
    high: float = 0.0

    def __call__(self, logit: np.ndarray) -> np.ndarray:
        """float64, the shape of `logit`."""
        z = np.asarray(logit, np.float64)
        inside = np.clip(z, self.low, self.high)
        slope = polynomial.polyval(inside, polynomial.polyder(self.coefficients))
        return polynomial.polyval(inside, self.coefficients) + slope * (z - inside)


def fit_scaling(
    logit: np.ndarray,
    clicked: np.ndarray,
    watch: np.ndarray,
    unit: Unit = "all",
    degree: int = 2,
) -> Scaling:
    """The scaling of the least weighted logistic loss on impressions that the ranker did not train on.

    The loss is that of `jrec.losses.watch_time.weighted_logistic` and convex in the coefficients: Newton's
    method with halved steps. Where the polynomial does not rise everywhere among the logits (but for a
    thousandth at each end, where its tangents hold), one of a degree less is taken.

    Args:
        logit: float [n], finite. clicked: bool [n]. watch: float [n], 0 or more.
        degree: 1 for Platt's line; 2 also bends it, as the ends of a network's scale need.

    Returns the scaling that changes nothing where nobody watched, or all logits are equal.

    Source: Platt (1999), "Probabilistic outputs for support vector machines", for labels without weights
    and a line.
    """
    z = np.asarray(logit, np.float64)
    positive = np.where(clicked, np.asarray(watch, np.float64), 0)
    negative = (~np.asarray(clicked, bool)).astype(np.float64) if unit == "unclicked" else 1.0
    if degree < 1 or positive.sum() == 0 or np.ptp(z) == 0:
        return Scaling()
    # Powers of standardised logits, with a pull towards no change that only separable data feel.
    centre, spread = z.mean(), z.std()
    x = ((z - centre) / spread)[:, None] ** np.arange(degree + 1)
    start = np.zeros(degree + 1)
    start[:2] = centre, spread
    pull = _PULL * len(z)

    def loss(theta: np.ndarray) -> float:
        y = x @ theta
        data = (positive * np.logaddexp(0, -y) + negative * np.logaddexp(0, y)).sum()
        return float(data + pull / 2 * ((theta - start) ** 2).sum())

    theta = start
    for _ in range(_STEPS):
        share = 1 / (1 + np.exp(-np.clip(x @ theta, -700, 700)))
        gradient = x.T @ (negative * share - positive * (1 - share)) + pull * (theta - start)
        curve = x.T @ (x * ((positive + negative) * share * (1 - share))[:, None])
        move = np.linalg.solve(curve + pull * np.eye(degree + 1), gradient)
        size, before = 1.0, loss(theta)
        while size > 1e-10 and loss(theta - size * move) > before:
            size /= 2
        theta = theta - size * move
        if np.abs(size * move).max() < 1e-10:
            break
    theta = Polynomial(theta)(Polynomial([-centre / spread, 1 / spread])).coef
    low, high = (float(end) for end in np.quantile(z, [0.001, 0.999]))
    slopes = polynomial.polyval(np.linspace(low, high, 1001), polynomial.polyder(theta))
    if not np.isfinite(theta).all() or slopes.min() <= 0:
        return fit_scaling(logit, clicked, watch, unit, degree - 1)
    return Scaling(tuple(theta.tolist()), low, high)
