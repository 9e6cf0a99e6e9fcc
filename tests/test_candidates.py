"""The candidate network: encoders against plain loops, its two forms against each other, its losses."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.candidates.baselines import (
    empty_histories,
    item_neighbour_ranks,
    popular_lists,
    popularity_ranks,
    rank_metrics,
)
from experiments.candidates.batches import (
    device_clicks,
    make_segment_gather,
    make_window_gather,
    segment_data,
    training_segments,
    window_data,
)
from experiments.candidates.evaluation import list_metrics, make_evaluate
from experiments.candidates.losses import SAMPLERS, Options, loss_of, start_biases
from experiments.candidates.network import feature_columns
from experiments.candidates.references import reference_metrics
from experiments.candidates.system import build_optimizers, build_step
from jrec.baselines.neighbours import shrunk_cosine
from jrec.data.click_examples import (
    count_items,
    held_out_examples,
    history_of,
    leave_one_out,
    time_cut,
    training_examples,
)
from jrec.data.click_maker import make_clicks
from jrec.data.click_truth import ClickSize
from jrec.data.quantiles import normalised
from jrec.losses.samplers import frequency
from jrec.models import lstm_fast
from jrec.models.candidates import CandidateNetwork
from jrec.models.lstm import Lstm, plain_lstm_maximum, plain_lstm_outputs
from jrec.models.sequences import (
    SelfAttention,
    running_max,
    running_mean,
    whole_mean,
)
from tests.conftest import slow_but

ENCODERS = ("lstm-max", "mean", "lstm", "attention")


@pytest.fixture(scope="module")
def clicks():
    return make_clicks(ClickSize(users=30, items=40, clicks=6, categories=4, groups=3), 0)[0]


def network(clicks, **fields):
    fields = {"tower": (8, 6), "item_width": 8, "state_width": 8, "table_scale": 0.3} | fields
    return CandidateNetwork(
        item_rows=clicks.vocabularies["item"].rows,
        table_rows={name: vocabulary.rows for name, vocabulary in clicks.vocabularies.items()},
        table_widths={name: 3 for name in clicks.vocabularies},
        **fields,
    )


def all_data(clicks, columns):
    names = [[c.name for c in columns if c.of == of] for of in ("user", "item")]
    return device_clicks(normalised(clicks, leave_one_out(clicks).train), *names)


def test_running_mean_and_max_read_no_later_position():
    generator = np.random.default_rng(0)
    values = generator.normal(size=(3, 5, 2)).astype(np.float32)
    mask = np.array([[1, 1, 0, 1, 1], [0, 0, 1, 1, 0], [0] * 5], bool)
    for b in range(3):
        for t in range(5):
            seen = values[b, : t + 1][mask[b, : t + 1]]
            mean = seen.mean(0) if len(seen) else np.zeros(2)
            most = seen.max(0) if len(seen) else np.zeros(2)
            np.testing.assert_allclose(
                running_mean(jnp.asarray(values), jnp.asarray(mask))[b, t], mean, atol=1e-6
            )
            np.testing.assert_allclose(
                running_max(jnp.asarray(values), jnp.asarray(mask))[b, t], most, atol=1e-6
            )


def test_whole_means_are_the_running_ones_at_the_end():
    generator = np.random.default_rng(0)
    values = jnp.asarray(generator.normal(size=(3, 5, 2)) - 3, jnp.float32)
    mask = jnp.asarray([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0] * 5], bool)
    for counted in (mask, 2 * mask.astype(jnp.int32)):
        np.testing.assert_allclose(
            whole_mean(values, counted), running_mean(values, counted)[:, -1], rtol=1e-6
        )


@pytest.fixture(params=["few", "many"])
def gates(request, monkeypatch):
    """The LSTM's two orders of its products."""
    if request.param == "many":
        monkeypatch.setattr(lstm_fast, "FEW_GATES", 0)


