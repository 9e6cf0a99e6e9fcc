"""Paired tests of values by user."""

from dataclasses import dataclass

import numpy as np

_CELLS = 5_000_000  # numbers drawn at once


@dataclass(frozen=True)
class Comparison:
    """The mean of B - A over users, and how sure it is.

    Attributes:
        difference: the mean. low, high: its confidence interval. p: of both sides, that a difference
            so large comes about by chance.
    """

    difference: float
    low: float
    high: float
    p: float


def paired_t_test(a: np.ndarray, b: np.ndarray, confidence: float = 0.95) -> Comparison:
    """Student's test of the mean of b - a [N] against 0; t = mean / (s / sqrt(N)), N - 1 degrees.

    Where all differences are equal, the interval is a point, and p is 1 for 0 and 0 otherwise. Raises
    ValueError for fewer than two users, other lengths, or NaN.
    """
    d = _differences(a, b)
    mean, error = float(d.mean()), float(d.std(ddof=1) / np.sqrt(len(d)))
    if error == 0:
        return Comparison(mean, mean, mean, float(mean == 0))
    from scipy import stats  # slow to import

    reach = float(stats.t.ppf((1 + confidence) / 2, len(d) - 1)) * error
    p = 2 * float(stats.t.sf(abs(mean) / error, len(d) - 1))
    return Comparison(mean, mean - reach, mean + reach, p)


def paired_bootstrap(
    a: np.ndarray, b: np.ndarray, confidence: float = 0.95, draws: int = 10_000, seed: int = 0
) -> Comparison:
    """Users drawn again with replacement (Efron and Tibshirani 1993, chapters 13 and 16).

    The interval is that between quantiles of the drawn means. p is the share of draws whose mean lies
    at least as far from the observed one as that lies from 0, (1 + number) / (1 + draws).

    Args:
        a, b: float [N], the same users in the same order. draws: how many times N users are drawn.

    Raises ValueError as `paired_t_test`.
    """
    d = _differences(a, b)
    generator = np.random.default_rng(seed)
    # How often each distinct difference is drawn is multinomial: far fewer numbers than users.
    values, counts = np.unique(d, return_counts=True)
    means = np.empty(draws)
    step = max(_CELLS // len(values), 1)
    for start in range(0, draws, step):
        size = min(step, draws - start)
        drawn = generator.multinomial(len(d), counts / len(d), size)
        means[start : start + size] = drawn @ values / len(d)
    mean = float(d.mean())
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    # Rounding must not part a drawn mean from the observed one that it equals.
    far = np.abs(means - mean) >= abs(mean) - 1e-12 * np.abs(values).max()
    return Comparison(mean, float(low), float(high), float((1 + far.sum()) / (1 + draws)))


def _differences(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.ndim != 1 or a.shape != b.shape or len(a) < 2 or np.isnan(b - a).any():
        raise ValueError("A paired test needs two or more users with one value each in both runs.")
    return b - a
