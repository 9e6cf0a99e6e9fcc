"""Kills, full disks, damaged files, lost rights and signals: what a small run makes of each, in one table.

    python -m tests.faults --out faults

Each run is a process of its own. After each fault the run goes on as its messages say (`--resume`), and is
then compared bit for bit with a run that nothing disturbed: parameters, optimizer state, metrics, results.
"""

import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jrec.command_line import parse_command
from jrec.console import plain_console
from jrec.errors import InputError, run_command
from jrec.files import new_folder, write_json
from jrec.report import markdown_table
from tests.faults.damage import archive_faults, file_faults
from tests.faults.runs import (
    Row,
    environment,
    is_temporary,
    outcome,
    run,
    saved_steps,
    train_command,
    went_on,
)

Part = Literal["kills", "signals", "full-disk", "rights", "files", "archives"]


@dataclass
class Faults:
    """Disturb a small training run in every way, and go on with it."""

    out: Path
    """Folder to make for the runs and `faults.md`."""
    only: tuple[Part, ...] = ()
    """Which faults (left out: all)."""
    system: Literal["embedding_mlp", "fusion"] = "embedding_mlp"
    """Which experiment."""
    moments: int = 20
    """How many times it is killed (SIGKILL)."""
    damages: int = 40
    """How many files of the run are cut short or have a bit turned; as many again of a data archive."""
    seed: int = 0
    """Of the moments and damages."""


def _writing_checkpoint(run_dir: Path, folder: str, above: int) -> bool:
    place = run_dir / folder
    if not place.exists():
        return False
    names = [path.name for path in place.iterdir()]
    done = max((int(name) for name in names if name.isdigit()), default=0)
    return done >= above and any("tmp" in name for name in names)


def _no_manifest(run_dir: Path, above: int) -> bool:
    return any(
        step > above and not (run_dir / "last" / str(step) / "manifest.json").exists()
        for step in saved_steps(run_dir)
    )


def moment(
    number: int, run_dir: Path, draw: random.Random
) -> tuple[str, Callable[[], bool], float]:
    """What a kill waits for: its name, the condition on the run directory, and seconds after it."""
    step, wait = 10 * draw.randrange(0, 6), draw.uniform(0, 0.05)
    kinds: list[tuple[str, Callable[[], bool], float]] = [
        (
            f"steps after step {step}",
            lambda: step == 0 or max(saved_steps(run_dir), default=0) >= step,
            wait,
        ),
        (
            f"a checkpoint after step {step}",
            lambda: _writing_checkpoint(run_dir, "last", step),
            wait / 10,
        ),
        (f"a manifest after step {step}", lambda: _no_manifest(run_dir, step), 0.0),
        ("the best checkpoint", lambda: _writing_checkpoint(run_dir, "best", 0), wait / 10),
        ("the export", lambda: any((run_dir / "export").glob("*")), wait),
        ("the report", lambda: (run_dir / "export" / "catalogue.npz").exists(), 20 * wait),
        ("reports, late", lambda: (run_dir / "curves.png").exists(), wait / 10),
        ("the start", lambda: True, 60 * wait),
    ]
    return kinds[number % len(kinds)]


def disturb(
    system: str, run_dir: Path, ready: Callable[[], bool], wait: float, with_signal: int
) -> tuple[int, str]:
    """Starts the run and sends it a signal once it is `ready`; its code, and the last line it said."""
    log = run_dir.with_suffix(".log")
    with log.open("w") as file:
        process = subprocess.Popen(
            train_command(system, run_dir), stdout=file, stderr=file, env=environment()
        )
        while process.poll() is None and not ready():
            time.sleep(0.0005)
        time.sleep(wait)
        process.send_signal(with_signal)
        code = process.wait()
    said = [line for line in log.read_text().splitlines() if line.strip()]
    text = "TRACEBACK" if any("Traceback" in line for line in said) else (said[-1] if said else "")
    return code, text


def kills(settings: Faults, folder: Path, reference: dict[str, object]) -> list[Row]:
    """SIGKILL at random moments."""
    draw, rows = random.Random(settings.seed), []
    for number in range(settings.moments):
        run_dir = folder / f"kill-{number}"
        name, ready, wait = moment(number, run_dir, draw)
        code, _ = disturb(settings.system, run_dir, ready, wait, signal.SIGKILL)
        state = (
            f"step {max(saved_steps(run_dir), default=0)} saved" if code else "it was done before"
        )
        rows.append(("SIGKILL", name, state, went_on(settings.system, run_dir, reference)))
    return rows


def signals(settings: Faults, folder: Path, reference: dict[str, object]) -> list[Row]:
    """SIGTERM and Ctrl-C, which are clean stops."""
    rows = []
    for with_signal in (signal.SIGTERM, signal.SIGINT):
        run_dir = folder / with_signal.name
        code, said = disturb(
            settings.system, run_dir, lambda d=run_dir: bool(saved_steps(d)), 0.0, with_signal
        )
        clean = code == 130 and "saved; resume with --resume" in said
        words = said.split(str(folder))[0].strip() if clean else f"NOT CLEAN ({code}): {said}"
        rows.append(
            (with_signal.name, "steps", words, went_on(settings.system, run_dir, reference))
        )
    return rows


