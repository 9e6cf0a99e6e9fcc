"""What code must know of a batch that is split over devices: the name of an axis, None on one device.

Device d of N holds rows d * B to (d + 1) * B - 1 of the whole batch, whose last rows may be filled up (and
masked). What is drawn, is drawn for the whole batch from one key, so that N devices draw what one does.
"""

from typing import Any

import jax
import jax.numpy as jnp


def summed(values: Any, axis_name: str | None) -> Any:
    """The sum of each leaf over the devices."""
    return values if axis_name is None else jax.lax.psum(values, axis_name)


def on_all(flag: jax.Array, axis_name: str | None) -> jax.Array:
    """bool of the flag's shape: whether it is true on every device; the same on each of them."""
    return flag if axis_name is None else jax.lax.psum((~flag).astype(jnp.int32), axis_name) == 0


def gathered(values: Any, axis_name: str | None) -> Any:
    """Each leaf's rows [B, ...] of all devices, one after the other: the whole batch's."""
    return values if axis_name is None else jax.lax.all_gather(values, axis_name, tiled=True)


def whole_rows(rows: int, axis_name: str | None) -> int:
    """Rows of the whole batch, filled up, where a device holds `rows`."""
    return rows if axis_name is None else rows * jax.lax.axis_size(axis_name)


def own_rows(rows: int, axis_name: str | None) -> jax.Array:
    """int32 [rows]: which rows of the whole batch a device holds."""
    first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * rows
    return first + jnp.arange(rows, dtype=jnp.int32)


def local_part(drawn: jax.Array, axis_name: str | None) -> jax.Array:
    """This device's rows [B / devices, ...] of what was drawn for the whole batch [B, ...].

    Raises ValueError where the devices do not divide B.
    """
    if axis_name is None:
        return drawn
    devices = jax.lax.axis_size(axis_name)
    if len(drawn) % devices:
        raise ValueError(f"{len(drawn)} rows cannot be shared by {devices} devices.")
    rows = len(drawn) // devices
    return jax.lax.dynamic_slice_in_dim(drawn, jax.lax.axis_index(axis_name) * rows, rows)
