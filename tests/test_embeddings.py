"""Tables updated by rows, against dense steps, NumPy loops and finite differences."""

import functools
from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.fusion import source as fusion
from jrec.data.synthetic import SyntheticSize, synthetic_ratings
from jrec.embeddings import by_id
from jrec.embeddings import optimizers as row_optimizers
from jrec.embeddings import updates as row_updates
from jrec.embeddings.by_id import add_rows, gather_rows
from jrec.embeddings.row_step import embedding_tables, init_row_state, make_row_step
from jrec.embeddings.table import Embed
from jrec.embeddings.updates import init_table, sum_duplicates, update_table
from jrec.losses.ratings import squared_error
from jrec.train.checkpoints import Checkpoints
from jrec.train.chunk import epoch_order, make_chunk
from jrec.train.rating_batches import device_ratings, feature_tables, gather_ratings
from jrec.train.step import init_state, make_step
from tests.conftest import slow_but

V, D, B, L = 40, 16, 8, 4
COUNT = 3 * B
TABLE = "params.items.embedding"


class TwoTowers(nn.Module):
    """History and target share a table; the bags have one of their own."""

    def setup(self):
        self.items = Embed(V, D, nn.initializers.normal(1.0))
        self.bags = Embed(6, D, nn.initializers.normal(1.0), "mean")
        self.top = nn.Dense(1)

    def __call__(self, batch):
        seen = self.items(batch["history"], batch["mask_history"]).sum(-2)
        bag = self.bags(batch["history"] % 6, batch["mask_history"])
        user = jnp.concatenate([seen, bag, self.items(batch["target"])], -1)
        return nn.tanh(self.top(user))[..., 0]


MODEL = TwoTowers()


def loss(params, batch, key, apply=nn.Module.apply):
    """Two calls of `apply`, so that lookups of one table are summed over these, too."""
    swapped = batch | {"target": batch["negative"]}
    score = apply(MODEL, params, batch) - apply(MODEL, params, swapped)
    return squared_error(score, batch["rating"], batch["mask"])


def examples(seed=0, count=B):
    """Few ids, so that duplicates abound; masked places hold ids that must not matter."""
    generator = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(generator.integers(0, 9, shape), jnp.int32)  # noqa: E731
    mask_history = jnp.asarray(generator.random((count, L)) < 0.6)
    return {
        "history": jnp.where(mask_history, draw(count, L), V - 1),
        "mask_history": mask_history,
        "target": draw(count),
        "negative": draw(count) + 9,  # never the target: the loss would not depend on the history
        "rating": jnp.asarray(generator.normal(size=count), jnp.float32),
        "mask": jnp.arange(count) < count - 1,
    }


PARAMS = jax.jit(MODEL.init)(jax.random.key(0), examples())


def row_state(rule, params=PARAMS):
    # Copied, because chunks are given the state to write in.
    params = jax.tree.map(jnp.array, params)
    return init_row_state(params, optax.sgd(0.1), rule, jax.random.key(1))


def assert_close(one, two, atol=1e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=atol), one, two)


@pytest.fixture(params=["whole", "rows"])
def way(request, monkeypatch):
    """Runs a test with both ways of updating a table, whatever its size."""
    monkeypatch.setattr(row_updates, "WHOLE_TABLE_ROWS", 10**9 if request.param == "whole" else 0)
    return request.param


def dense_rowwise_adagrad(rate):
    """What the row-wise rule does to whole tables, as an Optax optimizer."""

    def init(params):
        return jax.tree.map(lambda table: jnp.full(len(table), 0.1), params)

    def update(gradient, sums, params):
        sums = jax.tree.map(lambda s, g: s + (g**2).mean(1), sums, gradient)
        move = jax.tree.map(lambda s, g: -rate * g / jnp.sqrt(s + 1e-7)[:, None], sums, gradient)
        return move, sums

    return optax.GradientTransformation(init, update)


DENSE = {
    "sgd": (row_optimizers.sgd(0.2), optax.sgd(0.2)),
    "adagrad": (row_optimizers.adagrad(0.2), optax.adagrad(0.2)),
    "rowwise_adagrad": (row_optimizers.rowwise_adagrad(0.2), dense_rowwise_adagrad(0.2)),
}


