"""Collaborative filtering for lists: cosine neighbours of users on the binary matrix."""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from jrec.baselines.interactions import interaction_matrix
from jrec.baselines.neighbours import check_shrinkage, keep_nearest, shrunk_cosine


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

    Raises InputError for a shrinkage that is not 0 or more.
    """
    check_shrinkage("user", shrinkage)
    return UserNeighbours(interaction_matrix(user, item, users, items), neighbours, shrinkage)


def score_user_neighbours(
    model: UserNeighbours, history_BM: sparse.csr_array, user_B: np.ndarray
) -> np.ndarray:
    """float32 [B, items]: sum of the similarities of the neighbours who met it.

    Args:
        history_BM: binary, [B, items]. user_B: int [B], whose they are: none is its own neighbour.
    """
    common_BN = (history_BM @ model.history.T).toarray()
    counts = (np.diff(matrix.indptr) for matrix in (history_BM, model.history))
    similarity_BN = shrunk_cosine(common_BN, *counts, model.shrinkage)
    similarity_BN[np.arange(len(user_B)), user_B] = 0
    return (keep_nearest(similarity_BN, model.neighbours) @ model.history).toarray()
