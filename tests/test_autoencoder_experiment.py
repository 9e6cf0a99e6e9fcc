"""The autoencoder experiment on small made-up data: run directory, resume, export, commands, bad input."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from experiments.autoencoder import __main__ as autoencoder
from experiments.autoencoder import ablations as autoencoder_ablations
from experiments.autoencoder.report import finish_autoencoder_run, write_whole_test
from experiments.autoencoder.settings import PRESETS, Data, load_parts
from experiments.fusion import settings as fusion_settings
from experiments.ranking.report import finish_ranking_run
from experiments.rating_report import finish_rating_run
from jrec.baselines.biases import fit_biases
from jrec.data.rating_parts import rating_parts, save_rating_parts
from jrec.data.sources import load_ratings
from jrec.data.splits import Split, split_ratings
from jrec.data.synthetic import SyntheticSize
from jrec.errors import InputError, run_command
from jrec.evaluate.significance import read_per_user
from jrec.serving.profiles import load_profile_model, profile_of_user, rank_items
from jrec.train import read_once
from tests.stores import array_file

SIZES = ["--synthetic.users", "60", "--synthetic.items", "40", "--synthetic.ratings", "1500"]
DATA = ["--dataset", "synthetic", *SIZES, "--batch-size", "16"]
TRAIN = ["train", *DATA, "--hidden", "12", "8"]


def toy_parts():
    ratings = load_ratings("synthetic", None, SyntheticSize(60, 40, 1500), 0)
    return rating_parts(ratings, split_ratings(ratings, "user-70-30", 0))


def test_of_converted_data_one_process_compares_the_sums(tmp_path, monkeypatch):
    save_rating_parts(tmp_path / "parts", toy_parts())
    path = array_file(tmp_path / "parts", "parts.json", "train", "rating")
    path.write_bytes(path.read_bytes()[:-1] + b"\7")
    settings = Data(dataset="netflix", data_dir=tmp_path / "parts")
    with pytest.raises(InputError, match="has changed since it was written"):
        load_parts(settings)
    monkeypatch.setattr(read_once, "by_first", lambda act: "")  # as another process
    monkeypatch.setattr(read_once.jax, "process_count", lambda: 2)
    assert load_parts(settings)[0].train.rating[-1] == 7


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A finished run of three epochs, centred, both forms in use."""
    folder = tmp_path_factory.mktemp("runs") / "autoencoder"
    flags = ["--epochs", "3", "--centre", "--form", "rated", "--run-dir", str(folder)]
    autoencoder.main([*TRAIN, *flags])
    return folder


def test_a_run_directory_explains_itself(run_dir):
    names = {path.name for path in run_dir.iterdir()}
    assert names >= {"settings.json", "metrics.jsonl", "curves.png", "report.md", "results.json"}
    assert names >= {
        "environment.json",
        "last",
        "best",
        "export",
        "predictions.tsv",
        "per_user.npz",
    }
    results = json.loads((run_dir / "results.json").read_text())
    keys = {"test_rmse", "test_rmse_rounded", "test_mae", "valid_rmse", "examples_per_second"}
    assert keys | {"seed", "split", "form"} <= results.keys()
    assert results["test_rmse"] < results["baselines"]["global mean"]["rmse"]
    report = (run_dir / "report.md").read_text()
    for part in ("regularised biases", "curves.png", "experiments.autoencoder"):
        assert part in report
    assert "0.9373" not in report  # the source's figures are of Netflix
    assert results["warnings"] == [] and "Warning" not in report


def test_errors_over_the_whole_test_part_take_what_the_network_lacks_from_biases(tmp_path):
    ratings = load_ratings("synthetic", None, SyntheticSize(60, 40, 1500), 0)
    late = ratings.user % 5 == 0  # these users have test ratings only, and two items too
    held = late | (ratings.item % 20 == 3) | (np.arange(len(ratings)) % 7 == 0)
    split = Split(np.flatnonzero(~held), np.zeros(0, int), np.flatnonzero(held))
    parts = rating_parts(ratings, split)
    # Exact where the network could predict, so that any error is of the biases or of the order.
    found = write_whole_test(tmp_path, ratings, split, parts.test.rating.astype(np.float32))
    assert found["test_from_biases"] == len(split.test) - len(parts.test) > 0
    columns = (ratings.user, ratings.item, ratings.rating)
    sizes = (ratings.vocabularies[name].rows for name in ("user", "item"))
    biases = fit_biases(*(column[split.train] for column in columns), *sizes)
    user, item, stars = (column[split.test] for column in columns)
    lacks = ~(np.isin(user, ratings.user[split.train]) & np.isin(item, ratings.item[split.train]))
    error = np.where(lacks, biases.predict(user, item) - stars, 0)
    assert found["whole_test_rmse"] == pytest.approx(np.sqrt(np.mean(error**2)))
    users, by_user = read_per_user(tmp_path)
    np.testing.assert_array_equal(users, np.unique(user))
    assert by_user["squared_error"].sum() == pytest.approx((error**2).sum(), rel=1e-5)
    exact = ~np.isin(users, user[lacks])
    assert exact.any() and not by_user["squared_error"][exact].any()


