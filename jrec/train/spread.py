"""Columns spread over the devices by blocks of rows, and indexed as if each device had them whole.

Device d of N holds rows d * R to (d + 1) * R - 1 of a column, where R = ceil(count / N). To index one is a
collective: every device must do it as often, and in the same order, with as many places.
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
        """The rows at places int [...], 0 to count - 1, each device's own: [..., *row], in every bit.

        All devices hear all places; each sends the asking one what it has at them, and of the N answers
        the owner's is taken.
        """
        rows, axis = self.part.shape[0], self.axis_name
        place_P = places.reshape(-1)
        asked_NP = jax.lax.all_gather(place_P, axis)
        here_NP = jnp.clip(asked_NP - jax.lax.axis_index(axis) * rows, 0, rows - 1)
        answers = jax.lax.all_to_all(self.part[here_NP], axis, 0, 0)
        found = answers[place_P // rows, jnp.arange(len(place_P))]
        return found.reshape(*places.shape, *self.part.shape[1:])


def is_spread(column: Any) -> bool:
    """Whether a node of a pytree is a `Spread`."""
    return isinstance(column, Spread)


def rows_at(columns: Any, places: jax.Array | slice) -> Any:
    """The rows at some places of each column of a pytree, spread or whole; a slice, of whole ones alone."""
    return jax.tree.map(lambda column: column[places], columns, is_leaf=is_spread)


def turns_of_all(turns: jax.Array, column: Any) -> jax.Array:
    """How often a loop that indexes the column must turn: where it is spread, as the longest on any device."""
    return jax.lax.pmax(turns, column.axis_name) if is_spread(column) else turns
