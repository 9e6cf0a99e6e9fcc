"""Collaborative filtering for lists: cosine neighbours on the binary matrix, by item or by user."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from jrec.baselines.interactions import interaction_matrix

_BLOCK = 512  # rows whose similarities to all others exist at one time, in each thread
_THREADS = 4


@dataclass(frozen=True)
class ItemNeighbours:
    """The score is w . u + b: u a user's row of `history`, w a column of `similarity`, no b.

    Attributes:
        history: float32 [users, items], the binary interactions.
        similarity: float32 [items, items], in each row an item's nearest others.
    """

    history: sparse.csr_array
    similarity: sparse.csr_array


@dataclass(frozen=True)
class UserNeighbours:
    """Similarities are made when asked for, so that users x users never exists.

    Attributes:
        history: float32 [users, items], the binary interactions.
        neighbours, shrinkage: see `fit_user_neighbours`.
    """

    history: sparse.csr_array
    neighbours: int
    shrinkage: float


def fit_item_neighbours(
    user: np.ndarray,
    item: np.ndarray,
    users: int,
    items: int,
    neighbours: int = 100,
    shrinkage: float = 10.0,
) -> ItemNeighbours:
    """Keeps each item's nearest others by `shrunk_cosine`; a score adds those of a user's items.

    Source: Deshpande and Karypis (2004), "Item-based top-N recommendation algorithms", section 4.

    Args:
        user, item: int rows [n]. users, items: table rows.
        neighbours: how many items are kept for each. shrinkage: in users.
    """
    history = interaction_matrix(user, item, users, items)
    by_item = history.T.tocsr()

    def nearest(first: int) -> sparse.csr_array:
        rows = np.arange(first, min(first + _BLOCK, items))
        return _nearest(by_item, rows, neighbours, shrinkage)

    # SciPy's products run beside each other.
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        blocks = list(pool.map(nearest, range(0, items, _BLOCK)))
    return ItemNeighbours(history, sparse.vstack(blocks, format="csr"))


def score_item_neighbours(model: ItemNeighbours, user_B: np.ndarray) -> np.ndarray:
    """float32 [B, items] for int user rows [B]: sum of the similarities to the user's items."""
    return (model.history[user_B] @ model.similarity).toarray()


def fit_user_neighbours(
    user: np.ndarray,
    item: np.ndarray,
    users: int,
    items: int,
    neighbours: int = 200,
    shrinkage: float = 10.0,
) -> UserNeighbours:
    """Keeps the interactions alone.

    Args:
        user, item: int rows [n]. users, items: table rows.
        neighbours: how many users, the nearest by `shrunk_cosine`, vote. shrinkage: in items.
    """
    return UserNeighbours(interaction_matrix(user, item, users, items), neighbours, shrinkage)


def score_user_neighbours(model: UserNeighbours, user_B: np.ndarray) -> np.ndarray:
    """float32 [B, items] for int user rows [B]: sum of the similarities of the neighbours who met it."""
    nearest = _nearest(model.history, np.asarray(user_B), model.neighbours, model.shrinkage)
    return (nearest @ model.history).toarray()


def shrunk_cosine(history: sparse.csr_array, rows_B: np.ndarray, shrinkage: float) -> np.ndarray:
    """float32 [B, V]: c / sqrt(n_r n_v) * c / (c + shrinkage), c what both met; 0 to itself.

    Args:
        history: binary, [V, W]. rows_B: int [B]. shrinkage: 0 or more; what rests on few common
            interactions counts less.
    """
    common_BV = (history[rows_B] @ history.T).toarray()
    root_V = np.sqrt(np.diff(history.indptr), dtype=np.float32)
    product_BV = np.maximum(root_V[rows_B, None] * root_V, 1)  # rows without any have common = 0
    similarity_BV = common_BV / product_BV
    if shrinkage:
        similarity_BV *= common_BV / (common_BV + np.float32(shrinkage))
    similarity_BV[np.arange(len(rows_B)), rows_B] = 0
    return similarity_BV


def _nearest(
    history: sparse.csr_array, rows_B: np.ndarray, neighbours: int, shrinkage: float
) -> sparse.csr_array:
    """The largest `neighbours` of each row of `shrunk_cosine`, float32 [B, V]."""
    similarity_BV = shrunk_cosine(history, rows_B, shrinkage)
    kept = min(neighbours, similarity_BV.shape[1])
    column_BK = np.argpartition(similarity_BV, -kept, axis=1)[:, -kept:]
    value_BK = np.take_along_axis(similarity_BV, column_BK, 1)
    row_BK = np.broadcast_to(np.arange(len(rows_B))[:, None], column_BK.shape)
    found_BK = value_BK > 0
    return sparse.csr_array(
        (value_BK[found_BK], (row_BK[found_BK], column_BK[found_BK])), shape=similarity_BV.shape
    )
