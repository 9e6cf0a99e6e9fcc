"""A candidate network's export, what serves from it, and the commands vectors, search and mine."""

import dataclasses
import json
import logging
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.candidates import __main__ as candidates
from experiments.candidates import mine as candidates_mining
from experiments.candidates import search as candidates_search
from experiments.candidates.batches import device_clicks, make_window_gather, window_data
from experiments.candidates.export import export_run
from experiments.candidates.network import build_model
from experiments.candidates.settings import PRESETS
from jrec.data.click_examples import count_items, held_out_examples, leave_one_out
from jrec.data.clicks import Bag, Categorical, Continuous, build_clicks
from jrec.data.origin import Source
from jrec.data.ragged import Ragged
from jrec.data.raw_ids import places_of
from jrec.data.vocabulary import UNKNOWN, Vocabulary
from jrec.errors import InputError, run_command
from jrec.retrieval.exact import list_size
from jrec.retrieval.grouped import exact_top_k
from jrec.retrieval.list_files import read_lists, write_lists
from jrec.retrieval.vector_files import load_vectors, read_text_vectors
from jrec.serving.candidate_lists import build_model_index, load_model_index, recommend
from jrec.serving.candidates import encode_histories, load_candidate_model
from tests.conftest import slow_but

LENGTH = 6
USERS, ITEMS = 9, 30


def make_toy():
    """Clicks with all kinds of features; user 7 has no id of their own, user 8 no click; nobody clicked item 29."""
    generator = np.random.default_rng(0)
    user = np.concatenate([np.repeat(np.arange(7), 9), np.full(4, 7)])
    item = generator.integers(0, ITEMS - 1, len(user)) + 2
    item[:2] = 2  # clicked twice
    genres = Ragged.from_lists([[], [1], *([2 + k % 3, 2 + k % 2] for k in range(ITEMS))])
    ones = np.ones(ITEMS + 2, bool)
    return build_clicks(
        name="toy",
        source=Source("made", "toy", "", ""),
        user=user,
        item=item,
        timestamp=np.arange(len(user)) * 3600,
        user_row=np.array([*range(2, 9), UNKNOWN, 9]),
        vocabularies={
            "user": Vocabulary.in_order(np.array([40, 10, 30, 20, 70, 60, 50, 80])),
            "item": Vocabulary.in_order(np.arange(ITEMS)[::-1] * 10),
            "genres": Vocabulary.of(np.array(["a", "b", "c", "never"])),
            "city": Vocabulary.of(np.array(["x", "y"])),
        },
        user_features={
            "city": Categorical(np.arange(9) % 3 + 1, "city"),
            "year": Continuous(np.linspace(0, 1, 9, dtype=np.float32), np.arange(9) % 2 > 0),
            "likes": Bag(Ragged.from_lists([[2], [], *[[3, 4]] * 7]), "genres"),
        },
        item_features={
            "category": Bag(genres, "genres"),
            "minutes": Continuous(np.linspace(0, 1, ITEMS + 2, dtype=np.float32), ones),
            "of": Categorical(np.arange(ITEMS + 2) % 3 + 1, "city"),
        },
    )


CLICKS = make_toy()
SPLIT = leave_one_out(CLICKS)


def network(**changed):
    widths = {
        "item_width": 8,
        "state_width": 8,
        "feature_width": 3,
        "tower": (7,),
        "length": LENGTH,
    }
    widths |= {"table_scale": 0.5, "example_age": True}
    settings = dataclasses.replace(PRESETS["source"](), **widths | changed)
    return build_model(settings, CLICKS)


def held_out(model):
    """A batch of test examples, and their histories and users."""
    columns = [[c.name for c in model.columns if c.of == of] for of in ("user", "item")]
    examples = held_out_examples(CLICKS, SPLIT, "test")
    data = window_data(device_clicks(CLICKS, *columns), examples)
    some = jnp.arange(len(examples))
    batch = jax.jit(make_window_gather(LENGTH))(data, some, jnp.ones(len(examples), bool))
    parts = [
        CLICKS.item[CLICKS.offsets[u] : end] - 2
        for u, end in zip(examples.user, examples.end, strict=True)
    ]
    return batch, Ragged.from_lists(parts), examples.user


