import io
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from jrec.data.ragged import Ragged
from jrec.errors import InputError
from jrec.retrieval import list_files
from jrec.retrieval.exact import item_table
from jrec.retrieval.grouped import exact_top_k
from jrec.retrieval.list_files import (
    Lists,
    default_suffix,
    read_lists,
    watch_lists,
    write_lists,
)
from jrec.retrieval.mining import (
    Fallback,
    cooccurrence_lists,
    fall_back,
    hottest,
    hottest_by_category,
    item_counts,
    personal_lists,
    similar_lists,
)

pytestmark = pytest.mark.bits
N, M, D, K = 53, 40, 4, 6
SUFFIXES = [
    ".tsv",
    pytest.param(
        ".parquet",
        marks=pytest.mark.skipif(
            default_suffix() != ".parquet", reason="the extra parquet is not installed"
        ),
    ),
]


def toy():
    """u [N, D], w [M, D], b [M], seen by user (0 to 9 of them), whether the user has a history."""
    generator = np.random.default_rng(0)
    shapes = ((N, D), (M, D), M)
    users, weights, biases = (generator.integers(-3, 4, shape) for shape in shapes)
    lengths = np.arange(N) * 7 % 10
    seen = [generator.choice(M, length, replace=False) for length in lengths]
    return users, weights, biases, Ragged.from_lists(seen), lengths > 0


def popular(keys=N):
    lists = hottest(np.arange(M)[::-1], K)
    return Fallback(lists, np.zeros(keys, np.int64))


def personal(batch=8, rule="personal"):
    users, weights, biases, seen, known = toy()
    table = item_table(weights, biases)
    return personal_lists(
        lambda start, stop: users[start:stop], table, K, popular(), known, seen, rule, batch
    )


def drain(path, lists, key_ids=None, chunk=10, **settings):
    key_ids = np.arange(N) + 1000 if key_ids is None else key_ids
    item_ids = np.array([f"VIDEO_{row}" for row in range(M)])
    return list(write_lists(path, "user", key_ids, item_ids, lists, settings, chunk))


def test_counts_and_hottest_by_hand():
    items = np.array([3, 1, 1, 4, 4, 3, 0])
    times = np.array([10, 20, 30, 40, 50, 60, 5])
    counts = item_counts(items, 6)
    assert counts.tolist() == [1, 2, 0, 2, 2, 0]
    assert item_counts(items, 6, times, since=30).tolist() == [0, 1, 0, 1, 2, 0]
    lists = hottest(counts, 3)
    assert lists.rows.tolist() == [[1, 3, 4]] and lists.scores.tolist() == [[2, 2, 2]]
    lists = hottest(counts, 5, allowed_M=np.arange(6) != 3, rule="hot")
    assert lists.rows.tolist() == [[1, 4, 0, -1, -1]] and lists.rules.tolist() == ["hot"]
    assert lists.mask.tolist() == [[True, True, True, False, False]]
    # Item 4 has two categories, item 0 none, and nobody clicked category 2.
    categories = Ragged.from_lists([[], [1], [2], [1], [0, 1], [0]])
    lists = hottest_by_category(counts, categories, 3, 2)
    assert lists.rows.tolist() == [[4, -1], [1, 3], [-1, -1]]
    assert lists.rules.tolist() == ["popular-in-category"] * 3
    choice = fall_back(np.array([0, 2, -1]), lists, hottest(counts, 2), 3)
    assert choice.choice.tolist() == [0, 3, 3]
    assert choice.lists.rules[choice.choice].tolist() == [
        "popular-in-category",
        "popular",
        "popular",
    ]
    assert fall_back(None, lists, hottest(counts, 2), 2).choice.tolist() == [3, 3]


@pytest.mark.parametrize("cuts", [[0, N], [0, 1, 20, N], [0, 50, N]])
def test_personal_lists_equal_brute_force_however_they_are_cut(cuts):
    users, weights, biases, seen, known = toy()
    source = personal()
    parts = [source(a, b) for a, b in pairwise(cuts)]
    rows, scores, mask, rules = (np.concatenate(column) for column in zip(*parts, strict=True))
    true_NM = (users @ weights.T + biases).astype(float)
    for user in range(N):
        if known[user]:
            true_NM[user, seen[user]] = -np.inf
            wanted = np.argsort(-true_NM[user], kind="stable")[:K]
            assert rules[user] == "personal"
        else:
            wanted, true_NM[user] = np.arange(K), np.arange(M)[::-1]
            assert rules[user] == "popular"
        assert rows[user].tolist() == wanted.tolist() and mask[user].all()
        assert scores[user].tolist() == true_NM[user, wanted].tolist()


def test_few_shapes_are_compiled():
    exact_top_k.clear_cache()
    source = personal()
    for start in range(0, N, 9):
        source(start, min(start + 9, N))
    assert exact_top_k._cache_size() <= 2  # without seen items, and with up to 8 or 32 of them


