"""The embedding MLP: its numbers against NumPy, its training rules, and the whole experiment."""

import dataclasses
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.embedding_mlp import __main__ as embedding_mlp
from experiments.embedding_mlp.__main__ import PRESETS, Train
from experiments.embedding_mlp.improved import Improved, improved_optimizer
from experiments.embedding_mlp.source import (
    Source,
    gather_pairs,
    loss,
    mean_rating,
    predict_rows,
    source_system,
    train_state,
    train_step,
)
from jrec.command_line import parse_command
from jrec.data.sources import load_ratings
from jrec.data.splits import split_ratings
from jrec.data.synthetic import SyntheticSize
from jrec.embeddings import updates as row_updates
from jrec.errors import InputError
from jrec.models.embedding_mlp import EmbeddingMlp, relu_to_number
from jrec.serving.ratings import load_rating_model
from jrec.train import run as driver
from jrec.train.checkpoints import Checkpoints
from jrec.train.chunk import make_chunk, mixed_order

SIZES = ["--synthetic.users", "60", "--synthetic.items", "40", "--synthetic.ratings", "3000"]
TRAIN = ["train", "--dataset", "synthetic", *SIZES, "--batch-size", "32", "--hidden", "16"]
FLAGS = ["--tables", "rows", "--epochs", "3", "--chunk-steps", "11", "--checkpoint-steps", "17"]
SIZE = SyntheticSize(60, 40, 3000)
USERS, ITEMS, K = 9, 7, 3
RATE, DECAY = 0.05, 0.9


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def fresh(model, seed=0):
    """Parameters far from zero, biases too."""
    row = jnp.zeros(1, jnp.int32)
    params = jax.jit(model.init)(jax.random.key(seed), row, row)
    leaves, structure = jax.tree.flatten(params)
    filled = [jnp.asarray(0.5 * draw(*leaf.shape, seed=k)) for k, leaf in enumerate(leaves)]
    return jax.tree.unflatten(structure, filled)


def examples(count, seed):
    """Few ids, so that duplicates abound; the last example is masked."""
    generator = np.random.default_rng(seed)
    return {
        "user": jnp.asarray(generator.integers(0, USERS - 1, count), jnp.int32),  # one never read
        "item": jnp.asarray(generator.integers(0, ITEMS, count), jnp.int32),
        "target": jnp.asarray(generator.normal(size=count), jnp.float32),
        "mask": jnp.arange(count) < count - 1,
    }


def numpy_params(params):
    return jax.tree.map(lambda leaf: np.array(leaf, np.float64), params["params"])


def by_hand(p, user, item, layers):
    """The network for one pair."""
    vectors = p["vectors"]["embedding"]
    x = np.concatenate([vectors[user], vectors[USERS + item]])
    for number in range(layers - 1):
        x = np.maximum(x @ p[f"hidden_{number}"]["kernel"] + p[f"hidden_{number}"]["bias"], 0)
    top = p[f"hidden_{layers - 1}"]
    x = np.maximum(x @ top["kernel"] + top["bias"], 0)
    result = (x @ top["output_kernel"] + top["output_bias"])[0]
    if "factors" in p:
        factors, biases = p["factors"]["embedding"], p["biases"]["embedding"]
        result += factors[user] @ factors[USERS + item] + biases[user, 0] + biases[USERS + item, 0]
    return result


