"""The same list for everybody: what most users met."""

from dataclasses import dataclass

import numpy as np

from jrec.baselines.interactions import interaction_matrix


@dataclass(frozen=True)
class Popularity:
    """count: float32 [items], users who met each item. The score is w . u + b with b alone."""

    count: np.ndarray


def fit_popularity(user: np.ndarray, item: np.ndarray, users: int, items: int) -> Popularity:
    """Counts the users of each item.

    Args:
        user, item: int rows [n]; a pair that repeats counts once. users, items: table rows.
    """
    return Popularity(interaction_matrix(user, item, users, items).sum(0))


def score_popularity(model: Popularity, user_B: np.ndarray) -> np.ndarray:
    """float32 [B, items] for int user rows [B]: each item's count."""
    return np.broadcast_to(model.count, (len(user_B), len(model.count)))