def test_the_lstm_is_its_equations(gates):
    x = np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float32)
    model = Lstm(5)
    params = jax.jit(model.init)(jax.random.key(0), x)
    out = jax.jit(model.apply)(params, x)
    p = jax.tree.map(np.asarray, params["params"])
    np.testing.assert_array_equal(p["bias"], [0] * 5 + [1] * 5 + [0] * 10)

    def sigmoid(v):
        return 1 / (1 + np.exp(-v))

    h, c = np.zeros((2, 5)), np.zeros((2, 5))
    for t in range(4):
        i, f, o, g = np.split(x[t] @ p["kernel"] + h @ p["recurrent"] + p["bias"], 4, -1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        np.testing.assert_allclose(out[t], h, atol=1e-5)


@pytest.mark.parametrize("of", ["outputs", "maximum"])
def test_the_fast_lstm_and_its_gradient_agree_with_the_plain_one(gates, of):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3, 3)), jnp.float32)
    mask = jnp.asarray([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0] * 5], bool)
    model = Lstm(4)
    params = jax.jit(model.init)(jax.random.key(0), x)
    shape = (5, 3, 4) if of == "outputs" else (3, 4)
    weight = jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)

    def plain(params, x):
        p = params["params"]
        weights = jnp.concatenate([p["kernel"], p["recurrent"]]), p["bias"][None], "float32"
        if of == "outputs":
            return (plain_lstm_outputs(x, *weights) * weight).sum()
        return (plain_lstm_maximum(x, mask.T, *weights) * weight).sum()

    def scanned(params, x):
        return (model.apply(params, x, None if of == "outputs" else mask.T) * weight).sum()

    found, expected = (
        jax.jit(jax.value_and_grad(f, argnums=(0, 1)))(params, x) for f in (scanned, plain)
    )
    for one, two in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)


def test_the_lstms_maximum_is_the_running_one_at_the_end(gates):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 4, 3)), jnp.float32)
    mask = jnp.asarray([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 1, 0, 1, 0], [0] * 5], bool)
    model = Lstm(4)
    params = jax.jit(model.init)(jax.random.key(0), x)
    states = jnp.swapaxes(model.apply(params, x), 0, 1)
    expected = running_max(states, mask)[:, -1]
    assert (expected < 0).any() and (expected > 0).any()
    np.testing.assert_array_equal(model.apply(params, x, mask.T), expected)


def test_the_lstms_maximum_does_not_hide_a_nan(gates):
    x = jnp.ones((4, 2, 3)).at[1, 0].set(jnp.nan)
    model, mask = Lstm(4), jnp.ones((4, 2), bool)
    params = jax.jit(model.init)(jax.random.key(0), x)
    most = jax.jit(model.apply)(params, x, mask)
    assert jnp.isnan(most[0]).all() and jnp.isfinite(most[1]).all()
    states = jnp.swapaxes(jax.jit(model.apply)(params, x), 0, 1)
    running = running_max(states, mask.T)
    assert jnp.isfinite(running[0, 0]).all() and jnp.isnan(running[0, 1:]).all()
    assert jnp.isfinite(running[1]).all()


def test_the_lstm_writes_all_gates_down_where_they_are_few(monkeypatch):
    """[5, 3, 16] of them ahead of the loop, and as many gradients; else never an array of that size."""
    x, mask, model = jnp.ones((5, 3, 2)), jnp.ones((5, 3), bool), Lstm(4)
    params = jax.jit(model.init)(jax.random.key(0), x)
    for numbers, written in ((5 * 3 * 16, True), (5 * 3 * 16 - 1, False)):
        monkeypatch.setattr(lstm_fast, "FEW_GATES", numbers)
        for given in ((x,), (x, mask)):

            def total(params, given=given):
                return model.apply(params, *given).sum()

            for f in (total, jax.grad(total)):
                assert ("f32[5,3,16]" in str(jax.make_jaxpr(f)(params))) == written


def test_attention_is_causal_and_knows_order():
    model = SelfAttention(2, 2)
    x = np.random.default_rng(0).normal(size=(1, 6, 8)).astype(np.float32)
    mask = np.ones((1, 6), bool)
    params = jax.jit(model.init)(jax.random.key(0), x, mask)
    # Biases by distance start at 0: move them, or order could not show.
    params = jax.tree.map(lambda v: v + 0.1 * jnp.arange(v.size).reshape(v.shape) / v.size, params)
    apply = jax.jit(model.apply)
    out = apply(params, x, mask)
    later = x.copy()
    later[:, 4:] += 1
    np.testing.assert_allclose(apply(params, later, mask)[:, :4], out[:, :4], atol=1e-5)
    swapped = x[:, [1, 0, 2, 3, 4, 5]]
    assert np.abs(apply(params, swapped, mask)[:, 5] - out[:, 5]).max() > 1e-4


