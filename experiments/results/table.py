"""The table of results: run directories in, Markdown and bars out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jrec.errors import InputError
from jrec.evaluate.paired_tests import paired_bootstrap
from jrec.evaluate.per_user import FILE
from jrec.evaluate.significance import read_per_user
from jrec.files import read_json, replacing
from jrec.report import markdown_table

from .rows import TASKS, Row, Task


@dataclass(frozen=True)
class Result:
    """One row over its seeds.

    Attributes:
        metrics: [seeds] by name. user [N], by_user [N]: the paired metric, averaged over seeds.
        seconds: of training, the fastest run's; NaN where all were resumed. parameters: numbers that the model keeps.
        command: of each of its runs, S for the seed. machine: packages and devices of the first.
    """

    row: Row
    metrics: dict[str, np.ndarray]
    user: np.ndarray
    by_user: np.ndarray
    seconds: float
    parameters: int
    command: str
    machine: str


def collect(row: Row, task: Task, run_dirs: list[Path], command: str) -> Result:
    """Reads a row's finished runs; raises InputError for what is missing in them."""
    results = [read_json(folder / "results.json") for folder in run_dirs]
    users, values = [], []
    for folder in run_dirs:
        user, metrics = read_per_user(folder)
        if task.paired not in metrics:
            raise InputError(f"{folder / FILE} has no {task.paired}; run {folder} again.")
        users.append(user)
        values.append(metrics[task.paired].astype(np.float64))
    if any(not np.array_equal(user, users[0]) for user in users):
        raise InputError(f"The runs of {run_dirs[0].parent} have different users; run them again.")
    for folder, one in zip(run_dirs, results, strict=True):
        for name in task.metrics:
            if name in one and one[name] is None:  # NaN, of a run that measured nothing
                raise InputError(
                    f"{folder / 'results.json'} has no number as {name}; run it again."
                )
    try:
        return Result(
            row,
            # Where a network has no row for some test ratings, the errors over all of them count.
            {
                name: np.array([one.get(f"whole_{name}", one[name]) for one in results], float)
                for name in task.metrics
            },
            users[0],
            np.mean(values, 0),
            min((one["seconds"] for one in results if not _resumed(one)), default=float("nan")),
            int(results[0]["parameters"]),
            command,
            _machine(read_json(run_dirs[0] / "environment.json")),
        )
    except KeyError as error:
        raise InputError(
            f"A results.json in {run_dirs[0].parent} has no {error}; run it again."
        ) from error


def _resumed(results: dict[str, Any]) -> bool:
    """Then its seconds are those of the last part alone."""
    return "--resume" in results["command"].split()


def _machine(environment: dict[str, Any]) -> str:
    devices = environment["devices"]
    kind = devices[0].split(":")[0].split("(")[0]
    jax = environment["packages"]["jax"]
    return (
        f"Python {environment['python']}, JAX {jax}, {environment['cpus']} CPU cores, "
        f"{len(devices)} device{'s' * (len(devices) > 1)} ({kind})"
    )


def best_baseline(results: list[Result], task: Task) -> Result | None:
    """The baseline with the best mean on test, which is the hardest one to be compared with."""
    baselines = [result for result in results if not result.row.system]
    sign = 1 if task.lower else -1
    return min(baselines, key=lambda one: sign * _deciding(one, task).mean(), default=None)


def _deciding(result: Result, task: Task) -> np.ndarray:
    return result.metrics[task.metrics[0]]


def compared(result: Result, other: Result | None, task: Task) -> str:
    """The difference of the first metric to another row, with the p of a paired bootstrap over users."""
    if other is None or result is other:
        return "" if other is None else "(the best baseline)"
    if not np.array_equal(result.user, other.user):
        raise InputError(
            f"{result.row.name} and {other.row.name} have different test users; run both again on the "
            f"same data."
        )
    difference = _deciding(result, task).mean() - _deciding(other, task).mean()
    p = paired_bootstrap(other.by_user, result.by_user).p
    return f"{difference:+.4f} (p {'< 0.001' if p < 0.001 else f'= {p:.2g}'})"


