"""One table of results: every system and baseline under one protocol a task, over several seeds.

    python -m experiments.results                                  # MovieLens-100K
    python -m experiments.results --ml-1m ml-1m.zip --ml-1m-sas ml-1m_sas.txt.gz

Each run is a command of its own, whose run directory lies below --out; those that are finished are not
run again, and one that was stopped goes on, so the same command completes what is there. At the end
(or, with --no-run, at once) `results.md` and `results.png` are written from the run directories.
"""

import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from jrec.command_line import parse_command
from jrec.console import plain_console
from jrec.errors import InputError, run_command
from jrec.files import read_json

from .rows import TASKS, Row, TaskName, command_of, quick, rows_of, same_run
from .table import Result, collect, draw_bars, write_markdown


@dataclass
class Results:
    """Run what is missing, then write the table."""

    ml_100k: Path | None = None
    """Folder or archive of MovieLens-100K. Left out: the cache, else the network."""
    ml_1m: Path | None = None
    """Folder or archive of MovieLens-1M; left out, its rating tables are too."""
    ml_1m_sas: Path | None = None
    """The file of SASRec's MovieLens-1M; left out, its table of the next item is too."""
    tasks: tuple[TaskName, ...] = tuple(TASKS)
    """Which tasks."""
    only: tuple[str, ...] = ()
    """Which rows: those whose name contains one of these words (left out: all)."""
    seeds: int = 3
    """Training seeds, from 0; the split's seed stays 0."""
    out: Path = field(default_factory=lambda: Path("runs/results"))
    """Where run directories, `results.md` and `results.png` go."""
    run: bool = True
    """Run what is missing; with --no-run the table has what is there."""
    quick: bool = False
    """One epoch of everything, to see that it runs; its figures mean nothing."""


@dataclass(frozen=True)
class Run:
    """One training: a row, its data and its seed."""

    task: str
    dataset: str
    data_dir: Path | None
    row: Row
    seed: int
    run_dir: Path

    def command(self) -> list[str]:
        """What a reader types."""
        line = command_of(self.row, self.dataset, self.data_dir, self.seed)
        return [*line, "--run-dir", str(self.run_dir)]


def planned(settings: Results) -> list[Run]:
    """All runs of the tables that are asked for; raises InputError where there are none."""
    data = {task: [("ml-100k", settings.ml_100k)] for task in settings.tasks}
    for task in settings.tasks:
        name = "ml-1m-sas" if task == "next-item" else "ml-1m"
        place = getattr(settings, name.replace("-", "_"))
        if place is not None:
            data[task].append((name, place))
    runs = []
    for task, datasets in data.items():
        for dataset, place in datasets:
            for row in rows_of(task, dataset):
                if settings.only and not any(word in row.name for word in settings.only):
                    continue
                row = quick(row) if settings.quick else row
                for seed in range(settings.seeds if row.seeded else 1):
                    run_dir = settings.out / dataset / task / row.folder / f"seed-{seed}"
                    runs.append(Run(task, dataset, place, row, seed, run_dir))
    if not runs:
        words = ", ".join(settings.only)
        raise InputError(f"No row's name contains any of --only {words}; leave it out to see all.")
    return runs


def is_finished(run: Run) -> bool:
    """Whether its run directory holds its results; raises InputError where they are another run's."""
    path = run.run_dir / "results.json"
    if not path.exists():
        return False
    found = read_json(path).get("command", "")
    if not same_run(found, shlex.join(run.command())):
        raise InputError(
            f"{run.run_dir} holds the results of another command ({found}); delete it, or give another "
            f"--out."
        )
    return True


def do(run: Run) -> None:
    """Runs one command, its output in a log beside the run directory.

    Raises InputError with the command's own last line where it fails.
    """
    command = [sys.executable, *run.command()[1:]]
    if run.run_dir.exists():
        if run.row.resumes and (run.run_dir / "settings.json").exists():
            command.append("--resume")
        else:
            shutil.rmtree(run.run_dir)
    run.run_dir.parent.mkdir(parents=True, exist_ok=True)
    path = run.run_dir.with_suffix(".log")
    # A terminal's width, so that tables in the log are not cut.
    environment = os.environ | {"COLUMNS": "120", "TERM": "dumb"}
    with path.open("w", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        code, stopped = None, False
        while code is None:
            try:
                code = process.wait()
            except KeyboardInterrupt:
                stopped = True  # so has the command been: it saves, and ends by itself
    if stopped or code == 130:
        raise KeyboardInterrupt
    if code:
        said = path.read_text("utf-8", "replace").strip().splitlines()
        raise InputError(
            f"{shlex.join(run.command())} failed: {said[-1] if said else 'it said nothing'} (its output "
            f"is in {path})."
        )


def run_missing(runs: list[Run], console: Console) -> None:
    """Runs what is not finished, one after the other, with a bar over all of them."""
    missing = [run for run in runs if not is_finished(run)]
    console.print(f"{len(runs) - len(missing)} of {len(runs)} runs are there")
    bar = Progress(
        TextColumn("{task.fields[name]}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
    with bar:
        task = bar.add_task("", total=len(missing), name="")
        for run in missing:
            name = f"{run.dataset} {run.task} {run.row.name} seed {run.seed}"
            bar.update(task, name=name)
            do(run)
            results = read_json(run.run_dir / "results.json")
            metric = TASKS[run.task].metrics[0]
            value = results.get(f"whole_{metric}", results[metric])
            line = f"{name}: {metric} {value:.4f}, {results['seconds']:.1f} s"
            bar.console.print(line, soft_wrap=True)
            bar.advance(task)


def tables(runs: list[Run]) -> dict[tuple[str, str], list[Result]]:
    """Finished runs by (data set, task), a `Result` for each row that has any."""
    found: dict[tuple[str, str], list[Result]] = {}
    rows: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        if is_finished(run):
            rows.setdefault((run.dataset, run.task, run.row.name), []).append(run)
    for (dataset, task, _), same in rows.items():
        line = command_of(same[0].row, dataset, same[0].data_dir, "S")
        result = collect(same[0].row, TASKS[task], [run.run_dir for run in same], shlex.join(line))
        found.setdefault((dataset, task), []).append(result)
    return found


def main(arguments: list[str] | None = None) -> None:
    """The command line; `arguments` are the process's own by default."""
    settings = parse_command((Results,), __doc__, arguments)
    if not 1 <= settings.seeds < 1000:
        raise InputError(f"--seeds must be from 1 to 999, but is {settings.seeds}.")
    console = plain_console()
    runs = planned(settings)
    if settings.run:
        run_missing(runs, console)
    found = tables(runs)
    if not found:
        raise InputError(f"{settings.out} holds no finished run yet; leave --no-run out.")
    draw_bars(settings.out / "results.png", found)
    path = settings.out / "results.md"
    write_markdown(path, found, settings.quick)
    console.print(f"table: {path}", soft_wrap=True)


if __name__ == "__main__":
    run_command(main)