@pytest.mark.parametrize("hidden, factors", [((8,), 0), ((8, 5, 4), 4)])
def test_the_model_is_the_notebooks_network_of_any_depth(hidden, factors):
    model = EmbeddingMlp(USERS, ITEMS, K, hidden, factors)
    params, batch = fresh(model), examples(20, 0)
    p = numpy_params(params)
    pairs = zip(np.asarray(batch["user"]), np.asarray(batch["item"]), strict=True)
    expected = [by_hand(p, user, item, len(hidden)) for user, item in pairs]
    found = jax.jit(model.apply)(params, batch["user"], batch["item"])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_sizes_and_initial_values_are_the_notebooks():
    row = jnp.zeros(1, jnp.int32)
    params = jax.jit(EmbeddingMlp(600, 400).init)(jax.random.key(0), row, row)["params"]
    assert {"/".join(k.key for k in p): v.shape for p, v in jax.tree.leaves_with_path(params)} == {
        "vectors/embedding": (1000, 10),
        "hidden_0/kernel": (20, 1024),
        "hidden_0/bias": (1024,),
        "hidden_0/output_kernel": (1024, 1),
        "hidden_0/output_bias": (1,),
    }
    top = params["hidden_0"]
    limits = {0.05: params["vectors"]["embedding"], np.sqrt(6 / 1044): top["kernel"]}
    for limit, values in (limits | {np.sqrt(6 / 1025): top["output_kernel"]}).items():
        assert 0.98 * limit < np.abs(values).max() <= limit
        np.testing.assert_allclose(np.std(values), limit / np.sqrt(3), rtol=0.05)
    assert not np.any(top["bias"]) and not np.any(top["output_bias"])


def test_three_products_give_the_layer_and_its_gradient():
    def plain(x, kernel, output):
        return jax.nn.relu(x @ kernel) @ output

    inputs = jnp.asarray(draw(11, 4)).at[3].set(0), jnp.asarray(draw(4, 6)), jnp.asarray(draw(6))
    weight = jnp.asarray(draw(11, seed=1))
    found, back = jax.vjp(relu_to_number, *inputs)
    expected, plain_back = jax.vjp(plain, *inputs)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    for one, two in zip(back(weight), plain_back(weight), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)


@pytest.mark.parametrize("tables", ["dense", "rows"])
def test_one_step_worked_out_on_paper(tables):
    """z = (3, 1.5), y = 0.1, error 1: the gradient of its square is 2 at the output, and so on down."""
    model, source = EmbeddingMlp(1, 1, 1, (2,)), Source(tables, 1, (2,))
    top = {"kernel": [[1.0, -1.0], [1.0, 1.0]], "bias": [0.0, 0.5]}
    top |= {"output_kernel": [[0.5], [-1.0]], "output_bias": [0.1]}
    params = {"params": {"vectors": {"embedding": [[1.0], [2.0]]}, "hidden_0": top}}
    params = jax.tree.map(jnp.asarray, params, is_leaf=lambda leaf: isinstance(leaf, list))
    zero = jnp.zeros(1, jnp.int32)
    batch = {"user": zero, "item": zero, "target": jnp.array([-0.9]), "mask": jnp.ones(1, bool)}
    state = train_state(source, 0.1, params, jax.random.key(0))
    state, metrics = jax.jit(train_step(source, model, 0.1))(state, batch)
    assert float(metrics["loss_sum"]) == pytest.approx(1.0)
    found = state.params["params"]
    np.testing.assert_allclose(found["vectors"]["embedding"], [[0.7], [2.1]], atol=1e-6)
    found = found["hidden_0"]
    np.testing.assert_allclose(found["kernel"], [[0.9, -0.8], [0.8, 1.4]], atol=1e-6)
    np.testing.assert_allclose(found["bias"], [-0.1, 0.7], atol=1e-6)
    np.testing.assert_allclose(found["output_kernel"], [[-0.1], [-1.3]], atol=1e-6)
    np.testing.assert_allclose(found["output_bias"], [-0.1], atol=1e-6)


