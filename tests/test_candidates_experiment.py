"""The candidate experiment on small made-up logs: prepare, train, evaluate, resume, bad settings."""

import contextlib
import dataclasses
import io
import json
from datetime import UTC, datetime

import numpy as np
import pytest
from rich.console import Console

from experiments.candidates import __main__ as candidates
from experiments.candidates import compare_losses as candidates_losses
from experiments.candidates import data as candidates_data
from experiments.candidates import settings as candidates_settings
from experiments.candidates.report import finish_candidates_run
from jrec.data.click_maker import make_clicks
from jrec.data.click_truth import ClickSize
from jrec.errors import InputError, run_command
from jrec.evaluate.significance import read_per_user
from jrec.serving.candidate_lists import recommend
from jrec.serving.candidates import load_candidate_model
from jrec.train import run as driver
from tests.click_writer import make_click_log

SIZES = ["--synthetic.users", "60", "--synthetic.items", "40", "--synthetic.clicks", "8"]
SMALL = ["--item-width", "8", "--state-width", "8", "--tower", "16", "8", "--batch-size", "64"]
TRAIN = ["train", "--preset", "source", *SIZES, *SMALL, "--epochs", "2"]
TRAIN += ["--length", "6", "--chunk-steps", "2", "--checkpoint-steps", "2"]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "candidates"
    with contextlib.redirect_stdout(io.StringIO()) as said:
        candidates.main([*TRAIN, "--run-dir", str(folder)])
    (folder.parent / "said").write_text(said.getvalue())
    return folder


def test_a_run_directory_explains_itself(run_dir):
    names = {path.name for path in run_dir.iterdir()}
    assert names >= {"settings.json", "metrics.jsonl", "curves.png", "report.md", "results.json"}
    assert names >= {"environment.json", "last", "best", "export", "per_user.npz"}
    results = json.loads((run_dir / "results.json").read_text())
    assert {"test_ndcg@10", "test_hr@10", "test_recall@100", "valid_ndcg@10"} <= results.keys()
    assert {"references", "seed", "split", "remove_seen"} <= results.keys()
    assert {"test_coverage@10", "test_gini@10", "test_log_popularity@10"} <= results.keys()
    assert results["test_empty_histories"] == 0
    report = (run_dir / "report.md").read_text()
    for name in ("popularity", "item neighbours", "planted: best from the log alone"):
        assert name in results["references"] and f"| {name} | " in report
    users, by_user = read_per_user(run_dir)
    assert len(users) == 60
    np.testing.assert_allclose(np.mean(by_user["ndcg@10"]), results["test_ndcg@10"], rtol=1e-5)


def test_a_run_warns_of_dead_units(run_dir):
    results = json.loads((run_dir / "results.json").read_text())
    assert results["sampled_users"] == 60 and results["user_vector_spread"] > 0
    # Tables begin at .001: the one number, the items' duration, decides which units are on.
    sentence = (
        f"{results['dead_units']} of 8 units of the last layer are 0 for all 60 sampled users"
    )
    assert results["dead_units"] > 0 and results["warnings"][0].startswith(sentence)
    assert f"Warning: {sentence}" in (run_dir / "report.md").read_text()
    said = (run_dir.parent / "said").read_text()
    assert f"\nwarning: {sentence}" in said
    # After the first chunk, and not again.
    assert said.count("warning, after step") == said.count("warning, after step 2: ") == 1


@pytest.mark.parametrize("name", candidates_settings.PRESETS)
def test_a_preset_is_a_complete_settings_object(name):
    chosen = candidates_settings.PRESETS[name]()
    candidates_settings.check(chosen)
    assert chosen.preset == name
    assert chosen.length == {"small": 50, "improved": 200}.get(name, 20)
    left_open = [k for k, v in dataclasses.asdict(chosen).items() if v is None]
    assert not left_open


@pytest.mark.slow
def test_evaluate_measures_the_same_again(run_dir, capsys):
    candidates.main(["evaluate", "--run-dir", str(run_dir)])
    assert "whole catalogue, seen items removed" in capsys.readouterr().out
    again = json.loads((run_dir / "evaluation-test-seen-removed.json").read_text())
    results = json.loads((run_dir / "results.json").read_text())
    assert again["ndcg@10"] == results["test_ndcg@10"]
    candidates.main(["evaluate", "--run-dir", str(run_dir), "--no-remove-seen"])
    kept = json.loads((run_dir / "evaluation-test-seen-kept.json").read_text())
    assert kept["hr@10"] <= again["hr@10"]