@pytest.mark.parametrize("encoder", slow_but("lstm-max", ENCODERS))
def test_what_is_padded_or_later_never_reaches_a_vector(clicks, encoder):
    columns = feature_columns(clicks, True)
    model = network(clicks, encoder=encoder, columns=columns)
    split = leave_one_out(clicks)
    examples = training_examples(clicks, split, 5)
    data = window_data(all_data(clicks, columns), examples)
    positions = jnp.asarray(np.random.default_rng(0).permutation(len(examples))[:16])
    everything = jnp.ones(16, bool)
    short, long = (jax.jit(make_window_gather(n))(data, positions, everything) for n in (6, 11))
    params = jax.jit(model.init)(jax.random.key(0), short)
    last_vectors = jax.jit(partial(model.apply, method="last_vectors"))
    one, two = (last_vectors(params, batch) for batch in (short, long))
    np.testing.assert_allclose(one, two, atol=1e-5)
    assert np.abs(np.asarray(one)).sum() > 0
    # What the batches hold is the history.
    for row, k in enumerate(np.asarray(positions)):
        held = np.asarray(short["item"][row])[np.asarray(short["mask"][row])]
        np.testing.assert_array_equal(held, history_of(clicks, examples, int(k)))
        assert short["target"][row] == clicks.item[examples.target[k]]


@pytest.mark.parametrize("encoder", slow_but("attention", ENCODERS))
def test_window_and_prefix_forms_are_equal_where_the_window_covers_all(clicks, encoder):
    columns = feature_columns(clicks, True)
    model = network(clicks, encoder=encoder, columns=columns, example_age=True)
    split, length = leave_one_out(clicks), 32
    assert np.diff(clicks.offsets).max() <= length
    data = all_data(clicks, columns)
    examples = training_examples(clicks, split, None)
    windows = window_data(data, examples)
    segments = segment_data(data, training_segments(clicks, split, length, whole=True))
    users = len(segments["segments"]["user"])
    every = jax.jit(make_segment_gather(length))(segments, jnp.arange(users), jnp.ones(users, bool))
    each = jax.jit(make_window_gather(length + 1))(
        windows, jnp.arange(len(examples)), jnp.ones(len(examples), bool)
    )
    params = jax.jit(model.init)(jax.random.key(0), each)
    by_prefix, by_window = (
        np.asarray(jax.jit(partial(model.apply, method=method))(params, batch))
        for method, batch in (("all_vectors", every), ("last_vectors", each))
    )
    counted = np.asarray(every["counted"])
    assert counted.sum() == len(examples)
    np.testing.assert_allclose(by_prefix[counted], by_window, atol=2e-5)
    np.testing.assert_array_equal(np.asarray(every["target"])[counted], each["target"])


def test_long_histories_are_cut_into_runs_that_train_each_click_once(clicks):
    split = leave_one_out(clicks)
    data = segment_data(all_data(clicks, ()), training_segments(clicks, split, 3, whole=True))
    runs = {k: np.asarray(v) for k, v in data["segments"].items()}
    covered = np.concatenate(
        [np.arange(a, b) for a, b in zip(runs["start"], runs["end"], strict=True)]
    )
    np.testing.assert_array_equal(np.sort(covered), split.train)
    assert (runs["end"] - runs["start"]).max() == 3
    last = training_segments(clicks, split, 3, whole=False)["segments"]
    assert len(np.unique(last["user"])) == len(last["user"])
    assert set(np.asarray(last["end"])) <= set(split.train_end)
    batch = jax.jit(make_segment_gather(3))(
        data, jnp.arange(len(runs["user"])), jnp.ones(len(runs["user"]), bool)
    )
    first = np.asarray(data["begins"])[runs["start"]]
    assert (np.asarray(batch["item"])[first, 0] == 1).all()
    assert (np.asarray(batch["item"])[~first, 0] == clicks.item[runs["start"][~first] - 1]).all()


LOSSES = [
    ("full-softmax", "prefix", False),
    ("full-softmax", "window", True),
    ("sampled-softmax", "prefix", True),
    ("sampled-softmax-no-logq", "window", True),
    ("nce", "window", False),
    ("in-batch-softmax", "window", True),
    ("gbce", "prefix", True),
    ("bce", "window", False),
]