def train_by_hand(params, batches, lazy):
    """TensorFlow's Keras before 3 (lazy) and Keras 3: v = 0.9 v - rate * gradient, parameter + v."""
    p = numpy_params(params)
    v = jax.tree.map(np.zeros_like, p)
    for batch in batches:
        batch = {name: np.asarray(column) for name, column in batch.items()}
        g = jax.tree.map(np.zeros_like, p)
        table, top, slope = p["vectors"]["embedding"], p["hidden_0"], g["hidden_0"]
        touched = np.zeros(len(table), bool)
        count = batch["mask"].sum()
        for b in np.flatnonzero(batch["mask"]):
            rows = np.array([batch["user"][b], USERS + batch["item"][b]])
            x = table[rows].reshape(-1)
            z = x @ top["kernel"] + top["bias"]
            h = np.maximum(z, 0)
            y = (h @ top["output_kernel"] + top["output_bias"])[0]
            back = 2 * (y - batch["target"][b]) / count
            slope["output_bias"] += back
            slope["output_kernel"] += back * h[:, None]
            dz = back * top["output_kernel"][:, 0] * (z > 0)
            slope["bias"] += dz
            slope["kernel"] += np.outer(x, dz)
            np.add.at(g["vectors"]["embedding"], rows, (top["kernel"] @ dz).reshape(2, K))
            touched[rows] = True
        new = jax.tree.map(lambda v, g: DECAY * v - RATE * g, v, g)
        if lazy:
            old = v["vectors"]["embedding"]
            moved = touched[:, None]
            new_p = np.where(moved, table + new["vectors"]["embedding"], table)
            new["vectors"]["embedding"] = np.where(moved, new["vectors"]["embedding"], old)
            p = jax.tree.map(np.add, p, new) | {"vectors": {"embedding": new_p}}
        else:
            p = jax.tree.map(np.add, p, new)
        v = new
    return p


@pytest.mark.parametrize("tables, whole_rows", [("dense", 0), ("rows", 0), ("rows", 10**9)])
def test_both_momenta_are_what_their_tensorflow_did(tables, whole_rows, monkeypatch):
    monkeypatch.setattr(row_updates, "WHOLE_TABLE_ROWS", whole_rows)
    model, source = EmbeddingMlp(USERS, ITEMS, K, (8,)), Source(tables, K, (8,), DECAY)
    params, batches = fresh(model), [examples(6, seed) for seed in range(6)]
    state = train_state(source, RATE, params, jax.random.key(0))
    step = jax.jit(train_step(source, model, RATE))
    for batch in batches:
        state, _ = step(state, batch)
    right = train_by_hand(params, batches, tables == "rows")
    wrong = train_by_hand(params, batches, tables != "rows")
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), state.params["params"], right
    )
    found = state.params["params"]["vectors"]["embedding"]
    assert np.abs(found - wrong["vectors"]["embedding"]).max() > 1e-2  # the two do differ
    unread = np.asarray(params["params"]["vectors"]["embedding"])[USERS - 1]
    np.testing.assert_array_equal(found[USERS - 1], unread)


@pytest.mark.parametrize("tables", ["dense", "rows"])
def test_chunks_of_any_length_are_traced_once(tables):
    model, source = EmbeddingMlp(USERS, ITEMS, K, (8,)), Source(tables, K, (8,))
    data = {name: examples(50, 0)[name] for name in ("user", "item", "target")}
    step, traces = train_step(source, model, RATE), []

    def counted(state, batch):
        traces.append(1)
        return step(state, batch)

    chunk = make_chunk(counted, gather_pairs, 50, 8)
    state = train_state(source, RATE, fresh(model), jax.random.key(0))
    for epoch in range(2):
        order = mixed_order(jax.random.key(1), epoch, 50, 8)
        for first, steps in ((0, 4), (4, 3)):
            state, sums, _ = chunk(state, data, order, first, steps)
    assert traces == [1] and int(state.step) == 14 and float(sums["count"]) == 50 - 32


@pytest.mark.parametrize("count", [1, 2, 7, 100, 999, 65_537])
def test_the_mixed_order_is_a_permutation_filled_up(count):
    orders = [np.asarray(mixed_order(jax.random.key(0), epoch, count, 8)) for epoch in (0, 1)]
    for order in orders:
        assert len(order) % 8 == 0 and (order[count:] == count).all()
        np.testing.assert_array_equal(np.sort(order[:count]), np.arange(count))
    again = mixed_order(jax.random.key(0), 1, count, 8)
    np.testing.assert_array_equal(orders[1], again)
    if count >= 100:
        assert np.mean(orders[0] == orders[1]) < 0.1


