"""Every baseline from the command line on small made-up data, and the evaluation of the next item."""

import gzip
import json

import numpy as np
import pytest

from experiments.baselines import __main__ as baselines
from experiments.baselines.__main__ import ranked
from experiments.baselines.held_out import held_out_ranks
from experiments.baselines.next_item import NextItemMethod, load_sequences
from experiments.baselines.ratings import RatingMethod
from experiments.baselines.warnings import not_better_than_mean
from experiments.candidates.references import reference_metrics
from jrec.data.click_examples import (
    count_items,
    held_out_examples,
    leave_one_out,
    repeated_targets,
)
from jrec.data.clicks_csv import read_clicks_csv
from jrec.data.own_csv import CsvClicks
from jrec.data.sources import load_ratings
from jrec.data.splits import split_ratings
from jrec.data.synthetic import SyntheticSize
from jrec.errors import InputError
from jrec.evaluate.significance import read_per_user

SIZES = ["--synthetic.users", "50", "--synthetic.items", "30", "--synthetic.ratings", "1200"]
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


def write_clicks(path, histories):
    lines = [f"{user},{item}" for user, history in histories for item in history]
    path.write_text("\n".join(["user,item", *lines]) + "\n")
    return read_clicks_csv(path, CsvClicks())


def test_ranks_are_among_the_whole_catalogue_less_what_was_seen(tmp_path):
    clicks = write_clicks(tmp_path / "clicks.csv", [("a", "234"), ("b", "567"), ("c", "325")])
    scores = np.array(  # rows 2 to 7 are items 2 to 7
        [
            [9, 9, 8, 7, 5, 6, 4, 3],  # padding, unknown, 2 and 3 seen; 5 ahead of 4: rank 2
            [0, 0, 1, 1, 1, 9, 9, 2],  # rank 1
            [0, 0, 9, 9, 5, 5, 5, 1],  # two ties stand before 5: rank 3
        ]
    )
    examples = held_out_examples(clicks, leave_one_out(clicks), "test")
    ranks = held_out_ranks(lambda history, user: scores[user], clicks, examples)
    assert ranks.tolist() == [2, 1, 3]
    kept = held_out_ranks(lambda history, user: scores[user], clicks, examples, remove_seen=False)
    assert kept.tolist() == [4, 3, 5]
    found = ranked(ranks, "miss", np.zeros(3, bool))
    np.testing.assert_allclose(found["ndcg@10"], [1 / np.log2(1 + rank) for rank in (2, 1, 3)])
    assert (found["hr@10"] == 1).all()
    unknown = held_out_ranks(lambda history, user: np.full((3, 8), np.nan), clicks, examples)
    assert unknown.tolist() == [4, 4, 4]  # of six items two were seen: last


def test_scores_read_the_history_before_the_target(tmp_path):
    clicks = write_clicks(tmp_path / "clicks.csv", [("a", "2345"), ("b", "43"), ("c", "5672")])
    split, read = leave_one_out(clicks), {}

    def score(history, user):
        read[part] = {int(u): row.indices.tolist() for u, row in zip(user, history, strict=True)}
        return np.zeros(history.shape)

    for part in ("valid", "test"):
        held_out_ranks(score, clicks, held_out_examples(clicks, split, part))
    assert read["valid"] == {0: [2, 3], 2: [5, 6]}
    assert read["test"] == {0: [2, 3, 4], 2: [5, 6, 7]}  # the validation item, too


def test_pairs_in_time_order_are_split_by_their_place(tmp_path):
    path = tmp_path / "pairs.txt.gz"
    lines = ["7 30", "9 10", "7 10", "7 20", "7 40", "9 20", "8 10", "8 20", "8 30"]
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    clicks = load_sequences("ml-1m-sas", path, SyntheticSize(), 0)
    split = leave_one_out(clicks)
    held = {
        part: [
            (int(clicks.user_of_event[k]) + 7, 10 * int(clicks.item[k]) - 10)
            for k in getattr(split, part)
        ]
        for part in ("train", "valid", "test")
    }
    assert held["test"] == [(7, 40), (8, 30)] and held["valid"] == [(7, 20), (8, 20)]
    assert held["train"] == [(7, 30), (7, 10), (8, 10), (9, 10), (9, 20)]  # two events only: train


def test_missing_pairs_are_refused(tmp_path):
    for place, part in ((tmp_path / "none.txt", "none.txt"), (None, "--data-dir")):
        with pytest.raises(InputError, match=part):
            load_sequences("ml-1m-sas", place, SyntheticSize(), 0)


