"""Exact search in bounded memory that ranks a few groups of items alone.

Neither a [queries, items] array nor a sort of one is needed. One pass of block-sized matmuls keeps only
the largest score of every group of neighbouring items. The best K items lie in the K groups with the
largest maxima, so the items of these few groups alone are scored again and ranked.
"""

import math
from collections.abc import Callable
from functools import partial, reduce

import jax
import jax.numpy as jnp

from jrec.retrieval.exact import (
    HIGHEST,
    PADDING,
    ItemTable,
    Ranked,
    padded,
    rank_all,
    seen_or_nothing,
)
from jrec.retrieval.largest import largest_places

_SPARE_GROUPS = 16  # beyond K, so that rounding hardly ever leaves the choice of groups in doubt
_FEW_QUERIES = 8
_BLOCK_SCORES = 2**19  # 2 MiB
_FEW_QUERIES_SCORES = 2**23  # 32 MiB


@partial(jax.jit, static_argnames=("count", "group_rows", "queries_at_once"))
def exact_top_k(
    table: ItemTable,
    query_BD: jax.Array,
    count: int,
    seen_BL: jax.Array | None = None,
    seen_mask_BL: jax.Array | None = None,
    group_rows: int | None = None,
    queries_at_once: int | None = None,
) -> Ranked:
    """As `plain_top_k`.

    Time and memory grow with L, so queries of like L should share a batch (`jrec.data.ragged.pad`).

    Args:
        table, query_BD, count, seen_BL, seen_mask_BL: as for `plain_top_k`.
        group_rows: 8, 16, 32 or 64 items a group; chosen by the sizes by default.
        queries_at_once: queries whose candidates are ranked together, at (K + L) x group_rows x D
            numbers of memory each. By default 8 on a CPU, where that is fastest, else 64.
    """
    query_BD = query_BD.astype(jnp.float32)
    seen_BL, seen_mask_BL = seen_or_nothing(query_BD, seen_BL, seen_mask_BL)
    P, K = len(table.biases), min(count, len(table.biases))
    # A seen item may be the best of a group that holds no other good one.
    C = K + seen_BL.shape[1] + _SPARE_GROUPS
    G = _group_rows(P, C) if group_rows is None else group_rows
    if P < 4 * C * G:  # too few groups for a choice to pay
        return padded(*rank_all(table, query_BD, K, seen_BL, seen_mask_BL), count)

    group_BC, left_out_B = _choose_groups(_group_maxima(table, query_BD, G), C)
    if queries_at_once is None:
        queries_at_once = min(8 if jax.default_backend() == "cpu" else 64, len(query_BD))
    rank = partial(_rank_groups, table, K, G)
    row_BK, score_BK = jax.lax.map(
        lambda parts: rank(*parts),
        (query_BD, group_BC, seen_BL, seen_mask_BL),
        batch_size=queries_at_once,
    )
    # The two products sum in different orders. If an item of a group that was not chosen could, by
    # rounding, still belong to the list, every score is looked at instead.
    norm_B = jnp.sqrt(1 + (query_BD**2).sum(1))
    error_B = 2 * _rounding(query_BD.shape[1]) * norm_B * table.norm
    sure_B = (left_out_B == -jnp.inf) | (left_out_B + error_B < score_BK.min(1))
    row_BK, score_BK = jax.lax.cond(
        sure_B.all(),
        lambda: (row_BK, score_BK),
        lambda: rank_all(table, query_BD, K, seen_BL, seen_mask_BL),
    )
    return padded(row_BK, score_BK, count)


