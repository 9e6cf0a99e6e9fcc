"""The same list for everybody: what was clicked most."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Popularity:
    """count: int64 [items], training clicks of each item. The score is w . u + b with b alone."""

    count: np.ndarray


def fit_popularity(item: np.ndarray, items: int) -> Popularity:
    """Counts the clicks of each item, those of a user who clicks it again too.

    Args:
        item: int rows [n]. items: table rows.
    """
    return Popularity(np.bincount(item, minlength=items).astype(np.int64))


def score_popularity(model: Popularity, users: int) -> np.ndarray:
    """int64 [users, items]: each item's count, the same for everybody (a view of one row)."""
    return np.broadcast_to(model.count, (users, len(model.count)))