def table(results: list[Result], task: Task) -> str:
    """One task's Markdown table, the best row first."""
    best = best_baseline(results, task)
    sign = 1 if task.lower else -1
    lines = []
    for result in sorted(results, key=lambda one: sign * _deciding(one, task).mean()):
        cells = [f"**{result.row.name}**" if result.row.system else result.row.name]
        for name in task.metrics:
            values = result.metrics[name]
            spread = f" ± {values.std(ddof=1):.4f}" if len(values) > 1 else ""
            cells.append(f"{values.mean():.4f}{spread}")
        cells += [str(len(_deciding(result, task))), compared(result, best, task)]
        cells += [f"{result.seconds:.1f}", f"{result.parameters:,}"]
        lines.append(cells)
    names = [name.removeprefix("test_").upper() for name in task.metrics]
    header = [
        "",
        *names,
        "runs",
        f"{names[0]} less the best baseline's",
        "training s",
        "parameters",
    ]
    return markdown_table(header, lines)


def write_markdown(path: Path, tables: dict[tuple[str, str], list[Result]], quick: bool) -> None:
    """`results.md`: a section a table, then the commands."""
    machines = sorted({one.machine for results in tables.values() for one in results})
    parts = ["# Results"]
    if quick:
        parts.append("Made with --quick, one epoch of everything: these figures mean nothing.")
    parts += [
        "Systems are bold. Mean ± standard deviation over training seeds, all on one split; a method "
        "without a seed is run once. p: paired bootstrap over test users of the seeds' mean, not "
        "corrected for the number of rows. Training seconds are the fastest run's wall time, with "
        "compilation and the errors after each epoch.",
        "Machine: " + "; ".join(machines) + ".",
        "![all tables as bars](results.png)",
    ]
    for (dataset, name), results in tables.items():
        task = TASKS[name]
        users = len(results[0].user)
        parts += [f"## {dataset}: {task.title}", f"{task.protocol} {users:,} users in test."]
        parts.append(table(results, task))
        commands = [f"{one.row.name}:\n    {one.command} --run-dir DIR" for one in results]
        parts += ["Commands (S: 0, 1, …):", "```\n" + "\n".join(commands) + "\n```"]
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text("\n\n".join(parts) + "\n", encoding="utf-8", errors="replace")


def draw_bars(path: Path, tables: dict[tuple[str, str], list[Result]]) -> None:
    """A panel a table: the first metric of each row, the spread over seeds as a line."""
    from matplotlib.figure import Figure  # slow to import, and not needed to run

    figure = Figure(
        figsize=(9, 0.9 + sum(0.7 + 0.26 * len(results) for results in tables.values())),
        layout="constrained",
    )
    heights = [2 + len(results) for results in tables.values()]
    axes = figure.subplots(len(tables), squeeze=False, height_ratios=heights)[:, 0]
    for axis, ((dataset, name), results) in zip(axes, tables.items(), strict=True):
        task = TASKS[name]
        sign = 1 if task.lower else -1
        shown = sorted(results, key=lambda one: -sign * _deciding(one, task).mean())
        values = [_deciding(one, task) for one in shown]
        means = np.array([one.mean() for one in values])
        spread = [one.std(ddof=1) if len(one) > 1 else 0.0 for one in values]
        # Errors lie close together far from 0: there the bars begin below the smallest.
        start = np.floor(means.min() * 9) / 10 if task.lower else 0.0
        colours = ["tab:blue" if one.row.system else "0.7" for one in shown]
        names = [one.row.name for one in shown]
        axis.barh(names, means - start, left=start, xerr=spread, color=colours)
        for place, (mean, beside) in enumerate(zip(means, means + spread, strict=True)):
            axis.text(beside, place, f" {mean:.4f}", va="center", fontsize=7)
        begins = f", bars begin at {start:g}" if start else ""
        metric = task.metrics[0].removeprefix("test_").upper()
        axis.set(title=f"{dataset}: {task.title}", xlabel=f"test {metric}{begins}")
        axis.tick_params(labelsize=8)
        axis.margins(x=0.12)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)
