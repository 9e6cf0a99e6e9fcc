"""The deep autoencoder of DeepRecommender with dense re-feeding, in one file.

    python -m experiments.minimal.autoencoder

A user's ratings go in, ratings of all items come out; the loss counts the rated ones. After each step the output is fed
in again, as its own target, with an update of its own. `experiments/autoencoder` adds checkpoints, resume, several
devices, exports and a form that computes rated items alone.
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
    """Those of `python -m experiments.autoencoder train --milestones --epochs 40`: the rate is not halved."""

    dataset: str = "ml-100k"
    """A MovieLens data set."""
    data_dir: Path | None = None
    """Folder or archive that holds it. Left out: the cache, else the network."""
    hidden: tuple[int, ...] = (128, 256, 256)
    """Widths of the encoder; the decoder mirrors them."""
    dropout: float = 0.65
    """Share of the code that is dropped in training."""
    refeed: int = 1
    """Steps on the model's own output after each ordinary step."""
    epochs: int = 40
    batch_size: int = 128
    """Users a step."""
    learning_rate: float = 0.005
    momentum: float = 0.9
    seed: int = 0
    user: int = 1
    """Whose ten best items are printed."""


# ---------------------------------------------------------------- model and loss


class Autoencoder(nn.Module):
    """n, h1, ..., hk, dropout, ..., h1, n with SELU after every layer (Kuchaiev and Ginsburg 2017)."""

    items: int
    hidden: tuple[int, ...]
    dropout: float

    @nn.compact
    def __call__(self, ratings_BM: jax.Array, train: bool = False) -> jax.Array:
        """Returns predictions float32 [B, M] for ratings [B, M], 0 where there is none."""
        dense = partial(nn.Dense, kernel_init=nn.initializers.xavier_uniform())
        code = ratings_BM
        for k, width in enumerate(self.hidden):
            code = nn.selu(dense(width, name=f"encoder_{k}")(code))
        if train and self.dropout:
            kept = jax.random.bernoulli(self.make_rng("dropout"), 1 - self.dropout, code.shape)
            code = jnp.where(kept, code / (1 - self.dropout), 0)
        for k, width in reversed(list(enumerate((self.items, *self.hidden[:-1])))):
            code = nn.selu(dense(width, name=f"decoder_{k}")(code))
        return code


class Batch(NamedTuple):
    """Ratings of B users float32 [B, M], what is rated bool [B, M], and which users count bool [B]."""

    ratings: jax.Array
    rated: jax.Array
    mask: jax.Array


