"""Files and folders that are written whole or not at all."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jrec.errors import InputError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside `path` that takes its name only if the body succeeds."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}{path.suffix}")
    try:
        with _naming(path):
            yield temporary
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Gives a new temporary folder near `path` that takes its name only if the body succeeds.

    Raises InputError where `path` exists and is no empty folder.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise InputError(f"{path} exists already; give another folder, or delete it.")
    # Beside the first folder that is there, so that a failure leaves no empty parents either.
    anchor = next(parent for parent in path.absolute().parents if parent.exists())
    temporary = anchor / f".{path.name}.{os.getpid()}"
    try:
        with _naming(path):
            temporary.mkdir()
            yield temporary
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                path.rmdir()
            temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Gives a temporary folder beside `folder` that takes its name only if the body succeeds."""
    temporary, old = (
        folder.with_name(f".{folder.name}.{os.getpid()}{end}") for end in ("", ".old")
    )
    try:
        with _naming(folder):
            temporary.mkdir()
            yield temporary
            if folder.exists():
                folder.replace(old)
            try:
                temporary.replace(folder)
            except OSError:
                if old.exists():
                    old.replace(folder)
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Gives a fault of the system that names no file, as a full disk does, the name of this one."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def clear_leftovers(folder: Path) -> None:
    """Deletes what the functions above had not yet renamed when their process was killed.

    Looks into `folder`, which must be ours, and its sub-folders; files of processes that run stay.
    """
    for path in [*folder.glob(".*"), *folder.glob("*/.*")]:
        temporary = re.fullmatch(r"\..+\.(\d+)(\.old|\.[a-z]+)?", path.name)
        if not temporary or _runs(int(temporary[1])):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def write_json(path: Path, value: Any) -> None:
    """Writes JSON whole or not at all; NaN becomes null, paths and settings become text."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(plain(value), indent=2) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Reads JSON; raises InputError where the file is missing or no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; is {path.parent} a finished run?") from error
    except (ValueError, RecursionError) as error:  # also of numbers too long, and of lists too deep
        raise InputError(f"{path} is not JSON ({error}); restore or delete it.") from error


def sealed(record: dict[str, Any]) -> dict[str, Any]:
    """A record as JSON knows it, with the sum of all that it says."""
    said = plain(record)
    return said | {"sum": _sum(said)}


def check_seal(path: Path, record: dict[str, Any]) -> None:
    """Raises InputError where a record that was written `sealed` says something else now."""
    said = {key: value for key, value in record.items() if key != "sum"}
    if "sum" in record and record["sum"] != _sum(said):
        raise InputError(f"{path} is damaged: it has changed since it was written; write it anew.")


def _sum(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def plain(value: Any) -> Any:
    """A value as JSON knows it: NaN and infinity are null, paths and other objects are text."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)
