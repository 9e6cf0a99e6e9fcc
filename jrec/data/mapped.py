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
        value: what `write_arrays` takes.

    Raises InputError where the folder exists and holds anything; TypeError for other values.
    """
    with new_folder(folder) as temporary:
        form = write_arrays(value, temporary)
        # Not `write_json`, which makes null of NaN.
        (temporary / _FORM).write_text(json.dumps(form), encoding="utf-8")


def read_mapped(folder: Path) -> Any:
    """Returns what `write_mapped` wrote; arrays are read-only, and only the parts that are read come into memory.

    Raises InputError where the folder or a file of it is missing or damaged.
    """
    try:
        return read_arrays(json.loads((folder / _FORM).read_text(encoding="utf-8")), folder)
    except Exception as error:  # NumPy raises kinds of its own
        raise InputError(
            f"{folder} is missing or damaged ({error}); start again, with a folder that all processes see."
        ) from error


def write_arrays(value: Any, folder: Path) -> Any:
    """Writes the arrays of a value as `.npy` files; returns the rest of it, as JSON knows it.

    Args:
        value: arrays and scalars of NumPy (no objects), Python's numbers, text and None, in dataclasses of
            `jrec.data`, dicts, lists and tuples. TypeError for other values.
        folder: is there, without such files.
    """
    names = (f"{number}.npy" for number in count())

    def form_of(part: Any) -> Any:
        kind = type(part)
        if isinstance(part, np.ndarray | np.generic):
            name = next(names)
            # A file that can also be read is written by `write`, whose errors name the full disk; for
            # others NumPy's own errors have no number.
            with (folder / name).open("w+b") as file:
                np.save(file, part, allow_pickle=False)
            return {"array" if isinstance(part, np.ndarray) else "scalar": name}
        if dataclasses.is_dataclass(kind) and kind.__module__.startswith("jrec.data."):
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

    return form_of(value)


def read_arrays(form: Any, folder: Path, mapped: bool = True) -> Any:
    """Returns the value whose `write_arrays` gave `form`; mapped arrays are read-only.

    Raises exceptions of many kinds where a file is missing or damaged.
    """

    def array(name: str) -> np.ndarray:
        mode = "r" if mapped else None
        return np.load(folder / name, mmap_mode=mode, allow_pickle=False).view(np.ndarray)

    def value_of(form: Any) -> Any:
        match form:
            case {"array": name}:
                return array(name)
            case {"scalar": name}:
                return array(name)[()]
            case {"kind": [module, name], "fields": fields}:
                return _kind(module, name)(**value_of(fields))
            case {"dict": items}:
                return {value_of(key): value_of(item) for key, item in items}
            case {"tuple": items}:
                return tuple(map(value_of, items))
            case list():
                return list(map(value_of, form))
        return form

    return value_of(form)


def _kind(module: str, name: str) -> type:
    """Returns a dataclass of `jrec.data` by its name, so that a file can name nothing else."""
    kind = getattr(import_module(module), name) if module.startswith("jrec.data.") else None
    if not dataclasses.is_dataclass(kind):
        raise TypeError(f"{module}.{name} is no dataclass of jrec.data")
    return kind
