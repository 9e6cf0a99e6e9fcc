"""The embedding MLP of the TensorFlow 2 notebook on MovieLens, in one file.

    python -m experiments.minimal.embedding_mlp

Two vectors side by side, one ReLU layer, one number: the rating less the mean. SGD with momentum moves whole tables,
as in Keras 3. `experiments/embedding_mlp` adds checkpoints, resume, several devices and exports.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from jrec.data.grouplens import load_movielens
from jrec.data.ratings import Ratings
from jrec.data.vocabulary import FIRST

# ---------------------------------------------------------------- settings


@dataclass(frozen=True)
class Settings:
    """Those of `python -m experiments.embedding_mlp train`."""

    dataset: str = "ml-100k"
    """A MovieLens data set."""
    data_dir: Path | None = None
    """Folder or archive that holds it. Left out: the cache, else the network."""
    epochs: int = 25
    batch_size: int = 1024
    learning_rate: float = 0.08
    momentum: float = 0.9
    width: int = 10
    """Of user and item vectors."""
    hidden: int = 1024
    seed: int = 0
    user: int = 1
    """Whose ten best items are printed."""


# ---------------------------------------------------------------- model and loss


class EmbeddingMlp(nn.Module):
    """Rating less the mean for (user, item) pairs; Keras' initial values."""

    users: int
    items: int
    width: int
    hidden: int

    @nn.compact
    def __call__(self, user_B: jax.Array, item_B: jax.Array) -> jax.Array:
        """Returns float32 [B] for int32 table rows [B] and [B]."""
        table = partial(nn.Embed, features=self.width, embedding_init=_uniform)
        user_BD = table(self.users, name="user_table")(user_B)
        item_BD = table(self.items, name="item_table")(item_B)
        dense = partial(nn.Dense, kernel_init=nn.initializers.glorot_uniform())
        hidden_BH = nn.relu(dense(self.hidden)(jnp.concatenate([user_BD, item_BD], -1)))
        return dense(1)(hidden_BH)[:, 0]


def _uniform(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
    return jax.random.uniform(key, shape, dtype, -0.05, 0.05)


class Batch(NamedTuple):
    """Ratings: int32 table rows [B], rating less the mean float32 [B], and what counts, bool [B]."""

    user: jax.Array
    item: jax.Array
    target: jax.Array
    mask: jax.Array


def loss(model: EmbeddingMlp, params: dict, batch: Batch) -> jax.Array:
    """Returns the mean squared error over the ratings that count."""
    error = jnp.where(batch.mask, model.apply(params, batch.user, batch.item) - batch.target, 0)
    return (error**2).sum() / jnp.maximum(batch.mask.sum(), 1)


# ---------------------------------------------------------------- step and loop


class State(NamedTuple):
    """Everything that a step changes."""

    params: dict
    opt_state: optax.OptState


def make_step(model: EmbeddingMlp, optimizer: optax.GradientTransformation):
    """Returns a pure function (state, batch) -> (state, loss)."""

    def step(state: State, batch: Batch) -> tuple[State, jax.Array]:
        value, gradient = jax.value_and_grad(partial(loss, model))(state.params, batch)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        return State(optax.apply_updates(state.params, updates), opt_state), value

    return step


def epoch_batches(data: Batch, key: jax.Array, batch_size: int) -> Batch:
    """Returns the ratings in a random order as [steps, B]; the mask leaves out what fills the last batch."""
    count = len(data.user)
    order = jax.random.permutation(key, count)
    order = jnp.append(order, jnp.full(-count % batch_size, count))
    batches = jax.tree.map(lambda column: column.at[order].get(mode="clip"), data)
    batches = batches._replace(mask=order < count)
    return jax.tree.map(lambda column: column.reshape(-1, batch_size), batches)


def train(model: EmbeddingMlp, data: Batch, settings: Settings, evaluate) -> dict:
    """Returns trained parameters; prints a line an epoch."""
    init_key, order_key = jax.random.split(jax.random.key(settings.seed))
    params = model.init(init_key, data.user[:1], data.item[:1])
    optimizer = optax.sgd(settings.learning_rate, settings.momentum)
    step = make_step(model, optimizer)

    @partial(jax.jit, donate_argnums=0)
    def epoch(state: State, key: jax.Array) -> tuple[State, jax.Array]:
        state, losses = jax.lax.scan(step, state, epoch_batches(data, key, settings.batch_size))
        return state, losses.mean()

    state = State(params, optimizer.init(params))
    for number in range(settings.epochs):
        state, value = epoch(state, jax.random.fold_in(order_key, number))
        rmse = evaluate(state.params)
        print(f"epoch {number + 1:2d}  train cost {value:.4f}  test RMSE {rmse:.4f}")
    return state.params


# ---------------------------------------------------------------- data, evaluation, table


def columns(ratings: Ratings, part: np.ndarray, mean: float) -> Batch:
    """Returns the ratings that a bool mask [N] selects, on the device."""
    user, item, rating = (c[part] for c in (ratings.user, ratings.item, ratings.rating))
    target = rating - np.float32(mean)
    return Batch(*map(jnp.asarray, (user, item, target, np.ones(len(user), bool))))


def item_mean_rmse(train: Batch, test: Batch, items: int) -> float:
    """Returns the test RMSE of predicting each item's mean rating, the global mean where it has none."""
    sums = np.bincount(train.item, train.target, items)
    means = sums / np.maximum(np.bincount(train.item, minlength=items), 1)
    return float(np.sqrt(np.mean((means[np.asarray(test.item)] - test.target) ** 2)))


def main(settings: Settings) -> float:
    """Trains, prints test RMSE beside the item mean's and ten items for one user; returns the RMSE."""
    ratings = load_movielens(settings.dataset, settings.data_dir)
    held_out = np.random.RandomState(0).random_sample(len(ratings)) < 0.2
    mean = float(ratings.rating[~held_out].mean(dtype=np.float64))
    data, test = (columns(ratings, part, mean) for part in (~held_out, held_out))
    users, items = (ratings.vocabularies[name] for name in ("user", "item"))
    model = EmbeddingMlp(users.rows, items.rows, settings.width, settings.hidden)

    @jax.jit
    def rmse(params: dict) -> jax.Array:
        predicted = model.apply(params, test.user, test.item)
        return jnp.sqrt(((predicted - test.target) ** 2).mean())

    params = train(model, data, settings, rmse)
    result = float(rmse(params))
    print(f"\n{'test RMSE in stars':24s}{ratings.name}")
    print(f"{'item mean':24s}{item_mean_rmse(data, test, items.rows):.4f}")
    print(f"{'embedding MLP':24s}{result:.4f}\n\nten items for user {settings.user}:")

    row = users.encode([settings.user])[0]
    candidates = np.setdiff1d(np.arange(FIRST, items.rows), ratings.item[ratings.user == row])
    stars = mean + model.apply(params, jnp.full(len(candidates), row), jnp.asarray(candidates))
    for k in np.argsort(-stars)[:10]:
        print(f"  {stars[k]:.2f}  {ratings.titles[candidates[k]]}")
    return result


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