def test_no_user_has_a_history():
    users, weights, biases, _, _ = toy()
    source = personal_lists(
        lambda a, b: users[a:b], item_table(weights, biases), K, popular(), np.zeros(N, bool)
    )
    lists = source(0, N)
    assert (lists.rules == "popular").all() and (lists.rows == np.arange(K)).all()


def test_a_vector_that_is_not_finite_is_named():
    users, weights, biases, seen, known = toy()
    users = users.astype(float)
    users[[0, 21]] = np.nan  # user 0 has no history, so no vector is asked of it
    assert not known[0] and known[21]
    source = personal_lists(
        lambda a, b: users[a:b], item_table(weights, biases), K, popular(), known, seen
    )
    source(0, 10)
    with pytest.raises(InputError, match=r"user row 21 is not finite"):
        source(20, 30)


def test_similar_items_by_cosine():
    _, weights, _, _, _ = toy()
    weights = weights + 0.01 * np.random.default_rng(1).standard_normal((M, D))
    has_vector = np.arange(M) % 5 != 2
    lists = similar_lists(weights * np.arange(1, M + 1)[:, None], K, popular(M), has_vector)(0, M)
    unit = weights / np.linalg.norm(weights, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    cosines[:, ~has_vector] = -np.inf
    for item in range(M):
        if has_vector[item]:
            assert lists.rows[item].tolist() == np.argsort(-cosines[item])[:K].tolist()
            assert np.allclose(lists.scores[item], np.sort(cosines[item])[::-1][:K], atol=1e-6)
        else:
            assert lists.rows[item][lists.mask[item]].tolist() == [j for j in range(K) if j != item]
    assert lists.rules.tolist() == ["similar" if has else "popular" for has in has_vector]


def test_items_clicked_together():
    generator = np.random.default_rng(2)
    histories = [generator.integers(0, M - 2, 8).tolist() for _ in range(30)] + [[M - 2], []]
    fallback = Fallback(hottest(np.arange(M), K), np.zeros(M, np.int64))  # M - 1 first
    source = cooccurrence_lists(Ragged.from_lists(histories), M, K, fallback, block=7)
    clicked = np.zeros((len(histories), M))
    for user, items in enumerate(histories):
        clicked[user, items] = 1
    both = clicked.T @ clicked
    number = np.diag(both).copy()
    np.fill_diagonal(both, 0)
    scores = both / np.sqrt(np.maximum(np.outer(number, number), 1))
    lists = Lists(*(np.concatenate(x) for x in zip(source(0, 11), source(11, M), strict=True)))
    for item in range(M - 2):
        wanted = [j for j in np.lexsort((np.arange(M), -scores[item])) if both[item, j]][:K]
        assert lists.rows[item][lists.mask[item]].tolist() == wanted
        assert np.allclose(lists.scores[item][: len(wanted)], scores[item][wanted])
        assert lists.rules[item] == "clicked-together"
    assert lists.rules[M - 2 :].tolist() == ["popular", "popular"]  # alone, and never clicked
    lists = [
        row[mask].tolist()
        for row, mask in zip(lists.rows[M - 2 :], lists.mask[M - 2 :], strict=True)
    ]
    assert lists == [[M - 1, M - 3, M - 4, M - 5, M - 6], [M - 2, M - 3, M - 4, M - 5, M - 6]]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_file_holds_raw_ids_ranks_and_rules(tmp_path, suffix):
    path = tmp_path / f"lists{suffix}"
    assert drain(path, personal(rule="user-id-only")) == [10, 20, 30, 40, 50, 53]
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    table = read_lists(path)
    assert table.columns.tolist() == ["user", "rank", "item", "score", "rule"]
    lists = personal(rule="user-id-only")(0, N)
    assert table["user"].tolist() == np.repeat(np.arange(N) + 1000, K).tolist()
    assert table["rank"].tolist() == list(range(1, K + 1)) * N
    assert table["item"].tolist() == [f"VIDEO_{row}" for row in lists.rows.ravel()]
    assert table["score"].to_numpy().tolist() == lists.scores.ravel().tolist()
    assert table["rule"].tolist() == np.repeat(lists.rules, K).tolist()
    assert set(table["rule"]) == {"user-id-only", "popular"}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_lists_that_end_early_and_awkward_ids(tmp_path, suffix):
    mask = np.array([[True, True], [True, False], [False, False]])
    lists = Lists(np.array([[1, 0], [1, -1], [-1, -1]]), np.ones((3, 2)), mask, np.array(["r"] * 3))
    ids, items = np.array(["NA", "tab\there", "gone"]), np.array(["", 'quo"te'])
    path = tmp_path / f"x{suffix}"
    source = lambda a, b: Lists(*(part[a:b] for part in lists))  # noqa: E731
    list(write_lists(path, "source", ids, items, source, {}, 2))
    table = read_lists(path)
    assert table["source"].tolist() == ["NA", "NA", "tab\there"]
    assert table["item"].tolist() == ['quo"te', "", 'quo"te']
    assert table["rank"].tolist() == [1, 2, 1]
    list(write_lists(path, "source", ids[:0], items, source, {}))
    assert len(read_lists(path)) == 0


SLOW = """
import sys, time, numpy as np
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.test_mining import drain, personal
source = personal()
def slow(start, stop):
    time.sleep(0.3 if start else 0)
    return source(start, stop)
drain(Path({path!r}), slow)
"""


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(tmp_path, suffix):
    whole, path = tmp_path / f"whole{suffix}", tmp_path / f"killed{suffix}"
    drain(whole, personal())
    code = SLOW.format(root=str(Path.cwd()), path=str(path))
    process = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"XLA_FLAGS": ""})
    parts = tmp_path / f".{path.name}.parts"
    while not (parts / f"000001{suffix}").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not path.exists()
    made = sorted(file.name for file in parts.glob(f"0*{suffix}"))
    times = {name: (parts / name).stat().st_mtime_ns for name in made}
    assert 2 <= len(made) < 6

    seen = []
    source = personal()

    def watched(start, stop):
        seen.append(start)
        if start == 50:
            assert times == {name: (parts / name).stat().st_mtime_ns for name in made}
        return source(start, stop)

    (parts / f".000003{suffix}.1{suffix}").write_bytes(b"half a part")
    drain(path, watched)
    assert seen == [10 * number for number in range(len(made), 6)]
    assert path.read_bytes() == whole.read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([path.name, whole.name])