@pytest.mark.parametrize(
    "name, whole_rows", [("sgd", 0), ("adagrad", 0), ("adagrad", 1000), ("rowwise_adagrad", 0)]
)
def test_rows_and_dense_take_the_same_steps(name, whole_rows, monkeypatch):
    monkeypatch.setattr(row_updates, "WHOLE_TABLE_ROWS", whole_rows)
    rule, dense = DENSE[name]
    is_table = lambda path, _: "table" if path[-1].key == "embedding" else "rest"  # noqa: E731
    labels = jax.tree_util.tree_map_with_path(is_table, PARAMS)
    dense = optax.partition({"table": dense, "rest": optax.sgd(0.1)}, labels)
    rows, whole = row_state(rule), init_state(PARAMS, dense, jax.random.key(1))
    row_step = jax.jit(make_row_step(loss, optax.sgd(0.1), rule))
    dense_step = jax.jit(make_step(loss, dense))
    for seed in range(5):
        rows, row_metrics = row_step(rows, examples(seed))
        whole, metrics = dense_step(whole, examples(seed))
        assert_close(rows.params, whole.params)
        assert_close(row_metrics, metrics, 1e-5)
    assert int(rows.step) == 5
    assert np.abs(rows.params["params"]["items"]["embedding"][:9] - items()[:9]).max(1).min() > 0
    np.testing.assert_array_equal(rows.params["params"]["items"]["embedding"][18:], items()[18:])


def items(params=PARAMS):
    return np.asarray(params["params"]["items"]["embedding"])


# What the lazy rules mean, one row and one step at a time.


def lazy_momentum(row, memory, gradient, time, nesterov):
    velocity = 0.9 * memory.get("velocity", 0) - 0.1 * gradient
    memory["velocity"] = velocity
    return row + (0.9 * velocity - 0.1 * gradient if nesterov else velocity)


def lazy_adam(row, memory, gradient, time, skipped):
    elapsed = time - memory.get("last", 0) if skipped == "decayed" else 1
    memory["last"] = time
    memory["m"] = 0.9**elapsed * memory.get("m", 0) + 0.1 * gradient
    memory["v"] = 0.999**elapsed * memory.get("v", 0) + 0.001 * gradient**2
    m, v = memory["m"] / (1 - 0.9**time), memory["v"] / (1 - 0.999**time)
    return row - 0.1 * m / (np.sqrt(v) + 1e-8)


def decayed_sgd(row, memory, gradient, time):
    return row - 0.1 * (gradient + 0.5 * row)


def decoupled_sgd(row, memory, gradient, time):
    return 0.5 * row - 0.1 * gradient


SGD = row_optimizers.sgd(0.1)
LAZY = {
    "momentum": (
        row_optimizers.momentum(0.1),
        functools.partial(lazy_momentum, nesterov=False),
    ),
    "nesterov": (
        row_optimizers.momentum(0.1, nesterov=True),
        functools.partial(lazy_momentum, nesterov=True),
    ),
    "adam": (row_optimizers.adam(0.1), functools.partial(lazy_adam, skipped="ignored")),
    "adam, decayed": (
        row_optimizers.adam(0.1, skipped="decayed"),
        functools.partial(lazy_adam, skipped="decayed"),
    ),
    "decay": (row_optimizers.decay_rows(SGD, 0.5), decayed_sgd),
    "decoupled decay": (row_optimizers.decay_rows(SGD, 0.5, decoupled=True), decoupled_sgd),
}
# Two steps' ids, few of them so that rows are touched twice, skipped and touched again; V: masked.
N = 6
two_steps = st.lists(
    st.lists(st.sampled_from([0, 1, 2, 3, V - 1, V]), min_size=N, max_size=N),
    min_size=4,
    max_size=4,
)


@functools.cache
def one_update(name, whole_rows):
    def update(table, state, ids, gradient, step):
        row_updates.WHOLE_TABLE_ROWS = whole_rows  # read while this is traced
        return update_table(LAZY[name][0], table, state, ids, gradient, step)

    return jax.jit(update)


