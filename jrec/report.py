"""A run directory that explains itself: settings, metrics, curves, tables, final numbers."""

import contextlib
import importlib.metadata
import json
import os
import platform
import re
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from jrec import __version__
from jrec.errors import InputError
from jrec.files import clear_leftovers, plain, read_json, replacing, write_json

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pandas")


def environment() -> dict[str, Any]:
    """Versions and devices, for the record."""
    versions = {"jrec": __version__}
    versions |= {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {
        "python": platform.python_version(),
        "packages": versions,
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "devices": [str(device) for device in jax.devices()],
    }


def check_new_folder(folder: Path, resume: bool) -> None:
    """Raises InputError where a folder may not hold a new run, or holds none to resume."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; give --run-dir a folder.")
    if resume and not (folder / "settings.json").exists():
        raise InputError(f"{folder} holds no run to resume (no settings.json); drop --resume.")
    # A run that was killed in its first moment leaves no more than a record half-written, and what several
    # processes share (see `jrec.train.processes.shared_folder`), which this one may have begun with, too.
    half = re.compile(r"\.settings\.json\.\d+\.json|\.shared\.\d+")
    there = () if resume or not folder.exists() else folder.iterdir()
    if not all(half.fullmatch(path.name) for path in there):
        raise InputError(
            f"{folder} is not empty; add --resume to resume its run, or give another --run-dir."
        )


def open_run_directory(folder: Path, resume: bool, settings: dict[str, Any]) -> None:
    """Makes a run directory, or checks that a run may be resumed.

    Args:
        resume: whether the user asked to resume it.
        settings: what must agree with the run's own `settings.json` on resume (JSON-like).

    Raises InputError: a new run in a used folder; nothing to resume; settings that differ.
    """
    check_new_folder(folder, resume)
    folder.mkdir(parents=True, exist_ok=True)
    clear_leftovers(folder)
    record = folder / "settings.json"
    if not resume:
        write_json(record, settings)
        return
    old = read_json(record)
    if not isinstance(old, dict):
        raise InputError(f"{record} holds no settings; restore or delete it.")
    old, new = _flat(old), _flat(plain(settings))
    if old.keys() != new.keys():
        odd = ", ".join(sorted(old.keys() ^ new.keys())[:3])
        raise InputError(
            f"{record}: the run was made by another version of jrec, whose settings have other names "
            f"({odd}); resume it with that version, or train again."
        )
    # Hashes differ because a setting does: that one is to be named.
    for name in sorted(old, key=lambda name: (name.startswith(("data_source", "split_sha")), name)):
        if old[name] != new[name]:
            raise InputError(
                f"{record}: the run has {name} = {old[name]!r}, but now it is {new[name]!r}; "
                f"resume with the same settings."
            )


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns nested settings by dotted name; groups whose flags have no prefix have none here."""
    flat = {}
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            inner = _flat(value).items()
            prefix = "" if name in ("run", "data", "source") else f"{name}."
            flat |= {f"{prefix}{key}": item for key, item in inner}
        else:
            flat[name] = value
    return flat


class MetricsLog:
    """`metrics.jsonl`, one JSON object a line, and TensorBoard events when tensorboardX is there.

    Resuming at a step first drops the lines of later steps, which the resumed run writes again. Without
    `write` nothing is written: of several processes one keeps the log.
    """

    def __init__(self, folder: Path, resume_step: int = 0, write: bool = True) -> None:
        self._file = self._events = None
        if not write:
            return
        self._path = folder / "metrics.jsonl"
        kept = [line for line in read_metrics(folder) if line["step"] <= resume_step]
        with replacing(self._path) as temporary:
            temporary.write_text(
                "".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8"
            )
        self._file = self._path.open("a", encoding="utf-8")
        self._events = _open_events(folder / "tensorboard", resume_step + 1)

    def write(self, step: int, **values: float) -> None:
        """Adds one line; it is on disk when this returns."""
        if self._file is None:
            return
        with _named(self._path):
            self._file.write(json.dumps({"step": step} | plain(values)) + "\n")
            self._file.flush()
            if self._events is not None:
                _write_events(self._events, step, values)

    def close(self) -> None:
        if self._file is None:
            return
        try:
            with _named(self._path):
                self._file.close()
        finally:
            if self._events is not None:
                # Not `EventsWriter.close`, which leaves its file open where the disk is full.
                with contextlib.suppress(OSError):
                    self._events._py_recordio_writer.close()


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """A full disk names no file."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def _open_events(folder: Path, first_step: int) -> Any | None:
    """A file for TensorBoard whose steps, from `first_step` on, take the place of older ones.

    None without tensorboardX. Its usual writer is a thread, which would print its own traceback of a
    full disk at the process's end; this one has written when it returns.
    """
    try:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
    except ImportError:
        return None
    folder.mkdir(exist_ok=True)
    writer = EventsWriter(str(folder / "events"), f".{os.getpid()}")
    begin = SessionLog(status=SessionLog.START)
    writer.write_event(Event(wall_time=time.time(), step=first_step, session_log=begin))
    return writer


def _write_events(writer: Any, step: int, values: dict[str, float]) -> None:
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.summary import scalar

    for name, value in values.items():
        if value is not None:
            summary = scalar(name, value)
            writer.write_event(Event(wall_time=time.time(), step=step, summary=summary))
    writer.flush()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """All complete lines of `metrics.jsonl`; a line cut off by a crash is left out."""
    path, lines = folder / "metrics.jsonl", []
    if not path.exists():
        return lines
    for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), start=1):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):  # also of numbers too long, and of lists too deep
            continue
        if not (isinstance(value, dict) and isinstance(value.get("step"), int)):
            raise InputError(f"{path}, line {number}: no metrics of a step; delete the line.")
        lines.append(value)
    return lines


def show_warnings(warnings: Sequence[str], console: Console) -> None:
    """Prints each sentence on a line of its own."""
    for sentence in warnings:
        console.print(f"warning: {sentence}", soft_wrap=True)


def draw_curves(
    path: Path, series: dict[str, Sequence[tuple[float, float]]], x_label: str, y_label: str
) -> None:
    """Line plot of named series of (x, y) as a PNG; names and labels are drawn as they are."""
    from matplotlib.figure import Figure  # slow to import, and not needed to train

    def plain_label(text: str) -> str:
        return text.replace("$", r"\$")  # two would make mathematics of what is between

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for name, points in series.items():
        if points:
            axes.plot(*zip(*points, strict=True), marker=".", label=plain_label(name))
    axes.set(xlabel=plain_label(x_label), ylabel=plain_label(y_label))
    axes.grid(alpha=0.3)
    axes.legend()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Returns a Markdown table; numbers have four decimals, and no cell's text ends its cell or line."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(value: Any) -> str:
    text = f"{value:.4f}" if isinstance(value, float) else " ".join(str(value).splitlines())
    return re.sub(r"(\\*)\|", r"\1\1\\|", text)


def code(value: Any) -> str:
    """Returns a Markdown code span of any text: one line, between more backticks than stand together in it."""
    text = " ".join(str(value).splitlines())
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if len(fence) > 1 or not text else ""
    return f"{fence}{space}{text}{space}{fence}"


def settings_table(settings: dict[str, Any]) -> str:
    """Returns the Markdown table of a run's settings."""
    return markdown_table(
        ["setting", "value"], [[code(name), code(value)] for name, value in settings.items()]
    )


def write_run(
    folder: Path,
    module: str,
    title: str,
    parts: Sequence[str],
    results: dict[str, Any],
    settings: dict[str, Any],
    more: dict[str, Any],
    warnings: Sequence[str] = (),
) -> None:
    """Writes a finished run's `report.md`, `environment.json` and, last, `results.json`.

    Args:
        module: the command's. parts: the report's own tables and pictures.
        results: numbers, in both. settings: in the report. more: in `results.json` alone.
    """
    command = shlex.join(["python", "-m", module, *sys.argv[1:]])
    found = environment()
    write_report(
        folder,
        title,
        f"Command: {code(command)}",
        *parts[:1],
        *(f"Warning: {sentence}" for sentence in warnings),
        *parts[1:],
        "## Results",
        markdown_table(["what", "value"], list(results.items())),
        "## Settings",
        settings_table(settings),
        "## Environment",
        markdown_table(["what", "value"], list(found.items())),
    )
    write_json(folder / "environment.json", found)
    whole = results | more | {"warnings": list(warnings), "command": command}
    write_json(folder / "results.json", whole)


def write_report(folder: Path, title: str, *parts: str) -> None:
    """Writes `report.md`, a blank line between parts; a path that is no UTF-8 has `?` in it."""
    text = "\n\n".join(["# " + " ".join(title.splitlines()), *parts]) + "\n"
    with replacing(folder / "report.md") as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace")
