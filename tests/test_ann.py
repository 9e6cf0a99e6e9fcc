import builtins
import json
import subprocess
import sys

import numpy as np
import pytest

from jrec.data.ragged import Ragged
from jrec.errors import InputError
from jrec.retrieval.ann import (
    KINDS,
    build_index,
    search_index,
)
from jrec.retrieval.ann_files import fingerprint, index_fingerprint, load_index, save_index
from jrec.retrieval.exact import item_table
from jrec.retrieval.grouped import exact_top_k
from jrec.retrieval.recall import (
    SearchPoint,
    draw_recall,
    mean_recall,
    measure_alone,
    measure_search,
)
from jrec.retrieval.simple_lsh import item_vectors, largest_norm, user_vectors

D, M, N, K = 9, 1200, 20, 10


@pytest.fixture(scope="module")
def faiss():
    return pytest.importorskip("faiss", reason="the extra ann is not installed")


@pytest.fixture(scope="module")
def model():
    """u, w, b with inner products whose order is not that of the cosines of u and w."""
    generator = np.random.default_rng(0)
    weights = generator.standard_normal((M, D)) * generator.uniform(0.2, 2, (M, 1))
    return generator.standard_normal((N, D)), weights, generator.standard_normal(M)


def ids_of(items=M):
    return np.arange(items) * 10 + 5


def exact_lists(model, count=K, allowed_M=None, seen=None):
    users, weights, biases = model
    table = item_table(weights, biases, allowed_M)
    mask = None if seen is None else np.ones(seen.shape, bool)
    return np.asarray(exact_top_k(table, users.astype(np.float32), count, seen, mask).rows)


@pytest.mark.parametrize("sample", [None, 20])
@pytest.mark.parametrize("kind", KINDS)
def test_search_finds_the_exact_lists(faiss, model, kind, sample):
    users, weights, biases = model
    queries = None if sample is None else user_vectors(users[:sample])
    index = build_index(item_vectors(weights, biases), ids_of(), "m", kind, query_ND=queries)
    assert (index.metric is None) == (sample is None)
    rows, cosines, mask = search_index(index, user_vectors(users), K, effort=200)
    assert rows.shape == (N, K) and mask.all() and cosines.dtype == np.float32
    assert mean_recall(rows, exact_lists(model)) > (0.99 if kind == "ivf_flat" else 0.95)
    scores = np.take_along_axis(users @ weights.T + biases, rows, 1)
    lengths = np.sqrt(1 + (users**2).sum(1, keepdims=True)) * largest_norm(weights, biases)
    assert np.allclose(cosines, scores / lengths, atol=1e-5)
    assert (np.diff(cosines, axis=1) <= 0).all()
    assert all(len(set(row)) == K for row in rows.tolist())


@pytest.mark.parametrize("kind", KINDS)
def test_seen_items_are_left_out(faiss, model, kind):
    users, weights, biases = model
    index = build_index(item_vectors(weights, biases), ids_of(), "m", kind)
    seen = exact_lists(model, 6)
    ragged = Ragged.from_lists([row[: number % 7].tolist() for number, row in enumerate(seen)])
    rows, _, mask = search_index(index, user_vectors(users), K, 200, ragged)
    assert mask.all()
    assert not any(np.isin(row, ragged[number]).any() for number, row in enumerate(rows))
    wanted = exact_lists(model, K + 6)
    wanted = np.array([row[~np.isin(row, ragged[n])][:K] for n, row in enumerate(wanted)])
    assert mean_recall(rows, wanted) > 0.9


def test_fewer_items_than_asked_for(faiss, model):
    users, weights, biases = model
    index = build_index(item_vectors(weights[:4], biases[:4]), ids_of(4), "m")
    rows, cosines, mask = search_index(index, user_vectors(users), 8)
    assert rows.shape == (N, 8) and (mask.sum(1) == 4).all()
    assert (rows[~mask] == -1).all() and (cosines[~mask] == -np.inf).all()
    assert [sorted(row[:4].tolist()) for row in rows] == [[0, 1, 2, 3]] * N