def test_a_run_of_another_version_is_one_sentence(run_dir, tmp_path):
    results = json.loads((run_dir / "results.json").read_text())
    results["run_settings"]["features"] = results["run_settings"].pop("encoder")
    (tmp_path / "results.json").write_text(json.dumps(results))
    with pytest.raises(
        InputError, match="made by another version of jrec, whose settings have other names"
    ):
        candidates.main(["evaluate", "--run-dir", str(tmp_path)])


def test_the_export_serves_what_the_run_was_measured_with(run_dir):
    model = load_candidate_model(run_dir / "export")
    gains = []
    for place, row in enumerate(model.user_rows):
        *history, target = model.items.values[model.histories[place]].tolist()
        assert target not in history
        found = recommend(model, 10, user=model.users.values[row - 2], history=history)
        gains.append(
            sum(1 / np.log2(2 + k) for k, item in enumerate(found.items) if item == target)
        )
    results = json.loads((run_dir / "results.json").read_text())
    np.testing.assert_allclose(np.mean(gains), results["test_ndcg@10"], atol=1e-4)


@pytest.mark.slow
def test_a_click_log_from_file_to_metrics(tmp_path):
    size = ClickSize(users=60, items=40, clicks=8, categories=4, groups=3)
    make_click_log(tmp_path / "click.log", size, 0)
    flags = ["--feat-appear-limit", "1", "--user-appear-limit", "0"]
    candidates.main(
        ["prepare", "--log", str(tmp_path / "click.log"), "--out", str(tmp_path / "out"), *flags]
    )
    data = ["--dataset", "click-log", "--data-dir", str(tmp_path / "out")]
    run = ["--encoder", "attention", "--layers", "1", "--form", "prefix", "--loss", "full-softmax"]
    candidates.main(
        [
            "train",
            *data,
            *SMALL,
            *run,
            "--preset",
            "source",
            "--epochs",
            "1",
            "--run-dir",
            str(tmp_path / "run"),
        ]
    )
    assert (tmp_path / "run" / "results.json").exists()


@pytest.mark.slow
def test_a_resumed_run_ends_with_the_same_bits(run_dir, tmp_path, monkeypatch):
    whole, cut = run_dir, tmp_path / "cut"
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
            candidates.main([*TRAIN, "--run-dir", str(cut)])
    assert stopped.value.code == 130 and not (cut / "results.json").exists()
    candidates.main([*TRAIN, "--run-dir", str(cut), "--resume"])
    assert (whole / "metrics.jsonl").read_bytes() == (cut / "metrics.jsonl").read_bytes()
    one, two = (json.loads((d / "results.json").read_text()) for d in (whole, cut))
    assert one["test_ndcg@100"] == two["test_ndcg@100"]


def test_a_resumed_run_reads_the_same_features(run_dir):
    sentence = r"item_features = \['all'\], but now it is \['tags'\]"
    with pytest.raises(InputError, match=sentence):
        candidates.main([*TRAIN, "--item-features", "tags", "--run-dir", str(run_dir), "--resume"])


BAD = [
    (["--epochs", "0"], "--epochs must be 1"),
    (["--dropout", "1"], "--dropout must be 0 or more"),
    (["--learning-rate", "-1"], "--learning-rate must be above 0"),
    (["--tower", "0"], "--tower must be widths"),
    (["--calibration", "2"], "--calibration must lie"),
    (["--cooldown", "1.5"], "--cooldown must lie"),
    (["--encoder", "attention", "--heads", "3"], "cannot be shared by --heads 3"),
    (["--form", "prefix", "--loss", "in-batch-softmax"], "needs --form window"),
    (["--tied", "--tower", "16", "5"], "--tied needs user vectors"),
    (["--split", "time-cut"], "--valid-from must be a day"),
    (["--resume"], "--resume needs --run-dir"),
    (["--user-features", "town"], "--user-features names 'town'"),
    (["--item-features", "tag"], "they have: category, tags, duration_seconds."),
    (["--loss", "softmax"], "full-softmax"),
    (["--dataset", "ml-1m-sas"], "--data-dir"),
]


