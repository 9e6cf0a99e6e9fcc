"""The autoencoder's two forms, its step with re-feeding, its lists of ratings, against plain NumPy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.autoencoder import centring
from experiments.autoencoder import system as autoencoder_system
from experiments.autoencoder.batches import (
    SELDOM_COST,
    Room,
    device_rows,
    gather_users,
    in_parts,
    rating_list,
    rating_rectangle,
    room_for_batches,
    slots_for_batches,
)
from experiments.autoencoder.centring import fit_centre
from experiments.autoencoder.held_out import make_held_out_predictor, star_errors
from experiments.autoencoder.system import (
    build_optimizer,
    build_step,
    loss_of_parts,
    loss_of_rectangle,
    make_predict,
    predict_pairs,
)
from jrec.data.rating_parts import RatingRows
from jrec.losses.ratings import squared_error
from jrec.models.autoencoder import ACTIVATIONS, Autoencoder
from jrec.train.chunk import make_chunk
from jrec.train.devices import device_axis, first_devices, on_devices, replicated
from jrec.train.refeeding import choose_gradient, make_refeeding_step, with_gradient
from jrec.train.step import init_state
from jrec.train.streams import DeviceStream
from tests.conftest import slow_but

ITEMS, USERS = 11, 9


def toy_rows(users=USERS, items=ITEMS, seed=0, lowest=0):
    """Users with none to all items rated, 0 a rating among others."""
    generator = np.random.default_rng(seed)
    rated = [generator.choice(items, generator.integers(0, items + 1), False) for _ in range(users)]
    offsets = np.cumsum([0, *map(len, rated)])
    rating = generator.integers(lowest, 6, offsets[-1]).astype(np.uint8)
    return RatingRows(offsets, np.concatenate(rated).astype(np.uint16), rating)


def rectangle(rows, items=ITEMS):
    """By hand: ratings and what is known."""
    ratings = np.zeros((len(rows.offsets) - 1, items), np.float32)
    known = np.zeros(ratings.shape, bool)
    for user in range(len(ratings)):
        places = slice(rows.offsets[user], rows.offsets[user + 1])
        ratings[user, rows.item[places]] = rows.rating[places]
        known[user, rows.item[places]] = True
    return ratings, known


def toy_model(**fields):
    model = Autoencoder(ITEMS, (5, 4), **fields)
    params = jax.jit(model.init)(jax.random.key(3), jnp.zeros((1, ITEMS)))
    # Biases that are not zero, so that a forgotten one shows.
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(4), len(leaves))
    leaves = [v + 0.1 * jax.random.normal(k, v.shape) for k, v in zip(keys, leaves, strict=True)]
    return model, jax.tree.unflatten(tree, leaves)


def batch_of(rows, users, mask=None):
    mask = np.ones(len(users), bool) if mask is None else mask
    return {"user": jnp.asarray(users), "mask": jnp.asarray(mask), "data": device_rows(rows)}


def numpy_forward(params, x, activation, last, tied):
    p = jax.tree.map(np.asarray, params["params"])
    act = {
        "selu": lambda v: 1.0507009873554805 * np.where(v > 0, v, 1.6732632423543772 * np.expm1(v)),
        "elu": lambda v: np.where(v > 0, v, np.expm1(v)),
        "relu6": lambda v: np.clip(v, 0, 6),
        "lrelu": lambda v: np.where(v > 0, v, 0.01 * v),
        "swish": lambda v: v / (1 + np.exp(-v)),
        "sigmoid": lambda v: 1 / (1 + np.exp(-v)),
        "tanh": np.tanh,
        "relu": lambda v: np.maximum(v, 0),
        "none": lambda v: v,
    }[activation]
    x = act(x @ p["encoder_0"]["kernel"] + p["encoder_0"]["bias"])
    x = act(x @ p["encoder_1"]["kernel"] + p["encoder_1"]["bias"])
    side = "encoder" if tied else "decoder"
    x = act(x @ p[f"{side}_1"]["kernel"].T + p["decoder_1"]["bias"])
    x = x @ p[f"{side}_0"]["kernel"].T + p["decoder_0"]["bias"]
    return act(x) if last else x


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@pytest.mark.parametrize("last,tied", [(True, False), (False, True)])
def test_the_network_is_the_sources(activation, last, tied):
    model, params = toy_model(activation=activation, last_activation=last, tied=tied)
    ratings, _ = rectangle(toy_rows())
    expected = numpy_forward(params, ratings, activation, last, tied)
    found = jax.jit(model.apply)(params, jnp.asarray(ratings))
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert ("kernel" in params["params"]["decoder_0"]) is not tied


def room_of(often, slots=64, seldom=64):
    return Room(slots, np.array(often, np.int32), seldom)


def places_of(room, items=ITEMS):
    place = np.full(items, len(room.often), np.int32)
    place[room.often] = np.arange(len(room.often))
    return jnp.asarray(room.often), jnp.asarray(place)


def parts_of(batch, room):
    given, _ = rating_list(batch["data"], batch["user"], batch["mask"], room.slots)
    return in_parts(given, places_of(room)[1], len(batch["user"]), room)


def nothing(model, *rest):
    """A loss that counts nothing, in place of either form's."""
    params = rest[-3]
    zero = sum(leaf.sum() * 0 for leaf in jax.tree.leaves(params))
    return zero, zero, jnp.zeros((len(rest[-2]["user"]), ITEMS))


