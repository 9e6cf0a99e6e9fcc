"""Impressions on the device, and the ranking experiment from its command line to its files."""

import dataclasses
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.ranking import __main__ as ranking
from experiments.ranking.batches import (
    device_impressions,
    gather_impressions,
    impression_columns,
    make_predict,
)
from experiments.ranking.settings import Data, load
from experiments.ranking.system import extra_features, measure, popularity_scores
from jrec.data.clicks import Bag, Continuous
from jrec.data.impression_maker import ImpressionSize, make_impressions
from jrec.data.quantiles import Quantiles
from jrec.data.ragged import Ragged
from jrec.errors import InputError, run_command
from jrec.evaluate.significance import read_per_user
from jrec.train import run as driver

SIZE = ImpressionSize(users=150, items=40, pages=10, slots=4)
TRAIN = ["train", "--synthetic.users", "150", "--synthetic.items", "40", "--synthetic.pages", "10"]
TRAIN += ["--synthetic.slots", "4", "--tower", "16", "--epochs", "2", "--batch-size", "64"]
ALL = [*TRAIN, "--click-weight", "0.5", "--completion-weight", "0.5"]
ALL += ["--dropout", "0.2", "--chunk-steps", "7"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of all three outputs, with dropout."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", ["ranking.py", *ALL])  # what the report quotes
        ranking.main([*ALL, "--run-dir", str(folder)])
    return folder


def toy():
    """Impressions with a bag of tags an item, their history, and what trains."""
    found = make_impressions(SIZE, 0)
    tags = Bag(
        Ragged.from_lists([[], [1], *([2, 3 + k % 2][: 1 + k % 2] for k in range(40))]), "category"
    )
    found = dataclasses.replace(found, item_features=found.item_features | {"tag": tags})
    return found, extra_features(found, True, 3), np.arange(0, len(found), 2)


def test_a_batch_holds_its_rows_features():
    found, extra, train = toy()
    columns, ids, numbers = impression_columns(found, extra, train, found.watch_seconds)
    data = device_impressions(columns)
    assert {name: (vocabulary, bag) for name, vocabulary, bag in ids} == {
        "user": ("user", False),
        "city": ("city", False),
        "phone": ("phone", False),
        "item": ("item", False),
        "category": ("category", False),
        "author": ("author", False),
        "tag": ("category", True),
        "watched": ("item", True),
    }
    positions = jnp.array([5, 0, 731])
    batch = jax.jit(gather_impressions)(data, positions, jnp.array([True, False, True]))
    rows = train[np.asarray(positions)]
    assert set(batch["ids"]) == {name for name, _, _ in ids}
    np.testing.assert_array_equal(batch["ids"]["user"], found.user_row[found.user[rows]])
    np.testing.assert_array_equal(batch["ids"]["item"], found.item[rows])
    phone = found.user_features["phone"].rows
    np.testing.assert_array_equal(batch["ids"]["phone"], phone[found.user[rows]])
    for name, bag, key in (
        ("tag", found.item_features["tag"], found.item),
        ("watched", extra["watched"], np.arange(len(found))),
    ):
        for b, row in enumerate(rows):
            values, mask = (np.asarray(part[b]) for part in batch["ids"][name])
            assert values[mask].tolist() == bag.rows[key[row]].tolist()
    for name, column in (
        ("clicked", found.clicked),
        ("completed", found.completed),
        ("weight", found.watch_seconds),
    ):
        np.testing.assert_array_equal(batch[name], column[rows])
    duration = found.item_features["duration_seconds"].values[found.item]
    expected = Quantiles.fit(duration[train])(duration[rows])
    np.testing.assert_array_equal(batch["numbers"][:, numbers.index("duration_seconds")], expected)
    idle = extra["category_idle_seconds"].known[rows]
    np.testing.assert_array_equal(batch["known"][:, numbers.index("category_idle_seconds")], idle)


def test_test_rows_do_not_move_what_training_rows_read():
    found, extra, train = toy()
    before = impression_columns(found, extra, train, found.watch_seconds)[0]["long"]
    other = dict(extra)
    for name, column in extra.items():
        if isinstance(column, Continuous):
            values = np.where(np.arange(len(found)) % 2, 1e6, column.values).astype(np.float32)
            other[name] = Continuous(values, column.known)
    after = impression_columns(found, other, train, found.watch_seconds)[0]["long"]
    np.testing.assert_array_equal(before["numbers"][train], after["numbers"][train])
    assert (np.asarray(before["numbers"]) != np.asarray(after["numbers"])).any()


