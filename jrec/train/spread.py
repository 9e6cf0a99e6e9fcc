"""Columns spread over the devices by blocks of rows, and indexed as if each device had them whole.

Device d of N holds rows d * R to (d + 1) * R - 1 of a column, where R = ceil(count / N). To index
some is an exchange: every device must do it as often, and in the same order, with as many places.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp


@partial(jax.tree_util.register_dataclass, data_fields=["part"], meta_fields=["count", "axis_name"])
@dataclass(frozen=True, eq=False)
class Spread:
    """A column [count, ...] of any type, as a device sees it where the devices' axis is named.

    Attributes:
        part: [R, ...], the device's rows, the last ones filled up; outside, [devices, R, ...].
        count: rows of the whole column. axis_name: of the devices.
    """

    part: jax.Array
    count: int
    axis_name: str

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, places: jax.Array) -> jax.Array:
        """The rows at places int [...], 0 to count - 1, each device's own: [..., *row], in every bit."""
        return _exchanged([self], places)[0]


def is_spread(column: Any) -> bool:
    """Whether a node of a pytree is a `Spread`."""
    return isinstance(column, Spread)


def rows_at(columns: Any, places: jax.Array | slice) -> Any:
    """The rows at some places of each column of a pytree, spread or whole; a slice, of whole ones alone.

    Spread ones are indexed in one exchange, however many they are.
    """
    leaves, form = jax.tree.flatten(columns, is_leaf=is_spread)
    spread = [column for column in leaves if is_spread(column)]
    found = iter(_exchanged(spread, places) if spread else [])
    return form.unflatten([next(found) if is_spread(x) else x[places] for x in leaves])


def _exchanged(columns: list[Spread], places: jax.Array) -> list[jax.Array]:
    """Rows of each column: all devices hear all places, and each sends the asking one what it has at them.

    Of the N answers the owner's is taken.
    """
    axis, place_P = columns[0].axis_name, places.reshape(-1)
    asked_NP, this = jax.lax.all_gather(place_P, axis), jax.lax.axis_index(axis)
    sent = []
    for column in columns:
        rows = column.part.shape[0]
        sent.append(_bytes(column.part[jnp.clip(asked_NP - this * rows, 0, rows - 1)]))
    answers = jax.lax.all_to_all(jnp.concatenate(sent, -1), axis, 0, 0)
    found, end = [], 0
    for column, size in zip(columns, (x.shape[-1] for x in sent), strict=True):
        start, end = end, end + size
        own = answers[
            place_P // column.part.shape[0], jnp.arange(len(place_P), dtype=jnp.int32), start:end
        ]
        found.append(_of_bytes(own, column.part).reshape(*places.shape, *column.part.shape[1:]))
    return found


def _bytes(values_NP: jax.Array) -> jax.Array:
    """[N, P, ...] of any type -> uint8 [N, P, bytes of a row]."""
    if values_NP.dtype == bool:
        values_NP = values_NP.astype(jnp.uint8)
    return jax.lax.bitcast_convert_type(values_NP, jnp.uint8).reshape(*values_NP.shape[:2], -1)


def _of_bytes(bytes_PS: jax.Array, like: jax.Array) -> jax.Array:
    """Back again: rows [P, ...] of the type that `like` has."""
    if like.dtype == bool:
        return bytes_PS.astype(bool)
    split = bytes_PS.reshape(len(bytes_PS), -1, like.dtype.itemsize)
    split = split[..., 0] if like.dtype.itemsize == 1 else split
    return jax.lax.bitcast_convert_type(split, like.dtype)


def turns_of_all(turns: jax.Array, column: Any) -> jax.Array:
    """How often a loop that indexes the column must turn: where it is spread, as the longest on any device."""
    return jax.lax.pmax(turns, column.axis_name) if is_spread(column) else turns
