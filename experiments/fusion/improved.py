"""The improved preset of the fusion experiment: rating profiles in the item tower.

A step takes a block of items with all that all users gave them, so that everything is a dense matrix
product; half of each item's ratings are hidden from its profile, anew each epoch. What was tried and
measured on the way here stands in BUILD_NOTES.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.rating_system import System
from jrec.baselines.biases import fit_biases
from jrec.data.ratings import Ratings
from jrec.embeddings.batch_axis import local_part, whole_rows
from jrec.errors import InputError
from jrec.losses.ratings import weighted_squared_error
from jrec.models.matmul import Compute
from jrec.models.profiled_fusion import ProfiledFusion, Towers, block_scores, profile_of
from jrec.train.devices import alike, device_axis, first_batch, placed
from jrec.train.rating_batches import feature_tables
from jrec.train.spread import rows_at
from jrec.train.step import Batch, init_state, make_step
from jrec.train.streams import DeviceStream

_LARGEST_MATRIX = 2_000_000_000
_BLOCK = 256


@dataclass(frozen=True)
class Improved:
    """Settings of the improved preset alone, chosen on the validation part of MovieLens-1M."""

    heads: int = 4
    """Networks trained side by side, each with its own hidden ratings; their mean predicts."""
    width: int = 256
    """Width of both towers."""
    hide: float = 0.5
    """Share of the training ratings hidden from the item profiles, drawn anew each epoch."""
    seen_weight: float = 0.5
    """Weight in the loss of a rating that the profile shows; a hidden one has 1."""
    dropout: float = 0.3
    """Share of the item code that training drops."""
    side_scale: float = 0.3
    """Factor of genres, title and user attributes beside profiles and ids."""
    user_decay: float = 3e-5
    """Times the squared user table, added to the mean squared error in stars."""
    profile_decay: float = 1.5e-4
    """Times the squared profile weights, added likewise."""
    compute: Compute = "float32"
    """Format of the factors of matrix products; all else is float32."""


def check_improved(improved: Improved) -> None:
    """Raises InputError for a setting that makes no sense."""
    for name in ("heads", "width"):
        value = getattr(improved, name)
        if not 1 <= value < 2**31:
            raise InputError(f"--improved.{name} must be 1 or more, but is {value}.")
    for name in ("hide", "seen_weight", "dropout"):
        value = getattr(improved, name)
        if not 0 <= value <= 1 or (name != "seen_weight" and value == 1):
            flag = name.replace("_", "-")
            raise InputError(f"--improved.{flag} must be from 0 to below 1, but is {value}.")
    for name in ("user_decay", "profile_decay", "side_scale"):
        if not 0 <= getattr(improved, name) < np.inf:
            flag = name.replace("_", "-")
            raise InputError(f"--improved.{flag} must be 0 or more.")


def ratings_by_item(ratings: Ratings, train: np.ndarray) -> dict[str, Any]:
    """The ratings at int positions `train`, item by item, and their biases, for `item_blocks`.

    Returns:
        `offsets` int64 [M + 1] of the M item rows; `user` int32 [n]; `stars` [n] in half stars, uint8 where they
        fit, else float32; `mean` float32; `item_bias` [M] and `user_bias` [N] float32, regularised.

    Raises InputError where the matrix would be too large.
    """
    users, items = (ratings.vocabularies[name].rows for name in ("user", "item"))
    if users * items > _LARGEST_MATRIX:
        raise InputError(
            f"--preset improved keeps a matrix of {items:,} items x {users:,} users, too large here; "
            f"use --preset source for {ratings.name}."
        )
    user, item, rating = (column[train] for column in (ratings.user, ratings.item, ratings.rating))
    halves = 2 * rating
    small = (halves == np.rint(halves)) & (halves >= 0) & (halves <= 255)
    biases = fit_biases(user, item, rating, users, items)
    # Stable: of a pair that repeats the later rating stays the later.
    order = np.argsort(item, kind="stable")
    return {
        "offsets": np.concatenate([[0], np.cumsum(np.bincount(item, minlength=items))]),
        "user": user[order],
        "stars": halves.astype(np.uint8 if small.all() else np.float32)[order],
        "mean": np.float32(biases.mean),
        "item_bias": np.asarray(biases.item, np.float32),
        "user_bias": np.asarray(biases.user, np.float32),
    }


def item_blocks(by_item: dict[str, Any], tables: dict[str, dict[str, jax.Array]]) -> dict[str, Any]:
    """The training ratings by item on the devices (see `placed`).

    Args:
        by_item: from `ratings_by_item`.

    Returns:
        `stars` [M, N] in half stars with `known` bool [M, N], for M item and N user rows; the feature `tables`;
        `mean`, `item_bias` and `user_bias` as they were.
    """
    biases = {name: jnp.asarray(by_item[name]) for name in ("mean", "item_bias", "user_bias")}
    items, users = len(by_item["item_bias"]), len(by_item["user_bias"])

    def rows_of(rows: slice) -> dict[str, np.ndarray]:
        offsets = by_item["offsets"][rows.start : rows.stop + 1]
        given = slice(offsets[0], offsets[-1])
        item = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        cells = item, by_item["user"][given]
        stars = np.zeros((len(offsets) - 1, users), by_item["stars"].dtype)
        known = np.zeros(stars.shape, bool)
        stars[cells], known[cells] = by_item["stars"][given], True
        return {"stars": stars, "known": known}

    return placed(rows_of, items) | biases | {"tables": tables}


def gather_items(data: dict[str, Any], item: jax.Array, mask: jax.Array) -> Batch:
    """A block of items int32 [B] with what is known of their ratings by all N users."""
    features = {name: table[item] for name, table in data["tables"]["item"].items()}
    stars, known = rows_at((data["stars"], data["known"]), item)
    return {
        "item": {"item": item} | features,
        "user": data["tables"]["user"],
        "stars": stars.astype(jnp.float32) / 2,
        "known": known & mask[:, None],
        "mean": data["mean"],
        "item_bias": data["item_bias"][item],
    }


def build_improved(
    improved: Improved, ratings: Ratings, axis_name: str | None = None
) -> ProfiledFusion:
    """The network for a data set's tables."""
    return ProfiledFusion(
        table_rows={name: vocabulary.rows for name, vocabulary in ratings.vocabularies.items()},
        width=improved.width,
        dropout=improved.dropout,
        side_scale=improved.side_scale,
        axis_name=axis_name,
        compute=improved.compute,
    )