def test_candidates_and_rank_give_one_number_for_one_protocol(tmp_path):
    """On clicks that repeat, of users of whom some have under three."""
    generator = np.random.default_rng(0)
    histories = [(u, (u % 4 + 5 * generator.integers(0, 6, 2 + u % 6)).tolist()) for u in range(60)]
    clicks = write_clicks(tmp_path / "clicks.csv", histories)
    split = leave_one_out(clicks)
    examples = held_out_examples(clicks, split, "test")
    counts = count_items(clicks, split.train)
    repeated = repeated_targets(clicks, examples)
    assert repeated.any()
    references = reference_metrics(
        clicks, split, counts, examples, True, (10,), choice="miss", repeated=repeated
    )
    for method in ("popularity", "item-neighbours"):
        folder = tmp_path / method
        place = ["--dataset", "csv", "--data-dir", str(tmp_path / "clicks.csv")]
        baselines.main(["rank", "--method", method, *place, "--run-dir", str(folder)])
        results = json.loads((folder / "results.json").read_text())
        expected = references[method.replace("-", " ")]
        for name in ("ndcg@10", "hr@10"):
            assert results[f"test_{name}"] == pytest.approx(expected[name], rel=1e-12)
        user, _ = read_per_user(folder)
        np.testing.assert_array_equal(user, examples.user)
    assert 0 < references["popularity"]["ndcg@10"] < references["item neighbours"]["ndcg@10"] < 1


def test_a_row_below_popularity_is_told(tmp_path, capsys):
    """Everybody clicks item 9 last, and most have seen nothing that goes with it."""
    histories = [(u, [u % 7, 10 + u % 5, 9]) for u in range(40)] + [(50 + u, [9]) for u in range(9)]
    write_clicks(tmp_path / "clicks.csv", histories)
    place = ["--dataset", "csv", "--data-dir", str(tmp_path / "clicks.csv")]
    folder = tmp_path / "run"
    baselines.main(["rank", "--method", "item-neighbours", *place, "--run-dir", str(folder)])
    sentence = "item-neighbours has test NDCG@10 0.0000, below popularity's 1.0000 on the same held-out items."
    assert f"warning: {sentence}" in capsys.readouterr().out
    report = (folder / "report.md").read_text()
    assert f"Warning: {sentence}" in report and "fitted to the training part alone" in report
    assert json.loads((folder / "results.json").read_text())["warnings"] == [sentence]
    folder = tmp_path / "popularity"
    baselines.main(["rank", "--method", "popularity", *place, "--run-dir", str(folder)])
    assert json.loads((folder / "results.json").read_text())["warnings"] == []


def test_a_rating_method_that_is_no_better_than_the_mean_is_told(tmp_path, capsys):
    run("rate", "user-mean", tmp_path / "run", "--dataset", "synthetic", "--split-seed", "1")
    assert "warning" not in capsys.readouterr().out
    assert not_better_than_mean("x", 0.9, 1.0) == []
    [sentence] = not_better_than_mean("x", 1.0, 1.0)
    assert sentence == "x has test RMSE 1.0000, not below the global mean's 1.0000."
    path = tmp_path / "ratings.csv"
    noise = np.random.default_rng(0).integers(1, 6, (12, 12))
    lines = [f"{u},{i},{noise[u, i]}" for u in range(12) for i in range(12)]
    path.write_text("\n".join(["user,item,rating", *lines]) + "\n")
    place = ["--dataset", "csv", "--data-dir", str(path), "--run-dir", str(tmp_path / "noise")]
    baselines.main(["rate", "--method", "item-mean", *place])
    out = capsys.readouterr().out
    assert "warning: item-mean has test RMSE" in out and "not below the global mean's" in out
    assert "Warning: item-mean" in (tmp_path / "noise" / "report.md").read_text()


def test_without_a_user_of_three_clicks_there_is_no_rank(tmp_path):
    path = tmp_path / "clicks.csv"
    path.write_text("user,item\na,1\na,2\nb,1\n")
    with pytest.raises(InputError, match=r"No user of .* has 3 clicks"):
        baselines.main(
            [
                "rank",
                "--dataset",
                "csv",
                "--data-dir",
                str(path),
                "--run-dir",
                str(tmp_path / "run"),
            ]
        )
    assert not (tmp_path / "run").exists()


def test_errors_that_are_not_finite_are_no_result(tmp_path, monkeypatch):
    def nan(*_):
        return None, lambda user, item: np.full(len(user), np.nan)

    monkeypatch.setattr(baselines, "fit_rating_baseline", nan)
    with pytest.raises(InputError, match="Test errors of biases are not finite; check"):
        run("rate", "biases", tmp_path / "run")
    assert not (tmp_path / "run" / "results.json").exists()


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