def test_the_mixed_order_sends_each_example_anywhere_beside_any_other():
    draws, count = 20_000, 24
    each = jax.vmap(lambda epoch: mixed_order(jax.random.key(2), epoch, count, 1))
    order = np.asarray(each(jnp.arange(draws)))
    places = np.stack([np.bincount(column, minlength=count) for column in order.T])
    pairs = np.bincount(order[:, 5] * count + order[:, 6], minlength=count**2)
    pairs = pairs.reshape(count, count)[~np.eye(count, dtype=bool)]
    for found, freedom in ((places.reshape(-1), (count - 1) ** 2), (pairs, len(pairs) - 1)):
        expected = found.mean()
        surplus = ((found - expected) ** 2 / expected).sum() / freedom - 1
        assert abs(surplus) < 5 * np.sqrt(2 / freedom)
    long = np.asarray(mixed_order(jax.random.key(2), 0, 100_000, 1), np.float64)
    assert abs(np.corrcoef(long[:-1], long[1:])[0, 1]) < 0.02


def system_of(ratings, split):
    keys = jax.random.split(jax.random.key(0), 3)
    mean = mean_rating(ratings, split.train)
    return source_system(Source("dense", hidden=(16,)), ratings, split, mean, 32, 0.08, False, keys)


def test_ratings_are_centred_on_the_training_part_alone():
    ratings = load_ratings("synthetic", None, SIZE, 0)
    split = split_ratings(ratings, test_fraction=0.2, valid_fraction=0.1)
    system = system_of(ratings, split)
    mean = ratings.rating[split.train].mean(dtype=np.float64)
    assert abs(mean - ratings.rating.mean()) > 5e-4  # else this would show nothing
    expected = ratings.rating[split.train] - mean
    np.testing.assert_allclose(system.stream.data["target"], expected, atol=1e-6)
    assert float(system.predictor({})["mean"]) == pytest.approx(mean)
    hidden = ratings.rating.copy()
    hidden[split.test], hidden[split.valid] = 1.0, 5.0
    other = system_of(dataclasses.replace(ratings, rating=hidden), split)
    for one, two in (
        (system.stream.data, other.stream.data),
        (system.state.params, other.state.params),
    ):
        jax.tree.map(np.testing.assert_array_equal, one, two)
    user, item = ratings.user[:50], ratings.item[:50]
    predict = jax.jit(system.predict)
    stars = [predict(s.predictor(s.state.params), user, item) for s in (system, other)]
    np.testing.assert_array_equal(*stars)


def test_clip_keeps_stars_in_range():
    model, batch = EmbeddingMlp(USERS, ITEMS, K, (8,)), examples(40, 0)
    arrays = {"params": fresh(model), "mean": jnp.float32(3.5)}
    free, clipped = (
        jax.jit(partial(predict_rows, model, bounds))(arrays, batch["user"], batch["item"])
        for bounds in (None, (3.0, 4.0))
    )
    assert free.min() < 3 and free.max() > 4
    np.testing.assert_array_equal(clipped, np.clip(free, 3, 4))


def test_each_kind_of_table_has_its_own_decay():
    decays = {"factor_decay": 0.1, "vector_decay": 0.2, "bias_decay": 0.4, "layer_decay": 0.8}
    improved = Improved(**decays)
    model = EmbeddingMlp(USERS, ITEMS, K, (8,), factors=4)
    params = fresh(model)
    optimizer = improved_optimizer(improved, 1.0, 40)
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    zero = jax.tree.map(jnp.zeros_like, params)
    for _ in range(2):  # the rate is 0 at the first step of the warm-up, 1/2 at the second
        updates, state = update(zero, state, params)
    moved = jax.tree.map(lambda u, p: np.asarray(-u / p), updates, params)["params"]
    np.testing.assert_allclose(moved["factors"]["embedding"], 0.05, rtol=1e-4)
    np.testing.assert_allclose(moved["vectors"]["embedding"], 0.1, rtol=1e-4)
    np.testing.assert_allclose(moved["biases"]["embedding"], 0.2, rtol=1e-4)
    np.testing.assert_allclose(moved["hidden_0"]["kernel"], 0.4, rtol=1e-4)
    np.testing.assert_allclose(moved["hidden_0"]["output_kernel"], 0.4, rtol=1e-4)
    assert not moved["hidden_0"]["bias"].any() and not moved["hidden_0"]["output_bias"].any()


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A finished run of three epochs."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    embedding_mlp.main([*TRAIN, *FLAGS, "--run-dir", str(folder)])
    return folder


