"""Candidate generation on MovieLens by causal self-attention over each user's history, in one file.

    python -m experiments.minimal.candidates

The state after every click scores the whole catalogue; a full softmax asks for the next one (SASRec, Kang and McAuley
2018). `experiments/candidates` adds the LSTM of Paddle's youtube_recall, sampled losses, features, resume and more.
"""

from collections.abc import Callable, Sequence
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
from jrec.data.vocabulary import FIRST, PADDING, UNKNOWN

# ---------------------------------------------------------------- settings


@dataclass(frozen=True)
class Settings:
    """Those of `python -m experiments.candidates train --dataset ml-100k --tables dense --epochs 8`."""

    dataset: str = "ml-100k"
    """A MovieLens data set; every rating is a click."""
    data_dir: Path | None = None
    """Folder or archive that holds it. Left out: the cache, else the network."""
    length: int = 50
    """Clicks that the network reads."""
    width: int = 64
    layers: int = 2
    heads: int = 2
    dropout: float = 0.1
    epochs: int = 8
    batch_size: int = 32
    """Runs of `length` clicks a step."""
    learning_rate: float = 2e-3
    """Of Adam, after a linear rise over the first 100 steps."""
    seed: int = 0
    user: int = 1
    """Whose ten best items are printed."""


# ---------------------------------------------------------------- model and loss


class Attention(nn.Module):
    """User vectors after every click; items are scored with the vectors that histories are read with."""

    items: int
    length: int
    width: int
    layers: int
    heads: int
    dropout: float

    @nn.compact
    def __call__(self, item_BL: jax.Array, mask_BL: jax.Array, train: bool = False) -> jax.Array:
        """Returns float32 [B, L, D] for int32 [B, L] and bool [B, L], the oldest click first."""
        drop = partial(nn.Dropout, self.dropout, deterministic=not train)
        table_VD = self.param("table", nn.initializers.normal(0.02), (self.items, self.width))
        self.param("bias", nn.initializers.zeros, (self.items,))  # read by `scores`
        x_BLD = drop()(jnp.where(mask_BL[..., None], table_VD[item_BL], 0) * self.width**0.5)

        distance_LL = jnp.arange(self.length)[:, None] - jnp.arange(self.length)[None]
        allowed_BLL = (distance_LL >= 0)[None] & mask_BL[:, None] | (distance_LL == 0)[None]
        for k in range(self.layers):
            # Order is told by a learned bias for each head and distance.
            bias_HL = self.param(f"distance_{k}", nn.initializers.zeros, (self.heads, self.length))
            y_BLD = nn.LayerNorm(name=f"norm_{k}_attention")(x_BLD)
            heads = self.heads, self.width // self.heads
            query, key, value = (
                nn.DenseGeneral(heads, name=f"{name}_{k}")(y_BLD)
                for name in ("query", "key", "value")
            )
            score_BHLL = jnp.einsum("blhd,bmhd->bhlm", query, key) / heads[1] ** 0.5
            score_BHLL += bias_HL[None, :, jnp.maximum(distance_LL, 0)]
            weight_BHLL = nn.softmax(jnp.where(allowed_BLL[:, None], score_BHLL, -jnp.inf))
            y = jnp.einsum("bhlm,bmhd->blhd", drop()(weight_BHLL), value)
            y_BLD = nn.DenseGeneral(self.width, axis=(-2, -1), name=f"join_{k}")(y)
            x_BLD += drop()(y_BLD)
            y_BLD = nn.LayerNorm(name=f"norm_{k}_hidden")(x_BLD)
            y_BLD = nn.gelu(nn.Dense(4 * self.width, name=f"hidden_{k}")(y_BLD))
            x_BLD += drop()(nn.Dense(self.width, name=f"back_{k}")(y_BLD))
        return nn.LayerNorm(name="norm_out")(x_BLD)


def scores(params: dict, user_BD: jax.Array) -> jax.Array:
    """Returns float32 [..., V] for user vectors [..., D]; padding and the unknown item score -inf."""
    table_VD, bias_V = params["params"]["table"], params["params"]["bias"]
    bias_V = jnp.where(jnp.arange(len(bias_V)) >= FIRST, bias_V, -jnp.inf)
    score_BV = user_BD @ table_VD.T
    return score_BV + jnp.broadcast_to(bias_V, score_BV.shape)


class Batch(NamedTuple):
    """Runs of clicks, int32 [B, L]: what was clicked before, the next click; what counts, bool [B, L]."""

    item: jax.Array
    target: jax.Array
    mask: jax.Array


def loss(model: Attention, params: dict, batch: Batch, key: jax.Array) -> jax.Array:
    """Returns the mean cross-entropy of the next clicks over the whole catalogue."""
    user_BLD = model.apply(params, batch.item, batch.mask, True, rngs={"dropout": key})
    target_BL = jnp.where(batch.mask, batch.target, FIRST)
    each = optax.softmax_cross_entropy_with_integer_labels(scores(params, user_BLD), target_BL)
    return jnp.where(batch.mask, each, 0).sum() / jnp.maximum(batch.mask.sum(), 1)


# ---------------------------------------------------------------- step and loop


class State(NamedTuple):
    """Everything that a step changes, and the key that its randomness comes from."""

    step: jax.Array
    key: jax.Array
    params: dict
    opt_state: optax.OptState


def make_step(model: Attention, optimizer: optax.GradientTransformation) -> Callable:
    """Returns a pure function (state, batch) -> (state, loss)."""

    def step(state: State, batch: Batch) -> tuple[State, jax.Array]:
        key = jax.random.fold_in(state.key, state.step)
        value, gradient = jax.value_and_grad(partial(loss, model))(state.params, batch, key)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return State(state.step + 1, state.key, params, opt_state), value

    return step