@pytest.mark.parametrize("name,form,shared", LOSSES)
@pytest.mark.parametrize("rows", slow_but(True, [True, False]))
def test_every_loss_trains(clicks, name, form, shared, rows):
    model = network(clicks, encoder="mean", tied=name == "gbce", tower=(8,))
    split = leave_one_out(clicks)
    data = all_data(clicks, ())
    if form == "window":
        data = window_data(data, training_examples(clicks, split, 8))
        gather, count = make_window_gather(8), len(split.train)
    else:
        data = segment_data(data, training_segments(clicks, split, 8, True))
        gather, count = make_segment_gather(8), len(data["segments"]["user"])
    counts = count_items(clicks, split.train)
    constants = {
        "sampler": SAMPLERS["frequency"](counts, 0.5),
        "frequency": frequency(counts),
        "items": jnp.arange(model.item_rows) >= 2,
    }
    batch = jax.jit(gather)(data, jnp.arange(min(count, 32)), jnp.ones(min(count, 32), bool))
    batch |= constants
    params = jax.jit(model.init)(
        jax.random.key(0), {k: v for k, v in batch.items() if k not in constants}
    )
    each = loss_of(name, model, Options(form, 4, shared, 0.75))
    optimizers = build_optimizers("adagrad", 0.3, 0.0, 0)
    whole = name == "full-softmax"
    state, step = build_step(each, model, params, optimizers, rows, whole, jax.random.key(1))
    step, losses = jax.jit(step), []
    padding = np.asarray(params["params"]["item_table"]["embedding"][0])
    for _ in range(40):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss_sum"] / metrics["count"]))
    assert metrics["count"] == np.asarray(batch["counted"]).sum()
    assert np.isfinite(losses).all() and np.mean(losses[-5:]) < np.mean(losses[:5])
    # Padding is read nowhere: its row stays.
    np.testing.assert_array_equal(state.params["params"]["item_table"]["embedding"][0], padding)


@pytest.mark.parametrize(
    ("warmup", "expected"),
    [
        (2, [0.25, 0.375, 0.5, 0.5, 0.5, 0.5, 0.4, 0.3, 0.2, 0.1]),
        (0, [0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.4, 0.3, 0.2, 0.1]),
        (8, [0.0625, 0.1171875, 0.171875, 0.2265625, 0.28125, 0.3359375]),
    ],
)
def test_the_rate_rises_and_falls_alike_for_network_and_tables(warmup, expected):
    """Adam moves by the rate itself where the gradient is always the same."""
    network, tables = build_optimizers("adam", 0.5, 0.0, warmup, steps=10, cooldown=0.5)
    gradient, rows = jnp.ones((1, 8)), jnp.zeros((1, 8))
    state, row_state, rates = network.init(rows), tables.init(rows), []
    for step in range(10):
        update, state = network.update(gradient, state)
        row_state = tables.accumulate(rows, row_state, gradient, step)
        moved = tables.move(rows, row_state, gradient, step)
        np.testing.assert_allclose(update, moved, rtol=1e-4)
        rates.append(-float(moved[0, 0]))
    np.testing.assert_allclose(rates[: len(expected)], expected, rtol=1e-4)
    np.testing.assert_array_less(rates[6:], rates[5:-1])


def test_both_forms_have_one_loss(clicks):
    model = network(clicks, encoder="lstm")
    split, data = leave_one_out(clicks), all_data(clicks, ())
    segments = segment_data(data, training_segments(clicks, split, 32, True))
    users = len(segments["segments"]["user"])
    windows = window_data(data, training_examples(clicks, split, None))
    count = len(split.train)
    prefix, window = (jax.jit(g) for g in (make_segment_gather(32), make_window_gather(33)))
    batches = {
        "prefix": prefix(segments, jnp.arange(users), jnp.ones(users, bool)),
        "window": window(windows, jnp.arange(count), jnp.ones(count, bool)),
    }
    params = jax.jit(model.init)(jax.random.key(0), batches["window"])
    items = {"items": jnp.arange(model.item_rows) >= 2}
    sums = [
        jax.jit(loss_of("full-softmax", model, Options(form, 1, True, 0.0)))(
            params, batch | items, jax.random.key(0)
        )
        for form, batch in batches.items()
    ]
    np.testing.assert_allclose(sums[0], sums[1], rtol=1e-5)


