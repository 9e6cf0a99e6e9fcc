"""Whole-catalogue evaluation of a model whose score is u . w + b, made once from its functions."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jrec.evaluate.ranks import target_ranks
from jrec.evaluate.top_k import top_items
from jrec.train.chunk import Gather
from jrec.train.devices import over_devices

UserVectors = Callable[[Any, Any], jax.Array]
"""(params, batch) -> float32 [B, D]."""
ItemVectors = Callable[[Any], tuple[jax.Array, jax.Array]]
"""params -> (float32 [M, D], biases float32 [M])."""


def make_next_item_ranker(
    user_vectors: UserVectors,
    item_vectors: ItemVectors,
    gather: Gather,
    batch_size: int = 256,
    item_block: int = 4096,
) -> Callable[[Any, Any], tuple[np.ndarray, np.ndarray]]:
    """Returns a ranker by `target_ranks`: ties pessimistic, the same on any number of devices.

    Args:
        gather: (data, positions int32 [B], mask bool [B]) -> batch, as in `jrec.train.chunk`. Its batch
            has `targets` int [B, T] and `targets_mask` bool [B, T], false where the mask is; to remove
            seen items, `seen` int [B, L] and `seen_mask` bool [B, L]; and what `user_vectors` reads.
        batch_size: B. item_block: items scored at once.

    Returns:
        A function (params, data) -> (rank int32 [n, T], counted bool [n, T]) on the host, for the users
        `data["user"]` [n], positions 0 to n - 1. `data["recommendable"]` is bool [M].
    """

    def ranks(params: Any, items: tuple, data: Any, batch: Any) -> tuple[jax.Array, jax.Array]:
        return target_ranks(
            user_vectors(params, batch),
            *items,
            batch["targets"],
            batch["targets_mask"],
            batch.get("seen"),
            batch.get("seen_mask"),
            data["recommendable"],
            item_block,
        )

    all_ranks = _over_users(ranks, item_vectors, gather, batch_size)

    def ranker(params: Any, data: Any) -> tuple[np.ndarray, np.ndarray]:
        if len(data["user"]) == 0:  # there is nothing to gather
            return np.zeros((0, 1), np.int32), np.zeros((0, 1), bool)
        return all_ranks(params, data)

    return ranker


def make_recommender(
    user_vectors: UserVectors,
    item_vectors: ItemVectors,
    gather: Gather,
    K: int,
    batch_size: int = 256,
    item_block: int = 16_384,
) -> Callable[[Any, Any], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Lists for all users by `top_items`; the arguments are those of `make_next_item_ranker`.

    Returns:
        A function (params, data) -> (ids int32 [n, K], scores float32 [n, K], mask bool [n, K]).
    """

    def lists(params: Any, items: tuple, data: Any, batch: Any) -> tuple:
        return top_items(
            user_vectors(params, batch),
            *items,
            K,
            batch.get("seen"),
            batch.get("seen_mask"),
            data["recommendable"],
            item_block,
        )

    return _over_users(lists, item_vectors, gather, batch_size)


def _over_users(
    of_batch: Callable[[Any, tuple, Any, Any], tuple],
    item_vectors: ItemVectors,
    gather: Gather,
    batch_size: int,
) -> Callable[[Any, Any], tuple]:
    """Arrays [n, ...] of all users, batch after batch in one compiled loop."""

    def of_batches(arguments: tuple[Any, Any], starts: jax.Array) -> tuple:
        params, data = arguments
        count = len(data["user"])
        items = item_vectors(params)

        def step(start: jax.Array) -> tuple:
            positions = start + jnp.arange(batch_size, dtype=jnp.int32)
            mask = positions < count
            batch = gather(data, jnp.where(mask, positions, 0), mask)
            return of_batch(params, items, data, batch)

        return jax.lax.map(step, starts)

    shared = over_devices(of_batches)

    def run(params: Any, data: Any) -> tuple:
        count = len(data["user"])
        found = shared((params, data), np.arange(0, count, batch_size))
        return tuple(np.asarray(x).reshape(-1, *x.shape[2:])[:count] for x in found)

    return run