def export_toy(folder, seed=0, **changed):
    model = network(**changed)
    batch, _, _ = held_out(model)
    params = jax.jit(model.init)(jax.random.key(seed), batch)
    params["params"]["bias_table"]["embedding"] += jnp.arange(ITEMS + 2.0)[:, None] / 9
    export_run(folder, model, params, CLICKS, count_items(CLICKS, SPLIT.train), LENGTH)
    return model, params


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A run directory with an export alone, and its model."""
    run_dir = tmp_path_factory.mktemp("toy")
    export_toy(run_dir / "export")
    return run_dir, load_candidate_model(run_dir / "export")


@pytest.mark.parametrize("encoder", slow_but("lstm-max", ["lstm-max", "lstm", "mean", "attention"]))
def test_the_export_gives_the_networks_vectors(tmp_path, encoder):
    tied = encoder == "attention"
    model, params = export_toy(tmp_path, encoder=encoder, tied=tied, tower=(8,) if tied else (7,))
    batch, histories, users = held_out(model)
    loaded = load_candidate_model(tmp_path)
    wanted = np.asarray(jax.jit(partial(model.apply, method="last_vectors"))(params, batch))
    for size in (4, 64):  # batches that do and do not fill up
        found = encode_histories(loaded, histories, users, batch=size)
        np.testing.assert_allclose(found, wanted, atol=1e-5)
    outputs = jax.jit(partial(model.apply, method="outputs"))
    weights, biases = outputs(params, jnp.arange(2, ITEMS + 2))
    assert np.array_equal(loaded.weights, weights) and np.array_equal(loaded.biases, biases)


def test_rows_of_raw_ids(toy):
    _, model = toy
    assert places_of(model.items, [290, "0", 5, "x", 2**70]).tolist() == [0, 29, -1, -1, -1]
    names = Vocabulary.in_order(np.array(["b", "a"]))
    assert places_of(names, ["a", "b", "c", 1]).tolist() == [1, 0, -1, -1]
    assert places_of(Vocabulary.of(np.zeros(0, np.int64)), [1]).tolist() == [-1]


def brute_force(model, row, history, left_out, count):
    one = Ragged.from_lists([history])
    scores = model.weights @ encode_histories(model, one, np.array([row]))[0] + model.biases
    scores[left_out] = -np.inf
    rows = np.argsort(-scores, kind="stable")[:count]
    return model.items.values[rows].tolist(), scores[rows]


def test_recommended_items_are_the_best_that_were_not_seen(toy):
    _, model = toy
    own = model.histories[1]
    wanted = brute_force(model, 1, own, own, 5)
    found = recommend(model, 5, user="10")
    assert (found.items, found.rule, found.notes) == (wanted[0], "personal", [])
    np.testing.assert_allclose(found.scores, wanted[1], atol=1e-5)
    wanted = brute_force(model, 1, own, [], 5)
    assert recommend(model, 5, user=10, include_seen=True).items == wanted[0]
    # An unknown item is read, and counts for nothing that was seen; an unknown user has no features.
    found = recommend(model, 5, user=11, history=["0", "999", "10"])
    assert found.items == brute_force(model, USERS, [29, -1, 28], [29, 28], 5)[0]
    assert "user 11 is not in the data" in found.notes[0]
    assert "1 of 3 items" in found.notes[1] and "(999)" in found.notes[1]
    assert len(recommend(model, 100, user=10).items) == ITEMS - len(set(own.tolist()))


def test_counts_and_histories_of_any_length_share_a_few_programs(toy, caplog):
    """Every program stays in memory, so that one for each request would fill it."""
    _, model = toy
    generator = np.random.default_rng(0)

    def ask(count, length):
        history = generator.choice(model.items.values, length).tolist()
        found = recommend(model, count, history=history)
        assert len(found.items) == min(count, ITEMS - len(set(history)))
        assert not set(found.items) & set(history)

    exact_top_k.clear_cache()
    for count, length in ((1, 1), (ITEMS, 2)):
        ask(count, length)
    with caplog.at_level(logging.WARNING), jax.log_compiles():
        for count in range(1, 201):
            ask(count, 1 + count % 40)
        recommend(model, 2**40, user=11)  # a popular list is no longer than the catalogue either
    assert not [line for line in caplog.messages if "ompil" in line]
    assert exact_top_k._cache_size() == 2  # lists of 16, and of the whole catalogue


def test_lists_are_searched_for_in_a_few_lengths():
    sizes = {list_size(count, 1000) for count in range(1, 3000)}
    assert sizes == {16, 32, 64, 128, 256, 512, 1000}
    assert all(count <= list_size(count, 10**6) < 2 * max(count, 16) for count in range(1, 5000))
    assert list_size(1, 5) == 5


@pytest.fixture
def full(toy, monkeypatch):
    """The toy run, for whose commands the user 10 has clicked everything."""
    run_dir, model = toy
    lists = [model.histories[k] for k in range(len(model.histories))]
    lists[1] = np.arange(ITEMS)
    changed = dataclasses.replace(model, histories=Ragged.from_lists(lists))
    for module in (candidates_mining, candidates_search):
        monkeypatch.setattr(module, "load_candidate_model", lambda *_: changed)
    return run_dir


def test_who_has_clicked_everything_gets_a_note(toy, full, capsys):
    found = recommend(toy[1], 5, history=toy[1].items.values.tolist())
    assert found.items == [] and f"{ITEMS} of {ITEMS} items have been clicked" in found.notes[-1]
    candidates.main(["search", "--run-dir", str(full), "--user", "10"])
    assert "note: nothing is left to recommend" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", ["tsv", "parquet"])
def test_a_list_that_is_not_there_is_not_counted(full, tmp_path, capsys, monkeypatch, suffix):
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    out = tmp_path / f"lists.{suffix}"
    command = ["mine", "--run-dir", str(full), "--out", str(out)]
    monkeypatch.setattr(candidates_mining, "write_lists", partial(write_lists, chunk=3))
    with monkeypatch.context() as patched:
        patched.setattr(
            candidates_mining, "watch_lists", lambda done, *_: next(done) and next(done)
        )
        candidates.main(command)  # stops after two parts
    for _ in range(2):  # out of parts that stand there, and from the beginning
        capsys.readouterr()
        candidates.main(command)
        written = read_lists(out)["user"].nunique()
        said = capsys.readouterr().out
        assert f"{written} lists of up to {ITEMS} in" in said
        assert f"1 of {written + 1} user ids have an empty list" in said


@pytest.mark.parametrize("asked", [{"user": 11}, {"user": 80}, {"history": [5]}, {"history": []}])
def test_without_a_known_click_the_list_is_popular(toy, asked):
    _, model = toy
    found = recommend(model, 4, **asked)
    counts = np.bincount(model.histories.values, minlength=ITEMS)
    assert found.rule == "popular" and "no known click" in found.notes[-1]
    assert found.scores == sorted(counts.tolist(), reverse=True)[:4]


@pytest.mark.slow
def test_the_export_serves_from_a_process_without_the_model_code(toy, tmp_path):
    run_dir, model = toy
    code = f"""
