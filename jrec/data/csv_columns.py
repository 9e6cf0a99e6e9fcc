"""Chosen columns of a delimited text file, as text that knows its lines."""

import csv
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from jrec.data.tables import Files, decimal_number, is_whole_number, whole_number
from jrec.errors import InputError


@dataclass(frozen=True)
class TextColumn:
    """One column.

    Attributes:
        place: the file, as messages name it. name: of the column.
        texts: one a row. lines: the line of each row, from 1.
    """

    place: str
    name: str
    texts: list[str]
    lines: Sequence[int]

    def whole(self) -> np.ndarray:
        """int64, whole numbers of 0 or more; raises InputError for the first other value."""
        for row, text in enumerate(self.texts):
            if not is_whole_number(text):
                whole_number(text, self.where(row), self.name)
        return np.fromiter(map(int, self.texts), np.int64, len(self.texts))

    def numbers(self) -> tuple[np.ndarray, np.ndarray]:
        """float32 values, 0 where there is none, and bool, where there is one.

        Raises InputError for the first value that is no finite number.
        """
        values = np.zeros(len(self.texts), np.float32)
        known = np.ones(len(self.texts), bool)
        for row, text in enumerate(self.texts):
            if not text:
                known[row] = False
                continue
            with np.errstate(over="ignore"):  # beyond float32: infinite
                values[row] = decimal_number(text)
            if not np.isfinite(values[row]):
                raise InputError(
                    f"{self.where(row)}: {self.name} is {text!r}; it should be a number or empty."
                )
        return values, known

    def refuse(self, bad: np.ndarray, should: str) -> None:
        """Raises InputError that names the first row of a bool mask and what should stand there."""
        for row in np.flatnonzero(bad)[:1]:
            raise InputError(
                f"{self.where(row)}: {self.name} is {self.texts[row]!r}; it should be {should}."
            )

    def where(self, row: int) -> str:
        """How messages name a row."""
        return f"{self.place}, line {self.lines[row]}"


def read_columns(
    files: Files,
    name: str,
    columns: Sequence[str],
    delimiter: str = ",",
    header: bool = True,
    remedy: str = "",
) -> dict[str, TextColumn]:
    """Columns of a file by name, or by number from 1 where it has no header.

    Args:
        remedy: what to do about a header that lacks a column, for the sentence.

    Raises InputError where a column, a field or every row is missing, a wanted column stands twice in
    the header, or a quoted field goes over the end of its line.
    """
    place = files.place(name)
    lines = array("q")  # of the record being read
    same: dict[str, str] = {}  # one copy of each text: most come often

    def texts() -> Iterator[str]:
        for number, text in files.lines(name, "utf-8"):
            lines.append(number)
            yield text

    reader = csv.reader(texts(), delimiter=delimiter, strict=True)
    taken: list[list[str]] = [[] for _ in columns]
    of_row = array("q")
    places: list[int] = []
    width = 0
    try:
        for fields in reader:
            if len(lines) != 1:
                raise InputError(
                    f"{place}, line {lines[0]}: a quoted field goes on over the end of the line; is a "
                    f"quote missing?"
                )
            number = lines.pop()
            if not places:
                width = len(fields)
                names = [field.strip() for field in fields]
                places = _places(names, columns, header, f"{place}, line {number}", remedy)
                if header:
                    continue
            if len(fields) != width:
                raise InputError(
                    f"{place}, line {number}: {len(fields)} fields where there should be "
                    f"{width}; mend the line or fetch the file again."
                )
            of_row.append(number)
            for column, position in zip(taken, places, strict=True):
                text = fields[position]
                column.append(same.setdefault(text, text))
    except csv.Error as error:
        raise InputError(
            f"{place}, line {lines[0] if lines else 1}: {error}; is a quote missing?"
        ) from error
    if not of_row:
        raise InputError(f"{place} holds no rows; fetch it again.")
    return {
        column: TextColumn(place, column, values, of_row)
        for column, values in zip(columns, taken, strict=True)
    }


def _places(
    names: list[str], columns: Sequence[str], header: bool, where: str, remedy: str
) -> list[int]:
    if not header:
        for column in columns:
            if not (is_whole_number(column) and 1 <= int(column) <= len(names)):
                raise InputError(
                    f"{where}: there is no column {column!r}; without a header columns are numbers "
                    f"from 1 to {len(names)}."
                )
        return [int(column) - 1 for column in columns]
    missing = [column for column in columns if column not in names]
    if missing:
        said = f"{where}: the header lacks {', '.join(missing)}; it holds {', '.join(names)[:200]}"
        raise InputError(f"{said}; {remedy}." if remedy else f"{said}.")
    for column in columns:
        if names.count(column) > 1:
            raise InputError(f"{where}: the header holds {column} twice; rename one of them.")
    return [names.index(column) for column in columns]
