"""Embedding tables spread over devices by rows: capacity grows with the devices.

Ids go to the devices that hold their rows, rows come back; gradients go the same way, and each device updates
its own rows by `jrec.embeddings.updates`. All functions but those on whole tables run inside `jax.shard_map`.

A table of V rows is kept as [P, D], dealt like cards into 512 stripes: row v lies in stripe v mod 512, whose nine
bits are reversed, at v // 512; N devices hold 512 / N stripes each. So N neighbours, which are often alike in
frequency, lie on N different devices, and the kept array is the same whatever N: a checkpoint is read by any
number of devices.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from jrec.embeddings.by_id import add_rows, gather_rows
from jrec.embeddings.optimizers import RowOptimizer
from jrec.embeddings.updates import TableState, init_table, update_table

STRIPES = 512
_REVERSED = np.array([int(f"{k:09b}"[::-1], 2) for k in range(STRIPES)], np.int32)


class Route(NamedTuple):
    """Where a device's B ids are, in C slots for each of N owners.

    Attributes:
        slot_B: int32, the id's place among [N * C]; N * C where nothing counts, more where C was too few.
        asked_NC: int32, the rows (of this device's part) that each device asks this one for; R for none.
    """

    slot_B: jax.Array
    asked_NC: jax.Array


def kept_rows(rows: int) -> int:
    """P, a multiple of 512, of a table of V rows."""
    return -(-rows // STRIPES) * STRIPES


def kept_place(ids: jax.Array, rows: int) -> jax.Array:
    """The row of [P, D] in which each row of [V, D] is kept."""
    stripe = jnp.asarray(_REVERSED)[ids % STRIPES]
    return stripe * (kept_rows(rows) // STRIPES) + ids // STRIPES


def init_sharded(
    mesh: Mesh,
    rows: int,
    width: int,
    init: Callable[[jax.Array, tuple[int, int]], jax.Array],
    optimizer: RowOptimizer,
    key: jax.Array,
) -> tuple[jax.Array, TableState]:
    """A new table [P, D] and its optimizer's state, made stripe by stripe on the devices that keep them.

    Args:
        mesh: of one axis, whose size divides 512. init: (key, shape) -> float32; a stripe's key is its own.

    Raises ValueError where the devices do not divide 512.
    """
    (axis_name,) = mesh.axis_names
    stripe = kept_rows(rows) // STRIPES
    if STRIPES % mesh.size:
        raise ValueError(f"{mesh.size} devices do not divide {STRIPES}.")
    own = STRIPES // mesh.size

    @jax.jit
    @partial(
        jax.shard_map,
        check_vma=False,
        mesh=mesh,
        in_specs=PartitionSpec(),
        out_specs=PartitionSpec(axis_name),
    )
    def make(key: jax.Array) -> tuple[jax.Array, TableState]:
        first = jax.lax.axis_index(axis_name) * own

        def fill(k: jax.Array, table_RD: jax.Array) -> jax.Array:
            part = init(jax.random.fold_in(key, first + k), (stripe, width))
            return jax.lax.dynamic_update_slice_in_dim(table_RD, part, k * stripe, 0)

        table_RD = jax.lax.fori_loop(0, own, fill, jnp.zeros((own * stripe, width), jnp.float32))
        return table_RD, init_table(optimizer, table_RD)

    return make(key)


def route(ids_B: jax.Array, rows: int, axis_name: str, slots: int | None = None) -> Route:
    """Tells the owners which rows this device wants, each once however often its ids repeat.

    Args:
        ids_B: int32 [B]; V or more where nothing counts. rows: V.
        slots: C, different rows that a device may ask one owner for; None for B, which is always enough. About
            2 B / N is nearly always, and exchanges N / 2 times less.
    """
    devices, count = jax.lax.axis_size(axis_name), len(ids_B)
    slots = count if slots is None else slots
    part = kept_rows(rows) // devices
    counted_B = (ids_B >= 0) & (ids_B < rows)
    place_B = jnp.where(counted_B, kept_place(ids_B, rows), devices * part)
    order_B = jnp.argsort(place_B)
    place_B = place_B[
        order_B
    ]  # from here on in this order: the same rows, and an owner's, side by side
    owner_B = place_B // part
    new_B = jnp.concatenate([jnp.ones(1, bool), place_B[1:] != place_B[:-1]])
    number_N = jnp.zeros(devices, jnp.int32).at[owner_B].add(new_B, mode="drop")
    before_N = jnp.cumsum(number_N) - number_N
    rank_B = jnp.cumsum(new_B) - 1 - before_N[jnp.minimum(owner_B, devices - 1)]
    wanted_NC = jnp.full((devices, slots), part, jnp.int32)
    wanted_NC = wanted_NC.at[owner_B, rank_B].set(place_B % part, mode="drop")
    slot_B = jnp.where(rank_B < slots, owner_B * slots + rank_B, devices * slots + 1)
    slot_B = jnp.where(owner_B < devices, slot_B, devices * slots)
    slot_B = jnp.zeros(count, jnp.int32).at[order_B].set(slot_B.astype(jnp.int32))
    return Route(slot_B, _exchanged(wanted_NC, axis_name))


def look_up(table_RD: jax.Array, route: Route, axis_name: str) -> jax.Array:
    """The rows float32 [B, D] of a route's ids, out of all devices' parts.

    Zeros where nothing counts; NaN, a loud mistake, where the slots were too few.
    """
    rows_NCD = _exchanged(gather_rows(table_RD, route.asked_NC), axis_name)
    rows_SD = rows_NCD.reshape(-1, rows_NCD.shape[-1])
    rows_BD = gather_rows(rows_SD, route.slot_B)
    return jnp.where((route.slot_B == len(rows_SD))[:, None], 0, rows_BD)


def update_sharded(
    optimizer: RowOptimizer,
    table_RD: jax.Array,
    state: TableState,
    route: Route,
    gradient_BD: jax.Array,
    step: jax.Array,
    axis_name: str,
) -> tuple[jax.Array, TableState]:
    """This device's part of the table after one step; the arguments are those of `update_table`.

    Args:
        gradient_BD: float32, of the rows that `look_up` gave. Its sum over all devices counts.
    """
    devices, slots = route.asked_NC.shape
    nothing_SD = jnp.zeros((devices * slots, gradient_BD.shape[1]), jnp.float32)
    sum_SD = add_rows(nothing_SD, route.slot_B, gradient_BD)
    sum_NCD = _exchanged(sum_SD.reshape(devices, slots, -1), axis_name)
    ids_S = route.asked_NC.reshape(-1)
    return update_table(optimizer, table_RD, state, ids_S, sum_NCD.reshape(len(ids_S), -1), step)


def _exchanged(parts_NC: jax.Array, axis_name: str) -> jax.Array:
    """What is at [d] goes to device d; what came from device d is at [d]."""
    return jax.lax.all_to_all(parts_NC, axis_name, 0, 0)