def test_a_run_directory_explains_itself(run_dir):
    names = {path.name for path in run_dir.iterdir()}
    assert names >= {"settings.json", "metrics.jsonl", "curves.png", "report.md", "results.json"}
    results = json.loads((run_dir / "results.json").read_text())
    assert {"valid_rmse", "examples_per_second", "seed", "split"} <= results.keys()
    assert 0.3 < results["test_rmse"] < results["baselines"]["global mean"]["rmse"]
    assert results["best_epoch"] == 3 and results["valid_rmse"] is None  # nothing chose: the last
    settings = json.loads((run_dir / "settings.json").read_text())
    assert (settings["learning_rate"], settings["source"]["tables"]) == (0.08, "rows")
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert lines[2]["test_rmse"] == results["test_rmse"]
    assert lines[2]["train_cost"] < lines[0]["train_cost"]
    assert "experiments.embedding_mlp" in (run_dir / "report.md").read_text()


def test_the_export_predicts_what_the_model_does(run_dir, capsys):
    ratings = load_ratings("synthetic", None, SIZE, 0)
    split = split_ratings(ratings, test_fraction=0.2, valid_fraction=0)
    system = system_of(ratings, split)
    state, _ = Checkpoints(run_dir / "best", 1).restore(system.state._replace(opt_state=()))
    user, item = ratings.user[split.test], ratings.item[split.test]
    expected = system.predict(system.predictor(state.params), user, item)
    found = load_rating_model(run_dir / "export").predict(user, item)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    error = np.sqrt(np.mean((np.asarray(found) - ratings.rating[split.test]) ** 2))
    results = json.loads((run_dir / "results.json").read_text())
    assert error == pytest.approx(results["test_rmse"], abs=1e-5)
    embedding_mlp.main(["predict", "--run-dir", str(run_dir), "--user", "1", "--item", "999"])
    assert "item 999 is not in the data" in capsys.readouterr().out
    embedding_mlp.main(["recommend", "--run-dir", str(run_dir), "--user", "2", "--count", "3"])
    assert capsys.readouterr().out.count("(2000)") == 3


@pytest.mark.slow
def test_the_improved_preset_runs_to_an_export(tmp_path):
    folder = tmp_path / "improved"
    flags = ["--preset", "improved", "--improved.heads", "2", "--improved.factors", "8"]
    flags += ["--improved.hidden", "8", "--epochs", "6", "--valid-fraction", "0.1"]
    embedding_mlp.main([*TRAIN, *flags, "--run-dir", str(folder)])
    results = json.loads((folder / "results.json").read_text())
    assert results["test_rmse"] < results["baselines"]["global mean"]["rmse"]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    best = min(lines, key=lambda line: line["valid_rmse"])
    assert (results["best_epoch"], results["valid_rmse"]) == (best["epoch"], best["valid_rmse"])
    model = load_rating_model(folder / "export")
    rows = jnp.arange(2, 32, dtype=jnp.int32)
    stars = np.asarray(model.predict(rows, rows))
    assert stars.min() >= 1 and stars.max() <= 5


