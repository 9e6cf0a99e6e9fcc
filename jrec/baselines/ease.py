"""EASE: a linear autoencoder over items, in closed form."""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from jrec.baselines.interactions import interaction_matrix
from jrec.errors import InputError
from jrec.finite import check_finite


@dataclass(frozen=True)
class Ease:
    """The score is w . u + b: u a user's binary history, w a column of `weights`, no b.

    weights: float32 [items, items], zero diagonal.
    """

    weights: np.ndarray


@np.errstate(all="ignore")  # what overflows is told by `check_finite`, in one sentence
def fit_ease(
    user: np.ndarray, item: np.ndarray, users: int, items: int, regularisation: float = 400.0
) -> Ease:
    """Minimises |X - X B|^2 + regularisation * |B|^2 over B with a zero diagonal.

    B_ij = -P_ij / P_jj off the diagonal, P the inverse of X'X + regularisation * I. The counts X'X and
    their inverse are float64: the inverse's entries off the diagonal, which are the weights, are small
    differences. Memory is some 24 bytes times items squared.

    Source: Steck (2019), "Embarrassingly shallow autoencoders for sparse data", equation 8.

    Args:
        user, item: int rows [n]. users, items: table rows.
        regularisation: above 0, in interactions.

    Raises InputError for a regularisation that is not above 0, or so small that a weight is not finite.
    """
    if not 0 < regularisation < np.inf:
        raise InputError(f"EASE's regularisation must be above 0, but is {regularisation}.")
    history = interaction_matrix(user, item, users, items)
    weights = (history.T @ history).toarray().astype(np.float64)
    weights[np.diag_indices(items)] += regularisation
    try:
        weights = np.linalg.inv(weights)
    except np.linalg.LinAlgError:  # singular to rounding
        weights[:] = np.nan
    weights /= -weights.diagonal()
    weights[np.diag_indices(items)] = 0
    weights = weights.astype(np.float32)
    remedy = f"raise --ease.regularisation, which is {regularisation:g}"
    check_finite("EASE's weights are", remedy, weights)
    return Ease(weights)


def score_ease(model: Ease, history_BM: sparse.csr_array) -> np.ndarray:
    """float32 [B, items] for binary histories [B, items]; items that nobody met score 0."""
    return history_BM @ model.weights
