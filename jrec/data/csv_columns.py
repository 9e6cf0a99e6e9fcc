"""Chosen columns of a CSV file with a header, as text that knows its lines."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from jrec.data.tables import Files, whole_number
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
    lines: list[int]

    def whole(self) -> np.ndarray:
        """int64, whole numbers of 0 or more; raises InputError for the first other value."""
        try:
            if all(text.isdecimal() for text in self.texts):
                return np.fromiter(map(int, self.texts), np.int64, len(self.texts))
        except OverflowError:
            pass
        for row, text in enumerate(self.texts):
            whole_number(text, lambda row=row: self.where(row), self.name)
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
            try:
                values[row] = float(text)
            except ValueError:
                values[row] = np.nan
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


def read_columns(files: Files, name: str, columns: Sequence[str]) -> dict[str, TextColumn]:
    """Columns of a file by name; raises InputError where one, a field or every row is missing."""
    place = files.place(name)
    lines: list[int] = []

    def texts() -> Iterator[str]:
        for number, text in files.lines(name, "utf-8"):
            lines.append(number)
            yield text

    reader = csv.reader(texts(), strict=True)
    try:
        header = [field.lstrip("\ufeff").strip() for field in next(reader, [])]
        missing = [column for column in columns if column not in header]
        if missing:
            raise InputError(
                f"{place}, line 1: the header lacks {', '.join(missing)}; is it the original file?"
            )
        places = [header.index(column) for column in columns]
        taken: list[list[str]] = [[] for _ in columns]
        of_row: list[int] = []
        for fields in reader:
            if len(fields) != len(header):
                raise InputError(
                    f"{place}, line {lines[-1]}: {len(fields)} fields where there should be "
                    f"{len(header)}; mend the line or fetch the file again."
                )
            of_row.append(lines[-1])
            for column, position in zip(taken, places, strict=True):
                column.append(fields[position])
    except csv.Error as error:
        raise InputError(f"{place}, line {lines[-1]}: {error}; is a quote missing?") from error
    if not of_row:
        raise InputError(f"{place} holds no rows; fetch it again.")
    return {
        column: TextColumn(place, column, values, of_row)
        for column, values in zip(columns, taken, strict=True)
    }
