"""Rows of a table read, added to and written by id: each in a plain form, and in one that is fast on a CPU.

The two give the same numbers. A CPU's XLA goes over rows that it finds by id faster if its innermost loop has a
short known length, so the fast form sees a table [V, D] as [V, D / 8, 8], the same memory (step times stand in
BUILD_NOTES.md, row-updated tables). Elsewhere the two are one: a TPU would copy the table to another layout.
"""

import jax


def plain_gather_rows(
    table: jax.Array, ids: jax.Array, fill_value: float | None = None
) -> jax.Array:
    """Returns rows [..., D] of a table [V, D] at integer ids [...]; `fill_value`, or NaN, where an id is no row's.

    (Of an integer table: its type's smallest number.)
    """
    return table.at[ids].get(mode="fill", fill_value=fill_value, wrap_negative_indices=False)


def plain_add_rows(table: jax.Array, ids: jax.Array, rows_ND: jax.Array) -> jax.Array:
    """Returns the table [V, D] with rows added to its own at ids [N]; an id that is no row's adds nothing."""
    return table.at[ids].add(rows_ND, mode="drop", wrap_negative_indices=False)


def plain_put_rows(table: jax.Array, ids: jax.Array, rows_ND: jax.Array) -> jax.Array:
    """Returns the table [V, D] with rows written at ids [N] >= 0, no two alike; an id of V or more writes nothing."""
    return table.at[ids].set(rows_ND, mode="drop", unique_indices=True)


def gather_rows(table: jax.Array, ids: jax.Array, fill_value: float | None = None) -> jax.Array:
    """As `plain_gather_rows`."""
    rows = plain_gather_rows(_in_eights(table), ids, fill_value)
    return rows.reshape(*ids.shape, *table.shape[1:])


def add_rows(table: jax.Array, ids: jax.Array, rows_ND: jax.Array) -> jax.Array:
    """As `plain_add_rows`."""
    return plain_add_rows(_in_eights(table), ids, _in_eights(rows_ND)).reshape(table.shape)


def put_rows(table: jax.Array, ids: jax.Array, rows_ND: jax.Array) -> jax.Array:
    """As `plain_put_rows`."""
    return plain_put_rows(_in_eights(table), ids, _in_eights(rows_ND)).reshape(table.shape)


def _in_eights(values: jax.Array) -> jax.Array:
    if values.ndim != 2 or values.shape[1] % 8 or jax.default_backend() != "cpu":
        return values
    return values.reshape(values.shape[0], values.shape[1] // 8, 8)