import json, sys
from pathlib import Path
from jrec.serving.candidates import load_candidate_model
from jrec.serving.candidate_lists import recommend
model = load_candidate_model(Path({str(run_dir / "export")!r}))
by_user, by_history = recommend(model, 5, user=30), recommend(model, 5, history=[10, 20])
assert "flax" not in sys.modules and "jrec.models" not in sys.modules and "experiments" not in sys.modules
print(json.dumps([by_user.items, by_history.items]))
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    wanted = [recommend(model, 5, user=30).items, recommend(model, 5, history=[10, 20]).items]
    assert json.loads(said.stdout) == wanted


@pytest.mark.slow
def test_the_users_id_alone(toy, tmp_path):
    run_dir, whole = toy
    alone = load_candidate_model(run_dir / "export", user_id_only=True)
    users = np.array([0, 1, 1, USERS])
    histories = Ragged.from_lists([[], [3], [4, 5], [6]])
    vectors = encode_histories(alone, histories, users)
    # Every other table is zero, and all that says a number is known.
    model, params = network(), jax.tree.map(jnp.asarray, export_toy(tmp_path / "again")[1])
    for name, table in params["params"].items():
        if name.endswith("_table") and name not in ("user_table", "output_table"):
            table["embedding"] = jnp.zeros_like(table["embedding"])
    nothing = jnp.zeros(4, bool)
    batch = {
        "item": jnp.zeros((4, LENGTH), jnp.int32),
        "mask": jnp.arange(LENGTH)[None] < jnp.array([1, 2, 3, 2])[:, None],
        "age": jnp.zeros(4),
        "user_features": {
            "user": jnp.array([2, 3, 3, 1]),
            "city": jnp.zeros(4, jnp.int32),
            "year": (jnp.ones(4), nothing),
            "likes": (jnp.zeros((4, 1), jnp.int32), nothing[:, None]),
        },
        "item_features": {
            "category": (jnp.zeros((4, LENGTH, 1), jnp.int32), jnp.zeros((4, LENGTH, 1), bool)),
            "minutes": (jnp.ones((4, LENGTH)), jnp.zeros((4, LENGTH), bool)),
            "of": jnp.zeros((4, LENGTH), jnp.int32),
        },
    }
    wanted = jax.jit(partial(model.apply, method="last_vectors"))(params, batch)
    np.testing.assert_allclose(vectors, wanted, atol=1e-6)
    assert not np.allclose(vectors, encode_histories(whole, histories, users), atol=1e-3)
    export_toy(tmp_path / "none", user_id=False)
    with pytest.raises(InputError, match="no vectors of users"):
        load_candidate_model(tmp_path / "none", user_id_only=True)