@pytest.mark.parametrize("name", LAZY)
@pytest.mark.parametrize("whole_rows", [0, 1000])
@given(steps=two_steps, seed=st.integers(0, 99))
def test_lazy_rules_are_the_loops_that_define_them(name, whole_rows, steps, seed):
    optimizer, rule = LAZY[name]
    generator = np.random.default_rng(seed)
    expected = generator.normal(size=(V, D)).astype(np.float32)
    table, memories = jnp.asarray(expected), [{} for _ in range(V)]
    state, before = init_table(optimizer, table), row_updates.WHOLE_TABLE_ROWS
    for number, ids in enumerate(steps):
        gradient = generator.normal(size=(N, D)).astype(np.float32)
        gradient[0] = 0  # as a masked example's: read, but of no consequence
        for row in sorted(set(ids) - {V}):
            total = gradient[np.array(ids) == row].sum(0)
            if total.any():
                expected[row] = rule(expected[row], memories[row], total, number + 1)
        ids, step = jnp.asarray(ids, jnp.int32), jnp.int32(number)
        try:
            table, state = one_update(name, whole_rows)(table, state, ids, gradient, step)
        finally:
            row_updates.WHOLE_TABLE_ROWS = before
        np.testing.assert_allclose(table, expected, rtol=1e-6, atol=1e-6)


@given(st.lists(st.integers(0, V), min_size=N, max_size=N), st.integers(0, 99))
def test_duplicates_are_summed_and_appear_once(ids, seed):
    generator = np.random.default_rng(seed)
    gradient = generator.normal(size=(N, D)).astype(np.float32)
    rubbish = jnp.asarray(generator.integers(-9, 9**9, V), jnp.int32)
    _, found, sums = jax.jit(sum_duplicates)(rubbish, jnp.asarray(ids, jnp.int32), gradient)
    inside = np.asarray(found) < V
    assert sorted(np.asarray(found)[inside].tolist()) == sorted(set(ids) - {V})
    assert len(set(found.tolist())) == N, "no two slots name the same row, in the table or beyond"
    for row, total in zip(np.asarray(found)[inside], np.asarray(sums)[inside], strict=True):
        np.testing.assert_allclose(total, gradient[np.array(ids) == row].sum(0), atol=1e-6)


@pytest.mark.parametrize("width", [1, 3, 8, 24])
@pytest.mark.parametrize("ids", [[2, 4, 2, 0], [-1, 5, 10**6, 1], []])
def test_rows_are_read_and_added_by_id_in_any_width(width, ids):
    table = np.random.default_rng(0).normal(size=(5, width)).astype(np.float32)
    parts = np.arange(len(ids) * width, dtype=np.float32).reshape(len(ids), width)
    sums, read = table.copy(), np.full((len(ids), width), 7, np.float32)
    for place, row in enumerate(ids):
        if 0 <= row < 5:
            sums[row] += parts[place]
            read[place] = table[row]
    ids = jnp.asarray(ids, jnp.int32)
    np.testing.assert_allclose(add_rows(jnp.asarray(table), ids, parts), sums, rtol=1e-6)
    np.testing.assert_array_equal(gather_rows(jnp.asarray(table), ids, 7.0), read)


@pytest.mark.parametrize("shape", [(6, 8), (6, 24), (6, 5), (6,)])
def test_the_fast_forms_agree_with_the_plain_ones(shape):
    table = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    ids = jnp.array([[2, 4], [-1, 7], [2, 0]])
    np.testing.assert_array_equal(
        by_id.gather_rows(table, ids), by_id.plain_gather_rows(table, ids)
    )
    for name, places in (("add_rows", [2, 4, 2, -1, 7]), ("put_rows", [5, 6, 1, 9, 0])):
        given = table, jnp.array(places), 1 + table[:5]
        plain = getattr(by_id, f"plain_{name}")(*given)
        np.testing.assert_array_equal(getattr(by_id, name)(*given), plain)
        assert (plain != table).any()


