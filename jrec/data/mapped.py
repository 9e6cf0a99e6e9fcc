"""Data in memory as a folder: one `.npy` file an array, which another process maps instead of reading it."""

import json
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from jrec.data.click_examples import ClickSplit, Examples
from jrec.data.clicks import Bag, Categorical, Clicks, Continuous
from jrec.data.impressions import Impressions, ImpressionSplit
from jrec.data.ragged import Ragged
from jrec.data.rating_parts import RatingParts, RatingRows
from jrec.data.ratings import Ratings, Source
from jrec.data.splits import Split
from jrec.data.vocabulary import Vocabulary
from jrec.errors import InputError
from jrec.files import new_folder

_FORM = "form.json"
_KINDS = {
    kind.__name__: kind
    for kind in (
        *(Ratings, Split, RatingParts, RatingRows),
        *(Clicks, ClickSplit, Examples, Categorical, Bag, Continuous),
        *(Impressions, ImpressionSplit),
        *(Source, Ragged, Vocabulary),
    )
}


def write_mapped(value: Any, folder: Path) -> None:
    """Writes a value for `read_mapped`, all or nothing.

    Args:
        value: arrays and scalars of NumPy (no objects), Python's numbers, text and None, in dataclasses of
            `jrec.data`, dicts, lists and tuples.

    Raises InputError where the folder exists and holds anything; TypeError for other values.
    """
    with new_folder(folder) as temporary:
        names = count()

        def form_of(part: Any) -> Any:
            if isinstance(part, np.ndarray | np.generic):
                name = f"{next(names)}.npy"
                # Opened so, a full disk is an error with a number (see `save_clicks`).
                with (temporary / name).open("w+b") as file:
                    np.save(file, part, allow_pickle=False)
                return {"array" if isinstance(part, np.ndarray) else "scalar": name}
            if type(part).__name__ in _KINDS:
                return {"fields": form_of(vars(part)), "kind": type(part).__name__}
            if type(part) is dict:
                return {"dict": [[form_of(key), form_of(item)] for key, item in part.items()]}
            if type(part) is tuple:  # a named one would lose its name
                return {"tuple": [form_of(item) for item in part]}
            if type(part) is list:
                return [form_of(item) for item in part]
            if part is None or isinstance(part, bool | int | float | str):
                return part
            raise TypeError(f"{type(part)} cannot be written to be mapped.")

        # Not `write_json`, which makes null of NaN.
        (temporary / _FORM).write_text(json.dumps(form_of(value)), encoding="utf-8")


def read_mapped(folder: Path) -> Any:
    """What `write_mapped` wrote; arrays are read-only, and of them only what is read comes into memory.

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
            case {"kind": kind, "fields": fields}:
                return _KINDS[kind](**value_of(fields))
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
