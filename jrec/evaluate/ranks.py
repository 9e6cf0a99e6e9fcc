"""The exact rank of each target among the whole catalogue, by counting: no sort, no users x items array.

A matrix product scores a block of items fast, but its last bits depend on its shape: on a CPU, four of
five scores change with the number of rows beside them. So a score that lies within the rounding error of
a target's is computed again in one fixed order of additions. Ranks therefore do not depend on block size,
batch size or number of devices.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from jrec.evaluate.item_blocks import LARGEST, Items, make_items, score_block

_GROUP = 128  # items that are scored again together where one of them is too near to tell
_PAIRS = 32  # (user, group) pairs scored again at once


def target_ranks(
    user_BD: jax.Array,
    item_MD: jax.Array,
    bias_M: jax.Array,
    targets_BT: jax.Array,
    targets_mask_BT: jax.Array,
    seen_BL: jax.Array | None = None,
    seen_mask_BL: jax.Array | None = None,
    recommendable_M: jax.Array | None = None,
    item_block: int = 4096,
) -> tuple[jax.Array, jax.Array]:
    """Rank of each target, 1 for the first, by the score u . w + b of `pair_scores`.

    rank(t) = 1 + |{i in C, i != t: not score(i) < score(t)}|, where C is all recommendable items less
    the user's seen ones, plus the user's own targets. Ties are pessimistic: a target stands behind all
    that score the same, so a model that gives constant scores ranks it last. NaN counts as ahead of a
    target, and a target that scores NaN is last.

    Args:
        user_BD: float32 [B, D]. item_MD: float32 [M, D]. bias_M: float32 [M].
        targets_BT: int [B, T], held-out items; T is 1 for the next item.
        targets_mask_BT: bool [B, T], false where there is no target.
        seen_BL, seen_mask_BL: int and bool [B, L], items removed for a user, in any order, repeated or
            not; None removes nothing. A target is ranked although it was seen. Users whose lists are
            short, side by side in one call, cost less.
        recommendable_M: bool [M], false for padding, unknown and withdrawn rows; None: all may be
            recommended. A target that may not be, or is no row, ranks M + 1: it is never found.
        item_block: items scored at once; memory is some item_block x (B + D) numbers.

    Returns:
        (rank int32 [B, T], counted bool [B, T]): counted is `targets_mask_BT` less repeats of one
        target; the rank of what is not counted means nothing.
    """
    M, T = len(item_MD), targets_BT.shape[1]
    R = min(_up(item_block), _up(M))
    items = make_items(item_MD, bias_M, recommendable_M, R)
    user_BD = jnp.asarray(user_BD, jnp.float32)
    found_BT = targets_mask_BT & items.recommendable.at[targets_BT].get(
        mode="fill", fill_value=False, wrap_negative_indices=False
    )
    row_BT = jnp.where(found_BT, targets_BT, 0)
    score_BT = pair_scores(user_BD[:, None], items.vectors[row_BT], items.bias[row_BT])
    score_BT = jnp.where(jnp.isnan(score_BT), -LARGEST, score_BT)

    # The targets are taken out of the catalogue and compared with each other here, so that none is
    # compared with itself.
    same_BTT = row_BT[:, :, None] == row_BT[:, None, :]
    before_TT = jnp.tril(jnp.ones((T, T), bool), -1)
    repeat_BT = found_BT & (same_BTT & found_BT[:, None] & before_TT[None]).any(-1)
    rival_BTT = (found_BT & ~repeat_BT)[:, None] & ~same_BTT
    ahead_BT = (rival_BTT & ~(score_BT[:, None] < score_BT[:, :, None])).sum(-1, dtype=jnp.int32)
    removed = [jnp.where(found_BT, targets_BT, -1)]
    if seen_BL is not None:
        removed.append(jnp.where(seen_mask_BL, seen_BL, -1))

    def add_block(ahead_BT: jax.Array, first: jax.Array) -> tuple[jax.Array, None]:
        score_BR, block, _ = score_block(items, user_BD, removed, first, R)
        return ahead_BT + _ahead(score_BR, block, user_BD, score_BT), None

    ahead_BT, _ = jax.lax.scan(add_block, ahead_BT, jnp.arange(0, M, R, dtype=jnp.int32))
    rank_BT = jnp.where(found_BT, ahead_BT + 1, M + 1).astype(jnp.int32)
    return rank_BT, targets_mask_BT & ~repeat_BT


def ranks_of_scores(
    score_BM: np.ndarray,
    target_B: np.ndarray,
    seen_BM: sparse.csr_array | None = None,
    recommendable_M: np.ndarray | None = None,
) -> np.ndarray:
    """Returns int64 [B], the rank of one target a row among given scores, as `target_ranks` counts it.

    Ties, NaN and infinite scores, seen targets and targets that may not be recommended are treated as
    there; for baselines, whose scores are no matmul of user and item vectors.

    Args:
        score_BM: [B, M], any real type. target_B: int [B].
        seen_BM: items removed for a row, whatever value is stored; None removes nothing.
        recommendable_M: bool [M]; None: all may be recommended.
    """
    B, M = score_BM.shape
    row_B, target_B = np.arange(B), np.asarray(target_B)
    allowed_M = np.ones(M, bool) if recommendable_M is None else np.asarray(recommendable_M, bool)
    found_B = (target_B >= 0) & (target_B < M)
    item_B = np.where(found_B, target_B, 0)
    found_B &= allowed_M[item_B]
    level_B = score_BM[row_B, item_B]
    if np.issubdtype(level_B.dtype, np.floating):
        # `target_ranks` clips scores to finite numbers: no item is below the lowest, or below NaN.
        level_B = np.where(level_B > -LARGEST, np.minimum(level_B, LARGEST), -np.inf)
        level_B = level_B.astype(score_BM.dtype)
    ahead_BM = score_BM < level_B[:, None]
    np.logical_not(ahead_BM, out=ahead_BM)
    ahead_BM[:, ~allowed_M] = False
    if seen_BM is not None:
        ahead_BM[np.repeat(row_B, np.diff(seen_BM.indptr)), seen_BM.indices] = False
    ahead_BM[row_B, item_B] = False
    return np.where(found_B, 1 + ahead_BM.sum(1), M + 1)


def pair_scores(user: jax.Array, item: jax.Array, bias: jax.Array) -> jax.Array:
    """u . w + b with every addition in a fixed order: the same numbers give the same bits anywhere.

    Each factor is split into 12 + 12 bits, whose products are exact in float32 with and without fused
    multiply-add; a tree of written-out additions, which no compiler reorders, sums them.

    Args:
        user, item: float32 [..., D], of shapes that broadcast. bias: float32 [...].

    Returns:
        float32 [...], clipped to finite numbers; NaN stays NaN.
    """
    (user_high, user_low), (item_high, item_low) = _halves(user), _halves(item)
    total = (user_high * item_high + user_high * item_low) + (
        user_low * item_high + user_low * item_low
    )
    while (width := total.shape[-1]) > 1:
        half = (width + 1) // 2  # of an odd width the middle one waits
        added = total[..., : width - half] + total[..., half:]
        total = jnp.concatenate([added, total[..., width - half : half]], -1)
    return jnp.clip(total[..., 0] + bias, -LARGEST, LARGEST)


def _halves(value: jax.Array) -> tuple[jax.Array, jax.Array]:
    bits = jax.lax.bitcast_convert_type(value, jnp.uint32) & jnp.uint32(0xFFFFF000)
    high = jax.lax.bitcast_convert_type(bits, jnp.float32)
    return high, value - high


def _up(count: int) -> int:
    return -(-count // _GROUP) * _GROUP


def _ahead(
    score_BR: jax.Array, block: Items, user_BD: jax.Array, target_BT: jax.Array
) -> jax.Array:
    """int32 [B, T]: how many of a block's items do not score below each target.

    `score_BR` is -inf for items that do not compete, else within rounding of `pair_scores`.
    """
    (B, R), D = score_BR.shape, user_BD.shape[1]
    G, S = R // _GROUP, _GROUP
    score_BGS = score_BR.reshape(B, G, S)
    item_GSD = block.vectors.reshape(G, S, D)
    bias_GS = jnp.where(block.recommendable, block.bias, 0).reshape(G, S)

    # A sum of D products is off by at most D rounding units times the sum of their sizes, in whatever
    # order it is taken (Higham 2002, section 3.1), which is at most |u||w| (Cauchy-Schwarz);
    # `pair_scores` by log2(D) + 3 units; the rest is room for the bias, the threshold and the norms.
    unit = 2.0**-24 * (D + 2 * math.ceil(math.log2(D + 1)) + 16)
    norm_G = jnp.sqrt((item_GSD**2).sum(-1).max(-1))
    error_BG = jnp.linalg.norm(user_BD, axis=1)[:, None] * norm_G[None]
    error_BG = unit * (error_BG + jnp.abs(bias_GS).max(-1)[None])

    def count(target_B: jax.Array) -> tuple[jax.Array, jax.Array]:
        target_B1 = target_B[:, None]
        reach_BG = error_BG + unit * jnp.abs(target_B1)
        reach_BG = jnp.where(jnp.isfinite(reach_BG), reach_BG, LARGEST)
        low, high = (target_B1 - reach_BG)[..., None], (target_B1 + reach_BG)[..., None]
        # Both counts in one pass over the scores: a group's fits 16 bits.
        none = jnp.int32(0)
        both = jnp.where(score_BGS < low, none, 1) + jnp.where(score_BGS < high, none, 1 << 16)
        both_BG = both.sum(-1, dtype=jnp.int32)
        return both_BG >> 16, both_BG & 0xFFFF

    surely_TBG, perhaps_TBG = jax.lax.map(count, target_BT.T)
    near_BG = (surely_TBG != perhaps_TBG).any(0)
    ahead_BT = jnp.where(near_BG[None], 0, surely_TBG).sum(-1, dtype=jnp.int32).T
    near_count = near_BG.sum(dtype=jnp.int32)

    def score_again(ahead_BT: jax.Array) -> jax.Array:
        order = jnp.cumsum(near_BG.reshape(-1), dtype=jnp.int32)

        def some(number: jax.Array, ahead_BT: jax.Array) -> jax.Array:
            wanted = number * _PAIRS + jnp.arange(1, _PAIRS + 1, dtype=jnp.int32)
            place = jnp.minimum(jnp.searchsorted(order, wanted), B * G - 1)
            user, group = place // G, place % G
            exact_PS = pair_scores(user_BD[user][:, None], item_GSD[group], bias_GS[group])
            competes_PS = (score_BGS[user, group] != -jnp.inf) & (wanted <= near_count)[:, None]
            below_PST = exact_PS[:, :, None] < target_BT[user][:, None]
            ahead_PT = (competes_PS[:, :, None] & ~below_PST).sum(1, dtype=jnp.int32)
            return ahead_BT.at[user].add(ahead_PT)

        return jax.lax.fori_loop(0, (near_count + _PAIRS - 1) // _PAIRS, some, ahead_BT)

    return jax.lax.cond(near_count > 0, score_again, lambda ahead: ahead, ahead_BT)
