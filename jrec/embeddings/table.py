"""Embedding tables whose gradient is taken with respect to the rows read, never the table."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from jrec.embeddings.by_id import gather_rows

# Two Linen collections, written and read in this file alone: the ids and rows that each lookup read, and
# zeros that are added to these rows, so that the gradient of the zeros is the rows' gradient.
READ = "read"
ROW_SHIFTS = "row_shifts"

Lookup = tuple[str, ...]
"""(table's name, module path..., `lookup_K`): one call of one `Embed`."""


class Embed(nn.Module):
    """A table of vectors, looked up by id; used like `nn.Embed`, with a mask and pooling.

    In an ordinary `apply` it is an ordinary lookup. Under `RowReads.apply`, which a step made by
    `jrec.embeddings.row_step` hands to the loss, the gradient goes to the rows read instead of the table;
    the model does not know which. One instance may be called many times, and shared by modules.

    Attributes:
        rows: V. width: D.
        embedding_init: of the float32 [V, D] parameter `embedding`.
        pooling: over the last axis of the ids, where a call names none: None, `sum`, or `mean` (of what the
            mask counts; zero where it counts nothing).
    """

    rows: int
    width: int
    embedding_init: Callable[..., jax.Array] = nn.initializers.normal(0.01)
    pooling: str | None = None

    @nn.compact
    def __call__(
        self, ids: jax.Array, mask: jax.Array | None = None, pooling: str | None = None
    ) -> jax.Array:
        """Looks rows up.

        Args:
            ids: integers [...] from 0 to V - 1; others read NaN, a loud mistake, unless masked.
            mask: bool, the ids' shape; what it leaves out reads zeros and never moves a row.
            pooling: of this call.

        Returns:
            float32 [..., D] of the ids' shape, less its last axis where pooled.

        Raises ValueError for an unknown pooling or a mask of another shape.
        """
        pooling = pooling or self.pooling
        if pooling not in (None, "sum", "mean"):
            raise ValueError(f"pooling must be None, 'sum' or 'mean', but is {pooling!r}.")
        if mask is not None and mask.shape != ids.shape:
            raise ValueError(f"The mask's shape {mask.shape} is not the ids' {ids.shape}.")
        table_VD = self.param(
            "embedding", self.embedding_init, (self.rows, self.width), jnp.float32
        )
        values = self._look_up(table_VD, ids, mask)
        if pooling is None:
            return values
        if pooling == "sum":
            return values.sum(-2)
        count = ids.shape[-1] if mask is None else mask.sum(-1)[..., None]
        return values.sum(-2) / jnp.maximum(count, 1)

    def _look_up(self, table_VD: jax.Array, ids: jax.Array, mask: jax.Array | None) -> jax.Array:
        if self.is_initializing():  # else `init` would return the two collections, too
            return _rows(table_VD, ids, mask)
        # Calls are numbered by what they have written: a Linen module keeps no count of its own.
        number = 0
        while self.has_variable(READ, f"lookup_{number}"):
            number += 1
        lookup = f"lookup_{number}"
        counted = (ids >= 0) & (ids < self.rows)
        counted = counted if mask is None else counted & mask
        # One number says both which row it is and whether it counts: there is no row V.
        counted_ids = jnp.where(counted, ids, self.rows).astype(jnp.int32)
        values = _rows(jax.lax.stop_gradient(table_VD), ids, mask)
        self.sow(READ, lookup, (counted_ids, values), reduce_fn=lambda _, new: new, init_fn=tuple)
        if not (self.has_variable(ROW_SHIFTS, lookup) or self.is_mutable_collection(ROW_SHIFTS)):
            return _rows(table_VD, ids, mask)
        # A shift of a row that the mask leaves out has a gradient; its id counts nowhere.
        return self.perturb(lookup, values, ROW_SHIFTS)


def _rows(table_VD: jax.Array, ids: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Rows float32 [..., D]: NaN where an id is no row's, 0 where the mask leaves it out."""
    rows = gather_rows(table_VD, ids)
    return rows if mask is None else jnp.where(mask[..., None], rows, 0)


class RowReads:
    """Lends a loss an `apply` that notes which rows it reads; one for each call of the loss.

    It lives while one loss is traced: `reads.apply` is passed to the loss, and `reads.read` taken out
    of the same trace. So a loss must call `apply` outside `lax.scan`, `jax.checkpoint` and the like
    (inside a model, Linen's lifted `nn.remat` works as it is, and `nn.scan` with both collections in
    its `variable_axes`).

    Attributes:
        read: for each call of `apply`, {lookup: (int32 ids, V where nothing counts; the rows [..., D] at
            them)}.
        shifts: for each call, {lookup: zeros of the shape of the rows read}, where none were given.
    """

    def __init__(
        self,
        tables: Mapping[str, jax.Array],
        shifts: list[dict[Lookup, jax.Array]] | None = None,
    ) -> None:
        """Takes the tables by name, the very arrays that the loss is given, and shifts once known."""
        self._names = {id(table): name for name, table in tables.items()}
        self._given = shifts
        self.read: list[dict[Lookup, tuple[jax.Array, jax.Array]]] = []
        self.shifts: list[dict[Lookup, jax.Array]] = []

    def apply(
        self,
        model: nn.Module,
        variables: Mapping[str, Any],
        *args: Any,
        mutable: str | list[str] | bool = False,
        **kwargs: Any,
    ) -> Any:
        """What `model.apply(variables, ...)` returns."""
        if isinstance(mutable, bool):
            if mutable:
                raise ValueError("Name the mutable collections; `mutable=True` hides them.")
            theirs = []
        else:
            theirs = [mutable] if isinstance(mutable, str) else list(mutable)
        # A table is known by which array it is: so a loss may hold several models' variables.
        names = {
            path[:-1]: self._names[id(leaf)]
            for path, leaf in flatten_dict(variables["params"]).items()
            if id(leaf) in self._names
        }
        if self._given is None:
            ours = [READ, ROW_SHIFTS]
        else:
            ours = [READ]
            shifts = {lookup[1:]: value for lookup, value in self._given[len(self.read)].items()}
            # Linen's `perturb` acts where it finds its zeros: only tables taken by rows have some.
            variables = {**variables, **({ROW_SHIFTS: unflatten_dict(shifts)} if shifts else {})}
        result, written = model.apply(variables, *args, mutable=[*theirs, *ours], **kwargs)
        for collection, kept in ((READ, self.read), (ROW_SHIFTS, self.shifts)):
            flat = flatten_dict(written.pop(collection, {}))
            kept.append({(names[p[:-1]], *p): v for p, v in flat.items() if p[:-1] in names})
        return result if mutable is False else (result, written)
