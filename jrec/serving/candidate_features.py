"""What a ranking network reads of a list of candidates: the same when it trains and when it serves.

A user's log here is L events, the last ones before the request: which item, whether it was watched, and
how many seconds ago. The features that come from it are those of `jrec.data.impression_history.history_features`.
Item rows are those of the item vocabulary, 0 for padding and 1 for the unknown item.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jrec.data.vocabulary import FIRST
from jrec.retrieval.nominate import SOURCES, Nominated

Column = Mapping[str, jax.Array]
"""`rows` int32 [n]; or a bag: `values` int32 [n, T] and `mask` bool [n, T]."""


class Events(NamedTuple):
    """The last L events of a user's log before each request, in any order.

    Attributes:
        items: int32 [B, L], vocabulary rows. watched: bool [B, L]. mask: bool [B, L].
        ages: float32 [B, L], seconds before the request, above 0; infinite where unknown.
    """

    items: jax.Array
    watched: jax.Array
    ages: jax.Array
    mask: jax.Array


def history_numbers(
    columns: Mapping[str, Column], keys: Sequence[str], rows_BC: jax.Array, events: Events
) -> tuple[jax.Array, jax.Array]:
    """Numbers of candidates from the user's log, and which are known: float32 and bool [B, C, F].

    For the item itself and for each key, in this order, as `history_features` has them: how many events
    had the same value, and the seconds since the last watch of the same value.

    Args:
        columns: of the items; `keys` are among them. rows_BC: int32, vocabulary rows.
    """
    values, known = [], []
    for key in (None, *keys):
        if key is None:
            mine_BCT, yours_BLT = rows_BC[..., None], events.items[..., None]
        else:
            mine_BCT, yours_BLT = (_values(columns[key], rows) for rows in (rows_BC, events.items))
        same_BCL = jnp.zeros((*rows_BC.shape, events.items.shape[1]), jnp.int32)
        for t in range(mine_BCT.shape[-1]):
            for s in range(yours_BLT.shape[-1]):
                mine_BC1, yours_B1L = mine_BCT[:, :, None, t], yours_BLT[:, None, :, s]
                same_BCL += (mine_BC1 == yours_B1L) & (mine_BC1 >= FIRST)
        same_BCL = jnp.where(events.mask[:, None], same_BCL, 0)
        watched_BCL = (same_BCL > 0) & events.watched[:, None]
        idle_BC = jnp.where(watched_BCL, events.ages[:, None], jnp.inf).min(-1)
        has_BC = jnp.isfinite(idle_BC)
        values += [same_BCL.sum(-1).astype(jnp.float32), jnp.where(has_BC, idle_BC, 0)]
        known += [jnp.ones_like(has_BC), has_BC]
    return jnp.stack(values, -1), jnp.stack(known, -1)


def source_numbers(found: Nominated, lengths: Sequence[int]) -> tuple[jax.Array, jax.Array]:
    """Who named a candidate and how high, in [0, 1]: float32 and bool [B, C, S + 1].

    For each source 1 at the head of its list, falling to 0 at its end, unknown where it does not name the
    item; and 1 / (1 + the distance of the network's score from the list's best).

    Args:
        lengths: of the sources' lists.
    """
    length_S = jnp.array(lengths, jnp.float32)
    named_BCS = found.places > 0
    height_BCS = 1 - (found.places - 1) / jnp.broadcast_to(length_S, found.places.shape)
    best_B1 = found.scores.max(1, keepdims=True)
    behind_BC = jnp.where(found.mask, best_B1 - found.scores, 0)
    values = jnp.concatenate([height_BCS, (1 / (1 + behind_BC))[..., None]], -1)
    known = jnp.concatenate([named_BCS, found.mask[..., None]], -1)
    return jnp.where(known, values, 0), known


def ranking_batch(
    arrays: Mapping[str, Any],
    keys: Sequence[str],
    lengths: Sequence[int],
    found: Nominated,
    user_B: jax.Array,
    events: Events,
    watched_BW: jax.Array,
    watched_mask_BW: jax.Array,
    late_BC: jax.Array,
) -> dict[str, Any]:
    """What a `RankingNetwork` reads of B lists of C candidates, as one batch of B x C.

    Args:
        arrays: `user` and `item`, columns by name (of N + 1 users, the last unknown, and of V items);
            `user_numbers`, `user_known`, `item_numbers`, `item_known`: in [0, 1], [N + 1, F] and [V, F];
            `quantiles`: for each of `history_numbers`, its `knots` and `levels`.
        keys: see `history_numbers`. lengths: see `source_numbers`.
        found: candidates; their rows count items from 0. user_B: int32, N where unknown.
        watched_BW, watched_mask_BW: vocabulary rows of the last watched items, the bag `watched`.
        late_BC: float32 in [0, 1], how often each candidate was watched of late.

    Returns:
        `ids`, `numbers` and `known`; see `number_names` for the numbers.
    """
    B, C = found.rows.shape
    rows_BC = jnp.where(found.mask, found.rows + FIRST, 0)

    def flat(part: jax.Array) -> jax.Array:
        return part.reshape(B * C, *part.shape[2:])

    def repeated(part: jax.Array) -> jax.Array:
        return jnp.repeat(part, C, 0)

    ids = {name: _read(column, user_B, repeated) for name, column in arrays["user"].items()}
    ids |= {name: _read(column, flat(rows_BC)) for name, column in arrays["item"].items()}
    ids["watched"] = repeated(watched_BW), repeated(watched_mask_BW)
    raw_BCF, has_BCF = history_numbers(arrays["item"], keys, rows_BC, events)
    raw_BCF = jnp.stack(
        [
            jnp.interp(raw_BCF[..., k], arrays["quantiles"][name]["knots"], levels)
            for k, name in enumerate(history_names(keys))
            for levels in (arrays["quantiles"][name]["levels"],)
        ],
        -1,
    )
    named, named_known = source_numbers(found, lengths)
    numbers = [repeated(arrays["user_numbers"][user_B]), arrays["item_numbers"][flat(rows_BC)]]
    known = [repeated(arrays["user_known"][user_B]), arrays["item_known"][flat(rows_BC)]]
    numbers += [flat(raw_BCF), flat(named), flat(late_BC)[:, None]]
    known += [flat(has_BCF), flat(named_known), jnp.ones((B * C, 1), bool)]
    return {"ids": ids, "numbers": jnp.concatenate(numbers, 1), "known": jnp.concatenate(known, 1)}


def history_names(keys: Sequence[str]) -> list[str]:
    """The names of `history_numbers`."""
    return [f"{name}_{what}" for name in ("item", *keys) for what in ("shown", "idle_seconds")]


def number_names(users: Sequence[str], items: Sequence[str], keys: Sequence[str]) -> list[str]:
    """The numbers of `ranking_batch` in their order, given those of users and items."""
    named = [f"{name}_place" for name in SOURCES]
    return [*users, *items, *history_names(keys), *named, "network_score", "item_recent"]


def _values(column: Column, rows: jax.Array) -> jax.Array:
    """A column's values of items, int32 [..., T]; 0 where there is none."""
    if "rows" in column:
        return column["rows"][rows][..., None]
    return jnp.where(column["mask"][rows], column["values"][rows], 0)


def _read(column: Column, rows: jax.Array, spread: Any = lambda part: part) -> Any:
    if "rows" in column:
        return spread(column["rows"][rows])
    return spread(column["values"][rows]), spread(column["mask"][rows])
