"""The fusion rating model of the Paddle book on MovieLens, in one file.

    python -m experiments.minimal.fusion

A user tower (id, gender, age, occupation), an item tower (id, summed genres, convolved title) and five times their
cosine, trained by SGD on `2 * stars - 5`. `experiments/fusion` adds checkpoints, resume, several devices and exports.
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
from jrec.data.ragged import pad
from jrec.data.ratings import Ratings
from jrec.data.vocabulary import FIRST

# ---------------------------------------------------------------- settings


@dataclass(frozen=True)
class Settings:
    """Those of `python -m experiments.fusion train --valid-fraction 0 --epochs 10`."""

    dataset: str = "ml-100k"
    """A MovieLens data set."""
    data_dir: Path | None = None
    """Folder or archive that holds it. Left out: the cache, else the network."""
    epochs: int = 10
    batch_size: int = 256
    learning_rate: float = 0.2
    seed: int = 0
    user: int = 1
    """Whose ten best items are printed."""


# ---------------------------------------------------------------- model and loss

_xavier = nn.initializers.xavier_uniform()


class Fusion(nn.Module):
    """Scores (user, item) pairs from -5 to 5; `rows` has the rows of each table."""

    rows: dict[str, int]

    @nn.compact
    def __call__(self, user: dict[str, jax.Array], item: dict[str, jax.Array]) -> jax.Array:
        """Returns float32 [B].

        Args:
            user: int32 [B] table rows: `user` and each attribute.
            item: `item` int32 [B]; `genres` and `title` int32 [B, L], with `genres_mask` and `title_mask` bool [B, L].
        """
        dense = partial(nn.Dense, kernel_init=_xavier)

        def embed(name: str, width: int, ids: jax.Array) -> jax.Array:
            return nn.Embed(self.rows[name], width, embedding_init=_xavier, name=f"{name}_table")(
                ids
            )

        def attribute(name: str, width: int, ids_B: jax.Array) -> jax.Array:
            return dense(width, name=f"{name}_layer")(embed(name, width, ids_B))

        others = sorted(set(user) - {"user"})
        user_parts = [attribute("user", 32, user["user"])]
        user_parts += [attribute(name, 16, user[name]) for name in others]
        user_BD = nn.tanh(dense(200, name="user_tower")(jnp.concatenate(user_parts, -1)))

        genres_BLD = embed("genres", 32, item["genres"])
        genres_BD = jnp.where(item["genres_mask"][..., None], genres_BLD, 0).sum(1)
        # The title's words, zeros at the padding and beyond both ends, under filters of three words.
        words_BLD = embed("title", 32, item["title"])
        words_BLD = jnp.where(item["title_mask"][..., None], words_BLD, 0)
        wide_BLD = jnp.pad(words_BLD, ((0, 0), (1, 1), (0, 0)))
        length = words_BLD.shape[1]
        windows = jnp.concatenate([wide_BLD[:, k : k + length] for k in range(3)], -1)
        hidden_BLF = nn.tanh(dense(32, name="title_filters")(windows))
        title_BF = jnp.where(item["title_mask"][..., None], hidden_BLF, 0).sum(1)

        item_parts = [attribute("item", 32, item["item"]), genres_BD, title_BF]
        item_BD = nn.tanh(dense(200, name="item_tower")(jnp.concatenate(item_parts, -1)))
        return 5 * cosine(user_BD, item_BD)


def cosine(x_BD: jax.Array, y_BD: jax.Array) -> jax.Array:
    """Returns the cosine of two vectors; each squared norm is at least 1e-8, as in Paddle."""
    squares = [jnp.maximum((v_BD**2).sum(-1), 1e-8) for v_BD in (x_BD, y_BD)]
    return (x_BD * y_BD).sum(-1) * jax.lax.rsqrt(squares[0]) * jax.lax.rsqrt(squares[1])


class Batch(NamedTuple):
    """Ratings: int32 table rows [B], stars float32 [B], and what counts, bool [B]."""

    user: jax.Array
    item: jax.Array
    stars: jax.Array
    mask: jax.Array


class Features(NamedTuple):
    """What is known of users and items, by table row."""

    user: dict[str, jax.Array]
    item: dict[str, jax.Array]


def inputs(features: Features, user: jax.Array, item: jax.Array) -> tuple[dict, dict]:
    """Returns what both towers read for int32 table rows [B] and [B]."""
    of_user = {"user": user} | {name: table[user] for name, table in features.user.items()}
    return of_user, {"item": item} | {name: table[item] for name, table in features.item.items()}


def loss(model: Fusion, features: Features, params: dict, batch: Batch) -> jax.Array:
    """Returns the mean squared error against `2 * stars - 5` over the ratings that count."""
    score = model.apply(params, *inputs(features, batch.user, batch.item))
    error = score - (2 * batch.stars - 5)
    return (jnp.where(batch.mask, error, 0) ** 2).sum() / jnp.maximum(batch.mask.sum(), 1)


# ---------------------------------------------------------------- step and loop


class State(NamedTuple):
    """Everything that a step changes."""

    params: dict
    opt_state: optax.OptState


def make_step(model: Fusion, features: Features, optimizer: optax.GradientTransformation):
    """Returns a pure function (state, batch) -> (state, loss)."""

    def step(state: State, batch: Batch) -> tuple[State, jax.Array]:
        value, gradient = jax.value_and_grad(partial(loss, model, features))(state.params, batch)
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


def train(model: Fusion, features: Features, data: Batch, settings: Settings, evaluate) -> dict:
    """Returns trained parameters; prints a line an epoch."""
    init_key, order_key = jax.random.split(jax.random.key(settings.seed))
    params = model.init(init_key, *inputs(features, data.user[:1], data.item[:1]))
    optimizer = optax.sgd(settings.learning_rate)
    step = make_step(model, features, optimizer)

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


def columns(ratings: Ratings, part: np.ndarray) -> Batch:
    """Returns the ratings that a bool mask [N] selects, on the device."""
    user, item, stars = (c[part] for c in (ratings.user, ratings.item, ratings.rating))
    return Batch(*map(jnp.asarray, (user, item, stars, np.ones(len(user), bool))))


def feature_tables(ratings: Ratings) -> Features:
    """Returns attributes of users, and padded genres and title words of items, by table row."""
    item = {}
    for name, ragged in ratings.item_features.items():
        item[name], item[f"{name}_mask"] = map(jnp.asarray, pad(ragged))
    return Features(jax.tree.map(jnp.asarray, ratings.user_features), item)


def item_mean_rmse(train: Batch, test: Batch, items: int) -> float:
    """Returns the test RMSE of each item's mean rating, of the global mean where it has none."""
    count = np.bincount(train.item, minlength=items)
    means = np.bincount(train.item, train.stars, items) / np.maximum(count, 1)
    means[count == 0] = np.mean(train.stars)
    return float(np.sqrt(np.mean((means[np.asarray(test.item)] - test.stars) ** 2)))


