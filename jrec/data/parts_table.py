"""What a split holds, part by part, as a table to print."""

from collections.abc import Sequence

import numpy as np
from rich.table import Table

from jrec.data.rating_parts import PARTS, RatingParts, present_rows


def parts_table(parts: Sequence[RatingParts]) -> Table:
    """Ratings, users, items and days of each part, one column a split.

    The source document's table counts valid and test together, as the rows `held out` do.
    """
    table = Table("", *(split.name for split in parts))
    for label, names in (*((part, (part,)) for part in PARTS), ("held out", ("valid", "test"))):
        cells = [_cells(split, names) for split in parts]
        for what, row in zip(_ROWS, zip(*cells, strict=True), strict=True):
            table.add_row(f"{what} {label}", *row)
        table.add_section()
    return table


def count_ratings(split: RatingParts, names: Sequence[str]) -> tuple[int, int, int]:
    """Ratings, users with any, and items with any, of some parts (`train`, …) taken together."""
    rows = [getattr(split, name) for name in names]
    has_rating = np.zeros(len(split.users), bool)
    is_rated = np.zeros(len(split.items), bool)
    for part in rows:
        has_rating |= np.diff(part.offsets) > 0
        is_rated |= present_rows(part.item, len(split.items))
    return sum(len(part) for part in rows), int(has_rating.sum()), int(is_rated.sum())


_ROWS = ("ratings", "users", "items", "from", "to")


def _cells(split: RatingParts, names: Sequence[str]) -> list[str]:
    days = [split.time_ranges[name] for name in names if name in split.time_ranges]
    ends = [min(days)[0], max(last for _, last in days)] if days else ["", ""]
    return [*(f"{count:,}" for count in count_ratings(split, names)), *ends]