@pytest.mark.parametrize("remove_seen", [True, False])
def test_popularity_by_hand(clicks, remove_seen):
    split = leave_one_out(clicks)
    counts, examples = count_items(clicks, split.train), held_out_examples(clicks, split, "test")
    hits = []
    for k in range(len(examples)):
        user, target = examples.user[k], clicks.item[examples.target[k]]
        seen = set(clicks.item[clicks.offsets[user] : examples.end[k]]) if remove_seen else set()
        rivals = [i for i in range(2, len(counts)) if i != target and i not in seen]
        hits.append(sum(counts[i] >= counts[target] for i in rivals) < 10)
    found = rank_metrics(popularity_ranks(clicks, counts, examples, remove_seen), (10,))
    np.testing.assert_allclose(found["hr@10"], np.mean(hits))


def cut(clicks):
    """A cut in time before which some users have clicked nothing."""
    moments = np.quantile(clicks.timestamp, [0.1, 0.2]).astype(int)
    return time_cut(clicks, *moments)


def test_what_fills_up_a_run_has_no_age_below_0(clicks):
    # Of a negative age the root is NaN, and a masked NaN is one in the gradient still.
    data = segment_data(all_data(clicks, ()), training_segments(clicks, cut(clicks), 8, True))
    rows = jnp.arange(len(data["segments"]["user"]))
    age = jax.jit(make_segment_gather(8))(data, rows, rows >= 0)["age"]
    assert (age >= 0).all() and (age > 0).any()


def test_first_clicks_are_ranked_by_popularity(clicks):
    split = cut(clicks)
    counts, examples = count_items(clicks, split.train), held_out_examples(clicks, split, "test")
    empty = empty_histories(clicks, examples)
    first = clicks.offsets[:-1][np.diff(clicks.offsets) > 0]
    assert 0 < empty.sum() < len(empty)
    np.testing.assert_array_equal(
        np.sort(examples.target[empty]), np.intersect1d(first, split.test)
    )
    model = network(clicks, encoder="mean")
    data = all_data(clicks, ())
    evaluate, lists = make_evaluate(8, model, clicks, data, examples, True, counts)
    batch = jax.jit(make_window_gather(8))(
        window_data(data, examples), jnp.zeros(1, jnp.int32), jnp.ones(1, bool)
    )
    params = jax.jit(model.init)(jax.random.key(0), batch)
    means, by_example = evaluate(params)
    ranks = popularity_ranks(clicks, counts, examples, True)
    np.testing.assert_allclose(by_example["mrr"][empty], 1 / ranks[empty])
    assert (by_example["mrr"][~empty] != 1 / ranks[~empty]).any()
    np.testing.assert_allclose(means["mrr"], by_example["mrr"].mean())
    made_of = lists(params)
    assert made_of["empty_histories"] == empty.sum()
    assert 0 < made_of["coverage@10"] <= 1 and 0 <= made_of["gini@10"] < 1


@pytest.mark.parametrize("remove_seen", [True, False])
def test_popular_lists_by_hand(clicks, remove_seen):
    split = leave_one_out(clicks)
    counts, examples = count_items(clicks, split.train), held_out_examples(clicks, split, "test")
    ids, mask = popular_lists(clicks, counts, examples, remove_seen, 38)
    for k in range(len(examples)):
        user = examples.user[k]
        seen = set(clicks.item[clicks.offsets[user] : examples.end[k]]) if remove_seen else set()
        rows = [i for i in range(2, len(counts)) if i not in seen]
        rows = sorted(rows, key=lambda i: (-counts[i], i))[:38]
        assert ids[k][mask[k]].tolist() == rows
        assert (ids[k][~mask[k]] == -1).all()
    assert mask.all() == (not remove_seen)


def test_what_lists_are_made_of():
    counts = np.array([0, 0, 5, 3, 0, 1])  # rows 2 to 5 are items
    ids, mask = np.array([[2, 3], [2, -1]]), np.array([[True, True], [True, False]])
    found = list_metrics(ids, mask, counts)
    assert found["coverage@2"] == 0.5
    np.testing.assert_allclose(found["gini@2"], (0 * -3 + 0 * -1 + 1 * 1 + 2 * 3) / (4 * 3))
    np.testing.assert_allclose(found["popularity@2"], (4 + 5) / 2)


