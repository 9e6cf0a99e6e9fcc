"""Ratings out of text with four fields a line; the first bad line is named."""

import io
import re
from dataclasses import dataclass

import numpy as np

from jrec.data.tables import BYTE_ORDER_MARK, Files, decimal_number, is_whole_number, shown
from jrec.errors import InputError


@dataclass(frozen=True)
class RatingColumns:
    """How one layout writes a rating: separator, header, and the places of the four columns."""

    separator: str
    header: str | None
    low: float
    high: float
    names: tuple[str, str, str, str] = ("user", "item", "rating", "timestamp")


_TYPES = {"user": np.int64, "item": np.int64, "rating": np.float32, "timestamp": np.int64}


def read_ratings(files: Files, name: str, layout: RatingColumns) -> dict[str, np.ndarray]:
    """The four columns of a ratings file, in file order.

    The fast path is pandas' C parser; only if it stumbles, or a value is out of range, is the file
    read a second time line by line to name the first bad one.

    Raises InputError: missing or wrong header, field count, bad number, rating out of range.
    """
    content = files.read(name).removeprefix(BYTE_ORDER_MARK)
    start = 0
    if layout.header is not None and content and not content.isspace():
        # No split or strip of the whole: it can be half a gigabyte.
        start = content.find(b"\n") + 1 or len(content)
        first = content[:start].decode("utf-8", "replace").rstrip("\r\n")
        if first != layout.header:
            raise InputError(
                f"{files.place(name)}, line 1: the header is {first!r} but should be "
                f"{layout.header!r}; rename or reorder the columns."
            )
    if re.compile(rb"\S").search(content, start) is None:
        raise InputError(f"{files.place(name)} is empty; fetch the data set again.")
    columns = _parse_fast(content, layout)
    if columns is None:
        raise InputError(_first_fault(files, name, layout))
    return columns


def _parse_fast(content: bytes, layout: RatingColumns) -> dict[str, np.ndarray] | None:
    import pandas as pd  # slow to import: `--help` shall not wait

    # pandas splits on one character: `::` becomes `:` with empty columns between.
    step = len(layout.separator)
    width = 1 + step * (len(layout.names) - 1)
    places = list(range(0, width, step))
    skip = 0 if layout.header is None else 1
    start = content.find(b"\n") + 1 if skip else 0
    end = content.find(b"\n", start)
    if content.count(layout.separator[0].encode(), start, end if end >= 0 else None) != width - 1:
        return None
    try:
        frame = pd.read_csv(
            io.BytesIO(content),
            skiprows=skip,
            sep=layout.separator[0],
            header=None,
            names=range(width),
            index_col=False,
            usecols=places,
            dtype=dict(zip(places, (_TYPES[column] for column in layout.names), strict=True)),
            na_filter=True,
            engine="c",
        )
    except (ValueError, OverflowError, RuntimeWarning):
        return None
    columns = {key: frame[p].to_numpy() for key, p in zip(layout.names, places, strict=True)}
    rating = columns["rating"]
    with np.errstate(invalid="ignore"):
        good = (
            (rating >= layout.low) & (rating <= layout.high) & (rating * 2 == np.rint(rating * 2))
        )
    if not good.all() or min(columns[key].min(initial=0) for key in _TYPES if key != "rating") < 0:
        return None
    # Of a line with a stray single colon pandas would give the first fields and drop the rest.
    expected = (len(layout.names) - 1) * len(rating)
    for separator in {layout.separator, layout.separator[0]}:
        if content.count(separator.encode(), start) != expected * (step // len(separator)):
            return None
    return columns


def _first_fault(files: Files, name: str, layout: RatingColumns) -> str:
    place = files.place(name)
    form = layout.separator.join(layout.names)
    for number, line in files.lines(name, "latin-1"):
        if number == 1 and layout.header is not None:
            continue
        fields = line.split(layout.separator)
        where = f"{place}, line {number}"
        if len(fields) != len(layout.names):
            return f"{where}: {len(fields)} fields where there should be 4; write {form!r}."
        for column, text in zip(layout.names, fields, strict=True):
            if column != "rating" and not is_whole_number(text):
                return (
                    f"{where}: {column} is {shown(text)}; it should be a whole number of 0 or more."
                )
            if column == "rating" and not _is_rating(text, layout):
                return (
                    f"{where}: rating is {shown(text)}; it should be stars from {layout.low:g} to "
                    f"{layout.high:g} in halves."
                )
    return f"{place} could not be read as lines of {form!r}; fetch it again."


def _is_rating(text: str, layout: RatingColumns) -> bool:
    value = decimal_number(text)
    return layout.low <= value <= layout.high and float(value * 2).is_integer()