def test_a_run_cut_off_resumes_to_identical_bits(run_dir, tmp_path, monkeypatch):
    cut = tmp_path / "cut"
    command = [*TRAIN, *FLAGS, "--run-dir", str(cut)]
    real = driver.watch_training

    def cut_off(reports, *args):
        def until(reports):
            for number, report in enumerate(reports):
                if number == 9:
                    raise MemoryError  # as good as a crash: nothing is saved after it
                yield report

        return real(until(reports), *args)

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(driver, "watch_training", cut_off)
        embedding_mlp.main(command)
    saved = [int(path.name) for path in (cut / "last").iterdir() if path.name.isdecimal()]
    assert 40 < max(saved) < 120 and not (cut / "results.json").exists()
    embedding_mlp.main([*command, "--resume"])
    one, two = (dict(np.load(folder / "export" / "arrays.npz")) for folder in (run_dir, cut))
    assert len(one.keys() - {"program_sha256"}) == 6
    for name in one.keys() - {"program_sha256"}:
        assert one[name].tobytes() == two[name].tobytes(), name
    assert (run_dir / "metrics.jsonl").read_text() == (cut / "metrics.jsonl").read_text()


def test_presets_are_complete():
    source, notebook = PRESETS["source"](), PRESETS["source-20m"]()
    chosen = source.data.dataset, source.run.epochs, source.data.valid_fraction
    assert chosen == ("ml-100k", 25, 0.0)
    assert (source.source.tables, source.clip) == ("dense", False)
    assert (notebook.data.dataset, notebook.source.tables) == ("ml-20m", "rows")
    assert (notebook.learning_rate, notebook.data.test_fraction, notebook.batch_size) == (
        0.08,
        0.2,
        1024,
    )
    assert PRESETS["improved"]().clip


def test_flags_change_a_preset():
    flags = "--preset source-20m --dataset ml-1m --tables dense --epochs 3"
    kept = parse_command([Train], None, flags.split(), PRESETS)
    chosen = kept.data.dataset, kept.source.tables, kept.run.epochs, kept.learning_rate
    assert chosen == ("ml-1m", "dense", 3, 0.08)


@pytest.mark.parametrize(
    "flags, part",
    [
        (["--epochs", "0"], "--epochs must be 1 or more"),
        (["--width", "0"], "--width must be 1 or more"),
        (["--hidden"], "--hidden needs the width of at least one layer"),
        (["--hidden", "8", "0"], "--hidden must be 1 or more"),
        (["--momentum", "1"], "--momentum must be from 0 to below 1"),
        (["--learning-rate", "-1"], "--learning-rate must be above 0"),
        (["--learning-rate", "nan"], "--learning-rate must be above 0"),
        (["--batch-size", "0"], "--batch-size must be 1 or more"),
        (["--patience", "2"], "--patience needs validation ratings"),
        (["--test-fraction", "1"], "Split fractions must lie between 0 and 1"),
        (["--improved.heads", "0"], "--improved.heads must be 1 or more"),
        (["--improved.hidden"], "--improved.hidden needs the width"),
        (["--improved.factor-decay", "-1"], "--improved.factor-decay must be 0 or more"),
        (["--improved.bias-decay", "nan"], "--improved.bias-decay must be 0 or more"),
        (["--tables", "sparse"], "dense"),
        (["--data-dir", "nowhere"], "--data-dir has no meaning"),
    ],
)
def test_a_bad_setting_is_one_sentence_and_leaves_nothing(flags, part, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(InputError) as refused:
        embedding_mlp.main([*TRAIN, *flags, "--run-dir", str(folder)])
    assert part in str(refused.value) and "\n" not in str(refused.value)
    assert not folder.exists()


def test_a_rate_too_high_stops_with_the_step(tmp_path):
    flags = ["--learning-rate", "1e9", "--epochs", "1"]
    with pytest.raises(InputError, match=r"not finite at step \d+ \(epoch 1\); try a lower"):
        embedding_mlp.main([*TRAIN, *flags, "--run-dir", str(tmp_path / "run")])


def test_the_loss_counts_what_the_mask_does():
    model = EmbeddingMlp(USERS, ITEMS, K, (8,))
    params, batch = fresh(model), examples(6, 0)
    total, count = loss(model, params, batch, jax.random.key(0))
    p = numpy_params(params)
    errors = [
        by_hand(p, int(batch["user"][b]), int(batch["item"][b]), 1) - float(batch["target"][b])
        for b in range(5)
    ]
    assert float(count) == 5
    np.testing.assert_allclose(total, np.sum(np.square(errors)), rtol=1e-5)
