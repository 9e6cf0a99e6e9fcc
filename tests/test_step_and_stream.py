from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jrec.data.synthetic import SyntheticSize, synthetic_ratings
from jrec.evaluate.rating_errors import make_rating_errors
from jrec.losses.ratings import squared_error
from jrec.models.fusion import Fusion
from jrec.train.chunk import epoch_order, make_chunk
from jrec.train.rating_batches import device_ratings, feature_tables, gather_ratings
from jrec.train.step import choose_step, init_state, make_step
from tests.conftest import slow_but

RATINGS = synthetic_ratings(SyntheticSize(users=20, items=15, ratings=300), seed=0)
TABLES = jax.tree.map(jnp.asarray, feature_tables(RATINGS))
COUNT = 100
DATA = device_ratings(RATINGS, np.arange(COUNT), TABLES)
MODEL = Fusion({name: v.rows for name, v in RATINGS.vocabularies.items()}, tower_width=20)
OPTIMIZER = optax.sgd(0.2)
gather = jax.jit(gather_ratings)
init = jax.jit(MODEL.init)


def loss(params, batch, key):
    score = MODEL.apply(params, batch["user"], batch["item"])
    return squared_error(score, 2 * batch["rating"] - 5, batch["mask"])


STEP = make_step(loss, OPTIMIZER)
step = jax.jit(STEP)


def batch_of(positions, mask=None):
    positions = jnp.asarray(positions)
    return gather(DATA, positions, jnp.ones(len(positions), bool) if mask is None else mask)


def fresh_state(seed=0):
    batch = batch_of([0])
    params = init(jax.random.key(seed), batch["user"], batch["item"])
    return init_state(params, OPTIMIZER, jax.random.key(1))


def assert_close(one, two, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), one, two)


def test_golden_step():
    """Loss before and after one step, as first written: a change in any part of it is seen."""
    before_and_after = (255.4122, 105.4574)
    state, metrics = step(fresh_state(), batch_of(np.arange(32)))
    _, after = step(state, batch_of(np.arange(32)))
    assert int(state.step) == 1 and float(metrics["count"]) == 32
    np.testing.assert_allclose(float(metrics["loss_sum"]), before_and_after[0], rtol=1e-4)
    np.testing.assert_allclose(float(after["loss_sum"]), before_and_after[1], rtol=1e-4)


def test_a_step_can_be_taken_without_jit():
    def line(params, batch, key):
        return squared_error(params["slope"] * batch["x"], batch["y"], batch["mask"])

    batch = {"x": jnp.array([1.0, 2.0]), "y": jnp.array([2.0, 4.0]), "mask": jnp.ones(2, bool)}
    optimizer = optax.sgd(0.1)
    state = init_state({"slope": jnp.zeros(())}, optimizer, jax.random.key(0))
    state, metrics = make_step(line, optimizer)(state, batch)
    # d/ds of mean((s x - y)^2) at 0 is -2 mean(x y) = -10.
    assert float(state.params["slope"]) == 1.0 and float(metrics["loss_sum"]) == 20.0


def test_step_is_gradient_descent_on_the_mean():
    state, batch = fresh_state(), batch_of(np.arange(32))
    mean = jax.jit(jax.grad(lambda p: loss(p, batch, None)[0] / 32))(state.params)
    expected = jax.tree.map(lambda p, g: p - 0.2 * g, state.params, mean)
    assert_close(step(state, batch)[0].params, expected, atol=1e-6)


def test_a_masked_batch_is_the_shorter_batch():
    long, metrics = step(fresh_state(), batch_of(np.arange(16), jnp.arange(16) < 11))
    short, _ = step(fresh_state(), batch_of(np.arange(11)))
    assert float(metrics["count"]) == 11
    assert_close(long.params, short.params, atol=1e-6)


def test_a_wholly_masked_batch_changes_nothing():
    state, metrics = step(fresh_state(), batch_of(np.arange(32), jnp.zeros(32, bool)))
    assert float(metrics["count"]) == 0
    assert_close(state.params, fresh_state().params, atol=0)


