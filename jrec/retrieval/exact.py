"""The best K items of each query out of all of them, exactly, on the device, one block of items at a time.

`jrec.retrieval.grouped` gives the same lists 1.5 to 5 times as fast.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jrec.errors import InputError
from jrec.retrieval.simple_lsh import largest_norm

HIGHEST = jax.lax.Precision.HIGHEST  # a GPU's TF32 would move scores by 1e-3
PADDING = 64  # item rows come in multiples of it; any group size divides it


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
    block_rows = _multiple(min(block_rows, M), PADDING)
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


@partial(jax.jit, static_argnames="count")
def plain_top_k(
    table: ItemTable,
    query_BD: jax.Array,
    count: int,
    seen_BL: jax.Array | None = None,
    seen_mask_BL: jax.Array | None = None,
) -> Ranked:
    """Each query's K items of the highest w.u + b; of equal float32 scores the lower row first.

    Every item is scored and ranked, one block of items at a time.

    Args:
        table: from `item_table`.
        query_BD: float32 [B, D], finite, B 1 or more.
        count: K.
        seen_BL, seen_mask_BL: int32 and bool [B, L], item rows to leave out of each list.
    """
    query_BD = query_BD.astype(jnp.float32)
    seen = seen_or_nothing(query_BD, seen_BL, seen_mask_BL)
    return padded(*rank_all(table, query_BD, min(count, len(table.biases)), *seen), count)


@partial(jax.jit, static_argnames=("count", "recall"))
def approximate_top_k(
    table: ItemTable,
    query_BD: jax.Array,
    count: int,
    seen_BL: jax.Array | None = None,
    seen_mask_BL: jax.Array | None = None,
    recall: float = 0.95,
) -> Ranked:
    """As `plain_top_k` with `lax.approx_max_k` of expected `recall` in each block of items.

    It pays on a TPU, which has an instruction for it; elsewhere XLA sorts, and this is slower than
    `jrec.retrieval.grouped.exact_top_k`. Chern et al., "TPU-KNN", NeurIPS 2022.
    """
    query_BD = query_BD.astype(jnp.float32)
    seen_BL, seen_mask_BL = seen_or_nothing(query_BD, seen_BL, seen_mask_BL)
    K = min(count, len(table.biases))
    select = partial(jax.lax.approx_max_k, recall_target=recall)
    return padded(*rank_all(table, query_BD, K, seen_BL, seen_mask_BL, select), count)


def rank_all(
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
        score_BS = jax.lax.dot(weight_SD, query_BD.T, precision=HIGHEST).T + bias_S[None]
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


def padded(row_BK: jax.Array, score_BK: jax.Array, count: int) -> Ranked:
    missing = ((0, 0), (0, count - row_BK.shape[1]))
    score_BK = jnp.pad(score_BK, missing, constant_values=-jnp.inf)
    mask_BK = score_BK > -jnp.inf
    row_BK = jnp.where(mask_BK, jnp.pad(row_BK, missing), -1)
    return Ranked(row_BK.astype(jnp.int32), score_BK, mask_BK)


def seen_or_nothing(
    query_BD: jax.Array, seen_BL: jax.Array | None, seen_mask_BL: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Returns the seen items and their mask; [B, 0] of both where one is None."""
    if seen_BL is None or seen_mask_BL is None:
        return jnp.zeros((len(query_BD), 0), jnp.int32), jnp.zeros((len(query_BD), 0), bool)
    return seen_BL, seen_mask_BL


def _multiple(number: int, of: int) -> int:
    return -(-number // of) * of