def loss(
    model: Autoencoder,
    params: dict,
    inputs_BM: jax.Array,
    target_BM: jax.Array,
    counted_BM: jax.Array,
    key: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Returns the mean squared error over what counts, and the outputs [B, M]."""
    outputs_BM = model.apply(params, inputs_BM, True, rngs={"dropout": key})
    error_BM = jnp.where(counted_BM, outputs_BM - target_BM, 0)
    return (error_BM**2).sum() / jnp.maximum(counted_BM.sum(), 1), outputs_BM


# ---------------------------------------------------------------- step and loop


class State(NamedTuple):
    """Everything that a step changes, and the key that its randomness comes from."""

    step: jax.Array
    key: jax.Array
    params: dict
    opt_state: optax.OptState


def make_step(model: Autoencoder, optimizer: optax.GradientTransformation, refeed: int):
    """Returns a pure function (state, batch) -> (state, loss): one ordinary step and `refeed` re-fed ones."""

    def step(state: State, batch: Batch) -> tuple[State, jax.Array]:
        key = jax.random.fold_in(state.key, state.step)
        # Dropout draws its key from a split, as the full experiment splits input noise off.
        inputs_BM, counted_BM = batch.ratings, batch.rated & batch.mask[:, None]
        everything_BM = jnp.broadcast_to(batch.mask[:, None], inputs_BM.shape)
        params, opt_state, first = state.params, state.opt_state, None
        for k in range(1 + refeed):
            fresh = key if k == 0 else jax.random.fold_in(key, k)
            (value, outputs_BM), gradient = jax.value_and_grad(partial(loss, model), has_aux=True)(
                params, inputs_BM, inputs_BM, counted_BM, jax.random.split(fresh)[0]
            )
            updates, opt_state = optimizer.update(gradient, opt_state, params)
            params = optax.apply_updates(params, updates)
            first = value if k == 0 else first
            inputs_BM, counted_BM = jax.lax.stop_gradient(outputs_BM), everything_BM
        return State(state.step + 1, state.key, params, opt_state), first

    return step


def epoch_batches(users: int, key: jax.Array, batch_size: int) -> tuple[jax.Array, jax.Array]:
    """Returns users in a random order, int32 [steps, B], and what counts: the last batch is filled up."""
    order = jax.random.permutation(key, users)
    order = jnp.append(order, jnp.full(-users % batch_size, users)).reshape(-1, batch_size)
    return jnp.minimum(order, users - 1), order < users


def train(model: Autoencoder, data: Batch, settings: Settings, evaluate) -> dict:
    """Returns trained parameters; prints a line every ten epochs."""
    init_key, step_key, order_key = jax.random.split(jax.random.key(settings.seed), 3)
    params = model.init(init_key, data.ratings[:1])
    optimizer = optax.sgd(settings.learning_rate, settings.momentum)
    step = make_step(model, optimizer, settings.refeed)

    @partial(jax.jit, donate_argnums=0)
    def epoch(state: State, key: jax.Array) -> tuple[State, jax.Array]:
        def one(state: State, chosen: tuple[jax.Array, jax.Array]) -> tuple[State, jax.Array]:
            user_B, mask_B = chosen
            return step(state, Batch(data.ratings[user_B], data.rated[user_B], mask_B))

        batches = epoch_batches(len(data.ratings), key, settings.batch_size)
        state, losses = jax.lax.scan(one, state, batches)
        return state, losses.mean()

    state = State(jnp.zeros((), jnp.int32), step_key, params, optimizer.init(params))
    for number in range(settings.epochs):
        state, value = epoch(state, jax.random.fold_in(order_key, number))
        if (number + 1) % 10 == 0:
            print(
                f"epoch {number + 1:2d}  train cost {value:.4f}  test RMSE {evaluate(state.params):.4f}"
            )
    return state.params


# ---------------------------------------------------------------- data, evaluation, table


def first_ratings(ratings: Ratings, share: float = 0.7) -> np.ndarray:
    """Returns bool [N]: whether a rating is among the first 70% (rounded down) of its user's."""
    order = np.lexsort((ratings.timestamp, ratings.user))
    count = np.bincount(ratings.user)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order)) - (np.cumsum(count) - count)[ratings.user[order]]
    return place < np.floor(share * count[ratings.user])


def rectangle(ratings: Ratings, part: np.ndarray, items: np.ndarray) -> Batch:
    """Returns the ratings that a bool mask [N] selects as users x items; a column for each of `items`."""
    part = part & np.isin(ratings.item, items)
    at = ratings.user[part] - FIRST, np.searchsorted(items, ratings.item[part])
    shape = ratings.vocabularies["user"].rows - FIRST, len(items)
    values, rated = np.zeros(shape, np.float32), np.zeros(shape, bool)
    values[at], rated[at] = ratings.rating[part], True
    return Batch(jnp.asarray(values), jnp.asarray(rated), jnp.ones(shape[0], bool))


def item_mean_rmse(data: Batch, test: Batch) -> float:
    """Returns the test RMSE of predicting each item's mean rating."""
    mean_M = data.ratings.sum(0) / data.rated.sum(0)
    error_BM = jnp.where(test.rated, mean_M[None] - test.ratings, 0)
    return float(((error_BM**2).sum() / test.rated.sum()) ** 0.5)


def main(settings: Settings) -> float:
    """Trains, prints test RMSE beside the item mean's and ten items for one user; returns the RMSE."""
    ratings = load_movielens(settings.dataset, settings.data_dir)
    early = first_ratings(ratings)
    items = np.unique(ratings.item[early])  # what training has not seen has no column
    data, test = rectangle(ratings, early, items), rectangle(ratings, ~early, items)
    model = Autoencoder(len(items), settings.hidden, settings.dropout)

    @jax.jit
    def rmse(params: dict) -> jax.Array:
        error_BM = jnp.where(test.rated, model.apply(params, data.ratings) - test.ratings, 0)
        return jnp.sqrt((error_BM**2).sum() / test.rated.sum())

    params = train(model, data, settings, rmse)
    result = float(rmse(params))
    print(f"\n{'test RMSE in stars':24s}{ratings.name}, each user's last 30%")
    print(f"{'item mean':24s}{item_mean_rmse(data, test):.4f}")
    print(f"{'autoencoder':24s}{result:.4f}\n\nten items for user {settings.user}:")

    row = ratings.vocabularies["user"].encode([settings.user])[0] - FIRST
    stars = model.apply(params, data.ratings[row][None])[0]
    stars = jnp.where(data.rated[row] | test.rated[row], -jnp.inf, stars)
    for k in np.argsort(-stars)[:10]:
        print(f"  {stars[k]:.2f}  {ratings.titles[items[k]]}")
    return result


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