@pytest.mark.parametrize("devices", slow_but(8, [2, 8]))
def test_many_devices_take_the_step_that_one_takes(devices):
    assert jax.device_count() >= devices, "conftest asks for 8 virtual devices"
    # 27 of 32 count, unevenly spread: a mean of the devices' means would be another step.
    batch = batch_of(np.arange(32), jnp.arange(32) < 27)
    one, metrics = step(fresh_state(), batch)
    split = jax.tree.map(lambda a: a.reshape(devices, -1, *a.shape[1:]), batch)
    on_many = jax.pmap(make_step(loss, OPTIMIZER, "data"), "data", in_axes=(None, 0))
    many, many_metrics = on_many(fresh_state(), split)
    for device in range(devices):
        mine = jax.tree.map(lambda a, d=device: a[d], many.params)
        assert_close(mine, one.params, atol=1e-6)
    assert_close(many_metrics["loss_sum"][0], metrics["loss_sum"], rtol=1e-6)


def test_order_is_a_permutation_of_seed_and_epoch():
    key = jax.random.key(3)
    first, again, later = (epoch_order(key, epoch, COUNT, 32) for epoch in (0, 0, 1))
    assert first.shape == (128,) and first.dtype == jnp.int32
    assert sorted(first.tolist()) == [*range(COUNT), *[COUNT] * 28]
    assert (first == again).all() and not (first == later).all()


def test_one_compilation_serves_every_chunk_and_each_rating_counts_once():
    traces = []

    def counted_step(state, batch):
        traces.append(1)
        return STEP(state, batch)

    chunk = make_chunk(counted_step, gather_ratings, COUNT, 32)
    state, counted = fresh_state(), 0.0
    for epoch in range(3):
        order = epoch_order(jax.random.key(3), epoch, COUNT, 32)
        for first, steps in ((0, 3), (3, 1)):
            state, sums, bad_step = chunk(state, DATA, order, first, steps)
            counted += float(sums["count"])
            assert int(bad_step) == -1
    assert len(traces) == 1
    assert counted == 3 * COUNT and int(state.step) == 12


def test_chunks_are_the_steps_one_by_one():
    order = epoch_order(jax.random.key(3), 0, COUNT, 32)
    chunk = make_chunk(STEP, gather_ratings, COUNT, 32)
    together, _, _ = chunk(fresh_state(), DATA, order, 0, 4)
    state = fresh_state()
    for number in range(4):
        positions = order[number * 32 : (number + 1) * 32]
        mask = positions < COUNT
        state, _ = step(state, batch_of(jnp.where(mask, positions, 0), mask))
    assert_close(together.params, state.params, atol=5e-6)


def test_a_chunk_stops_at_the_first_loss_that_is_not_finite():
    poisoned = DATA | {"rating": DATA["rating"].at[50].set(jnp.nan)}
    order = jnp.arange(COUNT + 28, dtype=jnp.int32)
    chunk = make_chunk(STEP, gather_ratings, COUNT, 16)
    state, _, bad_step = chunk(fresh_state(), poisoned, order, 0, 6)
    assert int(bad_step) == 4 and int(state.step) == 4  # rating 50 is in the fourth batch


def test_choose_step_takes_the_step_that_fits():
    def constant(value):
        return lambda state, batch: (state, {"loss_sum": jnp.float32(value)})

    chosen = jax.jit(choose_step(lambda batch: batch.sum() <= 3, constant(1), constant(2)))
    for total, value in ((3, 1), (4, 2)):
        assert float(chosen(None, jnp.array([total]))[1]["loss_sum"]) == value


@pytest.mark.parametrize("batch_size", [1, 7, 100, 4096])
def test_errors_do_not_depend_on_the_batch(batch_size):
    params = fresh_state().params

    @jax.jit
    def predict(params, batch):
        return (MODEL.apply(params, batch["user"], batch["item"]) + 5) / 2

    errors = make_rating_errors(predict, gather_ratings, batch_size)(params, DATA)
    difference = np.asarray(predict(params, batch_of(np.arange(COUNT))) - DATA["rating"])
    np.testing.assert_allclose(errors["rmse"], np.sqrt((difference**2).mean()), rtol=1e-5)
    np.testing.assert_allclose(errors["mae"], np.abs(difference).mean(), rtol=1e-5)


def test_errors_of_no_ratings_are_nan():
    nothing = device_ratings(RATINGS, np.arange(0), TABLES)
    errors = make_rating_errors(partial(lambda p, b: b["rating"]), gather_ratings)
    assert np.isnan(errors(None, nothing)["rmse"])
