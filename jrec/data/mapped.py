"""Data in memory as a folder: one `.npy` file an array, which another process maps instead of reading it."""

import dataclasses
import json
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from jrec.errors import InputError
from jrec.files import new_folder

_FORM = "form.json"


def write_mapped(value: Any, folder: Path) -> None:
    """Writes a value for `read_mapped`, all or nothing.

    Args:
        value: arrays and scalars of NumPy (no objects), Python's numbers, text and None, in dataclasses of
            jrec, dicts, lists and tuples.

    Raises InputError where the folder exists and holds anything; TypeError for other values.
    """
    with new_folder(folder) as temporary:
        names = (f"{number}.npy" for number in count())

        def form_of(part: Any) -> Any:
            kind = type(part)
            if isinstance(part, np.ndarray | np.generic):
                name = next(names)
                # Opened so, a full disk is an error with a number (see `save_clicks`).
                with (temporary / name).open("w+b") as file:
                    np.save(file, part, allow_pickle=False)
                return {"array" if isinstance(part, np.ndarray) else "scalar": name}
            if dataclasses.is_dataclass(kind) and kind.__module__.startswith("jrec."):
                return {"fields": form_of(vars(part)), "kind": [kind.__module__, kind.__name__]}
            if kind is dict:
                return {"dict": [[form_of(key), form_of(item)] for key, item in part.items()]}
            if kind is tuple:  # a named one would lose its name
                return {"tuple": [form_of(item) for item in part]}
            if kind is list:
                return [form_of(item) for item in part]
            if part is None or isinstance(part, bool | int | float | str):
                return part
            raise TypeError(f"{kind} cannot be written to be mapped.")

        # Not `write_json`, which makes null of NaN.
        (temporary / _FORM).write_text(json.dumps(form_of(value)), encoding="utf-8")


def read_mapped(folder: Path) -> Any:
    """Returns what `write_mapped` wrote; arrays are read-only, and only the parts that are read come into memory.

    Raises InputError where the folder or a file of it is missing or damaged.
    """

    def mapped(name: str) -> np.ndarray:
        return np.load(folder / name, mmap_mode="r", allow_pickle=False).view(np.ndarray)

    def value_of(form: Any) -> Any:
        match form:
            case {"array": name}:
                return mapped(name)
            case {"scalar": name}:
                return mapped(name)[()]
            case {"kind": [module, name], "fields": fields}:
                return _kind(module, name)(**value_of(fields))
            case {"dict": items}:
                return {value_of(key): value_of(item) for key, item in items}
            case {"tuple": items}:
                return tuple(map(value_of, items))
            case list():
                return list(map(value_of, form))
        return form

    try:
        return value_of(json.loads((folder / _FORM).read_text(encoding="utf-8")))
    except Exception as error:  # NumPy raises kinds of its own
        raise InputError(
            f"{folder} is missing or damaged ({error}); start again, with a folder that all processes see."
        ) from error


def _kind(module: str, name: str) -> type:
    """Returns a dataclass of jrec by its name, so that a file can name nothing else."""
    kind = getattr(import_module(module), name) if module.startswith("jrec.") else None
    if not dataclasses.is_dataclass(kind):
        raise TypeError(f"{module}.{name} is no dataclass of jrec")
    return kind