def test_vectors_rank_as_scores_do(toy, tmp_path, capsys):
    run_dir, model = toy
    candidates.main(["vectors", "--run-dir", str(run_dir), "--out", str(tmp_path), "--text"])
    said = capsys.readouterr().out
    assert "30 items of 9 numbers" in said and "1 users without clicks" in said
    item_ids, items = load_vectors(tmp_path, "items")
    user_ids, users = load_vectors(tmp_path, "users")
    assert item_ids.tolist() == model.items.values.tolist()
    assert user_ids.tolist() == [40, 10, 30, 20, 70, 60, 50]
    for name, vectors in (("items", items), ("users", users)):
        assert np.array_equal(read_text_vectors(tmp_path / f"{name}.txt"), vectors)
    cosines = users @ (items / np.linalg.norm(items, axis=1, keepdims=True)).T
    for row, identity in enumerate(user_ids):
        ranked = recommend(model, ITEMS, user=identity, include_seen=True).items
        assert item_ids[np.argsort(-cosines[row], kind="stable")].tolist() == ranked


def mine(run_dir, out, *flags):
    candidates.main(["mine", "--run-dir", str(run_dir), "--out", str(out), "--count", "5", *flags])
    return read_lists(out)


def of_key(lists, key):
    return lists[lists.iloc[:, 0] == key].sort_values("rank")


@pytest.mark.parametrize("suffix", [".tsv", ".parquet"])
def test_mined_lists_are_the_recommended_ones(toy, tmp_path, suffix):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    run_dir, model = toy
    lists = mine(run_dir, tmp_path / f"lists{suffix}", "--batch", "4")
    assert list(lists.columns) == ["user", "rank", "item", "score", "rule"]
    assert sorted(set(lists["user"])) == [10, 20, 30, 40, 50, 60, 70, 80]
    for identity in (40, 10, 70, 80):
        found = recommend(model, 5, user=identity)
        own = of_key(lists, identity)
        assert own["item"].tolist() == found.items and set(own["rule"]) == {found.rule}
        np.testing.assert_allclose(own["score"], found.scores, atol=1e-5)
    assert set(of_key(lists, 80)["rule"]) == {"popular"}
    seen = mine(run_dir, tmp_path / f"seen{suffix}", "--seen")
    wanted = recommend(model, 5, user=10, include_seen=True).items
    assert of_key(seen, 10)["item"].tolist() == wanted


def test_lists_by_user_id_alone(toy, tmp_path):
    run_dir, _ = toy
    lists = mine(run_dir, tmp_path / "lists.tsv", "--lists", "user-id", "--seen")
    alone = load_candidate_model(run_dir / "export", user_id_only=True)
    for place, identity in enumerate([40, 10, 30]):
        assert of_key(lists, identity)["item"].tolist() == brute_force(alone, place, [], [], 5)[0]
    assert set(lists["rule"]) == {"user-id", "popular"}