@pytest.mark.parametrize("tied", slow_but(True, [False, True]))
@pytest.mark.parametrize("often", [[0, 3, 4, 8, 10], [5], list(range(ITEMS))])
@pytest.mark.parametrize("noise", slow_but(0.3, [0.0, 0.3]))
def test_both_forms_give_the_same_loss_gradient_and_outputs(tied, often, noise):
    model, params = toy_model(dropout=0.5, tied=tied, input_noise=noise)
    mask = np.array([1, 1, 0, 1, 1], bool)
    batch, key = batch_of(toy_rows(), [2, 5, 1, 0, 8], mask), jax.random.key(1)
    room = room_of(often)
    in_two = jax.jit(with_gradient(partial(loss_of_parts, model, places_of(room))))
    one = in_two(params, batch | {"parts": parts_of(batch, room)[0]}, key)
    two = jax.jit(with_gradient(partial(loss_of_rectangle, model)))(params, batch, key)
    assert one[0][2].shape == (5, ITEMS)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=2e-5), one, two)
    assert float(one[0][1]) == sum(np.diff(toy_rows().offsets)[[2, 5, 0, 8]])


@pytest.mark.parametrize("often", [[0, 3, 4, 8, 10], [0], list(range(ITEMS))])
def test_parts_hold_every_rating_once(often):
    rows, room = toy_rows(), room_of(often)
    batch = batch_of(rows, np.arange(USERS))
    parts, number = parts_of(batch, room)
    ratings, known = rectangle(rows)
    np.testing.assert_array_equal(parts.ratings, ratings[:, often])
    cells = np.asarray(parts.cell)
    there = cells < parts.ratings.size
    assert sorted(cells[there]) == np.flatnonzero(known[:, often]).tolist()
    np.testing.assert_array_equal(
        np.asarray(parts.rating)[there], ratings[:, often].flat[cells[there]]
    )
    item, row, rating, mask = map(np.asarray, parts.seldom)
    seldom = np.delete(known, often, 1).sum()
    assert number == mask.sum() == seldom and mask[:seldom].all()
    rest = np.zeros_like(ratings), np.zeros_like(known)
    rest[0][row[mask], item[mask]], rest[1][row[mask], item[mask]] = rating[mask], True
    others = np.delete(np.arange(ITEMS), often)
    np.testing.assert_array_equal(rest[1][:, others], known[:, others])
    np.testing.assert_array_equal(rest[0][:, others], ratings[:, others])
    assert (item[~mask] == ITEMS).all() and (row[~mask] == USERS).all() and not rating[~mask].any()


