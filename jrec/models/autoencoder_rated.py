"""The autoencoder of a batch whose ratings are given in two parts, which costs little for the rest of the catalogue.

The parts are a rectangle over the items that are rated often and a list of the ratings of the others. Predictions
are computed where there are ratings alone; the gradient of everything else is zero all the same. The plain form is
`Autoencoder.last_hidden` and `Autoencoder.everything`. Both functions are for `model.apply(..., method=...)`.
"""

import jax
import jax.numpy as jnp

from jrec.embeddings.by_id import add_rows, gather_rows
from jrec.models.autoencoder import Autoencoder
from jrec.models.matmul import product


def last_hidden_of_parts(
    model: Autoencoder,
    often: tuple[jax.Array, jax.Array],
    ratings_BU: jax.Array,
    item_T: jax.Array,
    row_T: jax.Array,
    rating_T: jax.Array,
    train: bool = False,
) -> jax.Array:
    """As `Autoencoder.last_hidden`, from the ratings of some items as a rectangle and of the others as a list.

    Args:
        often: the items of the rectangle int32 [U], and int32 [M] each item's place among them (U or
            more: none). ratings_BU: float [B, U], 0 where there is no rating.
        item_T: int32 [T]. row_T: int32 [T], whose rating it is. rating_T: float [T]. A slot without a
            rating has the item M, the row B and the rating 0.
    """
    kernel_MH, bias_1H = model.encoder[0]()
    kernel_UH, kernel_TH = _rows_of_parts(kernel_MH, *often, item_T)
    if train and model.input_noise > 0:
        # Of the whole catalogue, so that both forms draw the same.
        kept_BM = model.noisy(jnp.ones((len(ratings_BU), model.items), jnp.float32), train)
        ratings_BU = ratings_BU * kept_BM[:, often[0]]
        rating_T = rating_T * kept_BM[row_T, item_T]
    sum_BH = product(ratings_BU, kernel_UH, model.compute)
    sum_BH = add_rows(sum_BH, row_T, rating_T[:, None] * kernel_TH)
    return model.middle(sum_BH + bias_1H, train)


def at_parts(
    model: Autoencoder,
    last_BH: jax.Array,
    often: tuple[jax.Array, jax.Array],
    cell_P: jax.Array,
    item_T: jax.Array,
    row_T: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The layer before the last [B, h1] -> predictions at ratings in two parts, [P] and [T].

    Activations and their gradients are computed at the ratings alone.

    Args:
        cell_P: int32 [P], b * U + u in the rectangle; B * U or more: none.
        often, item_T, row_T: as for `last_hidden_of_parts`.
    """
    kernel_MH, bias_1M = model.decoder_layer(0)
    kernel_UH, kernel_TH = _rows_of_parts(kernel_MH, *often, item_T)
    bias_U, bias_T = _rows_of_parts(bias_1M[0], *often, item_T)
    score_BU = product(last_BH, kernel_UH.T, model.compute) + bias_U[None]
    score_P = score_BU.reshape(-1).at[cell_P].get(mode="fill", fill_value=0)
    score_T = (gather_rows(last_BH, row_T, 0) * kernel_TH).sum(-1) + bias_T
    return model.last(score_P), model.last(score_T)


@jax.custom_vjp
def _rows_of_parts(
    values: jax.Array, items_U: jax.Array, place_M: jax.Array, item_T: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Rows of the often rated items, and one for each slot of the list (0 where its item is M)."""
    return gather_rows(values, items_U), gather_rows(values, item_T, 0)


def _rows_forward(
    values: jax.Array, items_U: jax.Array, place_M: jax.Array, item_T: jax.Array
) -> tuple[tuple, tuple]:
    return _rows_of_parts(values, items_U, place_M, item_T), (place_M, item_T)


def _rows_backward(kept: tuple, gradients: tuple) -> tuple[jax.Array, None, None, None]:
    """Each item reads its row's gradient: a scatter of rows, the usual way, is slower on a CPU."""
    place_M, item_T = kept
    gradient = gather_rows(gradients[0], place_M, 0)
    return add_rows(gradient, item_T, gradients[1]), None, None, None


_rows_of_parts.defvjp(_rows_forward, _rows_backward)
