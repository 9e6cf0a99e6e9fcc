"""The best K items of each query out of all of them, exactly, on the device, in bounded memory.

Neither a [queries, items] array nor a sort of one is needed. One pass of block-sized matrix products
keeps only the largest score of every group of neighbouring items. The best K items lie in the K groups
with the largest maxima, so the items of these few groups alone are scored again and ranked.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jrec.errors import InputError
from jrec.retrieval.largest import largest_places
from jrec.retrieval.simple_lsh import largest_norm

_HIGHEST = jax.lax.Precision.HIGHEST  # a GPU's TF32 would move scores by 1e-3
_SPARE_GROUPS = 16  # beyond K, so that rounding hardly ever leaves the choice of groups in doubt
_FEW_QUERIES = 8
_BLOCK_SCORES = 2**19  # 2 MiB
_FEW_QUERIES_SCORES = 2**23  # 32 MiB
_PADDING = 64  # item rows come in multiples of it; any group size divides it


def list_size(count: int, items: int) -> int:
    """Returns the length of list to search for so that few lengths, and so few programs, serve all requests.

    The next power of two from 16 on, and at most the number of items.
    """
    return min(max(16, 1 << (count - 1).bit_length()), items)


class Ranked(NamedTuple):
    """Ranked lists, best first; of equal scores the lower item row first.

    Attributes:
        rows: int32 [B, K], item rows; -1 where the mask is false.
        scores: float32 [B, K], falling; -inf where the mask is false.
        mask: bool [B, K], false at the end of a list for which no item is left.
    """

    rows: jax.Array
    scores: jax.Array
    mask: jax.Array


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["weights", "biases", "norm"],
    meta_fields=["block_rows"],
)
@dataclass(frozen=True)
class ItemTable:
    """Items as the search wants them: scores are w.u + b.

    Attributes:
        weights: float32 [P, D], P a multiple of `block_rows`.
        biases: float32 [P], -inf for rows that no list may hold (padding rows among them).
        norm: float32 scalar, the largest |[b, w]|.
        block_rows: items scored at once, a multiple of 64.
    """

    weights: jax.Array
    biases: jax.Array
    norm: jax.Array
    block_rows: int


def item_table(
    weight_MD: np.ndarray,
    bias_M: np.ndarray | None = None,
    allowed_M: np.ndarray | None = None,
    block_rows: int = 8192,
) -> ItemTable:
    """Puts items on the device.

    Args:
        weight_MD: float [M, D]. bias_M: float [M]; none counts as 0.
        allowed_M: bool [M], false for rows that no list may hold; all may by default.
        block_rows: items scored at once, at most; a CPU takes halves of it for many queries, and more than it
            for a few.

    Raises InputError where there are no items or a number is not finite.
    """
    M, D = np.shape(weight_MD)
    if M == 0:
        raise InputError("There are no items to search in; give at least one.")
    norm = largest_norm(weight_MD, bias_M)
    block_rows = _multiple(min(block_rows, M), _PADDING)
    if block_rows < M and block_rows % 4096 == 0:
        # Of the sizes that divide well, the one that leaves the least room at the end.
        sizes = range(block_rows, block_rows // 2, -1024)
        block_rows = min(sizes, key=lambda size: _multiple(M, size))
    weight_PD = np.zeros((_multiple(M, block_rows), D), np.float32)
    weight_PD[:M] = weight_MD
    bias_P = np.full(len(weight_PD), -np.inf, np.float32)
    bias_P[:M] = 0 if bias_M is None else bias_M
    table = ItemTable(jnp.asarray(weight_PD), jnp.asarray(bias_P), jnp.float32(norm), block_rows)
    return table if allowed_M is None else restrict(table, allowed_M)


def restrict(table: ItemTable, allowed_M: np.ndarray) -> ItemTable:
    """The same items, of which lists may hold only those allowed: bool [M]. Shares the weights."""
    allowed_P = np.zeros(len(table.biases), bool)
    allowed_P[: len(allowed_M)] = allowed_M
    return replace(table, biases=jnp.where(jnp.asarray(allowed_P), table.biases, -jnp.inf))


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
    """Each query's K items of the highest w.u + b; of equal float32 scores the lower row first.

    Time and memory grow with L, so queries of like L should share a batch (`jrec.data.ragged.pad`).

    Args:
        table: from `item_table`.
        query_BD: float32 [B, D], finite, B 1 or more.
        count: K.
        seen_BL, seen_mask_BL: int32 and bool [B, L], item rows to leave out of each list.
        group_rows: 8, 16, 32 or 64 items a group; chosen by the sizes by default.
        queries_at_once: queries whose candidates are ranked together, at (K + L) x group_rows x D
            numbers of memory each. By default 8 on a CPU, where that is fastest, else 64.
    """
    query_BD = query_BD.astype(jnp.float32)
    if seen_BL is None or seen_mask_BL is None:
        seen_BL = jnp.zeros((len(query_BD), 0), jnp.int32)
        seen_mask_BL = jnp.zeros(seen_BL.shape, bool)
    P, K = len(table.biases), min(count, len(table.biases))
    # A seen item may be the best of a group that holds no other good one.
    C = K + seen_BL.shape[1] + _SPARE_GROUPS
    G = _group_rows(P, C) if group_rows is None else group_rows
    if P < 4 * C * G:  # too few groups for a choice to pay
        return _padded(*_rank_all(table, query_BD, K, seen_BL, seen_mask_BL), count)

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
        lambda: _rank_all(table, query_BD, K, seen_BL, seen_mask_BL),
    )
    return _padded(row_BK, score_BK, count)


@partial(jax.jit, static_argnames=("count", "recall"))
def approximate_top_k(
    table: ItemTable,
    query_BD: jax.Array,
    count: int,
    seen_BL: jax.Array | None = None,
    seen_mask_BL: jax.Array | None = None,
    recall: float = 0.95,
) -> Ranked:
    """As `exact_top_k` with `lax.approx_max_k` of expected `recall` in each block of items.

    It pays on a TPU, which has an instruction for it; elsewhere XLA sorts, and this is slower than
    `exact_top_k`. Chern et al., "TPU-KNN", NeurIPS 2022.
    """
    query_BD = query_BD.astype(jnp.float32)
    if seen_BL is None or seen_mask_BL is None:
        seen_BL = jnp.zeros((len(query_BD), 0), jnp.int32)
        seen_mask_BL = jnp.zeros(seen_BL.shape, bool)
    K = min(count, len(table.biases))
    select = partial(jax.lax.approx_max_k, recall_target=recall)
    return _padded(*_rank_all(table, query_BD, K, seen_BL, seen_mask_BL, select), count)


def _group_maxima(table: ItemTable, query_BD: jax.Array, G: int) -> jax.Array:
    """The largest score of every G neighbouring items, [P / G, B]; one block of scores at a time."""
    (B, D), P, S = query_BD.shape, len(table.biases), table.block_rows
    if B <= _FEW_QUERIES:
        # Items come no faster than from memory, so a block's scores need not stay in a cache.
        sizes = [P // n for n in range(1, P // S + 1) if P // S % n == 0]
        S = next((size for size in sizes if B * size <= _FEW_QUERIES_SCORES), S)
    elif jax.default_backend() == "cpu":
        while B * S > _BLOCK_SCORES and S % (2 * _PADDING) == 0:
            S //= 2
    query_DB = query_BD.T

    def one_block(_: None, block: tuple[jax.Array, jax.Array]) -> tuple[None, jax.Array]:
        weight_SD, bias_S = block
        score_SB = jax.lax.dot(weight_SD, query_DB, precision=_HIGHEST) + bias_S[:, None]
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


def _rank_all(
    table: ItemTable,
    query_BD: jax.Array,
    K: int,
    seen_BL: jax.Array,
    seen_mask_BL: jax.Array,
    select: Callable = jax.lax.top_k,
) -> tuple[jax.Array, jax.Array]:
    """Rows and scores [B, K], from every item's score, one block at a time."""
    (B, D), S = query_BD.shape, table.block_rows
    query_rows = jnp.arange(B, dtype=jnp.int32)[:, None]

    def merge(best: tuple[jax.Array, jax.Array], block: tuple) -> tuple[tuple, None]:
        weight_SD, bias_S, start = block
        score_BS = jax.lax.dot(weight_SD, query_BD.T, precision=_HIGHEST).T + bias_S[None]
        inside = seen_mask_BL & (seen_BL >= start) & (seen_BL < start + S)
        place_BL = jnp.where(inside, seen_BL - start, S)
        score_BS = score_BS.at[query_rows, place_BL].set(-jnp.inf, mode="drop")
        score_BK, place_BK = select(score_BS, min(K, S))
        scores = jnp.concatenate([best[1], score_BK], 1)
        rows = jnp.concatenate([best[0], start + place_BK], 1)
        # Of equal scores `top_k` takes the first, which is from an earlier block.
        score_BK, place_BK = jax.lax.top_k(scores, K)
        return (jnp.take_along_axis(rows, place_BK, 1), score_BK), None

    nothing = (jnp.full((B, K), -1, jnp.int32), jnp.full((B, K), -jnp.inf, jnp.float32))
    starts = jnp.arange(0, len(table.biases), S, dtype=jnp.int32)
    blocks = (table.weights.reshape(-1, S, D), table.biases.reshape(-1, S), starts)
    return jax.lax.scan(merge, nothing, blocks)[0]


def _padded(row_BK: jax.Array, score_BK: jax.Array, count: int) -> Ranked:
    missing = ((0, 0), (0, count - row_BK.shape[1]))
    score_BK = jnp.pad(score_BK, missing, constant_values=-jnp.inf)
    mask_BK = score_BK > -jnp.inf
    row_BK = jnp.where(mask_BK, jnp.pad(row_BK, missing), -1)
    return Ranked(row_BK.astype(jnp.int32), score_BK, mask_BK)


def _group_rows(P: int, C: int) -> int:
    """The power of two from 8 to 64 with the least work: P / G maxima to choose from, C x G items."""
    return 2 ** min(max(round(math.log2(P / C) / 2 - 1.5), 3), 6)


def _rounding(D: int) -> float:
    """A bound of |float32 sum of D products and a bias - exact sum| / (|[1, u]| |[b, w]|)."""
    unit = 2.0**-24
    return (D + 2) * unit / (1 - (D + 2) * unit)


def _multiple(number: int, of: int) -> int:
    return -(-number // of) * of