def epoch_batches(data: Batch, key: jax.Array, batch_size: int) -> Batch:
    """Returns the runs in a random order as [steps, B, L]; runs that fill the last batch do not count."""
    count = len(data.item)
    order = jax.random.permutation(key, count)
    order = jnp.append(order, jnp.full(-count % batch_size, count)).reshape(-1, batch_size)
    batches = jax.tree.map(lambda column: column.at[order].get(mode="clip"), data)
    return batches._replace(mask=batches.mask & (order < count)[..., None])


def train(model: Attention, data: Batch, settings: Settings, evaluate: Callable) -> dict:
    """Returns trained parameters; prints a line an epoch with what `evaluate` returns for them."""
    init_key, step_key, order_key = jax.random.split(jax.random.key(settings.seed), 3)
    params = model.init(init_key, data.item[:1], data.mask[:1])
    rate = settings.learning_rate
    optimizer = optax.adam(optax.linear_schedule(rate / 100, rate, 100))
    step = make_step(model, optimizer)

    @partial(jax.jit, donate_argnums=0)
    def epoch(state: State, key: jax.Array) -> tuple[State, jax.Array]:
        state, losses = jax.lax.scan(step, state, epoch_batches(data, key, settings.batch_size))
        return state, losses.mean()

    state = State(jnp.zeros((), jnp.int32), step_key, params, optimizer.init(params))
    for number in range(settings.epochs):
        state, value = epoch(state, jax.random.fold_in(order_key, number))
        found = "  ".join(f"{name} {mean:.4f}" for name, mean in evaluate(state.params).items())
        print(f"epoch {number + 1:2d}  train cost {value:.4f}  {found}")
    return state.params


# ---------------------------------------------------------------- data, evaluation, table


def runs(clicks: Sequence[np.ndarray], length: int) -> Batch:
    """Cuts clicks into runs of `length`; each is a target once, the unknown item stands before the first."""
    rows = []
    for own in clicks:
        pairs = np.stack([np.append(UNKNOWN, own[:-1]), own])
        for end in range(len(own), 0, -length):
            part = pairs[:, max(0, end - length) : end]
            rows.append(np.pad(part, ((0, 0), (0, length - part.shape[1]))))
    item, target = map(jnp.asarray, np.stack(rows, 1).astype(np.int32))
    return Batch(item, target, target != PADDING)


@partial(jax.jit, static_argnums=0)
def last_states(model: Attention, params: dict, item_NL: jax.Array) -> jax.Array:
    """Returns float32 [N, D] after the last click of each padded history."""
    mask_NL = item_NL != PADDING
    user_NLD = model.apply(params, item_NL, mask_NL)
    return user_NLD[jnp.arange(len(item_NL)), mask_NL.sum(1) - 1]


def user_vectors(model: Attention, params: dict, histories: Sequence[np.ndarray]) -> jax.Array:
    """Returns float32 [N, D] after the last clicks of each history, which may be empty."""
    read = [np.append(UNKNOWN, own)[-model.length :] for own in histories]
    item_NL = np.stack([np.pad(own, (0, model.length - len(own))) for own in read])
    return last_states(model, params, item_NL.astype(np.int32))


def metrics(score_NV: jax.Array, clicks: Sequence[np.ndarray]) -> dict[str, float]:
    """Returns HR@10 and NDCG@10 of each user's last click among the items not clicked before."""
    score_NV, last_N1 = np.array(score_NV), np.array([own[-1:] for own in clicks])
    for score_V, own in zip(score_NV, clicks, strict=True):
        score_V[own[:-1]] = -np.inf
    rank_N = (score_NV >= np.take_along_axis(score_NV, last_N1, 1)).sum(1)  # ties: the worst rank
    hit_N = rank_N <= 10
    return {"HR@10": hit_N.mean(), "NDCG@10": (hit_N / np.log2(rank_N + 1)).mean()}


def main(settings: Settings) -> dict[str, float]:
    """Trains, prints test metrics beside popularity's and ten items for one user; returns them."""
    ratings = load_movielens(settings.dataset, settings.data_dir)
    order = np.lexsort((ratings.timestamp, ratings.user))
    users, starts = np.unique(ratings.user[order], return_index=True)
    clicks = np.split(ratings.item[order], starts[1:])
    # The last click is test. The one before it would be validation, and is not trained on.
    data = runs([own[:-2] for own in clicks], settings.length)
    shape = settings.length, settings.width, settings.layers, settings.heads
    items = ratings.vocabularies["item"].rows
    model = Attention(items, *shape, settings.dropout)

    def evaluate(params: dict) -> dict[str, float]:
        vectors_ND = user_vectors(model, params, [own[:-1] for own in clicks])
        return metrics(scores(params, vectors_ND), clicks)

    params = train(model, data, settings, evaluate)
    popular_V = np.bincount(data.target[data.mask], minlength=items).astype(np.float32)
    found = {"popularity": metrics(np.tile(popular_V, (len(clicks), 1)), clicks)}
    found["attention"] = evaluate(params)
    print(f"\n{ratings.name:12s}{'HR@10':>9s}{'NDCG@10':>9s}")
    for name, means in found.items():
        print(f"{name:12s}" + "".join(f"{mean:9.4f}" for mean in means.values()))

    row = ratings.vocabularies["user"].encode([settings.user])[0]
    own = clicks[np.searchsorted(users, row)]
    score_V = np.array(scores(params, user_vectors(model, params, [own]))[0])
    score_V[own] = -np.inf
    print(f"\nten items for user {settings.user}:")
    for item in np.argsort(-score_V)[:10]:
        print(f"  {score_V[item]:.2f}  {ratings.titles[item]}")
    return found["attention"]


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
