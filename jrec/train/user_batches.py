"""Ratings by user on the device: a batch is some users with all the ratings that they have."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jrec.batch_axis import on_all
from jrec.data.rating_parts import RatingRows
from jrec.errors import InputError
from jrec.train.devices import Devices, placed, replicated
from jrec.train.spread import turns_of_all


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


def device_rows(rows: RatingRows, devices: Devices = ()) -> dict[str, Any]:
    """A part on the devices (see `placed`), ragged and in its compact types: `offsets` int32, `item`, `rating`.

    Raises InputError for more ratings than int32 counts.
    """
    if len(rows) >= 2**31:
        raise InputError(f"{len(rows):,} ratings are too many: places count to 2^31 at most.")

    def rows_of(places: slice) -> dict[str, np.ndarray]:
        return {"item": rows.item[places], "rating": rows.rating[places]}

    # One rating too many, so that a place is valid even where there is none.
    ratings = placed(rows_of, len(rows) + 1, devices)
    offsets = replicated(jnp.asarray(np.asarray(rows.offsets, np.int32)), devices)
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
    slot_P = first + jnp.arange(slots)
    inside_P = slot_P < end_B[-1]
    # Marks each user's first slot and adds up: cheaper than a search for each slot.
    local_B = jnp.clip(end_B - first, 0, slots)
    row_P = jnp.cumsum(jnp.zeros(slots + 1, jnp.int32).at[local_B].add(1))[:slots]
    row_P = jnp.minimum(row_P, len(user_B) - 1)
    place_P = (start_B - end_B + count_B)[row_P] + slot_P
    place_P = jnp.where(inside_P, place_P, len(data["item"]) - 1)
    item_P = data["item"][place_P].astype(jnp.int32)
    rating_P = data["rating"][place_P].astype(jnp.float32)
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


def which_rated(given: RatingList, items: int, axis_name: str | None = None) -> jax.Array:
    """bool [M]: the items that a batch rated, on any device (see `jrec.batch_axis`)."""
    item_P = jnp.where(given.mask, given.item, items)
    rated_M = jnp.zeros(items, bool).at[item_P].set(True, mode="drop")
    return ~on_all(~rated_M, axis_name)


def rated_items(
    given: RatingList, rated_M: jax.Array, batch_size: int, columns: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The items that a batch rated, and its ratings as a rectangle over them alone.

    Args:
        given: all ratings of the batch. rated_M: bool [M], from `which_rated`. batch_size: B. columns: U.

    Returns:
        items int32 [U], rising, M in what is left over; ratings float32 [B, U], 0 where there is none;
        each rating's cell in it int32 [P], b * U + u, and B * U for what is none. Items beyond the U-th
        are left out.
    """
    items = len(rated_M)
    place_M = jnp.cumsum(rated_M) - 1
    (items_U,) = jnp.nonzero(rated_M, size=columns, fill_value=items)
    column_P = place_M[given.item]
    inside_P = given.mask & (column_P < columns)
    cell_P = jnp.where(inside_P, given.row * columns + column_P, batch_size * columns)
    ratings = jnp.zeros(batch_size * columns).at[cell_P].set(given.rating, mode="drop")
    return items_U.astype(jnp.int32), ratings.reshape(batch_size, columns), cell_P


def gather_users(data: Any, positions: jax.Array, mask: jax.Array) -> dict[str, Any]:
    """A batch for `jrec.train.stream.make_chunk`: `user` int32 [B], `mask` bool [B], the `data`."""
    return {"user": positions, "mask": mask, "data": data}


def columns_for_batches(rows: RatingRows, items: int, batch_size: int) -> int:
    """Different items that most random batches have at most; a multiple of 64.

    The largest but 6 of 200 random batches (drawn with seed 0): room for the very largest would cost every
    batch more than computing three in a hundred densely does.
    """
    generator, users = np.random.default_rng(0), len(rows.offsets) - 1
    numbers = []
    for _ in range(200):
        batch = generator.choice(users, min(batch_size, users), replace=False)
        rated = np.concatenate([rows.item[rows.offsets[u] : rows.offsets[u + 1]] for u in batch])
        numbers.append(len(np.unique(rated)))
    return -(-max(sorted(numbers)[-7], 1) // 64) * 64


def slots_for_batches(offsets: np.ndarray, batch_size: int) -> int:
    """Slots that hold the ratings of nearly any random batch; a multiple of 1,024.

    The mean of a batch's ratings and five standard deviations, at most the largest users' total.
    """
    counts = np.diff(offsets)
    batch_size = min(batch_size, len(counts))
    most = int(np.partition(counts, len(counts) - batch_size)[-batch_size:].sum())
    likely = batch_size * counts.mean() + 5 * batch_size**0.5 * counts.std()
    return -(-min(most, int(likely) + 1) // 1024) * 1024
