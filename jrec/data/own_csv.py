"""Your own ratings or clicks: any delimited text file, its columns named by flags, ids of any text."""

import hashlib
import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np

from jrec.data.clicks import Clicks, build_clicks
from jrec.data.csv_columns import TextColumn, read_columns
from jrec.data.ratings import Items, Ratings, Source, build
from jrec.data.tables import Files, decimal_number, is_whole_number
from jrec.data.vocabulary import FIRST, Vocabulary
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


def read_ratings_csv(path: Path, csv: CsvRatings) -> Ratings:
    """A file of ratings as `Ratings` without titles, genres or user attributes.

    Ids stay the texts that stand in the file, blanks around them left off. Of ratings of one user for
    one item the latest is kept; without times, the last line.
    Raises InputError, with file and line, for a missing column, a bad field, or an empty file.
    """
    column, source = _columns(path, csv, ("user", "item", "rating"))
    stars, known = column["rating"].numbers()
    column["rating"].refuse(~known, "a number")
    low = float(stars.min()) if csv.low is None else csv.low
    high = float(stars.max()) if csv.high is None else csv.high
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError("--csv.low and --csv.high must be numbers.")
    column["rating"].refuse(
        (stars < np.float32(low)) | (stars > np.float32(high)), f"from {low:g} to {high:g}"
    )
    if not low < high:
        raise InputError(
            f"{path}: all ratings are {low:g}, so that there is nothing to predict; give their range "
            f"(--csv.low, --csv.high), or take them as clicks (experiments.candidates --dataset csv)."
        )
    users, user = _numbered(column["user"])
    items, item = _numbered(column["item"])
    time = _seconds(column["time"], csv) if csv.time else np.arange(len(user))
    raw = {"user": user, "item": item, "rating": stars, "timestamp": time}
    untitled = Items(np.arange(len(items)), [""] * len(items), [[] for _ in items])
    ratings = build(path.stem, source, raw, None, untitled, (low, high))
    # Both are sorted, so that a number's row is its text's.
    ratings.vocabularies["user"] = Vocabulary(users)
    ratings.vocabularies["item"] = Vocabulary(items)
    return ratings


def read_clicks_csv(path: Path, csv: CsvClicks) -> Clicks:
    """A file of clicks, one a line, as `Clicks` without features; a pair that comes again counts again.

    Raises InputError, with file and line, for a missing column, a bad field, or an empty file.
    """
    column, source = _columns(path, csv, ("user", "item"))
    users, user = _numbered(column["user"])
    items, item = _numbered(column["item"])
    return build_clicks(
        name=path.stem,
        source=source,
        user=user,
        item=item + FIRST,
        timestamp=_seconds(column["time"], csv) if csv.time else None,
        user_row=np.arange(FIRST, len(users) + FIRST),
        vocabularies={"user": Vocabulary(users), "item": Vocabulary(items)},
    )


def _columns(
    path: Path, csv: CsvClicks, wanted: tuple[str, ...]
) -> tuple[dict[str, TextColumn], Source]:
    """The columns by what they are (`time` too, where it is named), and where they came from."""
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


def _numbered(column: TextColumn) -> tuple[np.ndarray, np.ndarray]:
    """The distinct ids, str, sorted, and int64, each row's number among them."""
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


def _seconds(column: TextColumn, csv: CsvClicks) -> np.ndarray:
    """Seconds since 1970: int64 where all are whole, else float64, which tells microseconds apart."""
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
