"""Your own file of ratings or clicks: any delimited text, its columns named by flags, ids of any text."""

import hashlib
import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np

from jrec.data.csv_columns import TextColumn, read_columns
from jrec.data.origin import Source
from jrec.data.tables import Files, decimal_number, is_whole_number
from jrec.errors import InputError

_LONGEST = 256  # characters; NumPy gives every id of a vocabulary the room of the longest
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class CsvClicks:
    """Where a file of `--dataset csv` has what; columns are names of the header."""

    user: str = "user"
    """Column of user ids, any text."""
    item: str = "item"
    """Column of item ids, any text."""
    time: str = ""
    """Column of times: seconds since 1970, or dates as 2024-05-01 or 2024-05-01T12:30:00 (UTC if no zone
    is given). Left out: the order of the lines."""
    time_unit: Literal["s", "ms"] = "s"
    """Of times that are numbers."""
    delimiter: str = ","
    """One character between columns; `tab` for a tab."""
    header: bool = True
    """Whether the first line names the columns; if not, columns are numbers from 1."""


@dataclass(frozen=True)
class CsvRatings(CsvClicks):
    """Where a file of `--dataset csv` has what; columns are names of the header."""

    rating: str = "rating"
    """Column of ratings, any numbers."""
    low: float | None = None
    """Lowest rating there may be; left out, the lowest of the file."""
    high: float | None = None
    """Highest rating there may be; left out, the highest of the file."""


def own_columns(
    path: Path, csv: CsvClicks, wanted: tuple[str, ...]
) -> tuple[dict[str, TextColumn], Source]:
    """Returns the columns by what they are (`time` too, where it is named), and where they came from.

    Raises InputError for a missing file or column, a column named twice, or a bad delimiter.
    """
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"{path} {kind}; give --data-dir the file of --dataset csv.")
    delimiter = {"tab": "\t", "\\t": "\t"}.get(csv.delimiter, csv.delimiter)
    if len(delimiter) != 1 or delimiter in '"\r\n\0':
        raise InputError(
            f"--csv.delimiter must be one character, or `tab`, but is {csv.delimiter!r}."
        )
    wanted = (*wanted, "time") if csv.time else wanted
    names = {what: getattr(csv, what) for what in wanted}
    for what, name in names.items():
        if list(names.values()).count(name) > 1:
            raise InputError(f"--csv.{what} names the column {name!r}, as another flag does.")
    files = Files(path.parent, {path.name: path.name})
    remedy = "name the columns with " + ", ".join(f"--csv.{what}" for what in wanted)
    found = read_columns(files, path.name, list(names.values()), delimiter, csv.header, remedy)
    with path.open("rb") as file:
        checksum = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    note = (
        "" if csv.time else "no column of times (--csv.time): the order of the lines stands for it"
    )
    columns = {what: found[name] for what, name in names.items()}
    return columns, Source("file", str(path), checksum, note)


def numbered_ids(column: TextColumn) -> tuple[np.ndarray, np.ndarray]:
    """Returns the distinct ids, str, sorted, and int64, each row's number among them.

    Raises InputError for the first id that is empty, too long or has control characters.
    """
    texts = [text.strip(" \t") for text in column.texts]
    names = sorted(set(texts))
    for name in names:
        if not name or len(name) > _LONGEST or _CONTROL.search(name):
            should = f"an id of 1 to {_LONGEST} characters without control characters"
            row = texts.index(name)
            raise InputError(
                f"{column.where(row)}: {column.name} is {column.texts[row][:60]!r}; it should be "
                f"{should}."
            )
    number = {name: k for k, name in enumerate(names)}
    return np.array(names, np.str_), np.fromiter((number[t] for t in texts), np.int64, len(texts))


def seconds_of(column: TextColumn, csv: CsvClicks) -> np.ndarray:
    """Returns seconds since 1970: int64 where all are whole, else float64, which tells microseconds apart.

    Raises InputError for the first text that is no time.
    """
    known: dict[str, float] = {}
    seconds = np.zeros(len(column.texts))
    for row, text in enumerate(column.texts):
        if text not in known:
            value = _time(text.strip(" \t"), 1000 if csv.time_unit == "ms" else 1)
            if value is None:
                raise InputError(
                    f"{column.where(row)}: {column.name} is {text[:60]!r}; it should be seconds since "
                    f"1970 (milliseconds: --csv.time-unit ms), or a date as 2024-05-01T12:30:00."
                )
            known[text] = value
        seconds[row] = known[text]
    whole = seconds.astype(np.int64)
    return whole if (whole == seconds).all() else seconds


_LAST = 10**11  # seconds; the year 5138: what lies beyond is not in seconds


def _time(text: str, unit: int) -> float | None:
    number = float(int(text)) if is_whole_number(text) else decimal_number(text)
    if not math.isnan(number):
        return number / unit if 0 <= number < unit * _LAST else None
    try:
        moment = datetime.fromisoformat(text) if text.isascii() else None
        if moment is None:
            return None
        return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()
    except (ValueError, OverflowError):
        return None
