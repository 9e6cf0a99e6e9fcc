"""Collaborative filtering for lists: cosine neighbours of items on the binary matrix."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from jrec.baselines.interactions import interaction_matrix
from jrec.errors import InputError
from jrec.finite import check_finite

_BLOCK = 128  # rows whose similarities to all others exist at one time, in each thread
_THREADS = 4


@dataclass(frozen=True)
class ItemNeighbours:
    """The score is w . u + b: u a user's binary history, w a column of `similarity`, no b.

    similarity: float32 [items, items], in each row an item's nearest others.
    """

    similarity: sparse.csr_array


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

    Raises InputError for a shrinkage that is not 0 or more.
    """
    check_shrinkage("item", shrinkage)
    history = interaction_matrix(user, item, users, items)
    count_M = np.bincount(history.indices, minlength=items)
    by_item = history.T.tocsr()

    def nearest(first: int) -> sparse.csr_array:
        rows_B = np.arange(first, min(first + _BLOCK, items))
        common_BM = (by_item[rows_B] @ history).toarray()
        similarity_BM = shrunk_cosine(common_BM, count_M[rows_B], count_M, shrinkage)
        similarity_BM[np.arange(len(rows_B)), rows_B] = 0
        return keep_nearest(similarity_BM, neighbours)

    # NumPy and SciPy release Python's lock while they work.
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        blocks = list(pool.map(nearest, range(0, items, _BLOCK)))
    similarity = sparse.vstack(blocks, format="csr")
    remedy = f"check --item-neighbours.shrinkage, which is {shrinkage:g}"
    check_finite("Similarities of items are", remedy, similarity)
    return ItemNeighbours(similarity)


def score_item_neighbours(model: ItemNeighbours, history_BM: sparse.csr_array) -> np.ndarray:
    """float32 [B, items] for binary histories [B, items]: sum of the similarities to their items."""
    return (history_BM @ model.similarity).toarray()


def shrunk_cosine(
    common_BV: np.ndarray, count_B: np.ndarray, count_V: np.ndarray, shrinkage: float
) -> np.ndarray:
    """float32 [B, V]: c / sqrt(n_b n_v) * c / (c + shrinkage), c what both met, n what each met.

    Args:
        common_BV: [B, V], c. count_B, count_V: n. shrinkage: 0 or more; what rests on few common
            interactions counts less.
    """
    common_BV = common_BV.astype(np.float32, copy=False)
    root_B, root_V = (np.sqrt(count, dtype=np.float32) for count in (count_B, count_V))
    product_BV = np.maximum(root_B[:, None] * root_V, 1)  # rows without any have common = 0
    similarity_BV = common_BV / product_BV
    if shrinkage:
        similarity_BV *= common_BV / (common_BV + np.float32(shrinkage))
    return similarity_BV


def check_shrinkage(by: str, shrinkage: float) -> None:
    """Raises InputError for a shrinkage that is not 0 or more; `by` is `item` or `user`."""
    if not 0 <= shrinkage < np.inf:
        flag = f"--{by}-neighbours.shrinkage"
        raise InputError(f"{flag} must be 0 or more, but is {shrinkage}.")


def keep_nearest(similarity_BV: np.ndarray, neighbours: int) -> sparse.csr_array:
    """Returns the `neighbours` largest of each row that are above 0, of equal ones those of lower rows."""
    kept = min(neighbours, similarity_BV.shape[1])
    least_B1 = np.partition(similarity_BV, -kept, axis=1)[:, -kept, None]
    found_BV = (similarity_BV >= least_B1) & (similarity_BV > 0)
    for row in np.flatnonzero(found_BV.sum(1) > kept):
        level_V = similarity_BV[row] == least_B1[row]
        spare = found_BV[row].sum() - kept
        found_BV[row, np.flatnonzero(level_V)[-spare:]] = False
    return sparse.csr_array(np.where(found_BV, similarity_BV, 0))