def test_row_gradients_are_the_finite_differences():
    """A step of SGD with rate `count` moves a row by its gradient's sum."""
    batch = examples()
    rule = row_optimizers.sgd(float(batch["mask"].sum()))
    step = jax.jit(make_row_step(loss, optax.sgd(0.0), rule))
    moved = items() - items(step(row_state(rule), batch)[0].params)
    value = jax.jit(lambda table: loss(with_items(table), batch, None)[0])

    for row, column in ((0, 0), (3, 1), (8, 2), (V - 1, 0)):
        shift = np.zeros((V, D), np.float32)
        shift[row, column] = 1e-2
        slope = (value(items() + shift) - value(items() - shift)) / 2e-2
        np.testing.assert_allclose(moved[row, column], slope, rtol=2e-2, atol=2e-3)


def with_items(table):
    return {"params": PARAMS["params"] | {"items": {"embedding": jnp.asarray(table)}}}


@pytest.mark.parametrize("name", ["adam", "decay"])
def test_masked_positions_and_examples_never_move_a_row(name, way):
    """Rules that move a row without a gradient must not be told of what is masked."""
    rule = LAZY[name][0]
    batch = examples()
    masked = batch | {"mask": jnp.arange(B) < 4}
    for field in ("target", "negative"):  # ids that only masked examples hold
        masked[field] = jnp.where(masked["mask"], batch[field], 20 + jnp.arange(B))
    step = jax.jit(make_row_step(loss, optax.sgd(0.1), rule))
    first, _ = step(row_state(rule), batch | {"target": batch["target"] + 20})
    second, _ = step(first, masked)
    shown = np.asarray(masked["history"])[
        np.asarray(masked["mask_history"] & masked["mask"][:, None])
    ]
    moved = {*shown.tolist(), *masked["target"][:4].tolist(), *masked["negative"][:4].tolist()}
    same = (items(first.params) == items(second.params)).all(1)
    assert {row for row in range(V) if not same[row]} <= moved
    assert not same[sorted(set(shown.tolist()))].any()
    nothing, _ = step(second, batch | {"mask": jnp.zeros(B, bool)})
    assert_close(nothing.params, second.params, atol=0)


@pytest.mark.parametrize(
    "devices, name, whole_rows",
    slow_but(
        (8, "rowwise_adagrad", 0), [(2, "sgd", 0), (8, "rowwise_adagrad", 0), (2, "adagrad", 1000)]
    ),
)
def test_many_devices_take_the_step_that_one_takes(devices, name, whole_rows, monkeypatch):
    monkeypatch.setattr(row_updates, "WHOLE_TABLE_ROWS", whole_rows)
    rule, batch = DENSE[name][0], examples()
    one, metrics = jax.jit(make_row_step(loss, optax.sgd(0.1), rule))(row_state(rule), batch)
    split = jax.tree.map(lambda a: a.reshape(devices, -1, *a.shape[1:]), batch)
    on_many = make_row_step(loss, optax.sgd(0.1), rule, "data")
    many, many_metrics = jax.pmap(on_many, "data", in_axes=(None, 0))(row_state(rule), split)
    for device in range(devices):
        mine = jax.tree.map(lambda a, d=device: a[d], (many.params, rule_state(many)))
        assert_close(mine, (one.params, rule_state(one)))
    assert_close(many_metrics["loss_sum"][0], metrics["loss_sum"], 1e-5)


def rule_state(state):
    return state.opt_state["tables"][TABLE]["rule"]


def test_a_chunk_is_traced_once_and_is_the_steps_one_by_one(monkeypatch):
    monkeypatch.setattr(row_updates, "WHOLE_TABLE_ROWS", 0)
    rule, data, traces = row_optimizers.adam(0.1), examples(3, COUNT), []
    step = make_row_step(loss, optax.sgd(0.1), rule)

    def counted(state, batch):
        traces.append(1)
        return step(state, batch)

    def gather(data, positions, mask):
        batch = jax.tree.map(lambda column: column[positions], data)
        return batch | {"mask": batch["mask"] & mask}

    chunk = make_chunk(counted, gather, COUNT, B)
    order = jnp.arange(COUNT, dtype=jnp.int32)
    state = row_state(rule)
    for first, steps in ((0, 2), (2, 1)):
        state, _, bad_step = chunk(state, data, order, first, steps)
        assert int(bad_step) == -1
    assert len(traces) == 1
    alone, jitted = row_state(rule), jax.jit(step)
    for number in range(3):
        places = jnp.arange(number * B, (number + 1) * B)
        alone, _ = jitted(alone, gather(data, places, jnp.ones(B, bool)))
    assert_close((state.params, rule_state(state)), (alone.params, rule_state(alone)))


