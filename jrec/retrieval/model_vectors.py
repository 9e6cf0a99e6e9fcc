"""Vectors of the fusion model and of matrix factorisation: what `jrec.retrieval` needs to rank as they do."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from jrec.baselines.matrix_factorisation import MatrixFactorisation
from jrec.models.fusion import Fusion
from jrec.retrieval.simple_lsh import unit_rows


class _UserTower(Fusion):
    @nn.compact
    def __call__(self, user: Mapping[str, jax.Array]) -> jax.Array:
        return self.user_tower(user)


class _ItemTower(Fusion):
    @nn.compact
    def __call__(self, item: Mapping[str, jax.Array]) -> jax.Array:
        return self.item_tower(item)


def fusion_vectors(
    model: Fusion, params: Any, user: Mapping[str, jax.Array], item: Mapping[str, jax.Array]
) -> tuple[np.ndarray, np.ndarray]:
    """Both towers as unit vectors: 5 w.u is the model's score, and no item has a bias.

    Args:
        params: of the model. user, item: columns of N users and M items, as the model reads them.

    Returns:
        (u float32 [N, D], w float32 [M, D]), for `item_table`, `user_vectors` and `item_vectors`.

    Raises InputError where a number is not finite.
    """
    # A packed title is exact only for batches that count few words.
    fields = {name: getattr(model, name) for name in model.__dataclass_fields__}
    fields |= {"title_positions": None, "parent": None, "name": None}
    towers = ((_UserTower, user), (_ItemTower, item))
    u_ND, w_MD = (
        unit_rows(np.asarray(jax.jit(tower(**fields).apply)(params, columns)))
        for tower, columns in towers
    )
    return u_ND, w_MD


def matrix_factorisation_vectors(
    model: MatrixFactorisation,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(u float32 [N, D], w float32 [M, D], b float32 [M]): w.u + b is the prediction without what all of a
    user's items share, the mean and the user's bias."""
    return model.user, model.item, model.item_bias