def main(settings: Settings) -> float:
    """Trains, prints test RMSE beside the item mean's and ten items for one user; returns the RMSE."""
    ratings = load_movielens(settings.dataset, settings.data_dir)
    # The book's split: a draw below 0.1 sends a rating to test.
    held_out = np.random.RandomState(0).random_sample(len(ratings)) < 0.1
    data, test = columns(ratings, ~held_out), columns(ratings, held_out)
    features = feature_tables(ratings)
    model = Fusion({name: vocabulary.rows for name, vocabulary in ratings.vocabularies.items()})

    @jax.jit
    def predict(params: dict, user: jax.Array, item: jax.Array) -> jax.Array:
        return (model.apply(params, *inputs(features, user, item)) + 5) / 2

    def rmse(params: dict) -> float:
        return float(((predict(params, test.user, test.item) - test.stars) ** 2).mean() ** 0.5)

    params = train(model, features, data, settings, rmse)
    result = rmse(params)
    users, items = (ratings.vocabularies[name] for name in ("user", "item"))
    print(f"\n{'test RMSE in stars':24s}{ratings.name}")
    print(f"{'item mean':24s}{item_mean_rmse(data, test, items.rows):.4f}")
    print(f"{'fusion':24s}{result:.4f}\n\nten items for user {settings.user}:")

    row = users.encode([settings.user])[0]
    rest = np.setdiff1d(np.arange(FIRST, items.rows), ratings.item[ratings.user == row])
    stars = predict(params, jnp.full(len(rest), row), jnp.asarray(rest))
    for k in np.argsort(-stars)[:10]:
        print(f"  {stars[k]:.2f}  {ratings.titles[rest[k]]}")
    return result


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
