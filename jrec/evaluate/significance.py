"""Is one run better than another? Paired tests of their values by user.

    python -m jrec.evaluate.significance RUN_A RUN_B [--metric ndcg@10]

reads `per_user.npz` of both run directories and prints, for each metric, the difference of the means
(B - A) with its confidence interval, and the p of two paired tests.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tyro
from rich.table import Table

from jrec.command_line import parse_command
from jrec.console import plain_console
from jrec.errors import InputError, run_command
from jrec.evaluate.per_user import FILE, read_per_user

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


@dataclass
class Compare:
    """Compare two runs by user."""

    run_a: tyro.conf.Positional[Path]
    """Run directory A."""
    run_b: tyro.conf.Positional[Path]
    """Run directory B."""
    metric: list[str] = field(default_factory=list)
    """Which metrics, `ndcg@10` for example; all that both runs have by default."""
    confidence: float = 0.95
    """Of the intervals."""
    draws: int = 10_000
    """Of the bootstrap."""
    seed: int = 0
    """Of the bootstrap."""


def paired_values(
    run_a: Path, run_b: Path, metrics: list[str]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Two runs' float64 [N] values by metric, user by user, users without a value left out.

    Raises InputError for files that cannot be read, other users, a metric that is missing or that
    different users have.
    """
    (user_a, values_a), (user_b, values_b) = read_per_user(run_a), read_per_user(run_b)
    if not np.array_equal(user_a, user_b):
        both = len(np.intersect1d(user_a, user_b))
        raise InputError(
            f"{run_a / FILE} has {len(user_a)} users and {run_b / FILE} {len(user_b)}, of which "
            f"{both} are the same; compare runs on the same data set and split."
        )
    pairs = {}
    for name in metrics or [name for name in values_a if name in values_b]:
        for folder, values in ((run_a, values_a), (run_b, values_b)):
            if name not in values:
                raise InputError(
                    f"{folder / FILE} has no metric {name!r}; it has {', '.join(sorted(values))}."
                )
        a, b = values_a[name].astype(np.float64), values_b[name].astype(np.float64)
        has = ~np.isnan(a)
        if not np.array_equal(has, ~np.isnan(b)):
            raise InputError(
                f"Different users have a value of {name} in {run_a / FILE} and {run_b / FILE}; compare "
                f"runs with the same targets."
            )
        if has.sum() < 2:
            raise InputError(f"{run_a / FILE} has {has.sum()} values of {name}; a test needs two.")
        pairs[name] = a[has], b[has]
    if not pairs:
        raise InputError(f"{run_a / FILE} and {run_b / FILE} have no metric in common.")
    return pairs


def main(arguments: list[str] | None = None) -> None:
    settings = parse_command((Compare,), __doc__, arguments)
    if not 0 < settings.confidence < 1:
        raise InputError(f"--confidence must lie between 0 and 1, but is {settings.confidence:g}.")
    if settings.draws < 1 or settings.seed < 0:
        raise InputError("--draws must be 1 or more and --seed 0 or more.")
    pairs = paired_values(settings.run_a, settings.run_b, settings.metric)
    percent = f"{100 * settings.confidence:g}%"
    table = Table(
        "metric", "users", "A", "B", "B - A", f"{percent} interval", "p, bootstrap", "p, t"
    )
    for name, (a, b) in pairs.items():
        drawn = paired_bootstrap(a, b, settings.confidence, settings.draws, settings.seed)
        student = paired_t_test(a, b, settings.confidence)
        table.add_row(
            name,
            f"{len(a):,}",
            f"{a.mean():.4f}",
            f"{b.mean():.4f}",
            f"{drawn.difference:+.4f}",
            f"{drawn.low:+.4f} to {drawn.high:+.4f}",
            f"{drawn.p:.2g}",
            f"{student.p:.2g}",
        )
    console = plain_console()
    console.print(f"A: {settings.run_a}\nB: {settings.run_b}")
    console.print(table)
    console.print(
        f"Interval: paired bootstrap, {settings.draws:,} draws of users, seed {settings.seed}.",
    )


if __name__ == "__main__":
    run_command(main)
