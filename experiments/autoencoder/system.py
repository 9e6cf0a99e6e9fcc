"""The deep autoencoder as functions of its settings: optimizer, train step, predictions."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jrec.data.rating_scale import STARS, RatingScale
from jrec.embeddings.batch_axis import summed
from jrec.losses.ratings import squared_error
from jrec.models.autoencoder import Autoencoder
from jrec.models.autoencoder_rated import at_parts, last_hidden_of_parts
from jrec.train.refeeding import (
    Gradient,
    RefeedTarget,
    choose_gradient,
    make_refeeding_step,
    with_gradient,
)
from jrec.train.step import Batch, Step

from .batches import (
    SELDOM_COST,
    RatingList,
    Room,
    in_parts,
    rating_list,
    rating_rectangle,
)

OptimizerName = Literal["momentum", "adam", "adagrad", "rmsprop"]
FormName = Literal["auto", "rated", "dense"]


def build_optimizer(
    name: OptimizerName,
    learning_rate: float,
    milestones: Sequence[int],
    weight_decay: float,
    updates_per_epoch: int,
) -> optax.GradientTransformation:
    """The rules with the constants of the source's framework (PyTorch's defaults, momentum 0.9).

    Args:
        milestones: epochs after which the rate is halved; with `momentum` alone, as in the source.
        weight_decay: added to the gradient, times the parameter (L2).
        updates_per_epoch: re-fed ones included.
    """
    halved = optax.piecewise_constant_schedule(
        learning_rate, {epoch * updates_per_epoch: 0.5 for epoch in milestones}
    )
    rule = {
        "momentum": lambda: optax.sgd(halved, momentum=0.9),
        "adam": lambda: optax.adam(learning_rate),
        "adagrad": lambda: optax.adagrad(learning_rate, initial_accumulator_value=0.0, eps=1e-10),
        "rmsprop": lambda: optax.rmsprop(
            learning_rate, decay=0.99, eps=1e-8, momentum=0.9, eps_in_sqrt=False
        ),
    }[name]()
    return optax.chain(optax.add_decayed_weights(weight_decay), rule) if weight_decay else rule


def _streams(key: jax.Array) -> dict[str, jax.Array]:
    dropout, noise = jax.random.split(key)
    return {"dropout": dropout, "noise": noise}


def loss_of_parts(
    model: Autoencoder,
    often: tuple[jax.Array, jax.Array],
    params: Any,
    batch: Batch,
    key: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Squared error of the batch's ratings out of themselves, from `batch["parts"]` of them.

    Returns (sum, count, outputs [B, M] without gradient).

    Args:
        often: as for `jrec.models.autoencoder_rated.last_hidden_of_parts`.
    """
    ratings_BU, cell_P, rating_P, seldom = batch["parts"]
    last_BH = model.apply(
        params,
        often,
        ratings_BU,
        seldom.item,
        seldom.row,
        seldom.rating,
        True,
        method=last_hidden_of_parts,
        rngs=_streams(key),
    )
    score_P, score_T = model.apply(
        params, last_BH, often, cell_P, seldom.item, seldom.row, method=at_parts
    )
    outputs_BM = model.apply(params, last_BH, method="everything")
    sum_often, often_count = squared_error(score_P, rating_P, cell_P < ratings_BU.size)
    sum_seldom, seldom_count = squared_error(score_T, seldom.rating, seldom.mask)
    count = often_count + seldom_count
    return sum_often + sum_seldom, count, jax.lax.stop_gradient(outputs_BM)


