"""Files of a run and data archives cut short or with bits turned: named in one sentence, or read right."""

import contextlib
import importlib
import io
import random
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jrec.data.sources import load_ratings
from jrec.errors import InputError, run_command
from tests.faults.runs import SMALL, Row, outcome


def damaged(content: bytes, draw: random.Random) -> tuple[str, bytes]:
    """A file's bytes cut short, emptied, with one bit turned, or with a block of zeros."""
    kind = draw.choice(["cut short", "emptied", "bit turned", "bit turned", "zeros"])
    place = draw.randrange(max(len(content), 1))
    if kind == "cut short":
        return kind, content[:place]
    if kind == "emptied" or not content:
        return "emptied", b""
    turned = bytearray(content)
    if kind == "zeros":
        turned[place : place + 64] = bytes(len(turned[place : place + 64]))
    else:
        turned[place] ^= 1 << draw.randrange(8)
    return kind, bytes(turned)


def said_by(command: Callable[[], None]) -> tuple[int, str]:
    """Code and last line of a command that runs in this process; any other exception is a traceback."""
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            run_command(command)
    except SystemExit as stop:
        lines = err.getvalue().strip().splitlines()
        return int(stop.code or 0), lines[-1] if lines else ""
    except Exception as error:
        return 1, f"TRACEBACK {type(error).__name__}: {error}"
    return 0, ""


def file_faults(
    settings: Any, folder: Path, finished: Path, reference: dict[str, object]
) -> list[Row]:
    """Random damages of a finished run's files; then the command that reads them, and the remedy."""
    experiment = importlib.import_module(f"experiments.{settings.system}.__main__")
    draw, rows = random.Random(settings.seed + 1), []
    read = [finished / "settings.json", finished / "metrics.jsonl"]
    read += [
        p
        for name in ("last", "best", "export")
        for p in (finished / name).rglob("*")
        if p.is_file()
    ]
    for _ in range(settings.damages):
        run_dir = folder / "damaged"
        shutil.copytree(finished, run_dir)
        path = run_dir / draw.choice(read).relative_to(finished)
        before = path.read_bytes()
        kind, content = damaged(before, draw)
        path.write_bytes(content)
        of_export = path.parent.name == "export"
        arguments = ["predict", "--item", "1"] if of_export else [*SMALL, "--resume"]
        command = [*arguments, "--run-dir", str(run_dir)]
        code, said = said_by(lambda c=command: experiment.main(c))
        if content == before:
            after = "nothing changed"
        elif code:
            after = "named" if said.startswith("error: ") else "NOT CLEAN"
        elif of_export:
            after = "SILENT: predicted with a damaged export"
        else:
            found = outcome(run_dir)
            # A program keeps the places in the code that traced it, which are others in this process.
            numbers = [key for key in reference if not key.endswith("program_sha256")]
            differ = [key for key in numbers if reference[key] != found.get(key)]
            # What is written anew at the end of a run says what it said before; but a log has no sum.
            lost = path.name == "metrics.jsonl" and differ == ["metrics"]
            after = "finished, all numbers equal" if not differ else f"SILENT: {', '.join(differ)}"
            after = "finished; a line of the log is lost" if lost else after
        place = f"{path.relative_to(run_dir)}, {kind}"
        rows.append(("damaged file", place, said.replace(str(folder), "…"), after))
        shutil.rmtree(run_dir)
    return rows


def archive_faults(settings: Any, folder: Path) -> list[Row]:
    """The same of a data archive, read in this process; counts by what came of it."""
    draw = random.Random(settings.seed + 2)
    archive = folder / "ml-latest-small.zip"
    lines = [
        f"{u},{f},{1 + (u * f) % 9 / 2},{978300000 + u * 100 + f}"
        for u in range(1, 40)
        for f in range(1, 30)
    ]
    items = [f'{f},"Item, {f} (19{50 + f})",Drama|War' for f in range(1, 30)]
    whole = None
    counts: Counter[str] = Counter()
    for stored in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(archive, "w", stored) as file:
            file.writestr("ml/ratings.csv", "\n".join(["userId,movieId,rating,timestamp", *lines]))
            file.writestr("ml/movies.csv", "\n".join(["movieId,title,genres", *items]))
        content = archive.read_bytes()
        whole = load_ratings("ml-latest-small", archive)
        for _ in range(settings.damages):
            _, changed = damaged(content, draw)
            archive.write_bytes(changed)
            try:
                read = load_ratings("ml-latest-small", archive)
            except InputError:
                counts["named in one sentence"] += 1
            except Exception as error:
                counts[f"TRACEBACK {type(error).__name__}: {error}"] += 1
            else:
                same = all(
                    np.array_equal(getattr(read, key), getattr(whole, key))
                    for key in ("user", "item", "rating", "timestamp", "titles")
                )
                counts["read right" if same else "SILENT: other ratings"] += 1
    return [
        ("damaged archive", f"{count} of {2 * settings.damages}", kind, "—")
        for kind, count in counts.items()
    ]
