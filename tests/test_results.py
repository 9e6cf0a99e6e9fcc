"""The table of results: what is run, what is skipped, and what the table says."""

import json
import shlex
import subprocess
import sys

import numpy as np
import pytest

from experiments.results import __main__ as results
from experiments.results.__main__ import Results, planned
from experiments.results.rows import TASKS, Row, command_of, quick, rows_of, same_run
from experiments.results.table import best_baseline, collect, compared, table
from jrec.errors import InputError
from jrec.evaluate.per_user import write_per_user
from jrec.evaluate.rating_errors import errors_by_user
from jrec.files import write_json

ENVIRONMENT = {"python": "3", "packages": {"jax": "0"}, "cpus": 1, "devices": ["TFRT_CPU_0"]}
RMSE, NDCG = TASKS["rating-random"], TASKS["next-item"]


def write_run(folder, command, metrics, user, values, **more):
    """A finished run's files."""
    folder.mkdir(parents=True)
    numbers = {"seconds": 1.0, "parameters": 7, "command": command} | metrics | more
    write_json(folder / "results.json", numbers)
    write_json(folder / "environment.json", ENVIRONMENT)
    write_per_user(folder, user, values)


def rating_result(folder, name, system, rmse, squared, **more):
    """A row of as many seeds as there are RMSEs; `squared` [seeds, N]."""
    row = Row(name, system, "experiments.x", ())
    users = np.arange(len(squared[0]))
    folders = [folder / name / f"seed-{seed}" for seed in range(len(rmse))]
    for place, one, values in zip(folders, rmse, squared, strict=True):
        metrics = {"test_rmse": one, "test_mae": one / 2}
        write_run(place, "x", metrics, users, {"squared_error": values}, **more)
    return collect(row, RMSE, folders, "python -m experiments.x --seed S")


def test_a_row_has_mean_spread_and_a_paired_test_against_the_best_baseline(tmp_path):
    generator = np.random.default_rng(0)
    base = generator.gamma(2, 1, 200)
    weak = rating_result(tmp_path, "weak", False, [1.2], [base + 1])
    strong = rating_result(tmp_path, "strong", False, [1.0], [base])
    noise = generator.normal(0, 0.01, (2, 200))
    better = rating_result(tmp_path, "better", True, [0.9, 0.94], base - 0.3 + noise)
    # One seed is much better and the other as much worse: their mean is no different.
    level = rating_result(tmp_path, "level", True, [1.0, 1.0], [base - 0.5, base + 0.5 + noise[0]])
    everything = [weak, strong, better, level]
    assert best_baseline(everything, RMSE) is strong and best_baseline([better], RMSE) is None
    assert compared(better, strong, RMSE) == "-0.0800 (p < 0.001)"
    assert compared(weak, strong, RMSE) == "+0.2000 (p < 0.001)"
    p = float(compared(level, strong, RMSE).split("p = ")[1].rstrip(")"))
    assert p > 0.01
    lines = table(everything, RMSE).splitlines()
    names = [line.split("|")[1].strip() for line in lines]
    assert names[2:] in (["**better**", "strong", "**level**", "weak"],
                         ["**better**", "**level**", "strong", "weak"])  # fmt: skip
    assert "| 0.9200 ± 0.0283 | 0.4600 ± 0.0141 | 2 |" in lines[2] and "| 1.0 | 7 |" in lines[2]
    assert "| 1.2000 | 0.6000 | 1 |" in lines[-1]


def test_errors_over_all_test_ratings_count_where_a_network_predicts_only_some(tmp_path):
    more = {"whole_test_rmse": 1.5, "whole_test_mae": 1.1}
    result = rating_result(tmp_path, "autoencoder", True, [0.8], [np.ones(5)], **more)
    assert result.metrics["test_rmse"].tolist() == [1.5]
    assert result.metrics["test_mae"].tolist() == [1.1]