def test_hottest_overall_recently_and_by_category(toy, tmp_path):
    run_dir, model = toy
    counts = np.bincount(model.histories.values, minlength=ITEMS)
    lists = mine(run_dir, tmp_path / "all.tsv", "--lists", "hottest")
    assert lists["score"].tolist() == sorted(counts.tolist(), reverse=True)[:5]
    assert counts[places_of(model.items, lists["item"].tolist())].tolist() == list(lists["score"])
    lists = mine(run_dir, tmp_path / "day.tsv", "--lists", "hottest", "--days", "0.5")
    late = model.histories.values[model.timestamps >= model.timestamps.max() - 43_200]
    assert len(late) == 13 and set(lists["rule"]) == {"popular-in-0.5-days"}
    assert lists["score"].tolist() == sorted(np.bincount(late).tolist(), reverse=True)[:5]
    lists = mine(run_dir, tmp_path / "category.tsv", "--lists", "hottest-by-category")
    assert sorted(set(lists["category"])) == ["a", "b", "c"]  # nothing is in the fourth
    for category, group in lists.groupby("category"):
        rows = places_of(model.items, group["item"].tolist())
        assert set((rows % 3).tolist()) | set((rows % 2).tolist()) >= {"abc".index(category)}
        assert all("abc".index(category) in (row % 3, row % 2) for row in rows)
        assert set(group["rule"]) == {"popular-in-category"}


@pytest.mark.parametrize("which", ["similar", "clicked-together"])
def test_item_to_item(toy, tmp_path, which):
    run_dir, model = toy
    lists = mine(run_dir, tmp_path / "lists.tsv", "--lists", which)
    assert sorted(set(lists["source"])) == sorted(model.items.values.tolist())
    assert (lists["source"] != lists["item"]).all()
    new = int(model.items.values[ITEMS - 1])
    assert set(of_key(lists, new)["rule"]) == {"popular-in-category"}
    assert new not in lists["item"].tolist()
    if which == "similar":
        units = model.weights / np.linalg.norm(model.weights, axis=1, keepdims=True)
        one = int(np.argmax(model.trained))
        cosines = units @ units[one]
        cosines[[one, *np.flatnonzero(~model.trained)]] = -np.inf
        best = model.items.values[np.argsort(-cosines)[:5]].tolist()
        assert of_key(lists, model.items.values[one])["item"].tolist() == best
    lists = mine(run_dir, tmp_path / "other.tsv", "--lists", which, "--category", "nothing")
    assert set(of_key(lists, new)["rule"]) == {"popular"}


@pytest.mark.bits
def test_a_stopped_run_goes_on_and_ends_with_the_same_bytes(toy, tmp_path, monkeypatch):
    run_dir, _ = toy
    mine(run_dir, tmp_path / "whole.tsv")
    with monkeypatch.context() as patched:
        patched.setattr(candidates_mining, "watch_lists", lambda done, *_: next(iter(done)))
        with pytest.raises(InputError, match="mine the lists first"):
            mine(run_dir, tmp_path / "cut.tsv")
    with pytest.raises(InputError, match="seen = False, but now it is True"):
        mine(run_dir, tmp_path / "cut.tsv", "--seen")
    mine(run_dir, tmp_path / "cut.tsv", "--batch", "3")
    assert (tmp_path / "cut.tsv").read_bytes() == (tmp_path / "whole.tsv").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.tsv", "whole.tsv"]


def test_search_prints_the_list(toy, capsys):
    run_dir, model = toy
    candidates.main(["search", "--run-dir", str(run_dir), "--user", "10", "--count", "3"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    found = recommend(model, 3, user=10)
    assert [int(line[1]) for line in lines] == found.items
    assert [line[2] for line in lines] == [f"{score:.4f}" for score in found.scores]
    candidates.main(["search", "--run-dir", str(run_dir), "--history", "0", "7", "--count", "3"])
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("note: 1 of 2 items") and len(said) == 4


@pytest.mark.parametrize("kind", ["hnsw", "ivf_flat"])
def test_an_index_gives_the_same_lists(toy, tmp_path, capsys, kind):
    pytest.importorskip("faiss", reason="the extra ann is not installed")
    run_dir, model = toy
    built = build_model_index(model, tmp_path / "index", kind)
    loaded = load_model_index(model, tmp_path / "index")
    for asked in ({"user": 10}, {"history": [0, 10]}, {"user": 10, "include_seen": True}):
        wanted = recommend(model, 6, **asked)
        for index in (built, loaded):
            found = recommend(model, 6, index=index, **asked)
            assert found.items == wanted.items and found.rule == "personal"
            np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-5)
    flags = ["search", "--run-dir", str(run_dir), "--user", "10", "--index", str(tmp_path / "two")]
    candidates.main([*flags, "--build", kind])
    candidates.main(flags)
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"built an {kind} index of 30 items") and said[1:11] == said[11:]