def full_disk(settings: Faults, folder: Path, reference: dict[str, object]) -> list[Row]:
    """A disk that fills up: a small tmpfs; skipped where none may be mounted."""
    rows: list[Row] = []
    for kib in (16, 96, 160, 256, 320):
        run_dir = folder / f"disk-{kib}"
        run_dir.mkdir()
        mounted = not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(run_dir)],
            capture_output=True,
        ).returncode
        if not mounted:
            return [("full disk", "", "skipped: no right to mount a tmpfs", "")]
        try:
            code, said = run(train_command(settings.system, run_dir))
            half = [p.name for p in run_dir.rglob("*") if p.is_file() and is_temporary(p.name)]
            step = max(saved_steps(run_dir), default=0)
            ok = code == 1 and said.startswith("error: ") and not half
            remount = ["mount", "-o", "remount,size=64m", str(run_dir)]
            subprocess.run(remount, check=True, capture_output=True)
            after = went_on(settings.system, run_dir, reference)
        finally:
            subprocess.run(["umount", "-l", str(run_dir)], check=True, capture_output=True)
        said = said if ok else f"NOT CLEAN ({code}, {half}): {said}"
        when = f"{kib} KiB, after step {step}"
        rows.append(("full disk", when, said.replace(str(folder), "…"), after))
    return rows


def lost_rights(settings: Faults, folder: Path, finished: Path) -> list[Row]:
    """Files that may not be read."""
    rows: list[Row] = []
    for name in ("settings.json", "last", "metrics.jsonl", "export/arrays.npz"):
        run_dir = folder / f"rights-{name.replace('/', '-')}"
        shutil.copytree(finished, run_dir)
        (run_dir / name).chmod(0o000)
        if name.startswith("export"):
            command = [sys.executable, "-m", f"experiments.{settings.system}", "predict"]
            command += ["--run-dir", str(run_dir), "--item", "1"]
        else:
            command = train_command(settings.system, run_dir, "--resume")
        code, said = run([sys.executable, "-c", _LIKE_OTHERS, *command])
        (run_dir / name).chmod(0o755)
        ok = code == 1 and said.startswith("error: ")
        said = (said if ok else f"NOT CLEAN ({code}): {said}").replace(str(folder), "…")
        rows.append(("no right to read", name, said, "—"))
    return rows


# Takes from root, before the program begins, the rights to read what no mode allows
# (PR_CAPBSET_DROP of CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH; of others the system has not given them).
_LIKE_OTHERS = """
import ctypes, os, sys
for capability in (1, 2):
    ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def faults(settings: Faults) -> None:
    """Runs all of it and writes `faults.md`."""
    if settings.moments < 1 or settings.damages < 0:
        raise InputError("--moments must be 1 or more, and --damages 0 or more.")
    console = plain_console(soft_wrap=True)
    with new_folder(settings.out) as folder:
        folder = folder.absolute()
        finished = folder / "undisturbed"
        reference: dict[str, object] = {}
        if set(settings.only) != {"archives"}:
            code, said = run(train_command(settings.system, finished))
            if code:
                raise InputError(f"The undisturbed run failed: {said}")
            reference = outcome(finished)
        rows: list[Row] = []
        parts: dict[Part, Callable[[], list[Row]]] = {
            "kills": lambda: kills(settings, folder, reference),
            "signals": lambda: signals(settings, folder, reference),
            "full-disk": lambda: full_disk(settings, folder, reference),
            "rights": lambda: lost_rights(settings, folder, finished),
            "files": lambda: file_faults(settings, folder, finished, reference),
            "archives": lambda: archive_faults(settings, folder),
        }
        for name in settings.only or parts:
            found = parts[name]()
            rows += found
            for row in found:
                console.print(" | ".join(row))
        header = ("fault", "moment or place", "what was said or saved", "gone on with")
        (folder / "faults.md").write_text(markdown_table(header, rows) + "\n", encoding="utf-8")
        bad = [row for row in rows if any(w in cell for w in _BAD for cell in row)]
        write_json(folder / "faults.json", {"rows": rows, "bad": bad})
    console.print(f"{len(rows)} rows, {len(bad)} bad; {settings.out / 'faults.md'}")
    if bad:
        sys.exit(1)


_BAD = ("TRACEBACK", "FAILED", "DIFFERS", "NOT CLEAN", "SILENT")


def main(arguments: list[str] | None = None) -> None:
    """The command line; `arguments` are the process's own by default."""
    faults(parse_command((Faults,), __doc__, arguments))


if __name__ == "__main__":
    run_command(main)
