"""Matrix factorisation with biases, trained by stochastic gradient descent on the rows that a batch reads."""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jrec.embeddings import optimizers as row_optimizers
from jrec.embeddings.row_step import init_row_state, make_row_step
from jrec.embeddings.table import Embed
from jrec.errors import InputError
from jrec.finite import check_finite
from jrec.losses.ratings import squared_error
from jrec.train.chunk import epoch_order, make_chunk
from jrec.train.step import Batch

_INITIAL = 0.02  # standard deviation of the vectors; biases start at 0


@dataclass(frozen=True)
class MatrixFactorisation:
    """mean + user_bias[u] + item_bias[i] + user[u] . item[i]: for one user, w . u + b over items.

    Attributes:
        user: float32 [users, D]. item: float32 [items, D].
        user_bias: float32 [users]. item_bias: float32 [items]. Rows that training did not meet have
            bias 0 and vectors zero.
    """

    mean: float
    user: np.ndarray
    item: np.ndarray
    user_bias: np.ndarray
    item_bias: np.ndarray


class _Rows(nn.Module):
    """Rows [B, 1 + D] of both tables: a bias, then the vector."""

    users: int
    items: int
    width: int

    @nn.compact
    def __call__(self, user_B: jax.Array, item_B: jax.Array) -> tuple[jax.Array, jax.Array]:
        def init(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
            return (_INITIAL * jax.random.normal(key, shape, dtype)).at[:, 0].set(0)

        user_BD = Embed(self.users, 1 + self.width, init, name="user")(user_B)
        return user_BD, Embed(self.items, 1 + self.width, init, name="item")(item_B)


def fit_matrix_factorisation(
    user: np.ndarray,
    item: np.ndarray,
    rating: np.ndarray,
    users: int,
    items: int,
    width: int = 128,
    epochs: int = 20,
    batch_size: int = 1024,
    learning_rate: float = 0.03,
    regularisation: float = 0.05,
    seed: int = 0,
) -> MatrixFactorisation:
    """Minimises, over the ratings (u, i, r),

    sum (r - mean - b_u - b_i - p_u . q_i)^2 + regularisation * (b_u^2 + b_i^2 + |p_u|^2 + |q_i|^2).

    The regularisation is lazy: it is in the sum over ratings, so a row is drawn to zero once for each of
    its ratings, when that rating is read, and in proportion to their number; no step touches a whole table.

    Source: Koren, Bell and Volinsky (2009), "Matrix factorization techniques for recommender systems",
    equation 5; here with batches, whose gradients add up, and a rate that falls linearly to 0.

    Args:
        user, item: int rows [n]. rating: [n], stars. users, items: table rows.
        width: D. epochs: passes over the ratings. batch_size: ratings a step.
        learning_rate: at the start, for half the gradient of one rating.
        seed: of the initial vectors and the order of the ratings.

    Raises InputError for settings that make no sense and where training diverges.
    """
    if min(width, epochs, batch_size) < 1 or not learning_rate > 0:
        raise InputError(
            "Matrix factorisation needs a width, epochs, a batch size and a learning rate above 0."
        )
    mean = float(np.mean(rating, dtype=np.float64))
    model = _Rows(users, items, width)

    def loss(params: Any, batch: Batch, key: jax.Array, apply: Any) -> tuple[jax.Array, jax.Array]:
        user_BD, item_BD = apply(model, params, batch["user"], batch["item"])
        predicted_B = _predict(user_BD, item_BD)
        error, _ = squared_error(predicted_B, batch["rating"], batch["mask"])
        l2_B = regularisation * (user_BD**2 + item_BD**2).sum(1)
        # Counted as one: gradients of a batch add up, and the short last batch weighs no more.
        return (error + jnp.where(batch["mask"], l2_B, 0).sum()) / 2, jnp.ones((), jnp.float32)

    def gather(data: Batch, positions: jax.Array, mask: jax.Array) -> Batch:
        return {name: column[positions] for name, column in data.items()} | {"mask": mask}

    count = len(rating)
    steps = -(-count // batch_size)
    init_key, step_key, order_key = jax.random.split(jax.random.key(seed), 3)
    rule = row_optimizers.sgd(lambda step: learning_rate * (1 - step / (steps * epochs)))
    nothing = jnp.zeros(1, jnp.int32)
    # There is nothing but tables: the other optimizer has no parameters.
    state = init_row_state(model.init(init_key, nothing, nothing), optax.identity(), rule, step_key)
    chunk = make_chunk(make_row_step(loss, optax.identity(), rule), gather, count, batch_size)
    columns = {"user": np.int32(user), "item": np.int32(item), "rating": np.float32(rating - mean)}
    data = {name: jnp.asarray(column) for name, column in columns.items()}
    for epoch in range(epochs):
        order = epoch_order(order_key, epoch, count, batch_size)
        state, _, bad_step = chunk(state, data, order, 0, steps)
        if int(bad_step) >= 0:
            raise InputError(
                f"Matrix factorisation diverged in epoch {epoch + 1}; take a lower learning rate."
            )
    tables = state.params["params"]
    user_table, item_table = (
        # What training never read still holds its random start.
        np.asarray(tables[name]["embedding"]) * (np.bincount(rows, minlength=size) > 0)[:, None]
        for name, rows, size in (("user", user, users), ("item", item, items))
    )
    # The loss of a step is checked before its update; that of the last one is checked here.
    remedy = "take a lower --matrix-factorisation.learning-rate"
    check_finite("The vectors of matrix factorisation are", remedy, mean, user_table, item_table)
    return MatrixFactorisation(
        mean, user_table[:, 1:], item_table[:, 1:], user_table[:, 0], item_table[:, 0]
    )


def _predict(user_BD: jax.Array, item_BD: jax.Array) -> jax.Array:
    return user_BD[:, 0] + item_BD[:, 0] + (user_BD[:, 1:] * item_BD[:, 1:]).sum(1)


def predict_matrix_factorisation(
    model: MatrixFactorisation, user: np.ndarray, item: np.ndarray
) -> np.ndarray:
    """Stars for int rows [n] and [n] -> float32 [n]."""
    match = np.einsum("nd,nd->n", model.user[user], model.item[item])
    return np.float32(model.mean) + model.user_bias[user] + model.item_bias[item] + match