def test_an_index_of_another_model_is_refused(toy, tmp_path):
    pytest.importorskip("faiss", reason="the extra ann is not installed")
    run_dir, model = toy
    export_toy(tmp_path / "other", seed=1)
    other = load_candidate_model(tmp_path / "other")
    assert other.fingerprint != model.fingerprint
    build_model_index(other, tmp_path / "index")
    flags = ["search", "--run-dir", str(run_dir), "--user", "10"]
    with pytest.raises(InputError, match="another model or catalogue"):
        candidates.main([*flags, "--index", str(tmp_path / "index")])


def test_without_faiss_one_sentence_names_the_extra(toy, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)  # an import of it fails
    flags = ["search", "--run-dir", str(toy[0]), "--user", "10", "--index", str(tmp_path / "no")]
    for more in ([], ["--build", "hnsw"]):
        with pytest.raises(InputError, match=r"pip install 'jrec\[ann\]'"):
            candidates.main([*flags, *more])


BAD = [
    (["search", "--count", "0", "--user", "10"], "--count must be 1 or more"),
    (["search", "--effort", "0", "--user", "10"], "--effort must be 1 or more"),
    (["search"], "give --user, or --history"),
    (["search", "--user", "10", "--build", "hnsw"], "--build needs --index"),
    (["mine", "--count", "0"], "--count must be 1 or more"),
    (["mine", "--batch", "0"], "--batch must be 1 or more"),
    (["mine", "--days", "0"], "--days must be above 0"),
    (["mine", "--lists", "hottest", "--seen"], "--seen has a meaning for lists of users"),
    (["mine", "--lists", "hottest-by-category", "--category", "x"], "they have: category, of."),
    (["mine", "--out", "lists.csv"], "must end in .parquet or .tsv"),
    (["mine", "--lists", "all"], "personal"),
]


@pytest.mark.parametrize("flags,sentence", BAD, ids=[" ".join(flags) for flags, _ in BAD])
def test_bad_settings_give_one_sentence(toy, flags, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        run_command(lambda: candidates.main([flags[0], "--run-dir", str(toy[0]), *flags[1:]]))
    said = capsys.readouterr().err
    assert stopped.value.code == 1 and list(tmp_path.iterdir()) == []
    assert sentence in said and "Traceback" not in said and said.count("\n") == 1


@pytest.mark.parametrize("command", ["vectors", "search", "mine"])
def test_a_folder_that_is_no_finished_run(command, tmp_path):
    flags = ["--out", str(tmp_path / "out.tsv")] if command != "search" else ["--user", "1"]
    with pytest.raises(InputError, match="is the run finished"):
        candidates.main([command, "--run-dir", str(tmp_path / "none"), *flags])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["catalogue.npz", "arrays.npz", "predict.jaxexport"])
def test_a_damaged_export_is_named(toy, tmp_path, name):
    for path in (toy[0] / "export").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=f"{name} is damaged"):
        load_candidate_model(tmp_path)
    if name == "catalogue.npz":
        np.savez(tmp_path / name, weights=np.zeros((2, 2)))
        with pytest.raises(InputError, match=f"{name} is damaged"):
            load_candidate_model(tmp_path)


def test_clicks_without_times_or_ids(toy, tmp_path):
    """Of a log whose users are all too rare, which has no times."""
    (tmp_path / "export").mkdir()
    for path in (toy[0] / "export").iterdir():
        (tmp_path / "export" / path.name).write_bytes(path.read_bytes())
    catalogue = tmp_path / "export" / "catalogue.npz"
    arrays = dict(np.load(catalogue))
    arrays["timestamps"], arrays["user_rows"] = np.zeros(0, np.int64), np.full(USERS, UNKNOWN)
    np.savez(catalogue, **arrays)
    for flags, sentence in (
        (["--lists", "hottest", "--days", "3"], "have no times"),
        (["--lists", "personal"], "--user-appear-limit 0"),
    ):
        with pytest.raises(InputError, match=sentence):
            mine(tmp_path, tmp_path / "lists.tsv", *flags)