@pytest.mark.parametrize("remove_seen", [True, False])
def test_item_neighbours_by_hand(clicks, remove_seen):
    split = leave_one_out(clicks)
    examples, rows = held_out_examples(clicks, split, "test"), clicks.vocabularies["item"].rows
    found = item_neighbour_ranks(clicks, split, examples, remove_seen)
    met = np.zeros((clicks.users, rows), np.float32)
    met[clicks.user_of_event[split.train], clicks.item[split.train]] = 1
    similarity = shrunk_cosine(met.T @ met, met.sum(0), met.sum(0), 0.0)
    np.fill_diagonal(similarity, 0)
    for row in similarity:  # the ten nearest stay
        row[np.argsort(row)[:-10]] = 0
    exact = 0
    for k in range(len(examples)):
        history = clicks.item[clicks.offsets[examples.user[k]] : examples.end[k]]
        score, target = similarity[np.unique(history)].sum(0), clicks.item[examples.target[k]]
        rivals = set(range(2, rows)) - {target} - (set(history) if remove_seen else set())
        exact += found[k] == 1 + sum(score[i] >= score[target] for i in rivals)
    # Which of equal neighbours are kept is not said, so a few ranks may differ.
    assert exact >= 0.7 * len(examples)


def test_references_of_a_made_up_log_name_its_optimum():
    made = (ClickSize(users=60, items=40, clicks=8, categories=4, groups=3), 0)
    clicks = make_clicks(*made)[0]
    split = leave_one_out(clicks)
    counts, examples = count_items(clicks, split.train), held_out_examples(clicks, split, "test")
    found = reference_metrics(clicks, split, counts, examples, True, (10,), made)
    assert list(found)[:2] == ["popularity", "item neighbours"] and len(found) == 4
    best = found["planted: best from the log alone"]
    assert best["recall@10"] == best["hr@10"] > found["popularity"]["hr@10"]
    assert len(reference_metrics(clicks, split, counts, examples, False, (10,), made)) == 2


@pytest.mark.parametrize("name", ["nce", "bce", "gbce"])
def test_biases_start_where_the_loss_of_no_users_is_least(clicks, name):
    split = leave_one_out(clicks)
    counts = count_items(clicks, split.train)
    model, data = network(clicks, encoder="mean"), all_data(clicks, ())
    examples = training_examples(clicks, split, 8)
    count = len(examples)
    # A full batch, and every click as often as its (count + 1) says.
    sampler = SAMPLERS["uniform"](counts, 1.0)
    target = jnp.asarray(np.repeat(np.arange(2, len(counts)), counts[2:] + 1))
    batch = jax.jit(make_window_gather(8))(
        window_data(data, examples),
        jnp.zeros(len(target), jnp.int32),
        jnp.ones(len(target), bool),
    )
    batch |= {"target": target, "sampler": sampler}
    params = jax.jit(model.init)(
        jax.random.key(0), {k: v for k, v in batch.items() if k != "sampler"}
    )
    zeros = jax.tree.map(jnp.zeros_like, params)
    options = Options("window", 16, False, 0.75)
    started = start_biases(zeros, name, counts, sampler, options)
    assert count and (started["params"]["bias_table"]["embedding"][2:] < 0).all()

    @jax.jit
    @jax.value_and_grad
    def mean_loss_and_slope(shift, params):
        table = params["params"]["bias_table"]["embedding"]
        moved = {"params": params["params"] | {"bias_table": {"embedding": table + shift}}}
        keys = jax.random.split(jax.random.key(3), 50)
        sums, number = jax.vmap(lambda key: loss_of(name, model, options)(moved, batch, key))(keys)
        return sums.sum() / number.sum()

    (at_level, slope), (at_zero, slope_at_zero) = (
        map(float, mean_loss_and_slope(0.0, params)) for params in (started, zeros)
    )
    for shift in (0.5, -0.5):
        assert at_level < float(mean_loss_and_slope(shift, started)[0])
    assert at_level < at_zero - 0.02
    assert abs(slope) < 0.02 * slope_at_zero


def test_softmax_losses_start_as_they_were(clicks):
    params = {"params": {"bias_table": {"embedding": jnp.zeros((5, 1))}}}
    assert start_biases(params, "full-softmax", np.arange(5), None, None) is params
