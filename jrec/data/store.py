"""A data set as a folder: one `.npy` file an array, and a description with the checksums of all."""

import hashlib
from pathlib import Path
from typing import Any, TypeVar

from jrec.data.mapped import read_arrays, write_arrays
from jrec.errors import InputError
from jrec.files import check_seal, read_json, sealed, write_json

T = TypeVar("T")


def write_store(value: Any, folder: Path, description: str, form: str) -> None:
    """Writes a data set into an empty folder.

    Args:
        value: what `jrec.data.mapped.write_arrays` takes.
        description: name of the file that says what the others are. form: name and version, which it says.
    """
    described = {"form": form, "value": write_arrays(value, folder)}
    described["files"] = {
        path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in sorted(folder.glob("*.npy"))
    }
    write_json(folder / description, sealed(described))


def read_store(
    folder: Path,
    description: str,
    form: str,
    kind: type[T],
    remedy: str,
    mapped: bool = False,
    check: bool = True,
) -> T:
    """Returns what `write_store` wrote.

    Args:
        kind: of the value. remedy: what to do about a damaged folder, for the sentence.
        mapped: map the arrays, read-only, instead of reading them.
        check: read every file once to compare its checksum.

    Raises InputError where a file is missing, of another form, cut short or changed.
    """
    path = folder / description
    described = read_json(path)
    if not isinstance(described, dict) or described.get("form") != form:
        raise InputError(f"{path} does not say {form!r}; {remedy}.")
    check_seal(path, described)
    try:
        for name, written in described["files"].items():
            _check_file(folder / name, written, check, remedy)
        value = read_arrays(described["value"], folder, mapped)
        if not isinstance(value, kind):
            raise TypeError(type(value))
        return value
    except InputError:
        raise
    except Exception as error:  # NumPy and its tokenizer each raise kinds of their own
        raise InputError(f"{path} or a file beside it is damaged; {remedy}.") from error


def _check_file(path: Path, written: dict, check: bool, remedy: str) -> None:
    if not path.is_file():
        raise InputError(f"{path} is missing; {remedy}.")
    size = path.stat().st_size
    if size != written["bytes"]:
        raise InputError(
            f"{path} has {size} bytes but was written with {written['bytes']}; {remedy}."
        )
    if check and _sha256(path) != written["sha256"]:
        raise InputError(f"{path} has changed since it was written; {remedy}.")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
