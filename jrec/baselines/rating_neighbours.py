"""Collaborative filtering for ratings: what similar items, or similar users, add to the biases."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import sparse

from jrec.baselines.biases import Biases, fit_biases
from jrec.errors import InputError
from jrec.finite import check_finite

_BLOCK = 512  # rows whose similarities are made at one time
_CELLS = 1 << 20  # of the rectangle of (pair, rating of its history) that exists at one time
_LARGEST = 50_000  # rows of the similarity matrix: 10 GB


@dataclass(frozen=True)
class RatingNeighbours:
    """biases + the weighted mean residual of the nearest neighbours.

    Attributes:
        biases: what is left after them is a residual.
        by: what neighbours are, `item` or `user`; V is the number of their rows.
        residual: float32 [other rows, V]: of each user the residuals by item, or the other way round.
        similarity: float32 [V, V], symmetric.
        neighbours: how many count at most.
    """

    biases: Biases
    by: Literal["item", "user"]
    residual: sparse.csr_array
    similarity: np.ndarray
    neighbours: int


@np.errstate(all="ignore")  # what overflows is told by `check_finite`, in one sentence
def fit_rating_neighbours(
    user: np.ndarray,
    item: np.ndarray,
    rating: np.ndarray,
    users: int,
    items: int,
    by: Literal["item", "user"] = "item",
    neighbours: int = 25,
    shrinkage: float = 25.0,
    norms: Literal["all", "common"] = "all",
    regularisation: float = 5.0,
) -> RatingNeighbours:
    """Shrunk cosine of residuals (ratings less regularised biases) between items, or between users.

    s_ij = x_i . x_j / (|x_i| |x_j|) * n / (n + shrinkage), where the product runs over the n users
    (items) with both. Predicted: bias + sum s_j x_j / sum s_j over the most similar of what the user rated
    (of who rated the item); neighbours of similarity 0 or less do not count.

    Sources: Sarwar et al. (2001), "Item-based collaborative filtering recommendation algorithms";
    Koren (2010), "Factor in the neighbors", equations 2 and 3, for residuals and shrinkage.

    Args:
        user, item: int rows [n]. rating: [n], stars. users, items: table rows.
        neighbours: at most so many count. shrinkage: in common ratings.
        norms: lengths |x| over `all` ratings of a row (cosine, missing ratings being 0) or over the
            `common` ones (Pearson's correlation, which is 1 where two rows have one rating in common).
        regularisation: of `fit_biases`.

    Raises InputError where the similarities of all rows are too many to hold, or not finite.
    """
    rows = items if by == "item" else users
    if rows > _LARGEST:
        raise InputError(
            f"Neighbours by {by} need a matrix of {rows:,} x {rows:,} similarities, too large here; "
            f"take the other kind, or another method."
        )
    biases = fit_biases(user, item, rating, users, items, regularisation)
    values = (rating - biases.predict(user, item)).astype(np.float32)
    residual = sparse.csr_array((values, (user, item)), shape=(users, items))
    residual = residual if by == "item" else residual.T.tocsr()
    similarity = _similarity(residual, shrinkage, norms)
    flag = f"--{by}-neighbours.shrinkage"
    remedy = f"check the ratings and {flag}, which is {shrinkage:g}"
    check_finite(f"Similarities by {by} are", remedy, residual, similarity)
    return RatingNeighbours(biases, by, residual, similarity, neighbours)


def predict_rating_neighbours(
    model: RatingNeighbours, user: np.ndarray, item: np.ndarray
) -> np.ndarray:
    """Stars for int rows [n] and [n] -> float64 [n]; the biases where there is no neighbour."""
    row, column = (user, item) if model.by == "item" else (item, user)
    known = np.diff(model.residual.indptr)[row]
    order = np.argsort(known, kind="stable")  # histories of like length side by side pad little
    found = np.zeros(len(order))
    first = 0
    while first < len(order):
        pairs = _next_block(order, known, first)
        found[pairs] = _neighbour_mean(model, row[pairs], column[pairs])
        first += len(pairs)
    return model.biases.predict(user, item) + found


def _next_block(order: np.ndarray, known: np.ndarray, first: int) -> np.ndarray:
    """The next pairs of `order` whose histories, padded to the longest, fit into `_CELLS`."""
    lengths = known[order[first : first + _CELLS]]
    fits = (np.arange(len(lengths)) + 1) * lengths <= _CELLS  # lengths never fall
    return order[first : first + max(int(fits.sum()), 1)]


def _neighbour_mean(model: RatingNeighbours, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """float64 [b]: the neighbours' weighted mean residual for each (row, column) of one block."""
    residual, K = model.residual, model.neighbours
    start, length = residual.indptr[row], np.diff(residual.indptr)[row]
    position_L = np.arange(max(int(length.max()), 1))
    mask_bL = position_L < length[:, None]
    place_bL = np.where(mask_bL, start[:, None] + position_L, 0)
    weight_bL = model.similarity[column[:, None], residual.indices[place_bL]]
    weight_bL = np.where(mask_bL, np.maximum(weight_bL, 0), 0)
    value_bL = residual.data[place_bL]
    if weight_bL.shape[1] > K:
        nearest_bK = np.argpartition(weight_bL, -K, axis=1)[:, -K:]
        weight_bL = np.take_along_axis(weight_bL, nearest_bK, 1)
        value_bL = np.take_along_axis(value_bL, nearest_bK, 1)
    total = weight_bL.sum(1, dtype=np.float64)
    mean = (weight_bL * value_bL).sum(1, dtype=np.float64) / np.maximum(total, 1e-12)
    return np.where(total > 0, mean, 0)


def _similarity(residual: sparse.csr_array, shrinkage: float, norms: str) -> np.ndarray:
    """float32 [V, V] over the columns of residuals [W, V]."""
    by_column = residual.T.tocsr()
    known, square = residual.copy(), residual**2
    known.data[:] = 1
    known_by_column, square_by_column = known.T.tocsr(), square.T.tocsr()
    length_V = np.sqrt(square.sum(0))
    V = residual.shape[1]
    similarity = np.zeros((V, V), np.float32)
    for first in range(0, V, _BLOCK):
        block = slice(first, first + _BLOCK)
        dot = (by_column[block] @ residual).toarray()
        count = (known_by_column[block] @ known).toarray()
        if norms == "all":
            length = length_V[block, None] * length_V
        else:
            ours = (square_by_column[block] @ known).toarray()
            theirs = (known_by_column[block] @ square).toarray()
            length = np.sqrt(ours * theirs)
        # A row whose ratings are exactly its biases has length 0, and points nowhere.
        cosine = np.divide(dot, length, out=np.zeros_like(dot), where=length > 1e-9)
        similarity[block] = cosine * (count / np.maximum(count + np.float32(shrinkage), 1e-9))
    return similarity
