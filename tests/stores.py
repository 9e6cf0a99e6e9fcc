"""Finds the files of a stored data set (`jrec.data.store`)."""

import json
from pathlib import Path


def array_file(folder: Path, description: str, *names: str) -> Path:
    """The file of an array, by the names of the fields that lead to it."""
    form = json.loads((folder / description).read_text())["value"]
    for name in names:
        form = dict(form["fields"]["dict"])[name]
    return folder / form["array"]
