"""From raw values (ids, words, codes) to table rows and back: row 0 is padding, row 1 unknown."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

PADDING, UNKNOWN, FIRST = 0, 1, 2

# Above this largest id, looking rows up in an array as long as the ids go would waste memory.
_LARGEST_DIRECT_ID = 50_000_000


@dataclass(frozen=True)
class Vocabulary:
    """Distinct values; value number k has row k + 2.

    Attributes:
        values: [V - 2] int64 or str; sorted, unless `order` says otherwise.
        order: int64 [V - 2], the places that sort `values`; None where they are sorted.
    """

    values: np.ndarray
    order: np.ndarray | None = None

    @classmethod
    def of(cls, values: np.ndarray | Sequence) -> "Vocabulary":
        """The vocabulary of all values that occur in an array."""
        values = np.asarray(values)
        if _direct(values):
            # A presence table is linear in the ratings; np.unique would sort all of them.
            present = np.zeros(int(values.max()) + 1, bool)
            present[values] = True
            return cls(np.flatnonzero(present).astype(np.int64))
        return cls(np.unique(values))

    @classmethod
    def by_count(cls, values: np.ndarray, counts: np.ndarray, limit: int = 0) -> "Vocabulary":
        """Values that occur more than `limit` times, the most frequent first, ties by value.

        Args:
            values: distinct values. counts: int, how often each occurs.
        """
        kept = counts > limit
        values, counts = values[kept], counts[kept]
        return cls.in_order(values[np.lexsort((values, -counts))])

    @classmethod
    def in_order(cls, values: np.ndarray) -> "Vocabulary":
        """Distinct values that keep the order they are given in."""
        return cls(values, np.argsort(values, kind="stable"))

    @property
    def rows(self) -> int:
        """V: rows of a table over this vocabulary, padding and unknown counted."""
        return len(self.values) + FIRST

    def encode(self, values: np.ndarray | Sequence) -> np.ndarray:
        """int32, the shape of `values`: each value's row, 1 where it is unknown."""
        values = np.asarray(values)
        if len(self.values) == 0 or values.size == 0:
            return np.full(values.shape, UNKNOWN, np.int32)
        if _direct(self.values):
            largest = int(self.values.max())
            # Any id outside the table falls on its last place, which is never a known value.
            table = np.full(largest + 2, UNKNOWN, np.int32)
            table[self.values] = np.arange(FIRST, self.rows, dtype=np.int32)
            inside = np.where((values < 0) | (values > largest), largest + 1, values)
            return table[inside]
        places = np.searchsorted(self.values, values, sorter=self.order)
        places = np.minimum(places, len(self.values) - 1)
        if self.order is not None:
            places = self.order[places]
        rows = places.astype(np.int32) + FIRST
        return np.where(self.values[places] == values, rows, UNKNOWN).astype(np.int32)

    def decode(self, rows: np.ndarray) -> np.ndarray:
        """The raw values of rows; raises IndexError for padding and unknown, which have none."""
        rows = np.asarray(rows)
        if rows.size and rows.min() < FIRST:
            raise IndexError("rows 0 (padding) and 1 (unknown) stand for no value")
        return self.values[rows - FIRST]


def _direct(values: np.ndarray) -> bool:
    if not np.issubdtype(values.dtype, np.integer) or values.size == 0:
        return False
    return bool(values.min() >= 0 and values.max() <= _LARGEST_DIRECT_ID)
