"""Candidates of several sources, joined: what each source names, at which place of its own list."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jrec.retrieval.exact import ItemTable
from jrec.retrieval.grouped import exact_top_k

SOURCES = ("network", "hottest", "similar")
"""The network's items of the highest w.u + b, the most watched ones, items like the last watched ones."""

_NOWHERE = jnp.iinfo(jnp.int32).max


class Nominated(NamedTuple):
    """Candidates of one list each, every item once, in rising order of rows.

    Attributes:
        rows: int32 [B, C], item rows; 0 where the mask is false.
        places: int32 [B, C, S], place in each source's list from 1 on, 0 where it does not name the item.
        scores: float32 [B, C], the network's w.u + b, whoever named the item.
        mask: bool [B, C].
    """

    rows: jax.Array
    places: jax.Array
    scores: jax.Array
    mask: jax.Array


def nominate(
    table: ItemTable,
    user_BD: jax.Array,
    hottest_H: jax.Array,
    similar_MJ: jax.Array,
    seen_BL: jax.Array,
    seen_mask_BL: jax.Array,
    last_BR: jax.Array,
    last_mask_BR: jax.Array,
    count: int,
) -> Nominated:
    """Up to `count` + H + R x J candidates for each user, without what the user has seen.

    Args:
        table: of M items. user_BD: float32, u.
        hottest_H: int32, the most watched items, best first. similar_MJ: int32, each item's likest items,
            best first. Both -1 where there is none.
        seen_BL, seen_mask_BL: int32 and bool, items to leave out.
        last_BR, last_mask_BR: int32 and bool, the last watched items, the latest first, that `similar` goes
            by: first the best of each, then the second ones.
        count: of the network's items.
    """
    B, sized = len(user_BD), {}
    found = exact_top_k(table, user_BD, count, seen_BL, seen_mask_BL)
    sized["network"] = found.rows, found.mask
    hottest_BH = jnp.broadcast_to(hottest_H, (B, len(hottest_H)))
    sized["hottest"] = hottest_BH, hottest_BH >= 0
    similar_BRJ = similar_MJ[jnp.where(last_mask_BR, last_BR, 0)]
    named_BRJ = last_mask_BR[..., None] & (similar_BRJ >= 0)
    sized["similar"] = tuple(
        part.transpose(0, 2, 1).reshape(B, -1) for part in (similar_BRJ, named_BRJ)
    )
    rows_BC = jnp.concatenate([sized[name][0] for name in SOURCES], 1)
    mask_BC = jnp.concatenate([sized[name][1] for name in SOURCES], 1)
    hit_BCL = (rows_BC[:, :, None] == seen_BL[:, None]) & seen_mask_BL[:, None]
    mask_BC &= ~hit_BCL.any(-1)
    lengths = [sized[name][0].shape[1] for name in SOURCES]
    rows_BC, places_BCS, mask_BC = jax.vmap(lambda r, m: _merge(r, m, lengths))(rows_BC, mask_BC)
    weights_BCD, biases_BC = table.weights[rows_BC], table.biases[rows_BC]
    scores_BC = (weights_BCD * user_BD[:, None]).sum(-1) + biases_BC
    return Nominated(rows_BC, places_BCS, jnp.where(mask_BC, scores_BC, -jnp.inf), mask_BC)


def _merge(
    rows_C: jax.Array, mask_C: jax.Array, lengths: list[int]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Rows each once, their best place in every source (0 for none), and which are there."""
    C, S = len(rows_C), len(lengths)
    source_C = jnp.repeat(jnp.arange(S, dtype=jnp.int32), jnp.array(lengths), total_repeat_length=C)
    place_C = jnp.concatenate([jnp.arange(1, length + 1, dtype=jnp.int32) for length in lengths])
    key_C = jnp.where(mask_C, rows_C, _NOWHERE)
    order_C = jnp.argsort(key_C)
    key_C = key_C[order_C]
    new_C = jnp.concatenate([jnp.ones(1, bool), key_C[1:] != key_C[:-1]])
    slot_C = jnp.cumsum(new_C) - 1
    best_CS = jnp.full((C, S), _NOWHERE, jnp.int32)
    best_CS = best_CS.at[slot_C, source_C[order_C]].min(place_C[order_C].astype(jnp.int32))
    row_C = jnp.full(C, _NOWHERE, jnp.int32).at[slot_C].set(key_C)
    there_C = row_C != _NOWHERE
    places_CS = jnp.where(there_C[:, None] & (best_CS != _NOWHERE), best_CS, 0)
    return jnp.where(there_C, row_C, 0), places_CS, there_C
