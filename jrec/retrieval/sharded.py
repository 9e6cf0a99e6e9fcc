"""`exact_top_k` over an item table that is spread over devices by rows."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jrec.retrieval.exact import ItemTable, Ranked, exact_top_k, merge_top_k
from jrec.retrieval.simple_lsh import largest_norm

PADDING = 64  # any group of `exact_top_k` divides it


@partial(jax.tree_util.register_dataclass, data_fields=["table"], meta_fields=["part"])
@dataclass(frozen=True)
class ShardedItems:
    """Items on many devices.

    Attributes:
        table: each device's own `ItemTable`, one after the other. part: the catalogue's rows on each.
    """

    table: ItemTable
    part: int


def shard_items(
    mesh: Mesh,
    weight_MD: np.ndarray,
    bias_M: np.ndarray | None = None,
    allowed_M: np.ndarray | None = None,
    block_rows: int = 8192,
) -> ShardedItems:
    """`item_table` with neighbouring rows side by side, a part of them on each device of a mesh of one axis."""
    M, part = len(weight_MD), -(-len(weight_MD) // mesh.size)
    norm = jnp.float32(largest_norm(weight_MD, bias_M))
    bias_M = np.zeros(M, np.float32) if bias_M is None else np.asarray(bias_M, np.float32)
    if allowed_M is not None:
        bias_M = np.where(allowed_M, bias_M, -np.inf)
    block_rows = _multiple(min(block_rows, part), PADDING)
    rows = _multiple(part, block_rows)

    def place(of: np.ndarray, filling: float) -> jax.Array:
        def own(
            index: tuple[slice, ...],
        ) -> np.ndarray:  # one device's part alone is copied on the host
            k = (index[0].start or 0) // rows
            mine = np.asarray(of[k * part : (k + 1) * part], np.float32)
            missing = [(0, rows - len(mine))] + [(0, 0)] * (mine.ndim - 1)
            return np.pad(mine, missing, constant_values=filling)

        sharding = NamedSharding(mesh, PartitionSpec(*mesh.axis_names))
        return jax.make_array_from_callback((mesh.size * rows, *of.shape[1:]), sharding, own)

    return ShardedItems(
        ItemTable(place(weight_MD, 0), place(bias_M, -np.inf), norm, block_rows), part
    )


@partial(jax.jit, static_argnames=("mesh", "count"))
def sharded_top_k(
    mesh: Mesh,
    items: ShardedItems,
    query_BD: jax.Array,
    count: int,
    seen_BL: jax.Array | None = None,
    seen_mask_BL: jax.Array | None = None,
) -> Ranked:
    """As `exact_top_k`, rows counted in the whole catalogue: each device ranks its own items for all queries.

    What is exchanged is each device's K best: 8 K bytes a query and device, whatever the catalogue.
    """
    (axis_name,) = mesh.axis_names
    if seen_BL is None or seen_mask_BL is None:
        seen_BL = jnp.zeros((len(query_BD), 0), jnp.int32)
        seen_mask_BL = jnp.zeros(seen_BL.shape, bool)
    split, whole = PartitionSpec(axis_name), PartitionSpec()
    parts = ItemTable(split, split, whole, items.table.block_rows)

    def rank(
        table: ItemTable, query_BD: jax.Array, seen_BL: jax.Array, mask_BL: jax.Array
    ) -> Ranked:
        own_BL = seen_BL - jax.lax.axis_index(axis_name) * items.part
        inside_BL = mask_BL & (own_BL >= 0) & (own_BL < items.part)
        own_BL = jnp.where(inside_BL, own_BL, 0)
        best = exact_top_k(table, query_BD, count, own_BL, inside_BL)
        every = jax.lax.all_gather(best, axis_name)
        each = [jax.tree.map(lambda leaf, d=d: leaf[d], every) for d in range(mesh.size)]
        return merge_top_k(each, [d * items.part for d in range(mesh.size)])

    over = jax.shard_map(
        rank, mesh=mesh, in_specs=(parts, whole, whole, whole), out_specs=whole, check_vma=False
    )
    return over(items.table, query_BD, seen_BL, seen_mask_BL)


def _multiple(number: int, of: int) -> int:
    return -(-number // of) * of
