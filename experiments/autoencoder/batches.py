"""Ratings by user on the device: a batch is some users with all the ratings that they have."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jrec.data.rating_parts import RatingRows
from jrec.errors import InputError
from jrec.train.devices import placed, replicated
from jrec.train.spread import rows_at, turns_of_all


class RatingList(NamedTuple):
    """The ratings of B users one after the other, in P slots.

    Attributes:
        item: int32 [P]. row: int32 [P], 0..B-1, never falling. rating: float32 [P].
        mask: bool [P], a prefix: the slots that hold a rating.
    """

    item: jax.Array
    row: jax.Array
    rating: jax.Array
    mask: jax.Array


def device_rows(rows: RatingRows) -> dict[str, Any]:
    """A part on the devices (see `placed`), ragged and in its compact types: `offsets` int32, `item`, `rating`.

    Raises InputError for more ratings than int32 counts.
    """
    if len(rows) >= 2**31:
        raise InputError(f"{len(rows):,} ratings are too many: places count to 2^31 at most.")

    def rows_of(places: slice) -> dict[str, np.ndarray]:
        return {"item": rows.item[places], "rating": rows.rating[places]}

    # One rating too many, so that a place is valid even where there is none.
    ratings = placed(rows_of, len(rows) + 1)
    offsets = replicated(jnp.asarray(np.asarray(rows.offsets, np.int32)))
    return ratings | {"offsets": offsets}


def rating_list(
    data: dict[str, Any],
    user_B: jax.Array,
    mask_B: jax.Array,
    slots: int,
    first: jax.Array | int = 0,
) -> tuple[RatingList, jax.Array]:
    """Slots `first` to `first + slots` of the ratings of some users, and the number of all of them.

    Args:
        data: from `device_rows`. user_B: int32 [B]. mask_B: bool [B]; a user left out has no ratings.
        slots: P. first: int32 scalar; 0 gives all ratings where the number is at most P.
    """
    start_B = data["offsets"][user_B]
    count_B = jnp.where(mask_B, data["offsets"][user_B + 1] - start_B, 0)
    end_B = jnp.cumsum(count_B)
    slot_P = first + jnp.arange(slots, dtype=jnp.int32)
    inside_P = slot_P < end_B[-1]
    # Marks each user's first slot and adds up: cheaper than a search for each slot.
    local_B = jnp.clip(end_B - first, 0, slots)
    row_P = jnp.cumsum(jnp.zeros(slots + 1, jnp.int32).at[local_B].add(1))[:slots]
    row_P = jnp.minimum(row_P, len(user_B) - 1)
    place_P = (start_B - end_B + count_B)[row_P] + slot_P
    place_P = jnp.where(inside_P, place_P, len(data["item"]) - 1)
    item_P, rating_P = rows_at((data["item"], data["rating"]), place_P)
    item_P, rating_P = item_P.astype(jnp.int32), rating_P.astype(jnp.float32)
    return RatingList(item_P, row_P, rating_P, inside_P), end_B[-1]


def rating_rectangle(
    data: dict[str, Any], user_B: jax.Array, mask_B: jax.Array, items: int, slots: int = 8192
) -> tuple[jax.Array, jax.Array]:
    """The same ratings as a rectangle: float32 [B, M], 0 where there is none, and bool [B, M].

    Takes `slots` of them at a time, however many there are.
    """
    shape = (len(user_B), items)
    total = turns_of_all(rating_list(data, user_B, mask_B, 1)[1], data["item"])

    def more(carry: tuple) -> jax.Array:
        return carry[0] < total

    def add(carry: tuple) -> tuple:
        first, ratings_BM, known_BM = carry
        part, _ = rating_list(data, user_B, mask_B, slots, first)
        row_P = jnp.where(part.mask, part.row, len(user_B))
        ratings_BM = ratings_BM.at[row_P, part.item].set(part.rating, mode="drop")
        known_BM = known_BM.at[row_P, part.item].set(True, mode="drop")
        return first + slots, ratings_BM, known_BM

    start = (jnp.zeros((), jnp.int32), jnp.zeros(shape, jnp.float32), jnp.zeros(shape, bool))
    return jax.lax.while_loop(more, add, start)[1:]


class Room(NamedTuple):
    """What nearly every batch fits into, computed in two parts.

    Attributes:
        slots: P, ratings of a batch. often: int32 [U], rising: the items that are rated often.
        seldom: T, ratings of all other items.
    """

    slots: int
    often: np.ndarray
    seldom: int


class Parts(NamedTuple):
    """The ratings of B users: a rectangle of the items that are rated often, and a list of the others.

    Attributes:
        ratings: float32 [B, U], 0 where there is none.
        cell: int32 [P], each rating's place in it, b * U + u; B * U where it is none of them.
        rating: float32 [P], what stands there.
        seldom: a `RatingList` of T slots; one without a rating has item M, row B and rating 0.
    """

    ratings: jax.Array
    cell: jax.Array
    rating: jax.Array
    seldom: RatingList


def in_parts(
    given: RatingList, place_M: jax.Array, batch_size: int, room: Room
) -> tuple[Parts, jax.Array]:
    """The ratings of a batch in two parts, and the number of those of seldom rated items.

    All ratings are there if `given` has all, and that number is at most `room.seldom`.

    Args:
        place_M: int32 [M], an item's place in `room.often`; U where it has none. batch_size: B.
    """
    often, slots = len(room.often), len(given.item)
    column_P = place_M[given.item]
    often_P = given.mask & (column_P < often)
    cell_P = jnp.where(often_P, given.row * often + column_P, batch_size * often)
    ratings = jnp.zeros(batch_size * often, jnp.float32).at[cell_P].set(given.rating, mode="drop")
    seldom_P = given.mask & (column_P >= often)
    (slot_T,) = jnp.nonzero(seldom_P, size=room.seldom, fill_value=slots)

    def moved(values: jax.Array, fill: int) -> jax.Array:
        return values.at[slot_T].get(mode="fill", fill_value=fill)

    seldom = RatingList(
        moved(given.item, len(place_M)),
        moved(given.row, batch_size),
        moved(given.rating, 0),
        slot_T < slots,
    )
    return Parts(ratings.reshape(batch_size, often), cell_P, given.rating, seldom), seldom_P.sum()


def gather_users(data: Any, positions: jax.Array, mask: jax.Array) -> dict[str, Any]:
    """A batch for `jrec.train.chunk.make_chunk`: `user` int32 [B], `mask` bool [B], the `data`."""
    return {"user": positions, "mask": mask, "data": data}


# What a rating in the list costs, in columns of the rectangle of one user (measured on 2 CPU cores).
SELDOM_COST = 45


def room_for_batches(rows: RatingRows, items: int, batch_size: int) -> Room:
    """Room for nearly every random batch, with as many items in the rectangle as make it cheapest.

    Popularity and the ratings of the other items are those of 4,096 random users (drawn with seed 0).
    """
    offsets = np.asarray(rows.offsets)
    users = len(offsets) - 1
    batch_size = min(batch_size, users)
    chosen = np.random.default_rng(0).permutation(users)[:4096]
    rated = [np.asarray(rows.item[offsets[u] : offsets[u + 1]]) for u in np.sort(chosen)]
    of_user = np.repeat(np.arange(len(rated)), [len(one) for one in rated])
    item = np.concatenate(rated)
    by_popularity = np.argsort(-np.bincount(item, minlength=items), kind="stable")
    rank = np.argsort(by_popularity)[item]
    best, often = (math.inf, 0, 0), 0
    while often < items:
        often = min(max(often + 16, often * 9 // 8 // 16 * 16), items)
        counts = np.bincount(of_user[rank >= often], minlength=len(rated))
        seldom = slots_for_batches(counts, batch_size, users)
        best = min(best, (often * batch_size + SELDOM_COST * seldom, often, seldom))
    _, often, seldom = best
    slots = slots_for_batches(np.diff(offsets), batch_size, users)
    return Room(slots, np.sort(by_popularity[:often]).astype(np.int32), seldom)


def slots_for_batches(counts_N: np.ndarray, batch_size: int, users: int) -> int:
    """Slots that hold the ratings of nearly any random batch; a multiple of 128.

    The mean of a batch's ratings and 3.5 standard deviations; at most the largest users' total, where all
    are known.

    Args:
        counts_N: ratings of all users, or of some. batch_size: users of a batch. users: all there are.
    """
    slots = int(batch_size * counts_N.mean() + 3.5 * batch_size**0.5 * counts_N.std()) + 1
    if len(counts_N) == users:
        slots = min(slots, int(np.sort(counts_N)[-batch_size:].sum()))
    return -(-max(slots, 1) // 128) * 128
