"""Content-based: items described by their genres and title words, users by the items they met."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from jrec.baselines.biases import Biases, fit_biases
from jrec.baselines.interactions import interaction_matrix
from jrec.data.ragged import Ragged
from jrec.errors import InputError
from jrec.finite import check_finite

_BLOCK = 1 << 16  # pairs predicted at one time


def content_vectors(groups: Sequence[Ragged], weights: Sequence[float]) -> sparse.csr_array:
    """Items as vectors of length 1: for each group TF-IDF of length 1, times the group's weight.

    TF is 1 where a value occurs and IDF log((1 + items) / (1 + items with the value)).

    Args:
        groups: for each group (genres, title words) a Ragged of `items` rows of non-negative values.
        weights: one a group, 0 or more.

    Returns:
        float32 [items, F], F the values of all groups; a row without values is zero.

    Raises InputError for a weight that is negative or not a float32.
    """
    if not all(0 <= weight <= float(np.finfo(np.float32).max) for weight in weights):
        raise InputError(f"Weights of content must be 0 or more, but are {list(weights)}.")
    parts = []
    for ragged, weight in zip(groups, weights, strict=True):
        items, values = len(ragged), int(ragged.values.max(initial=0)) + 1
        present = interaction_matrix(
            np.repeat(np.arange(items), ragged.lengths), ragged.values, items, values
        )
        idf = np.log((1 + items) / (1 + present.sum(0)))
        parts.append(weight * _unit_rows(present * idf[None]))
    return _unit_rows(sparse.hstack(parts)).astype(np.float32)


def score_content(vectors: sparse.csr_array, history_BM: sparse.csr_array) -> np.ndarray:
    """float32 [B, items] for binary histories [B, items]: sum of the cosines to the user's items.

    The score is w . u + b: u the sum of a user's items' vectors, w an item's vector, no b.

    Args:
        vectors: float32 [items, F], from `content_vectors`, which is all that there is to fit.
    """
    return (history_BM @ vectors @ vectors.T).toarray()


@dataclass(frozen=True)
class RatingContent:
    """biases + the mean residual of a user's items, weighted by their cosine to the item.

    Attributes:
        biases: what is left after them is a residual.
        residuals, profile: float32 [users, F], sums of the user's items' vectors, times their residuals
            and as they are. item: float32 [items, F].
        damping: see `fit_rating_content`.
    """

    biases: Biases
    residuals: sparse.csr_array
    profile: sparse.csr_array
    item: sparse.csr_array
    damping: float


@np.errstate(all="ignore")  # what overflows is told by `check_finite`, in one sentence
def fit_rating_content(
    user: np.ndarray,
    item: np.ndarray,
    rating: np.ndarray,
    users: int,
    items: int,
    vectors: sparse.csr_array,
    damping: float = 5.0,
    regularisation: float = 5.0,
) -> RatingContent:
    """Predicted: bias + sum_j c_ij x_uj / (sum_j c_ij + damping) over all j that u rated.

    c_ij >= 0 is the cosine of two items' vectors, x_uj a residual of the biases. Both sums are linear in
    the item's vector, so two vectors a user hold everything.

    Args:
        user, item: int rows [n]. rating: [n], stars. users, items: table rows.
        vectors: from `content_vectors`. damping: in similar ratings; draws to the biases where a user
            has rated little like it. regularisation: of `fit_biases`.
    """
    biases = fit_biases(user, item, rating, users, items, regularisation)
    values = (rating - biases.predict(user, item)).astype(np.float32)
    residual = sparse.csr_array((values, (user, item)), shape=(users, items))
    profile = interaction_matrix(user, item, users, items) @ vectors
    sums = residual @ vectors
    remedy = "check the ratings and --biases.regularisation"
    check_finite("Content's sums of residuals are", remedy, sums, profile)
    return RatingContent(biases, sums, profile, vectors, damping)


def predict_rating_content(model: RatingContent, user: np.ndarray, item: np.ndarray) -> np.ndarray:
    """Stars for int rows [n] and [n] -> float64 [n]."""
    predicted = model.biases.predict(user, item)
    for first in range(0, len(predicted), _BLOCK):
        block = slice(first, first + _BLOCK)
        vectors = model.item[item[block]]
        sums, weights = (
            (table[user[block]] * vectors).sum(1) for table in (model.residuals, model.profile)
        )
        predicted[block] += sums / np.maximum(weights + model.damping, 1e-12)
    return predicted


def _unit_rows(matrix: sparse.sparray) -> sparse.csr_array:
    """Each row divided by its length; zero rows stay."""
    length = np.sqrt((matrix * matrix).sum(1))
    return sparse.csr_array(matrix * (1 / np.where(length > 0, length, 1))[:, None])