def test_a_test_part_of_strangers_alone_is_refused_before_training(tmp_path):
    path = tmp_path / "ratings.csv"
    lines = [f"{user},{user % 3},{1 + user % 5}" for user in range(40)]
    path.write_text("\n".join(["user,item,rating", *lines]) + "\n")
    place = ["--dataset", "csv", "--data-dir", str(path), "--run-dir", str(tmp_path / "run")]
    with pytest.raises(InputError, match="No test rating of ratings is of a user and an item"):
        autoencoder.main(["train", *place, "--split", "random"])


def test_errors_that_are_not_finite_end_the_run_with_a_sentence(tmp_path):
    """Of each kind of report, before anything is written."""
    nan = dict.fromkeys(("test_rmse", "test_rmse_rounded", "test_mae", "test_watch_loss"), np.nan)
    with pytest.raises(InputError, match="Test errors of the autoencoder are not finite"):
        finish_autoencoder_run(tmp_path, PRESETS["ml-1m"](), nan, None, None)
    with pytest.raises(InputError, match="Test errors of fusion are not finite"):
        settings = fusion_settings.source()
        finish_rating_run(tmp_path, "fusion", settings, nan, None, None, None, "")
    with pytest.raises(InputError, match="The test loss of ranking is not finite"):
        finish_ranking_run(tmp_path, None, nan, {}, {}, None)
    assert not list(tmp_path.iterdir())


def test_predictions_are_in_original_ids_and_give_the_reported_error(run_dir):
    lines = [line.split("\t") for line in (run_dir / "predictions.tsv").read_text().splitlines()]
    assert lines[0] == ["user", "item", "prediction", "rating"]
    parts = toy_parts()
    assert len(lines) - 1 == len(parts.test)
    user, item, predicted, rating = np.array(lines[1:], float).T
    assert set(user) <= set(parts.users) and set(item) <= set(parts.items)
    error = np.sqrt(np.mean((predicted - rating) ** 2))
    results = json.loads((run_dir / "results.json").read_text())
    assert abs(error - results["test_rmse"]) < 1e-4
    # The export says the same for one of them, out of the user's training ratings.
    model = load_profile_model(run_dir / "export")
    profile, notes = profile_of_user(model, int(user[0]))
    ranked, _ = rank_items(model, profile, 1000, include_seen=True)
    stars = {k: value for k, _, value in ranked}
    assert not notes and abs(stars[int(item[0])] - predicted[0]) < 1e-3