def test_a_rating_of_zero_counts_and_a_missing_one_does_not():
    model, params = toy_model()
    rows = RatingRows(np.array([0, 2]), np.array([3, 7], np.uint16), np.array([0, 4], np.uint8))
    losses = [partial(loss_of_rectangle, model)]
    rooms = [room_of([3, 5]), room_of([7]), room_of([3, 7]), room_of([1])]
    losses += [partial(loss_of_parts, model, places_of(room)) for room in rooms]
    for loss, room in zip(losses, [rooms[0], *rooms], strict=True):
        batch = batch_of(rows, [0])
        loss_sum, count, _ = jax.jit(loss)(
            params, batch | {"parts": parts_of(batch, room)[0]}, jax.random.key(0)
        )
        out = np.asarray(model.apply(params, jnp.asarray(rectangle(rows)[0])))[0]
        np.testing.assert_allclose(loss_sum, out[3] ** 2 + (out[7] - 4) ** 2, rtol=1e-5)
        assert count == 2


in_batch = partial(jax.jit, static_argnums=3)(rating_list)
in_rectangle = partial(jax.jit, static_argnums=(3, 4))(rating_rectangle)


@given(st.tuples(st.integers(1, 6), st.integers(1, 9)), st.data())
def test_lists_and_rectangles_hold_the_ratings(sizes, data):
    number, slots = sizes
    users, mask = (
        np.array(data.draw(st.lists(one, min_size=number, max_size=number)))
        for one in (st.integers(0, USERS - 1), st.booleans())
    )
    rows, users = toy_rows(), users.astype(np.int32)
    device = device_rows(rows)
    expected = [
        (row, int(rows.item[p]), float(rows.rating[p]))
        for row, user in enumerate(users)
        if mask[row]
        for p in range(rows.offsets[user], rows.offsets[user + 1])
    ]
    found, total = [], None
    for first in range(0, len(expected) + 1, slots):
        part, total = in_batch(device, jnp.asarray(users), jnp.asarray(mask), slots, first)
        assert (np.diff(part.row) >= 0).all() and part.row.max() < len(users)
        kept = np.asarray(part.mask)
        found += zip(*(np.asarray(part[k])[kept].tolist() for k in (1, 0, 2)), strict=True)
    assert total == len(expected) and found == expected
    by_hand = [np.where(mask[:, None], side[users], 0) for side in rectangle(rows)]
    got = in_rectangle(device, jnp.asarray(users), jnp.asarray(mask), ITEMS, slots)
    for one, two in zip(got, by_hand, strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_batch_that_does_not_fit_its_room_is_computed_densely():
    model, params = toy_model(dropout=0.5)
    optimizer, rows = optax.sgd(0.1, momentum=0.9), toy_rows()
    batch, often = batch_of(rows, [2, 5, 1, 0, 8]), [0, 3, 4, 8, 10]
    known = rectangle(rows)[1][np.asarray(batch["user"])]
    number, seldom = int(known.sum()), int(np.delete(known, often, 1).sum())
    assert 1 < seldom < number
    fits = [room_of(often, number, seldom)]
    too_small = [
        room_of(often, number - 1, seldom),
        room_of(often, number, seldom - 1),
        room_of([1], 1, 1),
    ]
    states = []
    for room in (None, *fits, *too_small):
        step = jax.jit(build_step(model, optimizer, room, refeed=1))
        states.append(step(init_state(params, optimizer, jax.random.key(5)), batch)[0].params)
    for state in states[1:]:
        jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), state, states[0])


