"""EASE: a linear autoencoder over items, in closed form."""

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.linalg import lapack

from jrec.baselines.interactions import interaction_matrix
from jrec.errors import InputError


@dataclass(frozen=True)
class Ease:
    """The score is w . u + b: u a user's row of `history`, w a column of `weights`, no b.

    Attributes:
        history: float32 [users, items], the binary interactions.
        weights: float32 [items, items], zero diagonal.
    """

    history: sparse.csr_array
    weights: np.ndarray


def fit_ease(
    user: np.ndarray, item: np.ndarray, users: int, items: int, regularisation: float = 400.0
) -> Ease:
    """Minimises |X - X B|^2 + regularisation * |B|^2 over B with a zero diagonal.

    B_ij = -P_ij / P_jj off the diagonal, P the inverse of X'X + regularisation * I. The counts X'X and
    their inverse are float64: the inverse's entries off the diagonal, which are the weights, are small
    differences. Memory is 12 bytes times items squared.

    Source: Steck (2019), "Embarrassingly shallow autoencoders for sparse data", equation 8.

    Args:
        user, item: int rows [n]. users, items: table rows.
        regularisation: above 0, in interactions.

    Raises InputError for a regularisation that is not above 0.
    """
    if not 0 < regularisation < np.inf:
        raise InputError(f"EASE's regularisation must be above 0, but is {regularisation}.")
    history = interaction_matrix(user, item, users, items)
    # Column order, as LAPACK wants it; the matrix is symmetric.
    gram = (history.T @ history).toarray(order="F").astype(np.float64, order="F", copy=False)
    gram[np.diag_indices(items)] += regularisation
    # Cholesky, then the inverse from its factor, both in place: a third of what a general inverse costs.
    factor, _ = lapack.dpotrf(gram, lower=True, clean=False, overwrite_a=True)
    lower, _ = lapack.dpotri(factor, lower=True, overwrite_c=True)
    diagonal = lower.diagonal().copy()
    weights = np.tril(lower, -1).astype(np.float32)
    weights += weights.T
    weights /= -diagonal.astype(np.float32)
    return Ease(history, weights)


def score_ease(model: Ease, user_B: np.ndarray) -> np.ndarray:
    """float32 [B, items] for int user rows [B]; items that nobody met score 0."""
    return model.history[user_B] @ model.weights