def _group_maxima(table: ItemTable, query_BD: jax.Array, G: int) -> jax.Array:
    """The largest score of every G neighbouring items, [P / G, B]; one block of scores at a time."""
    (B, D), P, S = query_BD.shape, len(table.biases), table.block_rows
    if B <= _FEW_QUERIES:
        # Items come no faster than from memory, so a block's scores need not stay in a cache.
        sizes = [P // n for n in range(1, P // S + 1) if P // S % n == 0]
        S = next((size for size in sizes if B * size <= _FEW_QUERIES_SCORES), S)
    elif jax.default_backend() == "cpu":
        while B * S > _BLOCK_SCORES and S % (2 * PADDING) == 0:
            S //= 2
    query_DB = query_BD.T

    def one_block(_: None, block: tuple[jax.Array, jax.Array]) -> tuple[None, jax.Array]:
        weight_SD, bias_S = block
        score_SB = jax.lax.dot(weight_SD, query_DB, precision=HIGHEST) + bias_S[:, None]
        return None, _folded(score_SB.reshape(S // G, G, B), 1, jnp.maximum)

    blocks = (table.weights.reshape(-1, S, D), table.biases.reshape(-1, S))
    return jax.lax.scan(one_block, None, blocks)[1].reshape(-1, B)


def _choose_groups(maximum_GB: jax.Array, C: int) -> tuple[jax.Array, jax.Array]:
    """Up to C groups of the largest maxima for each query, and what no maximum left out is above.

    Returns: int32 [B, C], rising, of which those beyond the last group stand for none; float32 [B].
    """
    if jax.default_backend() != "cpu":
        top_BC, group_BC = jax.lax.top_k(maximum_GB.T, C)
        return jnp.sort(group_BC, 1), top_BC[:, -1]
    # A CPU's `top_k` keeps a heap of indices, for one query after the other. Here families of F groups
    # are chosen first, then groups of these, as few numbers of each.
    groups, B = maximum_GB.shape
    F = 2 ** max(1, round(math.log2(groups / C) / 2))
    filled = jnp.pad(maximum_GB, ((0, -groups % F), (0, 0)), constant_values=-jnp.inf)
    family_BC, others_B = largest_places(filled.reshape(-1, F, B).max(1).T, C)
    maximum_BNF = filled.T.reshape(B, -1, F)
    within_BCF = jax.vmap(lambda x_NF, n_C: x_NF.at[n_C].get(mode="fill", fill_value=-jnp.inf))(
        maximum_BNF, family_BC
    )
    place_BC, rest_B = largest_places(within_BCF.reshape(B, -1), C)
    chosen_BC = jax.vmap(lambda n_C, c_C: n_C.at[c_C].get(mode="fill", fill_value=groups))(
        family_BC, place_BC // F
    )
    return chosen_BC * F + place_BC % F, jnp.maximum(others_B, rest_B)


def _rank_groups(
    table: ItemTable,
    K: int,
    G: int,
    query_D: jax.Array,
    group_C: jax.Array,
    seen_L: jax.Array,
    seen_mask_L: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Rows and scores [K] of one query, out of the chosen groups."""
    # A group's rows are copied as one, and turned, so that the sums of many rows go side by side.
    D = len(query_D)
    weight_RD = table.weights.reshape(-1, G * D).at[group_C].get(mode="clip").reshape(-1, D)
    weight_DR = jax.lax.optimization_barrier(weight_RD).T
    # Not a matrix product: that may round equal items differently at its edges.
    score_CG = _folded(weight_DR * query_D[:, None], 0, jnp.add).reshape(-1, G)
    score_CG += table.biases.reshape(-1, G).at[group_C].get(mode="fill", fill_value=-jnp.inf)
    place_L = jnp.searchsorted(group_C, seen_L // G)
    hit_L = seen_mask_L & (group_C.at[place_L].get(mode="fill", fill_value=-1) == seen_L // G)
    score_CG = score_CG.at[jnp.where(hit_L, place_L, len(group_C)), seen_L % G].set(
        -jnp.inf, mode="drop"
    )
    score_K, place_K = jax.lax.top_k(score_CG.reshape(-1), K)
    return group_C[place_K // G] * G + place_K % G, score_K


def _folded(values: jax.Array, axis: int, combine: Callable) -> jax.Array:
    """One half of an axis combined with the other until one is left; faster than XLA's reductions on a CPU."""
    left_over = []
    while (length := values.shape[axis]) > 1:
        if length % 2:
            left_over.append(jax.lax.index_in_dim(values, -1, axis, keepdims=False))
        halves = (
            jax.lax.slice_in_dim(values, k, k + length // 2, axis=axis) for k in (0, length // 2)
        )
        values = combine(*halves)
    return reduce(combine, left_over, values.squeeze(axis))


def _group_rows(P: int, C: int) -> int:
    """The power of two from 8 to 64 with the least work: P / G maxima to choose from, C x G items."""
    return 2 ** min(max(round(math.log2(P / C) / 2 - 1.5), 3), 6)


def _rounding(D: int) -> float:
    """A bound of |float32 sum of D products and a bias - exact sum| / (|[1, u]| |[b, w]|)."""
    unit = 2.0**-24
    return (D + 2) * unit / (1 - (D + 2) * unit)