@pytest.mark.parametrize(
    "room",
    [
        room_of([0, 3, 4, 8, 10]),
        pytest.param(room_of([0, 3], 64, 20), marks=pytest.mark.slow),
    ],
)
def test_devices_take_the_step_that_one_takes(room, monkeypatch):
    # What does not fit the whole batch's room is computed densely: told from the other form by its outcome.
    fits = len(room.often) == 5
    wrong = "loss_of_rectangle" if fits else "loss_of_parts"
    monkeypatch.setattr(autoencoder_system, wrong, nothing)
    users = np.array([2, 5, 1, 0, 8, 3, 4, 6], np.int32)
    optimizer, data = optax.sgd(0.1), device_rows(toy_rows())
    states = []
    for many in (1, 4):
        with on_devices(first_devices(many)):
            model, params = toy_model(dropout=0.5, input_noise=0.3, axis_name=device_axis())
            step = build_step(model, optimizer, room, refeed=0)
            given = data, gather_users, USERS, len(users), None, lambda *_: jnp.asarray(users)
            stream = DeviceStream(*given)
            state = replicated(init_state(params, optimizer, jax.random.key(5)))
            chunk, order = stream.chunk(step), stream.order(0)
            state, sums, _ = chunk(state, stream.on_devices(), order, 0, 1)
            states.append(jax.device_get((state.params, sums)))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), *states)
    assert float(states[0][1]["count"]) == np.diff(toy_rows().offsets)[users].sum()


