"""The deep autoencoder as functions of its settings: optimizer, train step, predictions."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from jrec.batch_axis import summed
from jrec.losses import squared_error
from jrec.models.autoencoder import Autoencoder
from jrec.train.refeeding import (
    Gradient,
    RefeedTarget,
    choose_gradient,
    make_refeeding_step,
    with_gradient,
)
from jrec.train.step import Batch, Step
from jrec.train.user_batches import (
    RatingList,
    rated_items,
    rating_list,
    rating_rectangle,
    which_rated,
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


def loss_of_rated(
    model: Autoencoder, columns: int, params: Any, batch: Batch, key: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Squared error of the batch's ratings out of themselves, computed for the items that it rated alone.

    Returns (sum, count, outputs [B, M] without gradient). Exact while `batch["given"]` holds all ratings
    of the batch, of at most `columns` items, which `batch["rated"]` marks.
    """
    given, size = batch["given"], len(batch["user"])
    items_U, ratings_BU, cell_P = rated_items(given, batch["rated"], size, columns)
    last_BH = model.apply(
        params, ratings_BU, True, items_U, method="last_hidden", rngs=_streams(key)
    )
    score_P = model.apply(params, last_BH, items_U, cell_P, method="at_cells")
    outputs_BM = model.apply(params, last_BH, method="everything")
    known_P = cell_P < ratings_BU.size
    return *squared_error(score_P, given.rating, known_P), jax.lax.stop_gradient(outputs_BM)


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
    room: tuple[int, int] | None,
    refeed: int = 1,
    target: RefeedTarget = "output",
) -> Step:
    """The train step.

    Args:
        room: None computes every batch densely. (slots, columns): batches of at most so many ratings of
            at most so many items are computed for these items alone, the others (there should be few)
            densely.
    """
    first = with_gradient(partial(loss_of_rectangle, model))
    if room is not None:
        first = _rated_or_dense(model, *room, first)

    def refed(params: Any, inputs_BM: jax.Array, key: jax.Array) -> jax.Array:
        return model.apply(params, inputs_BM, True, rngs=_streams(key))

    return make_refeeding_step(
        first, refed, partial(loss_of_known, model), optimizer, refeed, target, model.axis_name
    )


def _rated_or_dense(model: Autoencoder, slots: int, columns: int, dense: Gradient) -> Gradient:
    rated = with_gradient(partial(loss_of_rated, model, columns))
    choose = choose_gradient(lambda batch: batch["fits"], rated, dense)

    def gradient(params: Any, batch: Batch, key: jax.Array) -> Any:
        given, number = rating_list(batch["data"], batch["user"], batch["mask"], slots)
        rated_M = which_rated(given, model.items, model.axis_name)
        # By the whole batch's numbers, so that N devices choose the form, and its noise, that one does.
        fits = (summed(number, model.axis_name) <= slots) & (rated_M.sum() <= columns)
        return choose(params, dict(batch) | {"given": given, "rated": rated_M, "fits": fits}, key)

    return gradient


def rated_pays(items: int, columns: int) -> bool:
    """Whether a batch leaves enough items unrated for the smaller products (measured on 2 CPU cores)."""
    return columns < 0.8 * items


def predict_pairs(
    model: Autoencoder, params: Any, given: RatingList, wanted: RatingList, batch_size: int
) -> jax.Array:
    """Predictions float32 [P] at the places of `wanted`, out of the ratings of `given`."""
    last_BH = model.apply(params, *given, batch_size, method="last_hidden_of_list")
    return model.apply(params, last_BH, wanted.row, wanted.item, method="at")


def make_predict(
    model: Autoencoder, regularisation: float
) -> Callable[[Any, jax.Array, jax.Array], jax.Array]:
    """The function that is exported: (arrays, ratings [b, M], known [b, M]) -> stars [b, M].

    `arrays` has `params`, and `mean` [1] and `item` [M] of the biases that ratings were centred on
    (zeros where they were not, and then a user's bias is not taken off either).
    """

    def predict(arrays: Any, ratings_BM: jax.Array, known_BM: jax.Array) -> jax.Array:
        centre_M = arrays["mean"] + arrays["item"]
        rest_BM = jnp.where(known_BM, ratings_BM - centre_M[None], 0)
        number_B1 = known_BM.sum(1, keepdims=True) + regularisation
        user_B1 = arrays["centred"][0] * rest_BM.sum(1, keepdims=True) / jnp.maximum(number_B1, 1)
        inputs_BM = jnp.where(known_BM, rest_BM - user_B1, 0)
        return model.apply(arrays["params"], inputs_BM) + centre_M[None] + user_B1

    return predict
