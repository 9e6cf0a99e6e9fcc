"""Tables and item lists spread over devices give the numbers of whole ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from jrec.embeddings import optimizers as row_optimizers
from jrec.embeddings.by_id import gather_rows
from jrec.embeddings.sharded import (
    init_sharded,
    kept_place,
    kept_rows,
    look_up,
    route,
    update_sharded,
)
from jrec.embeddings.updates import init_table, update_table

pytestmark = pytest.mark.bits
V, D, B = 700, 4, 48
RULE = row_optimizers.rowwise_adagrad(0.1)


def mesh_of(count):
    return Mesh(np.array(jax.devices()[:count]), ("rows",))


def normal(key, shape):
    return jax.random.normal(key, shape)


def whole(kept_PD, rows=V):
    """[V, D] out of the kept [P, D]."""
    return jnp.asarray(np.asarray(kept_PD)[np.asarray(kept_place(jnp.arange(rows), rows))])


def batches(steps, seed=0):
    """Ids with many repeats, some that are none, and what their rows should be."""
    generator = np.random.default_rng(seed)
    ids = (generator.zipf(1.3, (steps, B)) - 1) % V
    ids[:, ::7] = V
    return jnp.asarray(ids, jnp.int32), jnp.asarray(
        generator.normal(size=(steps, B, D)), jnp.float32
    )


def row_gradient(rows_BD, target_BD, ids_B):
    return jnp.where((ids_B < V)[:, None], rows_BD - target_BD, 0)


def sharded_steps(mesh, slots=None, steps=20):
    table, state = init_sharded(mesh, V, D, normal, RULE, jax.random.key(0))
    ids, targets = batches(steps)
    split = PartitionSpec("rows")

    def all_steps(table, state, ids, targets):
        def one(carry, given):
            (table, state), (ids_B, target_BD, step) = carry, given
            way = route(ids_B, V, "rows", slots)
            rows_BD = look_up(table, way, "rows")
            gradient = row_gradient(rows_BD, target_BD, ids_B)
            kept = update_sharded(RULE, table, state, way, gradient, step, "rows")
            return kept, rows_BD

        return jax.lax.scan(one, (table, state), (ids, targets, jnp.arange(len(ids))))

    run = jax.shard_map(
        all_steps,
        mesh=mesh,
        in_specs=(split, split, PartitionSpec(None, "rows"), PartitionSpec(None, "rows")),
        out_specs=((split, split), PartitionSpec(None, "rows")),
        check_vma=False,
    )
    (after, state), rows = jax.jit(run)(table, state, ids, targets)
    return table, after, state, rows


def test_places_are_a_permutation_and_spread_neighbours():
    for rows in (1, 511, 512, 513, 5000):
        place = np.asarray(kept_place(jnp.arange(rows), rows))
        assert len(set(place.tolist())) == rows and place.max() < kept_rows(rows)
    for devices in (2, 8, 64):
        owner = np.asarray(kept_place(jnp.arange(700), V)) // (kept_rows(V) // devices)
        assert len(set(owner[100 : 100 + devices])) == devices


@pytest.mark.parametrize("count", [1, 2, 8])
def test_a_sharded_table_trains_as_a_whole_one(count):
    before, after, state, rows = sharded_steps(mesh_of(count))
    table, own = whole(before), init_table(RULE, whole(before))
    ids, targets = batches(20)
    step = jax.jit(lambda *arguments: update_table(RULE, *arguments))
    for k in range(len(ids)):
        read = jnp.where((ids[k] < V)[:, None], gather_rows(table, jnp.minimum(ids[k], V - 1)), 0)
        np.testing.assert_allclose(rows[k], read, rtol=1e-5, atol=1e-6)
        table, own = step(table, own, ids[k], row_gradient(read, targets[k], ids[k]), jnp.int32(k))
    np.testing.assert_allclose(whole(after), table, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(whole(state["rule"]["squares"]), own["rule"]["squares"], rtol=1e-5)
    assert np.abs(np.asarray(table - whole(before))).max() > 0.5


def test_the_kept_array_does_not_depend_on_the_number_of_devices():
    first, after, *_ = sharded_steps(mesh_of(2))
    again, later, *_ = sharded_steps(mesh_of(8))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(after, later, rtol=1e-5, atol=1e-6)
    assert len({s.data.shape for s in later.addressable_shards}) == 1
    assert later.addressable_shards[0].data.shape == (kept_rows(V) // 8, D)


def test_few_slots_are_enough_or_loud():
    _, after, _, rows = sharded_steps(mesh_of(8))
    _, same, _, _ = sharded_steps(mesh_of(8), slots=4)
    np.testing.assert_allclose(same, after, rtol=1e-5, atol=1e-6)
    _, _, _, missing = sharded_steps(mesh_of(8), slots=1, steps=1)
    missing, rows = np.asarray(missing[0]), np.asarray(rows[0])
    there = np.isfinite(missing).all(1)
    assert not there.all()
    np.testing.assert_allclose(missing[there], rows[there], rtol=1e-6)


def test_devices_that_do_not_divide_the_stripes_are_refused():
    with pytest.raises(ValueError, match="3 devices"):
        init_sharded(mesh_of(3), V, D, normal, RULE, jax.random.key(0))
