"""Reads delimited text from a folder or a zip archive; a bad line is named with its number."""

import hashlib
import io
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jrec.errors import InputError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""Mark that some programs write at the start of UTF-8 text; readers leave it out of the first field."""


@dataclass(frozen=True)
class Files:
    """The files of a folder or zip archive, found by their base names; nothing is ever unpacked.

    Attributes:
        path: the folder or archive.
        members: base name -> path inside it.
    """

    path: Path
    members: dict[str, str]

    @classmethod
    def at(cls, path: Path) -> "Files":
        """Lists a folder (one level of sub-folders included) or a zip archive.

        Raises InputError where the path is missing, or is no complete zip archive.
        """
        if not path.exists():
            raise InputError(f"{path} does not exist; give --data-dir a folder or a .zip archive.")
        if path.is_dir():
            found = [*path.glob("*/*"), *path.glob("*")]
            files = [p for p in found if p.is_file()]
            names = [p.name for p in files]
            for name in ("ratings.csv", "ratings.dat", "u.data", "movies.csv", "movies.dat"):
                if names.count(name) > 1:
                    raise InputError(f"{path} holds {name} twice; give --data-dir one data set.")
            return cls(path, {p.name: str(p.relative_to(path)) for p in files})
        try:
            with zipfile.ZipFile(path) as archive:
                names = [name for name in archive.namelist() if not name.endswith("/")]
        except (zipfile.BadZipFile, OSError) as error:
            raise InputError(
                f"{path} is not a complete zip archive ({error}); fetch it again."
            ) from error
        return cls(path, {name.rsplit("/", 1)[-1]: name for name in names})

    def place(self, name: str) -> str:
        """How messages name a member."""
        return f"{self.path / self.members.get(name, name)}"

    def read(self, name: str) -> bytes:
        """A member's bytes; raises InputError where it is missing or damaged."""
        if name not in self.members:
            raise InputError(f"{self.path} lacks the file {name}; is it the whole data set?")
        if self.path.is_dir():
            try:
                return (self.path / self.members[name]).read_bytes()
            except PermissionError as error:
                raise InputError(
                    f"{self.place(name)} may not be read; give yourself the right (chmod u+r)."
                ) from error
        try:
            with zipfile.ZipFile(self.path) as archive:
                return archive.read(self.members[name])
        except (RuntimeError, NotImplementedError) as error:
            raise InputError(
                f"{self.place(name)} has a password or an unknown compression; unpack the archive "
                f"and give its folder with --data-dir."
            ) from error
        except (zipfile.BadZipFile, EOFError, OSError, zlib.error) as error:
            raise InputError(
                f"{self.place(name)} is damaged ({error}); fetch the archive again."
            ) from error

    def lines(self, name: str, encoding: str) -> Iterator[tuple[int, str]]:
        """(line number from 1, text without its end) of a text member, without a byte-order mark and empty lines.

        Raises InputError with the line where the text is not in `encoding`.
        """
        content = self.read(name).removeprefix(BYTE_ORDER_MARK)
        for number, line in enumerate(content.split(b"\n"), start=1):
            try:
                text = line.decode(encoding).rstrip("\r")
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{self.place(name)}, line {number}: not {encoding} text; save it as {encoding}."
                ) from error
            if text.strip():
                yield number, text

    def checksum(self, name: str | None = None) -> str:
        """`sha256:…` of the archive, or of one member where a name is given."""
        digest = hashlib.sha256()
        if name is not None:
            digest.update(self.read(name))
        else:
            with self.path.open("rb") as file:
                while block := file.read(1 << 22):
                    digest.update(block)
        return f"sha256:{digest.hexdigest()}"


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
                return f"{where}: {column} is {_shown(text)}; it should be a whole number of 0 or more."
            if column == "rating" and not _is_rating(text, layout):
                return (
                    f"{where}: rating is {_shown(text)}; it should be stars from {layout.low:g} to "
                    f"{layout.high:g} in halves."
                )
    return f"{place} could not be read as lines of {form!r}; fetch it again."


def _is_rating(text: str, layout: RatingColumns) -> bool:
    value = decimal_number(text)
    return layout.low <= value <= layout.high and float(value * 2).is_integer()


_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")


def decimal_number(text: str) -> float:
    """A number as files write it, perhaps infinite; NaN for what Python alone would take (`1_0`, `inf`)."""
    text = text.strip(" \t")
    return float(text) if _DECIMAL.fullmatch(text) else float("nan")


def is_whole_number(text: str) -> bool:
    """Whether a text is a whole number from 0 to 2^63 - 1 in the digits 0 to 9."""
    # Python refuses to read thousands of digits at all.
    return text.isdecimal() and text.isascii() and len(text) < 1000 and int(text) < 2**63


def whole_number(text: str, where: Callable[[], str], what: str) -> int:
    """A non-negative integer field; raises InputError that names the place and the field."""
    if not is_whole_number(text):
        raise InputError(
            f"{where()}: {what} is {_shown(text)}; it should be a whole number of 0 or more."
        )
    return int(text)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