def test_a_saved_index_serves_from_a_process_without_the_models(faiss, model, tmp_path):
    users, weights, biases = model
    index = build_index(item_vectors(weights, biases), ids_of(), "m")
    save_index(index, tmp_path / "index")
    np.save(tmp_path / "queries.npy", user_vectors(users))
    code = f"""
import sys, numpy as np
from pathlib import Path
from jrec.retrieval.ann import search_index
from jrec.retrieval.ann_files import load_index
index = load_index(Path({str(tmp_path / "index")!r}), {index_fingerprint(index)!r})
rows = search_index(index, np.load({str(tmp_path / "queries.npy")!r}), {K})[0]
np.save({str(tmp_path / "found.npy")!r}, index.ids[rows])
assert not [name for name in sys.modules if name.startswith(("jrec.models", "jax", "flax"))]
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    wanted = index.ids[search_index(index, user_vectors(users), K)[0]]
    assert np.array_equal(np.load(tmp_path / "found.npy"), wanted)
    save_index(index, tmp_path / "index")  # replaces
    assert len(list((tmp_path / "index").iterdir())) == 5


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_index_keeps_its_metric(faiss, model, tmp_path, kind):
    users, weights, biases = model
    queries = user_vectors(users)
    index = build_index(item_vectors(weights, biases), ids_of(), "m", kind, query_ND=queries)
    save_index(index, tmp_path)
    loaded = load_index(tmp_path, index_fingerprint(index))
    for found, wanted in zip(
        search_index(loaded, queries, K), search_index(index, queries, K), strict=True
    ):
        assert np.array_equal(found, wanted)


def refusal(function, *arguments):
    with pytest.raises(InputError) as fault:
        function(*arguments)
    assert "\n" not in str(fault.value) and str(fault.value).endswith(".")
    return str(fault.value)


def test_an_index_of_another_model_or_catalogue_is_refused(faiss, model, tmp_path):
    vectors = item_vectors(*model[1:])[:300]
    ids = ids_of(300)
    index = build_index(vectors, ids, "candidates")
    save_index(index, tmp_path)
    own = fingerprint("candidates", ids, vectors)
    assert np.array_equal(load_index(tmp_path, own).ids, ids)
    order = np.random.default_rng(0).permutation(300)
    assert fingerprint("candidates", ids[order], vectors[order]) == own
    touched = vectors.copy()
    touched[7, 3] = np.nextafter(touched[7, 3], np.float32(9))
    for other in (
        fingerprint("fusion", ids, vectors),
        fingerprint("candidates", ids[::-1], vectors),
        fingerprint("candidates", ids, touched),
        fingerprint("candidates", ids[:-1], vectors[:-1]),
    ):
        text = refusal(load_index, tmp_path, other)
        assert "of model candidates with 300 items" in text and "build it again" in text


@pytest.mark.parametrize("name", ["index.faiss", "vectors.npy", "ids.npy", "metric.npy"])
def test_damaged_and_missing_files_are_refused(faiss, model, tmp_path, name):
    index = build_index(item_vectors(*model[1:])[:100], ids_of(100), "m")
    save_index(index, tmp_path)
    own = index_fingerprint(index)
    whole = (tmp_path / name).read_bytes()
    for content in (b"", whole[: len(whole) // 2], whole[:-1] + bytes([whole[-1] ^ 1])):
        (tmp_path / name).write_bytes(content)
        assert f"{name} is damaged" in refusal(load_index, tmp_path, own)
    (tmp_path / name).unlink()
    assert f"{name} does not exist" in refusal(load_index, tmp_path, own)


def test_a_damaged_description_is_refused(faiss, model, tmp_path):
    index = build_index(item_vectors(*model[1:])[:100], ids_of(100), "m")
    assert "holds no index" in refusal(load_index, tmp_path / "none", "")
    save_index(index, tmp_path)
    path = tmp_path / "index.json"
    record = json.loads(path.read_text())
    for content in (
        "[]",
        "{}",
        json.dumps(record | {"sha256": 3}),
        json.dumps(record | {"kind": 1}),
    ):
        path.write_text(content)
        assert "build it again" in refusal(load_index, tmp_path, index_fingerprint(index))
    path.write_text("{")
    assert "is not JSON" in refusal(load_index, tmp_path, "")
    path.unlink()
    assert "holds no index" in refusal(load_index, tmp_path, "")


def test_bad_catalogues_are_refused(faiss, model):
    vectors = item_vectors(*model[1:])[:100]
    assert "too few" in refusal(build_index, vectors, ids_of(100), "m", "ivf_pq")
    assert "too few" in refusal(build_index, vectors[:0], ids_of(0), "m")
    assert "Item 5 is there twice" in refusal(build_index, vectors, np.r_[5, ids_of(99)], "m")


def test_a_full_disk_leaves_nothing_behind(faiss, model, tmp_path, monkeypatch):
    index = build_index(item_vectors(*model[1:])[:100], ids_of(100), "m")

    def full(*_):
        raise RuntimeError("Error: 'ret == (size)' failed: write error (No space left on device)")

    monkeypatch.setattr(faiss, "write_index", full)
    assert "free some space" in refusal(save_index, index, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_faiss_one_sentence_names_the_extra(monkeypatch, tmp_path):
    true_import = builtins.__import__

    def without(name, *arguments, **named):
        if name == "faiss":
            raise ImportError(name)
        return true_import(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    vectors, ids = np.ones((3, 2), np.float32), np.arange(3)
    for call in (lambda: build_index(vectors, ids, "m"), lambda: load_index(tmp_path, "")):
        assert "pip install 'jrec[ann]'" in refusal(call)


def test_recall_by_hand():
    exact = np.array([[1, 2, 3], [4, 5, -1], [-1, -1, -1]])
    found = np.array([[3, 9, 1], [1, 2, 4], [7, 8, 9]])
    assert mean_recall(found, exact) == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert mean_recall(exact, exact) == 1
    assert mean_recall(np.full((3, 3), -1), exact) == 0
    assert np.isnan(mean_recall(found, np.full((3, 3), -1)))


def test_speed_and_picture(tmp_path):
    exact = np.arange(12).reshape(4, 3)
    points = measure_search("half", lambda effort: exact[:, :effort], [1, 3], exact)
    assert [point.effort for point in points] == [1, 3]
    assert [point.recall for point in points] == [pytest.approx(1 / 3), 1]
    assert all(point.queries_per_s > 0 for point in points)
    draw_recall(tmp_path / "recall.png", [*points, SearchPoint("exact", 0, 1, 10)], 3)
    assert (tmp_path / "recall.png").read_bytes()[1:4] == b"PNG"


def test_queries_alone_take_turns():
    asked = []
    searches = [lambda k, name=name: asked.append((name, k)) for name in "ab"]
    times = measure_alone(searches, turns=2, queries=2)
    assert len(times) == 2 and all(0 <= ms < 1000 for ms in times)
    assert asked == [(n, k) for turn in ((0, 1, 2), (3, 4, 5)) for n in "ab" for k in turn]
