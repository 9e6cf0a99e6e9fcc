"""A click data set as a folder: one `.npy` file an array, and `clicks.json` that says what they are."""

import hashlib
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from jrec.data.clicks import Bag, Categorical, Clicks, Column, Continuous, check_clicks
from jrec.data.origin import Source
from jrec.data.ragged import Ragged
from jrec.data.vocabulary import Vocabulary
from jrec.errors import InputError
from jrec.files import check_seal, read_json, replacing_folder, sealed, write_json

MANIFEST = "clicks.json"
_FORM = 1
_ARRAYS = ("offsets", "item", "timestamp", "user_row", "item_counts")
_GROUPS = ("user_features", "item_features", "event_features")


def save_clicks(clicks: Clicks, folder: Path) -> None:
    """Writes the whole folder or nothing; a folder that was prepared before is replaced.

    Raises InputError where the folder holds anything else.
    """
    folder = Path(folder)
    if folder.exists() and not is_prepared(folder) and (folder.is_file() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is no prepared click log; give another --out.")
    arrays = {name: getattr(clicks, name) for name in _ARRAYS}
    arrays |= {f"vocabulary.{name}": known.values for name, known in clicks.vocabularies.items()}
    described: dict[str, dict[str, Any]] = {}
    for group in _GROUPS:
        described[group] = {}
        for name, column in getattr(clicks, group).items():
            described[group][name], parts = _describe(column)
            arrays |= {f"{group}.{name}.{part}": values for part, values in parts.items()}
    manifest = {
        "form": _FORM,
        "name": clicks.name,
        "source": asdict(clicks.source),
        "timed": clicks.timed,
        "vocabularies": {
            name: {"sorted": known.order is None} for name, known in clicks.vocabularies.items()
        },
        "dropped": clicks.dropped,
        "unknown": clicks.unknown,
        **described,
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    sums: dict[str, str] = {}
    with replacing_folder(folder) as temporary:
        for name, values in arrays.items():
            if not re.fullmatch(r"[\w.-]+", name):
                raise InputError(f"{name!r} cannot be a file's name; rename the column.")
            # A file that can also be read is written by `write`, whose errors name the full disk;
            # for others NumPy's own errors have no number.
            with (temporary / f"{name}.npy").open("w+b") as file:
                np.save(file, values, allow_pickle=False)
                file.seek(0)
                sums[name] = hashlib.file_digest(file, "sha256").hexdigest()
        write_json(temporary / MANIFEST, sealed(manifest | {"sums": sums}))


def load_clicks(folder: Path) -> Clicks:
    """A prepared folder in memory; raises InputError where it is none, or damaged."""
    folder = Path(folder)
    if not is_prepared(folder):
        raise InputError(f"{folder} is no prepared click data set: it lacks {MANIFEST}.")
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("form") != _FORM:
        raise InputError(f"{folder / MANIFEST} is of another version; prepare the log again.")
    try:
        for name, written in manifest.get("sums", {}).items():
            _check_sum(folder / f"{name}.npy", written)
        groups = {
            group: {
                name: _restore(described, folder, f"{group}.{name}")
                for name, described in manifest[group].items()
            }
            for group in _GROUPS
        }
        clicks = Clicks(
            name=manifest["name"],
            source=Source(**manifest["source"]),
            timed=manifest["timed"],
            vocabularies={
                name: _vocabulary(_read(folder, f"vocabulary.{name}"), described["sorted"])
                for name, described in manifest["vocabularies"].items()
            },
            dropped=manifest["dropped"],
            unknown=manifest["unknown"],
            **{name: _read(folder, name) for name in _ARRAYS},
            **groups,
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{folder / MANIFEST} is damaged; prepare the log again.") from error
    check_seal(folder / MANIFEST, manifest)
    check_clicks(clicks)
    return clicks


def is_prepared(folder: Path) -> bool:
    """Whether a folder was written by `save_clicks`."""
    return (Path(folder) / MANIFEST).is_file()


def _describe(column: Column) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    if isinstance(column, Categorical):
        return {"kind": "categorical", "vocabulary": column.vocabulary}, {"rows": column.rows}
    if isinstance(column, Bag):
        parts = {"rows": column.rows.values, "offsets": column.rows.offsets}
        return {"kind": "bag", "vocabulary": column.vocabulary}, parts
    return {"kind": "continuous"}, {"values": column.values, "known": column.known}


def _restore(described: dict[str, str], folder: Path, name: str) -> Column:
    if described["kind"] == "categorical":
        return Categorical(_read(folder, f"{name}.rows"), described["vocabulary"])
    if described["kind"] == "bag":
        rows = Ragged(_read(folder, f"{name}.rows"), _read(folder, f"{name}.offsets"))
        return Bag(rows, described["vocabulary"])
    return Continuous(_read(folder, f"{name}.values"), _read(folder, f"{name}.known"))


def _vocabulary(values: np.ndarray, is_sorted: bool) -> Vocabulary:
    return Vocabulary(values) if is_sorted else Vocabulary.in_order(values)


def _check_sum(path: Path, written: str) -> None:
    try:
        with path.open("rb") as file:
            intact = hashlib.file_digest(file, "sha256").hexdigest() == written
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing; prepare the log again.") from error
    if not intact:
        raise InputError(f"{path} is damaged; prepare the log again.")


def _read(folder: Path, name: str) -> np.ndarray:
    path = folder / f"{name}.npy"
    try:
        return np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing; prepare the log again.") from error
    except Exception as error:  # NumPy and its tokenizer each raise kinds of their own
        raise InputError(f"{path} is damaged; prepare the log again.") from error
