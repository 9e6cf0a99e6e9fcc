"""The whole experiment on small made-up data: run directory, resume after SIGKILL, export, commands."""

import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from experiments.fusion import __main__ as fusion
from experiments.fusion.__main__ import Train
from experiments.fusion.source import Source
from jrec.data.sources import load_ratings
from jrec.data.splits import split_ratings
from jrec.data.synthetic import SyntheticSize
from jrec.train import run as driver
from jrec.train.checkpoints import Checkpoints

SIZES = ["--synthetic.users", "60", "--synthetic.items", "40", "--synthetic.ratings", "3000"]
TRAIN = ["train", "--dataset", "synthetic", *SIZES, "--batch-size", "32", "--tower-width", "16"]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A finished run of three epochs."""
    folder = tmp_path_factory.mktemp("runs") / "fusion"
    fusion.main([*TRAIN, "--epochs", "3", "--chunk-steps", "20", "--run-dir", str(folder)])
    return folder


def test_a_run_directory_explains_itself(run_dir):
    names = {path.name for path in run_dir.iterdir()}
    assert names >= {"settings.json", "metrics.jsonl", "curves.png", "report.md", "results.json"}
    assert names >= {"environment.json", "last", "best", "export"}
    results = json.loads((run_dir / "results.json").read_text())
    assert {"test_rmse", "valid_rmse", "examples_per_second", "seed", "split"} <= results.keys()
    assert 0.3 < results["test_rmse"] < 1.5
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    best = min(lines, key=lambda line: line["valid_rmse"])
    assert (results["best_epoch"], results["test_rmse"]) == (best["epoch"], best["test_rmse"])
    settings = json.loads((run_dir / "settings.json").read_text())
    assert settings["data_source"]["kind"] == "synthetic" and settings["learning_rate"] == 0.2
    report = (run_dir / "report.md").read_text()
    for part in ("regularised biases", "curves.png", "learning_rate", "experiments.fusion"):
        assert part in report
    assert (run_dir / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_export_predicts_what_the_model_does_without_its_code(run_dir):
    settings = Train(source=Source(tower_width=16), batch_size=32)
    ratings = load_ratings("synthetic", None, SyntheticSize(60, 40, 3000), 0)
    split = split_ratings(ratings, valid_fraction=settings.data.valid_fraction)
    system = fusion.build_system(settings, ratings, split)
    state, record = Checkpoints(run_dir / "best", 1).restore(system.state._replace(opt_state=()))
    assert record["epoch"] - 1 == json.loads((run_dir / "results.json").read_text())["best_epoch"]
    user, item = ratings.user[split.test], ratings.item[split.test]
    expected = system.predict(system.predictor(state.params), user, item)
    code = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from jrec.serving.ratings import load_rating_model\n"
        f"model = load_rating_model(Path({str(run_dir / 'export')!r}))\n"
        f"user, item = np.array({user.tolist()}), np.array({item.tolist()})\n"
        "print(np.asarray(model.predict(user.astype('i4'), item.astype('i4'))).tolist())\n"
        "assert 'flax' not in sys.modules and 'jrec.models' not in sys.modules\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    np.testing.assert_allclose(json.loads(said.stdout), expected, atol=1e-5)


@pytest.mark.slow
def test_the_improved_preset_runs_to_an_export(tmp_path, capsys):
    folder = tmp_path / "improved"
    arguments = ["train", "--preset", "improved", "--dataset", "synthetic", *SIZES]
    arguments += [
        "--improved.width",
        "8",
        "--improved.heads",
        "2",
        "--batch-size",
        "16",
        "--epochs",
        "6",
    ]
    fusion.main([*arguments, "--run-dir", str(folder)])
    results = json.loads((folder / "results.json").read_text())
    assert results["test_rmse"] < results["baselines"]["global mean"]["rmse"]
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 6
    fusion.main(["recommend", "--run-dir", str(folder), "--user", "2", "--count", "3"])
    assert "for user 2" in capsys.readouterr().out


def test_predict_and_recommend_print_what_they_should(run_dir, capsys):
    fusion.main(["predict", "--run-dir", str(run_dir), "--user", "1", "--item", "7"])
    assert "user 1, item 7" in capsys.readouterr().out
    fusion.main(["predict", "--run-dir", str(run_dir), "--user", "1", "--item", "999"])
    assert "item 999 is not in the data" in capsys.readouterr().out
    fusion.main(["recommend", "--run-dir", str(run_dir), "--user", "1", "--count", "50"])
    unseen = capsys.readouterr().out
    fusion.main(["recommend", "--run-dir", str(run_dir), "--user", "1", "--count", "50", "--seen"])
    everything = capsys.readouterr().out
    ratings = load_ratings("synthetic", None, SyntheticSize(60, 40, 3000), 0)
    user = ratings.vocabularies["user"].encode([1])[0]
    seen = set(ratings.item[ratings.user == user].tolist())  # in whichever part
    assert everything.count("(2000)") == 40 and unseen.count("(2000)") == 40 - len(seen)


def test_help_explains_every_setting(capsys):
    with pytest.raises(SystemExit) as stop:
        fusion.main(["train", "--help"])
    assert stop.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    for flag in ("--dataset", "--data-dir", "--epochs", "--seed", "--run-dir", "--resume"):
        assert flag in said
    assert "Passes over the training examples" in said


@pytest.mark.slow
def test_a_killed_run_resumes_to_identical_bits(tmp_path):
    flags = ["--epochs", "4", "--chunk-steps", "11", "--checkpoint-steps", "17"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    fusion.main([*TRAIN, *flags, "--run-dir", str(whole)])
    command = [sys.executable, "-m", "experiments.fusion", *TRAIN, *flags]
    run = {"stdout": subprocess.DEVNULL, "env": os.environ | {"PYTHONWARNINGS": "default"}}
    with subprocess.Popen([*command, "--run-dir", str(killed)], **run) as process:
        while not any(step >= 102 for step in steps_in(killed / "last")):
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    reached = max(steps_in(killed / "last"))
    assert reached < max(steps_in(whole / "last")), "the kill came too late to test anything"
    assert not (killed / "results.json").exists()
    subprocess.run([*command, "--run-dir", str(killed), "--resume"], check=True, **run)

    for name in ("last", "best"):
        one, two = (arrays_of(folder / name) for folder in (whole, killed))
        assert one.keys() == two.keys() and len(one) > 10
        for key in one:
            assert one[key].tobytes() == two[key].tobytes(), key
    assert (whole / "metrics.jsonl").read_text() == (killed / "metrics.jsonl").read_text()


def steps_in(folder):
    return [int(path.name) for path in folder.glob("*") if path.name.isdecimal()]


def arrays_of(folder):
    """All arrays of the newest checkpoint, without knowing the model."""
    import orbax.checkpoint as ocp

    tree = ocp.StandardCheckpointer().restore(folder / str(max(steps_in(folder))) / "state")
    return {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


@pytest.mark.slow
def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "stopped"
    real = driver.watch_training

    def interrupted(reports, *args):
        def until_second_chunk():
            for number, report in enumerate(reports):
                if number == 1:
                    os.kill(os.getpid(), signal.SIGINT)
                yield report

        return real(until_second_chunk(), *args)

    monkeypatch.setattr(driver, "watch_training", interrupted)
    arguments = [*TRAIN, "--epochs", "2", "--chunk-steps", "10", "--run-dir", str(folder)]
    with pytest.raises(SystemExit) as stop:
        fusion.main(arguments)
    said = " ".join(capsys.readouterr().out.split())
    assert stop.value.code == 130 and "--resume --run-dir" in said
    assert 0 < max(steps_in(folder / "last")) < 80
    monkeypatch.undo()
    fusion.main([*arguments, "--resume"])
    assert (folder / "results.json").exists()
