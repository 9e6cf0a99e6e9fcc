"""Is one run better than another? Paired tests of their values by user.

    python -m jrec.evaluate.significance RUN_A RUN_B [--metric ndcg@10]

reads `per_user.npz` of both run directories and prints, for each metric, the difference of the means
(B - A) with its confidence interval, and the p of two paired tests.
"""

import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tyro
from rich.table import Table

from jrec.command_line import parse_command
from jrec.console import plain_console
from jrec.errors import InputError, run_command
from jrec.evaluate.paired_tests import paired_bootstrap, paired_t_test
from jrec.evaluate.per_user import FILE


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


def read_per_user(folder: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(user [N], rising; float32 [N] by metric) of a run directory.

    Raises InputError where the file is missing, damaged, or not of this form.
    """
    path = folder / FILE
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; give the run directory of a finished run.")
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            # One array that was saved alone is not an archive.
            columns = {} if isinstance(archive, np.ndarray) else dict(archive)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; is {folder} a finished run?") from error
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} is damaged ({reason}); evaluate the run again.") from error
    user = columns.pop("user", None)
    good = user is not None and user.ndim == 1 and user.dtype.kind in "iuU" and len(columns) > 0
    good = good and all(v.shape == user.shape and v.dtype.kind == "f" for v in columns.values())
    if not good:
        raise InputError(
            f"{path} must hold `user` and one float array of its length a metric; evaluate the run again."
        )
    rising, order = np.unique(user, return_index=True)
    if len(rising) != len(user):
        raise InputError(f"{path} has a user more than once; evaluate the run again.")
    return rising, {name: value[order] for name, value in columns.items()}


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