def init_improved(
    model: ProfiledFusion,
    improved: Improved,
    data: dict[str, Any],
    key: jax.Array,
) -> Any:
    """Fresh parameters, stacked over heads; biases start from those of the training ratings."""
    block = first_batch(gather_items, data)
    shown = jnp.zeros(block["stars"].shape, jnp.float32)
    biases = {name: data[name] for name in ("user_bias", "item_bias")}

    def init(key: jax.Array) -> Any:
        params = model.init(key, block["user"], block["item"], shown, train=False)["params"]
        return {"params": params | biases}

    return jax.jit(jax.vmap(init))(jax.random.split(key, improved.heads))


def improved_loss(
    model: ProfiledFusion, improved: Improved, params: Any, batch: Batch, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The mean of the heads' losses and counts; each head draws for itself what it hides and drops."""
    loss = partial(head_loss, model, improved)
    keys = jax.random.split(key, improved.heads)
    totals_H, counts_H = jax.vmap(loss, (0, None, 0))(params, batch, keys)
    return totals_H.mean(), counts_H.mean()


def head_loss(
    model: ProfiledFusion, improved: Improved, params: Any, batch: Batch, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Squared error, on the source's scale, of hidden and (weighted less) shown ratings.

    The weights' mean is 1, so that the count stays the number of ratings.
    """
    hide_key, dropout_key = jax.random.split(key)
    stars_BN, known_BN, mean = batch["stars"], batch["known"], batch["mean"]
    # One byte of randomness for each pair: the share hidden is a multiple of 1/256.
    shape = (whole_rows(len(stars_BN), model.axis_name), stars_BN.shape[1])
    bits_BN = jax.random.bits(hide_key, shape, jnp.uint8)
    hidden_BN = local_part(bits_BN, model.axis_name) < round(256 * improved.hide)
    profile_BN = profile_of(stars_BN, known_BN & ~hidden_BN, mean, batch["item_bias"])
    towers = model.apply(
        params,
        batch["user"],
        batch["item"],
        profile_BN / (1 - improved.hide),
        train=True,
        rngs={"dropout": dropout_key},
    )
    scale = 1 / (improved.hide + improved.seen_weight * (1 - improved.hide))
    weight_BN = jnp.where(hidden_BN, jnp.float32(scale), scale * improved.seen_weight) * known_BN
    # 2 * stars - 5 differs by twice what stars differ.
    total, count = weighted_squared_error(
        2 * block_scores(towers, model.compute), 2 * (stars_BN - mean), weight_BN
    )
    tree = params["params"]
    decay = improved.user_decay * (tree["user_table"] ** 2).sum()
    decay += improved.profile_decay * (tree["profile"] ** 2).sum()
    return total + 4 * decay * count, count


def improved_optimizer(learning_rate: float, steps: int) -> optax.GradientTransformation:
    """Adam with a short linear warm-up and a cosine down to 0 over the whole run."""
    warmup = max(1, steps // 20)
    rate = optax.warmup_cosine_decay_schedule(0.0, learning_rate, warmup, max(steps, warmup + 1))
    return optax.adam(rate, b2=0.99)


def all_vectors(model: ProfiledFusion, data: dict[str, Any], params: Any) -> dict[str, jax.Array]:
    """What predicts: vectors `item` [M, H * D], `user` [N, H * D], a bias of each, and the mean.

    The heads' vectors stand side by side, so that one product gives the mean of their predictions.
    """
    count = len(data["stars"])

    def towers_of(item: jax.Array) -> Towers:
        block = gather_items(data, item, jnp.ones(item.shape, bool))
        profile = profile_of(block["stars"], block["known"], block["mean"], block["item_bias"])
        tower = partial(model.apply, train=False)
        return jax.vmap(tower, (0, None, None, None))(params, block["user"], block["item"], profile)

    # In blocks, because all profiles at once would be the largest thing in memory.
    items = jnp.pad(jnp.arange(count, dtype=jnp.int32), (0, -count % _BLOCK)).reshape(-1, _BLOCK)
    vectors, biases = jax.lax.map(lambda item: towers_of(item)[:2], items)
    users = towers_of(items[0, :1])
    heads, width = vectors.shape[1], vectors.shape[-1]
    by_item = vectors.transpose(0, 2, 1, 3).reshape(-1, heads * width)[:count]
    return {
        "item": by_item / heads,
        "item_bias": biases.mean(1).reshape(-1)[:count],
        "user": jnp.concatenate(list(users.user_ND), -1),
        "user_bias": users.user_bias_N.mean(0),
        "mean": data["mean"],
    }


def predict_pairs(
    vectors: dict[str, jax.Array], user: jax.Array, item: jax.Array, low: float, high: float
) -> jax.Array:
    """Stars for rows int32 [B] and [B], kept inside the data set's range."""
    match = (vectors["user"][user] * vectors["item"][item]).sum(-1)
    bias = vectors["mean"] + vectors["user_bias"][user] + vectors["item_bias"][item]
    return jnp.clip(bias + match, low, high)


def improved_system(
    improved: Improved,
    ratings: Ratings,
    by_item: dict[str, Any],
    batch_size: int,
    rate: float,
    epochs: int,
    keys: Sequence[jax.Array],
) -> System:
    """Returns everything that trains and predicts with this preset, out of `ratings_by_item`.

    Args:
        keys: of the initial parameters, the steps and the epochs' orders.
    """
    init_key, step_key, order_key = keys
    tables = jax.tree.map(jnp.asarray, feature_tables(ratings))
    data = item_blocks(by_item, tables)
    axis_name = device_axis()
    model = build_improved(improved, ratings, axis_name)
    count = len(data["stars"])
    # Equal blocks: a short last one would weigh each of its ratings more.
    blocks = max(1, round(count / batch_size))
    optimizer = improved_optimizer(rate, epochs * blocks)
    low, high = ratings.rating_range
    params = init_improved(model, improved, data, init_key)
    vectors = alike(partial(all_vectors, model))
    return System(
        state=init_state(params, optimizer, step_key),
        step=make_step(partial(improved_loss, model, improved), optimizer, axis_name),
        stream=DeviceStream(data, gather_items, count, math.ceil(count / blocks), order_key),
        predictor=partial(vectors, data),
        predict=partial(predict_pairs, low=low, high=high),
    )