def test_parts_of_another_run_are_refused(tmp_path):
    path = tmp_path / "lists.tsv"
    begun = write_lists(path, "user", np.arange(N), np.arange(M), personal(), {"model": "a"}, 10)
    next(begun)
    begun.close()

    def again(key_ids=None, **settings):
        with pytest.raises(InputError) as fault:
            drain(path, personal(), key_ids, **settings)
        assert "\n" not in str(fault.value) and str(fault.value).endswith("or delete the folder.")
        return str(fault.value)

    assert "model = 'a', but now it is 'b'" in again(np.arange(N), model="b")
    assert "item_ids = " in again(np.arange(N), model="a")
    assert "lists = 53, but now it is 3" in again(np.arange(3), model="a")
    assert "chunk = 10, but now it is 11" in again(np.arange(N), model="a", chunk=11)
    record = tmp_path / ".lists.tsv.parts" / "settings.json"
    record.write_text("[]")
    with pytest.raises(InputError, match="holds no settings; delete"):
        drain(path, personal())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_source_that_fails_leaves_whole_parts_and_no_file(tmp_path, suffix):
    def failing(start, stop):
        if start == 20:
            raise InputError("no vector")
        return personal()(start, stop)

    path = tmp_path / f"lists{suffix}"
    args = (np.arange(N), np.arange(M), failing, {}, 10)
    with pytest.raises(InputError, match="no vector"):
        list(write_lists(path, "user", *args))
    parts = sorted(file.name for file in tmp_path.rglob(f"*{suffix}") if file.name[0].isdigit())
    assert parts == [f"000000{suffix}", f"000001{suffix}"] and not path.exists()


def test_bad_files_are_refused(tmp_path, monkeypatch):
    def refusal(function, *arguments):
        with pytest.raises(InputError) as fault:
            function(*arguments)
        assert "\n" not in str(fault.value) and str(fault.value).endswith(".")
        return str(fault.value)

    assert "must end in .parquet or .tsv" in refusal(drain, tmp_path / "x.csv", personal())
    assert "does not exist" in refusal(read_lists, tmp_path / "x.tsv")
    (tmp_path / "x.tsv").write_text("a\tb\n1\t2\n")
    assert "holds no lists" in refusal(read_lists, tmp_path / "x.tsv")
    (tmp_path / "x.tsv").write_bytes(b"\xff\xfe\x00a\n\x00")
    assert "damaged" in refusal(read_lists, tmp_path / "x.tsv")
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    assert "damaged" in refusal(read_lists, tmp_path / "x.parquet")
    monkeypatch.setattr(list_files, "default_suffix", lambda: ".tsv")
    assert "pip install 'jrec[parquet]'" in refusal(drain, tmp_path / "y.parquet", personal())


def test_the_bar_is_drained(tmp_path):
    console = Console(file=io.StringIO())
    ids = np.arange(N)
    done = write_lists(tmp_path / "x.tsv", "user", ids, np.arange(M), personal(), {}, 10)
    watch_lists(done, N, "users", console)
    assert len(read_lists(tmp_path / "x.tsv")) == N * K
    assert console.file.getvalue() == ""  # no terminal
