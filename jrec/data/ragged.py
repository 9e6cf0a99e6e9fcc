"""Sequences of unequal length: values + offsets in memory, padded rectangles with masks in a batch.

This is what stands in the place of the LoD tensors of the Paddle sources.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jrec.errors import InputError


@dataclass(frozen=True)
class Ragged:
    """Rows of unequal length: row `r` is `values[offsets[r]:offsets[r + 1]]`.

    Attributes:
        values: int32 [total], the rows one after the other.
        offsets: int64 [rows + 1], from 0 to total, never falling.
    """

    values: np.ndarray
    offsets: np.ndarray

    @classmethod
    def from_lists(cls, rows: Sequence[Sequence[int]]) -> "Ragged":
        """Packs one sequence of integers a row."""
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        values = np.fromiter((value for row in rows for value in row), np.int32, int(offsets[-1]))
        return cls(values, offsets)

    @property
    def lengths(self) -> np.ndarray:
        """int64 [rows], the length of each row."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        return self.values[self.offsets[row] : self.offsets[row + 1]]


def fixed_length(longest: int, lengths: Sequence[int]) -> int:
    """The smallest of a few allowed `lengths` that holds `longest`, or the largest of them.

    A batch is padded to one of a few lengths, so that a compiled function sees only a few shapes.
    Raises InputError where `lengths` is empty or holds a length below 1.
    """
    if not lengths or min(lengths) < 1:
        raise InputError(f"Padded lengths must be 1 or more, but were {list(lengths)}.")
    return min((length for length in lengths if length >= longest), default=max(lengths))


def pad(
    ragged: Ragged,
    rows: np.ndarray | None = None,
    lengths: Sequence[int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a ragged array as a rectangle and a mask.

    Args:
        ragged: the sequences.
        rows: int [B], which rows to take; all by default.
        lengths: the few lengths L that a batch may have; by default the longest row's own (at
            least 1). Of rows longer than the largest the first values are kept.

    Returns:
        ids int32 [B, L], 0 where there is no value; mask bool [B, L], true where there is one.
    """
    rows = np.arange(len(ragged)) if rows is None else np.asarray(rows)
    starts, ends = ragged.offsets[rows], ragged.offsets[rows + 1]
    longest = int((ends - starts).max(initial=0))
    length = fixed_length(longest, lengths if lengths is not None else [max(longest, 1)])
    counts = np.minimum(ends - starts, length)
    positions = np.arange(length)
    mask = positions < counts[:, None]
    ids = np.zeros(mask.shape, np.int32)
    ids[mask] = ragged.values[(starts[:, None] + positions)[mask]]
    return ids, mask
