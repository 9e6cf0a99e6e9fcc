"""Every baseline from the command line on small made-up data, and the evaluation of the next item."""

import gzip
import json

import numpy as np
import pytest

from experiments import baselines
from experiments.next_item_baselines import (
    Events,
    NextItemMethod,
    SyntheticSize,
    evaluate,
    load_events,
)
from experiments.rating_baselines import RatingMethod
from jrec.data.ratings import Source
from jrec.data.sources import load_ratings
from jrec.data.splits import Split, split_ratings
from jrec.errors import InputError
from jrec.evaluate.per_user import read_per_user

SIZES = ["--synthetic.users", "50", "--synthetic.films", "30", "--synthetic.ratings", "1200"]
DATA = ["--dataset", "synthetic", *SIZES]
SMALL = {
    "matrix-factorisation": ["--matrix-factorisation.width", "4"],
    "implicit-als": ["--implicit-als.width", "4", "--implicit-als.sweeps", "2"],
}
SETTINGS_READ = {"biases", "user_neighbours", "item_neighbours", "content", "ease", "implicit_als"}


def run(task, method, folder, *more):
    command = [task, "--method", method, *DATA, *SMALL.get(method, []), "--run-dir", str(folder)]
    baselines.main([*command, *more])
    return json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize("method", RatingMethod.__args__)
def test_rate(method, tmp_path):
    results = run("rate", method, tmp_path / "run")
    assert results["method"] == method and results["split"] == "random"
    assert 0.4 < results["test_rmse"] < 1.2 and 0.4 < results["valid_rmse"] < 1.3
    if method not in ("global-mean", "user-mean", "item-mean"):
        assert results["test_rmse"] < 0.92  # the means have 0.95 to 1.1
    assert results["seconds"] > 0 and results["parameters"] >= 1
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    named = method.replace("-", "_")
    read = {named} | ({"biases"} if method.endswith("neighbours") or method == "content" else set())
    assert SETTINGS_READ & settings.keys() == read & SETTINGS_READ
    report = (tmp_path / "run" / "report.md").read_text()
    assert "experiments.baselines" in report and "test_rmse" in report
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "settings.json", "results.json", "report.md", "environment.json", "per_user.npz"
    }  # fmt: skip
    _, by_user = read_per_user(tmp_path / "run")
    ratings = load_ratings("synthetic", None, SyntheticSize(50, 30, 1200), 0)
    test = len(split_ratings(ratings, valid_fraction=0.01).test)
    whole = np.sqrt(by_user["squared_error"].sum() / test)
    assert whole == pytest.approx(results["test_rmse"], rel=1e-5)


@pytest.mark.parametrize("method", NextItemMethod.__args__)
def test_rank(method, tmp_path):
    results = run("rank", method, tmp_path / "run")
    assert results["method"] == method
    for part in ("valid", "test"):
        assert 0 < results[f"{part}_ndcg@10"] <= results[f"{part}_hr@10"] < 1
    assert results["seconds"] > 0 and results["parameters"] > 30
    assert "test_ndcg@10" in (tmp_path / "run" / "report.md").read_text()
    user, by_user = read_per_user(tmp_path / "run")
    assert user[0] == 0 and by_user["ndcg@10"].mean() == pytest.approx(
        results["test_ndcg@10"], rel=1e-5
    )


def test_clipping_never_adds_error(tmp_path):
    free = run("rate", "biases", tmp_path / "free")
    clipped = run("rate", "biases", tmp_path / "clipped", "--clip")
    assert clipped["test_rmse"] <= free["test_rmse"]


def test_without_validation_ratings_there_is_no_validation_error(tmp_path):
    results = run("rate", "biases", tmp_path / "run", "--valid-fraction", "0")
    assert results["valid_rmse"] is None and results["test_rmse"] > 0


def events_of(rows, items):
    """Events of (user, items in time order) pairs."""
    user = np.array([u for u, history in rows for _ in history])
    item = np.array([i for _, history in rows for i in history])
    last = np.cumsum([len(history) for _, history in rows]) - 1
    everything = np.arange(len(user))
    split = Split(np.setdiff1d(everything, [*last, *(last - 1)]), last - 1, last)
    return Events("made up", Source("", "", ""), user, item, user.max() + 1, items, split, [])