@pytest.mark.parametrize("name", ["adam", "sgd", "adagrad"])
def test_a_donated_table_is_never_copied(name):
    """Else the cost of a step would grow with the table."""
    rows, rule = 100_003, getattr(row_optimizers, name)(0.1)
    model = Embed(rows, 32)

    def square(params, batch, key, apply=nn.Module.apply):
        return (apply(model, params, batch) ** 2).sum(), jnp.float32(1)

    params = {"params": {"embedding": jnp.zeros((rows, 32))}}
    state = init_row_state(params, optax.sgd(0.1), rule, jax.random.key(0))
    step = make_row_step(square, optax.sgd(0.1), rule)
    chunk = make_chunk(step, lambda data, places, mask: data[places], COUNT, B)
    arguments = (state, jnp.arange(COUNT), jnp.arange(COUNT, dtype=jnp.int32), 0, 2)
    for program in (
        jax.jit(step, donate_argnums=0).lower(state, jnp.arange(B)),
        chunk.lower(*arguments),
    ):
        compiled = program.compile()
        lines = compiled.as_text().splitlines()
        assert not [line for line in lines if f"[{rows}," in line and " copy(" in line]
        assert compiled.memory_analysis().temp_size_in_bytes < rows


def test_checkpoints_hold_the_row_state(tmp_path):
    rule = row_optimizers.adam(0.1, skipped="decayed")
    step = jax.jit(make_row_step(loss, optax.adam(0.1), rule))
    state = init_row_state(PARAMS, optax.adam(0.1), rule, jax.random.key(1))
    state, _ = step(state, examples())
    folder = Checkpoints(tmp_path / "last", keep=1)
    folder.save(state, {})
    restored, _ = folder.restore(jax.eval_shape(lambda: state))
    folder.close()
    on, on_again = step(state, examples(1))[0], step(restored, examples(1))[0]
    assert_close((on.params, on.opt_state), (on_again.params, on_again.opt_state), 0)


@pytest.mark.slow
def test_fusion_trains_to_the_same_parameters_either_way():
    # At the source's rate of 0.2 training itself multiplies float32 rounding (in float64 both ways
    # agree to 1e-11 there); at a tenth of it 20 steps stay within rounding.
    ratings, count = synthetic_ratings(SyntheticSize(20, 15, 300), seed=0), 150
    data = device_ratings(
        ratings, np.arange(count), jax.tree.map(jnp.asarray, feature_tables(ratings))
    )
    source = fusion.Source(tower_width=20)
    first = gather_ratings(data, jnp.zeros(1, jnp.int32), jnp.ones(1, bool))
    params = jax.jit(fusion.build_model(source, ratings).init)(
        jax.random.key(0), first["user"], first["item"]
    )
    ends = []
    for tables in ("dense", "rows"):
        source = replace(source, tables=tables)
        state = fusion.train_state(source, 0.02, jax.tree.map(jnp.array, params), jax.random.key(1))
        chunk = make_chunk(fusion.train_step(source, ratings, 0.02), gather_ratings, count, 32)
        for epoch in range(4):
            order = epoch_order(jax.random.key(2), epoch, count, 32)
            state, _, _ = chunk(state, data, order, 0, 5)
        ends.append(state)
    assert int(ends[1].step) == 20 and ends[1].opt_state["tables"]
    assert_close(ends[0].params, ends[1].params)


