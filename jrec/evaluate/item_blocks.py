"""The catalogue block by block: the scores of one block of items for a batch of users."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

LARGEST = float(jnp.finfo(jnp.float32).max)
_COLUMNS = 64  # items of a user removed at once


class Items(NamedTuple):
    """Items, or a block of them.

    Attributes:
        vectors: float32 [M, D]. bias: float32 [M].
        recommendable: bool [M], false for padding, unknown and withdrawn rows.
    """

    vectors: jax.Array
    bias: jax.Array
    recommendable: jax.Array


def make_items(
    item_MD: jax.Array, bias_M: jax.Array, recommendable_M: jax.Array | None, at_least: int
) -> Items:
    """Float32 items, a small catalogue filled up to `at_least` rows (a larger one is not copied)."""
    M = len(item_MD)
    if recommendable_M is None:
        recommendable_M = jnp.ones(M, bool)
    items = Items(item_MD.astype(jnp.float32), bias_M.astype(jnp.float32), recommendable_M)
    missing = max(at_least - M, 0)
    if missing == 0:
        return items
    return jax.tree.map(lambda x: jnp.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1)), items)


def score_block(
    items: Items, user_BD: jax.Array, removed: Sequence[jax.Array], first: jax.Array, R: int
) -> tuple[jax.Array, Items, jax.Array]:
    """Scores of items `first` to `first + R`, each user's removed ones left out.

    Args:
        user_BD: float32 [B, D].
        removed: arrays int [B, L] of item ids, in any order and repeated at will; -1 is no item.
        first: a multiple of R below the number of items, of which there are R or more.

    Returns:
        (score [B, R], block, start). The last block begins before `first` instead of being padded,
        at `start`. Scores are finite or NaN; -inf stands for items that are not recommendable, are
        removed, or belong to the block before.
    """
    start = jnp.minimum(first, len(items.bias) - R)
    block = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, R), items)
    block = block._replace(
        recommendable=block.recommendable & (start + jnp.arange(R, dtype=jnp.int32) >= first)
    )
    score_BR = jnp.dot(user_BD, block.vectors.T, precision=jax.lax.Precision.HIGHEST)
    score_BR = jnp.clip(score_BR + block.bias[None], -LARGEST, LARGEST)
    score_BR = jnp.where(block.recommendable[None], score_BR, -jnp.inf)
    for ids_BL in removed:
        score_BR = _remove(score_BR, ids_BL, start)
    return score_BR, block, start


def _remove(score_BR: jax.Array, ids_BL: jax.Array, start: jax.Array) -> jax.Array:
    (B, R), L = score_BR.shape, ids_BL.shape[1]
    if L == 0:
        return score_BR
    width = min(_COLUMNS, L)
    # Columns behind the longest list are not visited; the last ones overlap those before.
    used = jnp.max(jnp.where((ids_BL >= 0).any(0), jnp.arange(1, L + 1, dtype=jnp.int32), 0))

    def some(number: jax.Array, score_BR: jax.Array) -> jax.Array:
        ids = jax.lax.dynamic_slice_in_dim(ids_BL, number * width, width, axis=1)
        inside = (ids >= start) & (ids < start + R)
        places = (jnp.arange(B, dtype=jnp.int32)[:, None], jnp.where(inside, ids - start, R))
        return score_BR.at[places].set(-jnp.inf, mode="drop")

    return jax.lax.fori_loop(0, (used + width - 1) // width, some, score_BR)