@pytest.mark.parametrize("flags,sentence", BAD, ids=[" ".join(flags) for flags, _ in BAD])
def test_bad_settings_give_one_sentence(flags, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        run_command(lambda: candidates.main([*TRAIN, *flags]))
    said = capsys.readouterr().err
    assert stopped.value.code == 1
    assert sentence in said and "Traceback" not in said and said.count("\n") == 1


@pytest.mark.slow
def test_the_table_of_losses(tmp_path, monkeypatch, capsys):
    size = ClickSize(users=400, items=40, clicks=8, categories=4, groups=3)
    make_click_log(tmp_path / "click.log", size, 0)
    small = {"item_width": 8, "state_width": 8, "length": 8, "tower": (8, 8), "negatives": 8}
    monkeypatch.setattr(candidates_losses, "PROTOCOL", candidates_losses.PROTOCOL | small)
    data = ["--dataset", "click-log", "--data-dir", str(tmp_path / "click.log")]
    flags = [*data, "--run-dir", str(tmp_path / "table"), "--losses", "nce", "gbce"]
    flags += ["--encoders", "mean", "--epochs", "1"]
    candidates_losses.main(flags)
    said = capsys.readouterr().out
    assert "| NDCG@10, 1 epochs | nce | gbce |" in said and "| popularity | " in said
    assert "| item neighbours | " in said and (tmp_path / "table" / "table.md").exists()
    monkeypatch.setattr(candidates_losses, "train", None)  # nothing is trained twice
    candidates_losses.main(flags)
    with pytest.raises(InputError, match="with epochs = 1, but now it is 2"):
        candidates_losses.main([*flags[:-1], "2"])


@pytest.mark.parametrize("name,hours", [("kuairand-pure", 8), ("click-log", 0)])
def test_a_cuts_days_begin_where_the_log_was_written(name, hours, monkeypatch):
    clicks = make_clicks(ClickSize(users=60, items=40, clicks=8, categories=4, groups=3), 0)[0]
    day = int(clicks.timestamp.min()) // 86_400 * 86_400
    times = np.where(np.arange(len(clicks)) % 2, day + 86_400, day + 86_400 - 4 * 3600)
    clicks = dataclasses.replace(clicks, timestamp=np.sort(times))
    monkeypatch.setattr(candidates_data, "load_clicks_dataset", lambda *a, **k: clicks)
    morning = str(datetime.fromtimestamp(day + 86_400, UTC).date())
    given = {"dataset": name, "split": "time-cut", "valid_from": morning, "test_from": morning}
    if hours:  # everything lies after the midnight in China
        with pytest.raises(InputError, match="leaves train 0"):
            candidates_data.load(candidates_settings.Data(**given))
        return
    _, split = candidates_data.load(candidates_settings.Data(**given))
    assert len(split.train) == (times < day + 86_400).sum()


def test_evaluate_wants_a_finished_run(tmp_path):
    with pytest.raises(InputError):
        candidates.main(["evaluate", "--run-dir", str(tmp_path)])


def test_evaluate_wants_a_part_that_the_run_has(run_dir, tmp_path):
    written = json.loads((run_dir / "results.json").read_text())
    clicks, _ = candidates_data.load(
        candidates_settings.Data(
            synthetic=ClickSize(**written["run_settings"]["data"]["synthetic"])
        )
    )
    day = str(datetime.fromtimestamp(np.median(clicks.timestamp), UTC).date())
    written["run_settings"]["data"] |= {"split": "time-cut", "valid_from": day, "test_from": day}
    (tmp_path / "results.json").write_text(json.dumps(written))
    with pytest.raises(InputError, match="was run without a valid part"):
        candidates.main(["evaluate", "--run-dir", str(tmp_path), "--part", "valid"])


def test_a_network_below_popularity_is_told(tmp_path, capsys):
    clicks = make_clicks(ClickSize(9, 40, 5), 0)[0]
    line = {"step": 1, "epoch": 1, "valid_ndcg@10": 0.1, "valid_hr@10": 0.1}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    numbers = dict.fromkeys(("hr@10", "ndcg@10", "mrr", "recall@50", "recall@100"), 0.25)
    results = {f"test_{name}": value / 2 for name, value in numbers.items()}
    results |= {"test_empty_histories": 0, "examples_per_second": None, "warnings": []}
    results |= {"repeated_targets": "miss", "test_repeats": 0, "test_targets": 9}
    references = {"popularity": numbers, "item neighbours": numbers | {"ndcg@10": 0.1}}
    finish_candidates_run(
        tmp_path, candidates_settings.small(), results, references, clicks, Console(width=99)
    )
    warnings = json.loads((tmp_path / "results.json").read_text())["warnings"]
    end = "below popularity's 0.2500 on the same held-out items."
    assert warnings == [
        f"item neighbours has test NDCG@10 0.1000, {end}",
        f"candidates has test NDCG@10 0.1250, {end}",
    ]
    out, report = capsys.readouterr().out, (tmp_path / "report.md").read_text()
    for sentence in warnings:
        assert f"warning: {sentence}" in out and f"Warning: {sentence}" in report