@pytest.mark.parametrize("size", [0, 1, 3])
@pytest.mark.parametrize("pooling", ["sum", "mean"])
@pytest.mark.parametrize("masked", [False, True])
def test_a_bag_is_its_rows_in_any_length(size, pooling, masked):
    """The gradient of all rows of a bag is one."""
    generator = np.random.default_rng(size)
    table = generator.normal(size=(V, D)).astype(np.float32)
    ids = generator.integers(0, V, (B, size)).astype(np.int32)
    mask = generator.random((B, size)) < 0.7 if masked else np.ones((B, size), bool)
    mask[0] = not masked  # with a mask, a bag of nothing
    ids[0] = np.where(mask[0], ids[0], V + 5)
    weight = generator.normal(size=(B, D)).astype(np.float32)

    def pooled(params, batch, key, apply=nn.Module.apply):
        given = (jnp.asarray(ids), jnp.asarray(mask) if masked else None)
        bags = apply(Embed(V, D), params, *given, pooling=pooling)
        return (bags * weight).sum(), jnp.float32(1)

    count = np.maximum(mask.sum(1), 1)[:, None] if pooling == "mean" else 1
    expected = np.where(mask[..., None], table[np.minimum(ids, V - 1)], 0).sum(1) / count
    params, rule = {"params": {"embedding": jnp.asarray(table)}}, row_optimizers.sgd(1.0)
    value, _ = jax.jit(pooled, static_argnums=(1, 2))(params, None, None)
    np.testing.assert_allclose(value, (expected * weight).sum(), rtol=1e-4, atol=1e-4)

    moved = table.copy()
    for row, place in zip(ids[mask], np.nonzero(mask)[0], strict=True):
        moved[row] -= weight[place] / (count[place] if pooling == "mean" else 1)
    state = init_row_state(params, optax.sgd(1.0), rule, jax.random.key(0))
    state, _ = jax.jit(make_row_step(pooled, optax.sgd(1.0), rule))(state, None)
    np.testing.assert_allclose(state.params["params"]["embedding"], moved, rtol=1e-4, atol=1e-4)


def test_a_look_up_of_no_row_is_loud_unless_masked():
    ids, mask = jnp.array([[V, 1], [-1, 2], [3, V]]), jnp.array([[1, 1], [0, 1], [1, 1]], bool)
    params = jax.jit(Embed(V, D).init)(jax.random.key(0), ids)
    for pooling in (None, "sum", "mean"):
        rows = np.isnan(Embed(V, D).apply(params, ids, mask, pooling=pooling)).any(-1)
        np.testing.assert_array_equal(
            rows, [[1, 0], [0, 0], [0, 1]] if pooling is None else [1, 0, 1]
        )


@pytest.mark.slow
def test_a_large_table_is_read_once(monkeypatch):
    """The update is given the rows that the loss read, and no other than these."""
    monkeypatch.setattr(row_updates, "WHOLE_TABLE_ROWS", 0)
    given = []

    def noted(*arguments):
        given.append((arguments[1].shape, arguments[3], arguments[6]))
        return update_table(*arguments)

    monkeypatch.setattr("jrec.embeddings.row_step.update_table", noted)
    state, batch = row_state(row_optimizers.adagrad(0.1)), examples()
    make_row_step(loss, optax.sgd(0.1), row_optimizers.adagrad(0.1))(state, batch)
    tables = {shape: (np.asarray(ids), rows) for shape, ids, rows in given}
    ids, rows = tables[V, D]
    read = ids < V
    assert 0 < read.sum() < len(ids)
    np.testing.assert_array_equal(np.asarray(rows)[read], items()[ids[read]])