def loss_of_rectangle(
    model: Autoencoder, params: Any, batch: Batch, key: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The same, computed densely: for any number of ratings."""
    ratings_BM, known_BM = rating_rectangle(
        batch["data"], batch["user"], batch["mask"], model.items
    )
    outputs_BM = model.apply(params, ratings_BM, True, rngs=_streams(key))
    return *squared_error(outputs_BM, ratings_BM, known_BM), outputs_BM


def loss_of_known(
    model: Autoencoder, outputs_BM: jax.Array, batch: Batch
) -> tuple[jax.Array, jax.Array]:
    """Squared error of given outputs against the batch's ratings."""
    ratings_BM, known_BM = rating_rectangle(
        batch["data"], batch["user"], batch["mask"], model.items
    )
    return squared_error(outputs_BM, ratings_BM, known_BM)


def build_step(
    model: Autoencoder,
    optimizer: optax.GradientTransformation,
    room: Room | None,
    refeed: int = 1,
    target: RefeedTarget = "output",
) -> Step:
    """The train step.

    Args:
        room: None computes every batch densely. Else the batches that fit it are computed in parts, the
            others (there should be few) densely.
    """
    first = with_gradient(partial(loss_of_rectangle, model))
    if room is not None:
        first = _parts_or_dense(model, room, first)

    def refed(params: Any, inputs_BM: jax.Array, key: jax.Array) -> jax.Array:
        return model.apply(params, inputs_BM, True, rngs=_streams(key))

    return make_refeeding_step(
        first, refed, partial(loss_of_known, model), optimizer, refeed, target, model.axis_name
    )


def _parts_or_dense(model: Autoencoder, room: Room, dense: Gradient) -> Gradient:
    place = np.full(model.items, len(room.often), np.int32)
    place[room.often] = np.arange(len(room.often))
    often = jnp.asarray(room.often), jnp.asarray(place)
    parts = with_gradient(partial(loss_of_parts, model, often))
    choose = choose_gradient(lambda batch: batch["fits"], parts, dense)

    def gradient(params: Any, batch: Batch, key: jax.Array) -> Any:
        given, number = rating_list(batch["data"], batch["user"], batch["mask"], room.slots)
        parts, seldom = in_parts(given, often[1], len(batch["user"]), room)
        # By the whole batch's numbers, so that N devices choose the form that one does.
        number, seldom = summed((number, seldom), model.axis_name)
        fits = (number <= room.slots) & (seldom <= room.seldom)
        return choose(params, dict(batch) | {"parts": parts, "fits": fits}, key)

    return gradient


def parts_pay(items: int, batch_size: int, room: Room) -> bool:
    """Whether a batch in parts is clearly cheaper than all items' columns (measured on 2 CPU cores)."""
    return len(room.often) + SELDOM_COST * room.seldom / batch_size < 0.8 * items


def predict_pairs(
    model: Autoencoder, params: Any, given: RatingList, wanted: RatingList, batch_size: int
) -> jax.Array:
    """Predictions float32 [P] at the places of `wanted`, out of the ratings of `given`."""
    last_BH = model.apply(params, *given, batch_size, method="last_hidden_of_list")
    return model.apply(params, last_BH, wanted.row, wanted.item, method="at")


def make_predict(
    model: Autoencoder, regularisation: float, scale: RatingScale = STARS
) -> Callable[[Any, jax.Array, jax.Array], jax.Array]:
    """The function that is exported: (arrays, ratings [b, M], known [b, M]) -> stars [b, M].

    `arrays` has `params`, and `mean` [1] and `item` [M] of the biases that ratings were centred on
    (zeros where they were not, and then a user's bias is not taken off either). Ratings and stars are in the
    user's unit, `arrays` in the standard one.
    """

    def predict(arrays: Any, ratings_BM: jax.Array, known_BM: jax.Array) -> jax.Array:
        centre_M = arrays["mean"] + arrays["item"]
        rest_BM = jnp.where(known_BM, scale.standard(ratings_BM) - centre_M[None], 0)
        number_B1 = known_BM.sum(1, keepdims=True) + regularisation
        user_B1 = arrays["centred"][0] * rest_BM.sum(1, keepdims=True) / jnp.maximum(number_B1, 1)
        inputs_BM = jnp.where(known_BM, rest_BM - user_B1, 0)
        return scale.user(model.apply(arrays["params"], inputs_BM) + centre_M[None] + user_B1)

    return predict