def test_predictions_are_those_of_the_rows_asked_for():
    found, extra, train = toy()
    data = device_impressions(impression_columns(found, extra, train, found.watch_seconds)[0])
    predict = make_predict(lambda params, batch: {"watch": params * batch["weight"]}, 7)
    for rows in (np.arange(20), np.array([3]), np.arange(14)[::-1]):
        scores = predict(jnp.float32(2), data, rows)["watch"]
        np.testing.assert_array_equal(scores, 2 * found.watch_seconds[rows])


def test_the_planted_truth_is_measured_as_calibrated():
    found, split = load(Data(synthetic=dataclasses.replace(SIZE, users=2000)), None)
    truth = np.log(found.expected_watch_seconds[split.test])
    perfect = measure(found, split.test, {"watch": truth})
    assert perfect["planted_mae"] < 1e-3 and perfect["planted_worst_decile"] < 1e-3
    assert perfect["weighted_loss"] == perfect["planted_weighted_loss"] < 0.45
    popular = popularity_scores(found, split.train, split.test)
    popular = measure(found, split.test, {"watch": popular})
    assert perfect["weighted_loss"] < popular["weighted_loss"] < 0.5
    assert perfect["click_gauc"] > 0.55


def test_the_command_trains_and_evaluates(run):
    ranking.main(["evaluate", "--run-dir", str(run)])
    results, again = (
        json.loads((run / f"{name}.json").read_text()) for name in ("results", "evaluation-test")
    )
    for name, value in again.items():
        assert results[f"test_{name}"] == pytest.approx(value, rel=1e-4), name
    assert {"click_log_loss", "completion_log_loss", "click_gauc", "planted_mae"} <= set(again)
    assert sum(results["calibration"]["count"]) > 0 and "valid_weighted_loss" in results
    users, by_user = read_per_user(run)
    assert set(by_user) == {"weighted_loss", "click_auc", "completion_auc"} and len(users) > 100
    assert 0 <= np.nanmin(by_user["weighted_loss"]) < np.nanmax(by_user["weighted_loss"]) <= 1
    report = (run / "report.md").read_text()
    assert "--click-weight 0.5" in report and "| weighted_loss |" in report
    assert {"curves.png", "calibration.png", "metrics.jsonl"} <= {p.name for p in run.iterdir()}


@pytest.mark.slow
def test_a_resumed_run_ends_with_the_same_bits(run, tmp_path, monkeypatch):
    whole, cut = run, tmp_path / "cut"
    calls = []

    def stop():
        calls.append(1)
        return len(calls) == 3

    class Stopping:
        def __enter__(self):
            return stop

        def __exit__(self, *error):
            return False

    with monkeypatch.context() as patched:
        patched.setattr(driver, "stop_on_signals", Stopping)
        with pytest.raises(SystemExit) as stopped:
            ranking.main([*ALL, "--run-dir", str(cut)])
    assert stopped.value.code == 130 and not (cut / "results.json").exists()
    ranking.main([*ALL, "--run-dir", str(cut), "--resume"])
    assert (whole / "metrics.jsonl").read_bytes() == (cut / "metrics.jsonl").read_bytes()


BAD = [
    (["--epochs", "0"], "--epochs must be 1"),
    (["--dropout", "1"], "--dropout must be 0 or more"),
    (["--learning-rate", "-1"], "--learning-rate must be above 0"),
    (["--longest-watch", "-1"], "--longest-watch must be 0 or more"),
    (["--click-weight", "-1"], "--click-weight must be 0"),
    (["--tower", "0"], "--tower must be widths"),
    (["--patience", "1", "--valid-days", "0"], "--patience needs"),
    (["--valid-days", "30"], "leaves train 0"),
    (["--resume"], "--resume needs --run-dir"),
    (["--dataset", "kuairand-pure"], "--data-dir"),
    (["--data-dir", "x"], "--data-dir has no meaning"),
    (["--synthetic.items", "3"], "need 8 items"),
]


@pytest.mark.parametrize("flags,sentence", BAD, ids=[" ".join(flags) for flags, _ in BAD])
def test_bad_settings_give_one_sentence(flags, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        run_command(lambda: ranking.main([*TRAIN, *flags]))
    said = capsys.readouterr().err
    assert stopped.value.code == 1
    assert sentence in said and "Traceback" not in said and said.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_evaluate_wants_a_finished_run(tmp_path):
    with pytest.raises(InputError):
        ranking.main(["evaluate", "--run-dir", str(tmp_path)])