def test_the_highest_baseline_is_the_best_where_more_is_better(tmp_path):
    found = []
    for name, value in (("popularity", 0.01), ("ease", 0.05)):
        metrics = {"test_ndcg@10": value, "test_hr@10": value}
        values = {"ndcg@10": np.full(4, value)}
        write_run(tmp_path / name, "x", metrics, np.arange(4), values)
        found.append(collect(Row(name, False, "", ()), NDCG, [tmp_path / name], ""))
    assert best_baseline(found, NDCG).row.name == "ease"
    assert table(found, NDCG).splitlines()[2].startswith("| ease | 0.0500 | 0.0500 | 1 | (the best")


def test_rows_of_other_users_are_refused(tmp_path):
    one = rating_result(tmp_path, "one", True, [1.0], [np.ones(5)])
    other = rating_result(tmp_path, "other", False, [1.0], [np.ones(6)])
    with pytest.raises(InputError, match="one and other have different test users"):
        compared(one, other, RMSE)


def test_a_run_without_what_the_table_needs_is_refused(tmp_path):
    write_run(tmp_path / "a", "x", {"test_rmse": 1.0}, np.arange(3), {"other": np.ones(3)})
    with pytest.raises(InputError, match="has no squared_error"):
        collect(Row("a", True, "", ()), RMSE, [tmp_path / "a"], "")
    write_run(tmp_path / "b", "x", {"test_rmse": 1.0}, np.arange(3), {"squared_error": np.ones(3)})
    with pytest.raises(InputError, match="has no 'test_mae'"):
        collect(Row("b", True, "", ()), RMSE, [tmp_path / "b"], "")
    nothing = {"test_rmse": float("nan"), "test_mae": 1.0}
    write_run(tmp_path / "c", "x", nothing, np.arange(3), {"squared_error": np.ones(3)})
    with pytest.raises(InputError, match="has no number as test_rmse; run it again"):
        collect(Row("c", True, "", ()), RMSE, [tmp_path / "c"], "")


def test_every_row_is_one_run_a_seed_under_the_task_s_split(tmp_path):
    runs = planned(Results(ml_1m=tmp_path / "ml-1m.zip", out=tmp_path))
    places = [run.run_dir for run in runs]
    assert len(set(places)) == len(places)
    assert {(run.dataset, run.task) for run in runs} == {
        ("ml-100k", "rating-random"), ("ml-100k", "rating-time"), ("ml-100k", "next-item"),
        ("ml-1m", "rating-random"), ("ml-1m", "rating-time"),
    }  # fmt: skip
    for run in runs:
        line = shlex.join(run.command())
        split = {"rating-random": "--split random ", "rating-time": "--split global-time "}
        assert split.get(run.task, "") in line and f"--dataset {run.dataset}" in line
        assert ("--seed" in line) == run.row.seeded
        assert ("ml-1m.zip" in line) == (run.dataset == "ml-1m")
    fusion = [run.seed for run in runs if "fusion" in run.row.name and run.dataset == "ml-1m"]
    assert sorted(fusion) == sorted(4 * [0, 1, 2])
    assert "content" not in [row.name for row in rows_of("next-item", "ml-1m-sas")]


@pytest.mark.parametrize("task", TASKS)
def test_quick_rows_have_one_epoch(task):
    for row in rows_of(task, "ml-100k"):
        short = quick(row)
        if row.system:
            assert short.arguments.count("--epochs") == 1
            assert short.arguments[short.arguments.index("--epochs") + 1] == "1"
        assert quick(short) == short or not row.system


def test_commands_are_the_same_run_wherever_their_files_are():
    row = Row("x", True, "experiments.x", ("train", "--epochs", "2"))
    line = shlex.join(command_of(row, "ml-100k", None, 3))
    assert line == "python -m experiments.x train --epochs 2 --dataset ml-100k --seed 3"
    assert same_run(f"{line} --run-dir a", f"{line} --run-dir 'b c' --resume")
    assert same_run(f"{line} --data-dir a --run-dir b", f"{line} --run-dir b")
    assert not same_run(line, line.replace("--seed 3", "--seed 4"))
    assert not same_run(line, line.replace("--epochs 2", ""))


