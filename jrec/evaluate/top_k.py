"""The best K items of each user out of the whole catalogue, in bounded memory."""

import math

import jax
import jax.numpy as jnp

from jrec.evaluate.item_blocks import LARGEST, make_items, score_block


def top_items(
    user_BD: jax.Array,
    item_MD: jax.Array,
    bias_M: jax.Array,
    K: int,
    seen_BL: jax.Array | None = None,
    seen_mask_BL: jax.Array | None = None,
    recommendable_M: jax.Array | None = None,
    item_block: int = 16_384,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Each user's K items of the highest u . w + b, best first; of equal scores the lower id.

    Args:
        user_BD: float32 [B, D]. item_MD: float32 [M, D]. bias_M: float32 [M].
        seen_BL, seen_mask_BL: int and bool [B, L], items left out for a user; None leaves out nothing.
        recommendable_M: bool [M], false for padding, unknown and withdrawn rows; None: all may be.
        item_block: items scored at once; memory is some item_block x (B + D) numbers.

    Returns:
        (ids int32 [B, K], scores float32 [B, K], mask bool [B, K]); the mask is false, and the id -1,
        where fewer than K items are left. Scores are those of a matrix product: items that lie within
        its rounding error may change places with the block size (`target_ranks` does not). NaN comes
        last.
    """
    B, M = len(user_BD), len(item_MD)
    R = max(min(item_block, M), K)
    # Few groups and few items in the chosen ones: their maxima and their items cost the least
    # together when a group is about sqrt(R / K) wide.
    group = 2 ** max(round(math.log2(R / K) / 2), 0)
    R = -(-R // group) * group
    items = make_items(item_MD, bias_M, recommendable_M, R)
    user_BD = user_BD.astype(jnp.float32)
    removed = [] if seen_BL is None else [jnp.where(seen_mask_BL, seen_BL, -1)]

    def merge(best: tuple[jax.Array, jax.Array], first: jax.Array) -> tuple[tuple, None]:
        score_BR, _, start = score_block(items, user_BD, removed, first, R)
        score_BR = jnp.where(jnp.isnan(score_BR), -LARGEST, score_BR)
        score_BK, place_BK = _top_of_groups(score_BR, K, group)
        scores = jnp.concatenate([best[0], score_BK], 1)
        ids = jnp.concatenate([best[1], start + place_BK], 1)
        # Of equal scores `top_k` takes the first: the one from an earlier block.
        score_BK, place_BK = jax.lax.top_k(scores, K)
        return (score_BK, jnp.take_along_axis(ids, place_BK, 1)), None

    nothing = (jnp.full((B, K), -jnp.inf, jnp.float32), jnp.full((B, K), -1, jnp.int32))
    (score_BK, id_BK), _ = jax.lax.scan(merge, nothing, jnp.arange(0, M, R, dtype=jnp.int32))
    mask_BK = score_BK > -jnp.inf
    return jnp.where(mask_BK, id_BK, -1), score_BK, mask_BK


def _top_of_groups(score_BR: jax.Array, K: int, group: int) -> tuple[jax.Array, jax.Array]:
    """`lax.top_k`, from the K groups of the highest maxima, which hold the K best items."""
    B, R = score_BR.shape
    if group < 4:
        return jax.lax.top_k(score_BR, K)
    score_BGS = score_BR.reshape(B, R // group, group)
    _, chosen_BK = jax.lax.top_k(score_BGS.max(-1), K)
    chosen_BK = jnp.sort(chosen_BK, axis=1)  # so that the first place is again the lowest id
    score_BC = jnp.take_along_axis(score_BGS, chosen_BK[:, :, None], 1).reshape(B, K * group)
    score_BK, place_BK = jax.lax.top_k(score_BC, K)
    group_BK = jnp.take_along_axis(chosen_BK, place_BK // group, 1)
    return score_BK, group_BK * group + place_BK % group