def test_ranks_are_among_the_whole_catalogue_less_what_was_seen():
    events = events_of([(2, [2, 3, 4]), (3, [5, 6, 7]), (4, [3, 2, 5])], items=8)
    scores = np.zeros((5, 8))
    scores[2] = [9, 9, 8, 7, 5, 6, 4, 3]  # padding, unknown, 2 and 3 seen; 5 ahead of 4: rank 2
    scores[3] = [0, 0, 1, 1, 1, 9, 9, 2]  # rank 1
    scores[4] = [0, 0, 9, 9, 5, 5, 5, 1]  # two ties stand before 5: rank 3
    seen = np.union1d(events.split.train, events.split.valid)
    found = evaluate(lambda user_B: scores[user_B], events, seen, events.split.test, K=10)
    gains = [1 / np.log2(1 + rank) for rank in (2, 1, 3)]
    np.testing.assert_array_equal(found["hr@10"], [1, 1, 1])
    np.testing.assert_allclose(found["ndcg@10"], gains)
    found = evaluate(lambda user_B: scores[user_B], events, seen, events.split.test, K=2)
    np.testing.assert_array_equal(found["hr@2"], [1, 1, 0])
    np.testing.assert_allclose(found["ndcg@2"], [*gains[:2], 0])
    constant = evaluate(
        lambda user_B: np.zeros((len(user_B), 8)), events, seen, events.split.test, 3
    )
    assert not constant["hr@3"].any() and not constant["ndcg@3"].any()


def test_pairs_in_time_order_are_split_by_their_place(tmp_path):
    path = tmp_path / "pairs.txt.gz"
    lines = ["7 30", "9 10", "7 10", "7 20", "7 40", "9 20", "8 10", "8 20", "8 30"]
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    events = load_events("ml-1m-sas", path, SyntheticSize(), 0)
    held = {
        part: [(int(events.user[k]) + 5, 10 * int(events.item[k]) - 10) for k in positions]
        for part, positions in vars(events.split).items()
    }
    assert held["test"] == [(7, 40), (8, 30)] and held["valid"] == [(7, 20), (8, 20)]
    assert held["train"] == [(7, 30), (7, 10), (8, 10), (9, 10), (9, 20)]  # two events only: train
    assert (events.users, events.items) == (5, 6)


def test_missing_pairs_are_refused(tmp_path):
    for place, part in ((tmp_path / "none.txt", "none.txt"), (None, "--data-dir")):
        with pytest.raises(InputError, match=part):
            load_events("ml-1m-sas", place, SyntheticSize(), 0)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["rate", "--method", "biases", "--biases.regularisation", "-1"], "0 or more"),
        (["rate", "--method", "item-neighbours", "--item-neighbours.neighbours", "0"], "1 or more"),
        (["rate", "--method", "matrix-factorisation", "--matrix-factorisation.learning-rate", "0"],
         "above 0"),
        (["rate", "--method", "biases", "--seed", "-1"], "--seed must be 0 or more"),
        (["rank", "--method", "ease", "--ease.regularisation", "0"], "above 0"),
        (["rank", "--method", "ease", "--ease.regularisation", "nan"], "above 0"),
        (["rank", "--method", "implicit-als", "--implicit-als.width", "0"], "1 or more"),
        (["rank", "--method", "implicit-als", "--implicit-als.unobserved-weight", "inf"], "0 or more"),
        (["rank", "--method", "no-such"], "no-such"),
    ],
)  # fmt: skip
def test_bad_settings_are_refused_before_anything_is_made(arguments, part, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(InputError, match=part):
        baselines.main([*arguments, *DATA, "--run-dir", str(folder)])
    assert not folder.exists()


def test_content_needs_content(tmp_path):
    path = tmp_path / "pairs.txt"
    path.write_text("1 1\n1 2\n1 3\n")
    with pytest.raises(InputError, match="ml-1m-sas has no content"):
        baselines.main(
            ["rank", "--method", "content", "--dataset", "ml-1m-sas", "--data-dir", str(path)]
        )