ONLY = ["biases", "item mean", "popularity"]


def call(out, ml_100k, *more, only=ONLY):
    tasks = ["rating-random", "next-item"]
    arguments = ["--ml-100k", str(ml_100k), "--tasks", *tasks, "--out", str(out)]
    results.main([*arguments, "--only", *only, *more])


@pytest.mark.slow
def test_missing_runs_are_run_and_finished_ones_are_not(tmp_path, ml_100k, capsys):
    out = tmp_path / "out"
    place = out / "ml-100k" / "rating-random"
    call(out, ml_100k, only=["biases", "item mean"])
    assert "0 of 2 runs are there" in capsys.readouterr().out
    # What an interrupted baseline leaves is made again; what is finished is left alone.
    (place / "biases" / "seed-0" / "results.json").unlink()
    before = (place / "item-mean" / "seed-0" / "results.json").stat().st_mtime_ns
    call(out, ml_100k)
    said = capsys.readouterr().out
    assert "1 of 3 runs are there" in said and "next-item popularity seed 0" in said
    assert (place / "item-mean" / "seed-0" / "results.json").stat().st_mtime_ns == before
    page = (out / "results.md").read_text()
    for part in ("ml-100k: ratings, random 90/10", "ml-100k: the next item", "(the best baseline)"):
        assert part in page
    assert f"--method biases --split random --test-fraction 0.1 --valid-fraction 0.01 --dataset ml-100k --data-dir {ml_100k}" in page  # fmt: skip
    assert (out / "results.png").read_bytes().startswith(b"\x89PNG")
    written = json.loads((place / "biases" / "seed-0" / "results.json").read_text())
    assert f"| {written['test_rmse']:.4f} |" in page
    # Other settings than those that are there.
    with pytest.raises(InputError, match="holds the results of another command"):
        write_json(place / "biases" / "seed-0" / "results.json", written | {"command": "python x"})
        call(out, ml_100k, "--no-run")


def test_a_failing_command_says_its_own_sentence(tmp_path, ml_100k):
    (ml_100k / "u.data").write_text("1\t2\n")
    with pytest.raises(InputError, match=r"failed: .*u\.data.*line 1"):
        call(tmp_path / "out", ml_100k, only=["item mean"])
    with pytest.raises(InputError, match="holds no finished run"):
        call(tmp_path / "out", ml_100k, "--no-run", only=["item mean"])


def test_words_that_name_no_row_are_refused(tmp_path, ml_100k):
    with pytest.raises(InputError, match="No row's name contains"):
        call(tmp_path, ml_100k, only=["no such"])
    with pytest.raises(InputError, match="--seeds must be"):
        call(tmp_path, ml_100k, "--seeds", "0")


def test_sums_of_errors_by_user_give_the_whole_error():
    generator = np.random.default_rng(0)
    user, actual = generator.integers(2, 9, 100), generator.integers(1, 6, 100).astype(float)
    predicted = actual + generator.normal(size=100)
    users, sums = errors_by_user(user, predicted, actual)
    np.testing.assert_array_equal(users, np.unique(user))
    of_first = user == users[0]
    error = predicted - actual
    assert sums["squared_error"][0] == pytest.approx((error[of_first] ** 2).sum())
    assert sums["squared_error"].sum() == pytest.approx((error**2).sum())
    assert sums["absolute_error"].sum() == pytest.approx(np.abs(error).sum())


def test_help_explains_every_setting():
    said = subprocess.run(
        [sys.executable, "-m", "experiments.results", "--help"], capture_output=True, text=True
    )
    assert said.returncode == 0
    for flag in ("--ml-1m", "--seeds", "--only", "--quick", "--no-run", "--out"):
        assert flag in said.stdout