def test_embed_is_flax_embed_with_masks_and_pools():
    ids = jnp.array([[1, 2, 2], [5, 0, 0]])
    mask = jnp.array([[True, True, True], [False, False, False]])
    params = jax.jit(Embed(V, D).init)(jax.random.key(0), ids)
    assert jax.tree.map(jnp.shape, params) == {"params": {"embedding": (V, D)}}
    outside = jnp.array([V, -1, 3])

    @jax.jit
    def read(params):
        return (
            nn.Embed(V, D).apply(params, ids),
            Embed(V, D).apply(params, ids),
            Embed(V, D, pooling="sum").apply(params, ids, mask),
            Embed(V, D, pooling="mean").apply(params, ids, mask),
            Embed(V, D, pooling="mean").apply(params, ids),
            Embed(V, D).apply(params, outside),
            Embed(V, D).apply(params, outside, jnp.zeros(3, bool)),
        )

    table = np.asarray(params["params"]["embedding"])
    flax, ours, masked_sum, masked_mean, mean, bad, none = map(np.asarray, read(params))
    np.testing.assert_array_equal(ours, flax)
    total = table[1] + 2 * table[2]
    np.testing.assert_allclose(masked_sum, [total, np.zeros(D)], atol=1e-6)
    np.testing.assert_allclose(masked_mean, [total / 3, np.zeros(D)], atol=1e-6)
    np.testing.assert_allclose(mean, flax.mean(-2), atol=1e-6)
    assert np.isnan(bad).tolist() == [[True] * D] * 2 + [[False] * D]
    assert not none.any()
    with pytest.raises(ValueError, match="pooling"):
        Embed(V, D, pooling="max").apply(params, ids)
    with pytest.raises(ValueError, match="mask"):
        Embed(V, D).apply(params, ids, mask[0])


@pytest.mark.parametrize(
    ("rule", "rows_an_id"),
    [
        (row_optimizers.rowwise_adagrad(0.1), 2),
        (row_optimizers.adagrad(0.1), 2),
        (row_optimizers.adam(0.1), 4),
    ],
)
def test_tables_are_updated_whole_up_to_a_size(rule, rows_an_id):
    """Only a step that does not update the table as a whole writes who owns a row."""
    for rows, whole in ((3 * rows_an_id, True), (3 * rows_an_id + 1, False)):
        table = jnp.zeros((rows, D))
        ids, gradient = jnp.array([1, 2, 2]), jnp.ones((3, D))
        state = init_table(rule, table)
        new, after = update_table(rule, table, state, ids, gradient, jnp.int32(0))
        assert (after["owner"] == 0).all() == whole
        assert (new != 0).any(1).tolist() == [False, True, True] + [False] * (rows - 3)


@pytest.mark.parametrize(
    ("gradients", "touched"),
    [
        ([[1.0, 0.0], [2.0, 3.0]], [1, 2]),
        ([[0.0, 1.0], [-0.0, 0.0]], [1]),  # a masked example: read, without gradient
        ([[0.0, np.nan], [0.0, -1e-30]], [1, 2]),
    ],
)
def test_rows_are_touched_by_any_number_but_zero(way, gradients, touched):
    """Momentum's velocity alone would move a row that a gradient of zero touched."""
    rule = row_optimizers.momentum(0.1)
    table, state = jnp.zeros((8, 2)), init_table(rule, jnp.zeros((8, 2)))
    state["rule"]["velocity"] += 1
    ids = jnp.array([1, 2, 8])  # 8: masked
    gradient = jnp.array([*gradients, [5.0, 5.0]])
    new, _ = update_table(rule, table, state, ids, gradient, jnp.int32(0))
    assert np.flatnonzero((np.asarray(new) != 0).any(1)).tolist() == touched


def test_a_gradient_of_the_whole_table_is_an_error_and_not_lost():
    def tied(params, batch, key, apply=nn.Module.apply):
        total, count = loss(params, batch, key, apply)
        return total + params["params"]["items"]["embedding"].sum(), count

    rule = row_optimizers.sgd(0.1)
    step = make_row_step(tied, optax.sgd(0.1), rule)
    with pytest.raises(ValueError, match="whole table"):
        jax.eval_shape(step, row_state(rule), examples())
    others = [name for name in embedding_tables(PARAMS) if name != TABLE]
    state = init_row_state(PARAMS, optax.sgd(0.1), rule, jax.random.key(0), others)
    step = make_row_step(tied, optax.sgd(0.1), rule, tables=others)
    after, _ = jax.jit(step)(state, examples())
    assert (items(after.params) != items()).all(), "left to Optax, the table is read as a whole"
    with pytest.raises(ValueError, match="no parameters"):
        init_row_state(PARAMS, optax.sgd(0.1), rule, jax.random.key(0), ["items"])