@pytest.mark.slow
def test_the_export_needs_no_model_code(run_dir):
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from jrec.serving.profiles import load_profile_model, rank_items\n"
        f"model = load_profile_model(Path({str(run_dir / 'export')!r}))\n"
        "print(rank_items(model, {3: 5.0, 4: 1.0}, 4)[0])\n"
        "assert 'flax' not in sys.modules and 'jrec.models' not in sys.modules\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.count("(") >= 4


def test_recommend_for_old_and_new_users(run_dir, tmp_path, capsys):
    autoencoder.main(["recommend", "--run-dir", str(run_dir), "--user", "1", "--count", "50"])
    printed = capsys.readouterr().out
    parts = toy_parts()
    seen = sum(rows.offsets[1] for rows in (parts.train, parts.valid, parts.test))
    assert seen > parts.train.offsets[1]
    assert printed.count("(2000)") == len(parts.items) - seen
    autoencoder.main(["recommend", "--run-dir", str(run_dir), "--user", "999"])
    assert "user 999 has no training ratings" in capsys.readouterr().out
    path = tmp_path / "new.txt"
    path.write_text("3 5\n4\t1\n5,2.5\n\n777777 3\n")
    arguments = ["recommend", "--run-dir", str(run_dir), "--ratings", str(path)]
    autoencoder.main([*arguments, "--count", "50"])
    printed = capsys.readouterr().out
    assert "1 rated items are not in the training data" in printed
    assert printed.count("(2000)") == len(parts.items) - 3


@pytest.mark.slow
def test_ratings_converted_to_a_folder_train_the_same(tmp_path):
    save_rating_parts(tmp_path / "parts", toy_parts())
    flags = ["--hidden", "8", "--epochs", "2", "--batch-size", "16"]
    results = []
    for name, data in (
        ("a", DATA),
        ("b", ["--dataset", "netflix", "--data-dir", str(tmp_path / "parts")]),
    ):
        autoencoder.main(["train", *data, *flags, "--run-dir", str(tmp_path / name)])
        results.append(json.loads((tmp_path / name / "results.json").read_text()))
    assert results[0]["test_rmse"] == results[1]["test_rmse"]
    assert "0.9373" in (tmp_path / "b" / "report.md").read_text()


def test_the_notebooks_run_has_a_preset():
    settings = PRESETS["netflix-3m-notebook"]()
    assert (settings.hidden, settings.dropout, settings.run.epochs) == ((512, 512, 1024), 0.8, 10)
    assert (settings.activation, settings.last_activation, settings.refeed) == ("selu", True, 1)
    rule = (settings.optimizer, settings.learning_rate, settings.batch_size, settings.weight_decay)
    assert rule == ("momentum", 0.005, 128, 0)


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_bits(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    flags = [*TRAIN, "--epochs", "16", "--chunk-steps", "2", "--checkpoint-steps", "2"]
    autoencoder.main([*flags, "--run-dir", str(whole)])
    command = [sys.executable, "-m", "experiments.autoencoder", *flags, "--run-dir", str(killed)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        log = killed / "metrics.jsonl"
        if log.exists() and log.read_text().count("\n") >= 3:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "results.json").exists(), "the run ended before it was killed"
    autoencoder.main([*flags, "--run-dir", str(killed), "--resume"])
    for name in ("metrics.jsonl", "predictions.tsv"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes()
    one, two = (np.load(folder / "export" / "arrays.npz") for folder in (whole, killed))
    for key in set(one.files) - {"program_sha256"}:  # a program holds the paths of its process
        np.testing.assert_array_equal(one[key], two[key])


@pytest.mark.slow
def test_ablations_leave_a_table_and_a_figure(tmp_path, monkeypatch):
    few = {"a": {"hidden": (4,)}, "b": {"hidden": (4,), "learning_rate": 1e6}}
    monkeypatch.setattr(autoencoder_ablations, "variants", lambda study: few)
    flags = [*DATA, "--epochs", "2", "--studies", "depth", "--run-dir", str(tmp_path / "runs")]
    autoencoder_ablations.main(flags)
    table = (tmp_path / "runs" / "ablations.md").read_text()
    assert "diverged" in table and "| depth | a | " in table
    assert (tmp_path / "runs" / "ablations.png").read_bytes().startswith(b"\x89PNG")


BAD = [
    (["--hidden", "0"], "--hidden must be widths"),
    (["--hidden", "4", "-3"], "--hidden must be widths"),
    (["--dropout", "1"], "--dropout must be 0 or more and below 1"),
    (["--input-noise", "-0.1"], "--input-noise must be 0 or more"),
    (["--refeed", "-1"], "--refeed must be 0 or more"),
    (["--learning-rate", "0"], "--learning-rate must be above 0"),
    (["--weight-decay", "2"], "--weight-decay must lie in"),
    (["--milestones", "0"], "--milestones must be 1 or more"),
    (["--activation", "sigmoid", "--last-activation"], "cannot reach a rating of 5"),
    (["--activation", "gelu"], "gelu"),
    (["--resume"], "--resume needs --run-dir"),
    (["--dataset", "netflix"], "--dataset netflix needs --data-dir"),
    (["--epochs", "0"], "--epochs must be 1"),
    (["--preset", "netflix"], "netflix-3m"),
]


@pytest.mark.parametrize("flags,sentence", BAD, ids=[" ".join(flags) for flags, _ in BAD])
def test_bad_settings_give_one_sentence(flags, sentence, capsys):
    with pytest.raises(SystemExit) as stopped:
        run_command(lambda: autoencoder.main([*TRAIN, *flags]))
    assert stopped.value.code == 1
    said = capsys.readouterr().err
    assert sentence in said and "Traceback" not in said and said.count("\n") == 1


@pytest.mark.parametrize(
    "text,sentence",
    [
        ("3 5\n4 x\n", "line 2: '4 x' is not an item and a rating"),
        ("3 5 7\n", "line 1"),
        ("3 nan\n", "line 1: '3 nan' is not an item and a rating"),
        ("3 9\n", "item 3 is rated 9; ratings of this data lie between"),
        (None, "does not exist"),
    ],
)
def test_bad_ratings_of_a_new_user_give_one_sentence(run_dir, tmp_path, text, sentence):
    path = tmp_path / "new.txt"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=sentence):
        autoencoder.main(["recommend", "--run-dir", str(run_dir), "--ratings", str(path)])


def test_recommend_wants_one_kind_of_user(run_dir):
    with pytest.raises(InputError, match="either --user or --ratings"):
        autoencoder.main(["recommend", "--run-dir", str(run_dir)])


def test_a_run_that_diverges_stops_with_the_step(tmp_path):
    flags = ["--learning-rate", "1e6", "--epochs", "3", "--run-dir", str(tmp_path / "run")]
    with pytest.raises(InputError, match=r"not finite (at|after) step \d+"):
        autoencoder.main([*TRAIN, *flags])