def test_room_holds_nearly_all_batches_and_little_more():
    generator = np.random.default_rng(0)
    rows = toy_rows(users=400, items=3000)
    # Ever less liked items: the first are rated by most users, the last by few.
    kept = generator.random(len(rows)) < (1 + rows.item / 100.0) ** -2
    counts = np.add.reduceat(np.append(kept, False), rows.offsets[:-1]) * (
        np.diff(rows.offsets) > 0
    )
    rows = RatingRows(np.cumsum([0, *counts]), rows.item[kept], rows.rating[kept])
    room = room_for_batches(rows, 3000, 64)
    assert 16 < len(room.often) < 1500 and (np.diff(room.often) > 0).all()
    by_item = np.bincount(rows.item, minlength=3000)
    assert by_item[room.often].min() >= np.delete(by_item, room.often).max()
    known = rectangle(rows, 3000)[1]
    seldom = np.delete(known, room.often, 1).sum(1)
    numbers = np.array(
        [
            (known[users].sum(), seldom[users].sum())
            for users in (generator.choice(400, 64, replace=False) for _ in range(500))
        ]
    )
    room_of_both = np.array([room.slots, room.seldom])
    assert (numbers <= room_of_both).all(1).mean() > 0.99
    assert (numbers.mean(0) > 0.6 * room_of_both).all()
    # Nothing else in reach is clearly cheaper.
    cost = len(room.often) * 64 + SELDOM_COST * room.seldom
    by_count = np.argsort(-known.sum(0))
    for often in (len(room.often) // 2, 2 * len(room.often)):
        rest = slots_for_batches(known[:, by_count[often:]].sum(1), 64, 400)
        assert often * 64 + SELDOM_COST * rest > 0.95 * cost


def test_slots_hold_the_likely_batch_and_never_more_than_the_largest():
    counts = np.random.default_rng(0).integers(1, 400, 5000)
    slots = slots_for_batches(counts, 128, 5000)
    assert slots % 128 == 0 and 128 * counts.mean() < slots < 2 * 128 * counts.mean()
    assert slots_for_batches(np.array([3, 2]), 2, 2) == 128
    assert slots_for_batches(np.array([200, 1, 2, 3]), 2, 4) == 256


def test_a_batch_of_more_users_than_room_is_estimated_from():
    generator = np.random.default_rng(0)
    counts = generator.integers(1, 9, 6000)
    item = (30_000 * generator.random(counts.sum()) ** 4).astype(np.uint16)
    rows = RatingRows(np.cumsum([0, *counts]), item, np.ones(len(item), np.uint8))
    for batch_size in (4500, 6000, 9000):
        room = room_for_batches(rows, 30_000, batch_size)
        seldom = np.isin(item, room.often, invert=True)
        assert seldom.mean() > 0.1, "the list has something to hold"
        for _ in range(5):
            users = generator.permutation(6000)[:batch_size]
            inside = np.repeat(np.isin(np.arange(6000), users), counts)
            assert inside.sum() <= room.slots and seldom[inside].sum() <= room.seldom


# Re-feeding, on a linear model that NumPy follows by hand: f(x) = x A.


def linear_first(params, batch, key):
    outputs = batch["ratings"] @ params
    return *squared_error(outputs, batch["ratings"], batch["known"]), outputs


def linear_known(outputs, batch):
    return squared_error(outputs, batch["ratings"], batch["known"])


def linear_step(optimizer, times, target, axis_name=None):
    return make_refeeding_step(
        with_gradient(linear_first),
        lambda params, inputs, key: inputs @ params,
        linear_known,
        optimizer,
        times,
        target,
        axis_name,
    )


def linear_batch(seed=0, users=8, items=4):
    generator = np.random.default_rng(seed)
    known = generator.random((users, items)) < 0.6
    known[-1] = False
    ratings = np.where(known, generator.integers(0, 6, known.shape), 0).astype(np.float32)
    mask = np.array([True] * (users - 1) + [False])
    return {"ratings": ratings, "known": known, "mask": mask}


@pytest.mark.parametrize("target", ["output", "ratings"])
@pytest.mark.parametrize("times", [0, 1, 3])
def test_refeeding_is_the_loop_it_is_defined_by(times, target):
    batch, rate = linear_batch(), 0.003
    matrix = np.random.default_rng(1).normal(size=(4, 4)).astype(np.float32) / 2
    momentum, x, x0, known = (
        np.zeros_like(matrix),
        batch["ratings"],
        batch["ratings"],
        batch["known"],
    )
    expected = matrix.astype(np.float64)
    for k in range(1 + times):
        out = x @ expected
        counted = known if k == 0 or target == "ratings" else batch["mask"][:, None] & (out == out)
        error = np.where(counted, out - (x0 if k == 0 or target == "ratings" else x), 0)
        momentum = 0.9 * momentum + 2 * x.T @ error / counted.sum()
        expected, x = expected - rate * momentum, out  # the next input: outputs before the update
    optimizer = optax.sgd(rate, momentum=0.9)
    state = init_state(jnp.asarray(matrix), optimizer, jax.random.key(0))
    state, metrics = jax.jit(linear_step(optimizer, times, target))(state, batch)
    np.testing.assert_allclose(state.params, expected, rtol=1e-5, atol=1e-6)
    assert state.step == 1 and metrics["count"] == known.sum()


def test_refeeding_changes_nothing_at_a_perfect_fixed_point():
    identity, batch = jnp.eye(4), linear_batch()
    optimizer = optax.sgd(0.1)
    state = init_state(identity, optimizer, jax.random.key(0))
    state, metrics = linear_step(optimizer, 3, "output")(state, batch)
    np.testing.assert_array_equal(state.params, identity)
    assert metrics["loss_sum"] == 0


@pytest.mark.parametrize("target", ["output", "ratings"])
def test_many_devices_refeed_as_one(target):
    batch, optimizer = linear_batch(users=8), optax.sgd(0.01)
    matrix = jnp.asarray(np.random.default_rng(1).normal(size=(4, 4)) / 2, jnp.float32)
    state = init_state(matrix, optimizer, jax.random.key(0))
    one, metrics = linear_step(optimizer, 2, target)(state, batch)
    split = jax.tree.map(lambda a: a.reshape(4, 2, *a.shape[1:]), batch)
    step = jax.pmap(linear_step(optimizer, 2, target, "devices"), "devices", in_axes=(None, 0))
    many, many_metrics = step(state, split)
    np.testing.assert_allclose(many.params[0], one.params, atol=1e-6)
    np.testing.assert_allclose(many_metrics["loss_sum"][0], metrics["loss_sum"], rtol=1e-6)


def test_each_refed_pass_draws_its_own_dropout():
    seen = []

    def refed(params, inputs, key):
        seen.append(np.asarray(jax.random.key_data(key)))
        return inputs * params

    def first(params, batch, key):
        seen.append(np.asarray(jax.random.key_data(key)))
        outputs = batch["ratings"] * params
        return *squared_error(outputs, batch["ratings"], batch["known"]), outputs

    step = make_refeeding_step(with_gradient(first), refed, linear_known, optax.sgd(0.0), 3)
    state = init_state(jnp.ones(()), optax.sgd(0.0), jax.random.key(0))
    state, _ = step(state, linear_batch())
    step(state, linear_batch())
    assert len({key.tobytes() for key in seen}) == 8


def test_choose_gradient_takes_the_side_that_fits():
    def side(value):
        return with_gradient(lambda p, b, k: (value * p, jnp.ones(()), p[None, None]))

    chosen = choose_gradient(lambda batch: batch["x"] > 0, side(2.0), side(3.0))
    for x, gradient in ((1.0, 2.0), (-1.0, 3.0)):
        assert chosen(jnp.ones(()), {"x": jnp.asarray(x)}, jax.random.key(0))[1] == gradient


def test_one_compilation_serves_a_run_and_the_last_partial_batch_counts():
    model, params = toy_model(dropout=0.5)
    rows, traces = toy_rows(), []
    optimizer = optax.sgd(0.01)
    inner = build_step(model, optimizer, room_of([0, 3, 4]))

    def step(state, batch):
        traces.append(1)
        return inner(state, batch)

    chunk = make_chunk(step, gather_users, USERS, 4)
    order = jnp.asarray([*np.random.default_rng(0).permutation(USERS), USERS, USERS, USERS])
    state, data = init_state(params, optimizer, jax.random.key(0)), device_rows(rows)
    state, sums, _ = chunk(state, data, order, 0, 2)
    state, more, bad = chunk(state, data, order, 2, 1)
    assert sums["count"] + more["count"] == len(rows) and bad == -1 and len(traces) == 1


def torch_like(name, gradients, rate):
    """PyTorch's rules as its documentation writes them."""
    p, v, s, m = 1.0, 0.0, 0.0, 0.0
    for t, g in enumerate(gradients, 1):
        if name == "momentum":
            v = 0.9 * v + g
            p -= rate * v
        elif name == "adagrad":
            s += g * g
            p -= rate * g / (s**0.5 + 1e-10)
        elif name == "rmsprop":
            s = 0.99 * s + 0.01 * g * g
            v = 0.9 * v + g / (s**0.5 + 1e-8)
            p -= rate * v
        else:
            m, s = 0.9 * m + 0.1 * g, 0.999 * s + 0.001 * g * g
            p -= rate * (m / (1 - 0.9**t)) / ((s / (1 - 0.999**t)) ** 0.5 + 1e-8)
    return p


@pytest.mark.parametrize("name", ["momentum", "adam", "adagrad", "rmsprop"])
def test_optimizers_are_those_of_the_sources_framework(name):
    gradients = [0.5, -0.3, 0.2, 0.9, -0.1]
    optimizer = build_optimizer(name, 0.01, (), 0.0, 10)
    params = jnp.ones(())
    state = optimizer.init(params)
    for g in gradients:
        updates, state = optimizer.update(jnp.asarray(g), state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params, torch_like(name, gradients, 0.01), rtol=1e-5)


def test_the_rate_is_halved_at_milestones_in_epochs():
    optimizer = build_optimizer("momentum", 1.0, (2, 3), 0.0, updates_per_epoch=4)
    state, moves = optimizer.init(jnp.zeros(())), []
    for _ in range(16):
        update, state = optimizer.update(jnp.ones(()), state, jnp.zeros(()))
        moves.append(float(update))
    momentum = np.cumsum(0.9 ** np.arange(16))
    rates = -np.array(moves) / momentum
    np.testing.assert_allclose(rates, np.repeat([1, 1, 0.5, 0.25], 4), rtol=1e-5)


# Held-out ratings, centring, the exported function.


@pytest.mark.parametrize("batch_size", [1, 4, 256])
def test_held_out_ratings_are_predicted_from_known_ones(batch_size):
    model, params = toy_model()
    given_rows, held_out = toy_rows(), toy_rows(seed=7)
    out = np.asarray(model.apply(params, jnp.asarray(rectangle(given_rows)[0])))
    user = np.repeat(np.arange(USERS), np.diff(held_out.offsets))
    predict = make_held_out_predictor(
        partial(predict_pairs, model), device_rows(given_rows), held_out, batch_size
    )
    np.testing.assert_allclose(predict(params), out[user, held_out.item], atol=1e-5)
    blind = make_held_out_predictor(
        lambda params, known, wanted, B: wanted.rating,
        device_rows(given_rows),
        held_out,
        batch_size,
    )
    assert not blind(params).any()  # a prediction cannot read what it is to foretell


def test_no_held_out_ratings_are_no_predictions():
    model, params = toy_model()
    nothing = RatingRows(np.zeros(USERS + 1, np.int64), np.zeros(0, np.uint16), np.zeros(0))
    predict = make_held_out_predictor(
        partial(predict_pairs, model), device_rows(toy_rows()), nothing
    )
    assert predict(params).shape == (0,)
    assert all(np.isnan(value) for value in star_errors(np.zeros(0), np.zeros(0)).values())


def test_star_errors():
    errors = star_errors(np.array([3.4, 1.0, 4.6]), np.array([4, 1, 5], np.uint8))
    np.testing.assert_allclose(errors["rmse"], (0.6**2 + 0.4**2) ** 0.5 / 3**0.5)
    np.testing.assert_allclose([errors["rmse_rounded"], errors["mae"]], [(1 / 3) ** 0.5, 1 / 3])


def test_the_exported_function_predicts_what_evaluation_measures():
    model, params = toy_model()
    rows, held_out = toy_rows(lowest=1), toy_rows(seed=7, lowest=1)
    centre = fit_centre(rows, ITEMS)
    bias = centre.user(rows)
    rest = RatingRows(rows.offsets, rows.item, rows.rating - centre.of(rows, bias))
    predict = make_held_out_predictor(partial(predict_pairs, model), device_rows(rest), held_out)
    evaluated = predict(params) + centre.of(held_out, bias)
    arrays = {
        "params": params,
        "mean": jnp.full(1, centre.mean, jnp.float32),
        "item": centre.item,
        "centred": jnp.ones(1),
    }
    exported = make_predict(model, centre.regularisation)(arrays, *rectangle(rows))
    user = np.repeat(np.arange(USERS), np.diff(held_out.offsets))
    np.testing.assert_allclose(np.asarray(exported)[user, held_out.item], evaluated, atol=1e-5)


def test_a_users_bias_is_known_from_his_ratings_alone(monkeypatch):
    monkeypatch.setattr(centring, "_USERS_AT_ONCE", 2)
    rows = toy_rows(lowest=1)
    centre = fit_centre(rows, ITEMS, 5.0)
    bias = centre.user(rows)
    assert len(bias) == USERS
    for user in range(USERS):
        first, last = rows.offsets[user], rows.offsets[user + 1]
        rest = rows.rating[first:last] - centre.mean - centre.item[rows.item[first:last]]
        np.testing.assert_allclose(
            bias[user], rest.sum() / (last - first + 5), rtol=1e-5, atol=1e-7
        )
