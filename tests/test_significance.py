import os
import subprocess
import sys

import numpy as np
import pytest

from jrec.errors import InputError
from jrec.evaluate.paired_tests import paired_bootstrap, paired_t_test
from jrec.evaluate.per_user import FILE, write_per_user
from jrec.evaluate.significance import main, read_per_user


def two_runs(users=200, gain=0.05, seed=0):
    g = np.random.default_rng(seed)
    a = g.random(users)
    return a, a + gain + 0.2 * g.standard_normal(users)


def test_t_test_against_numbers_of_r():
    """Student's sleep data, `t.test(extra ~ group, paired = TRUE)` in R's manual."""
    a = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    b = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    found = paired_t_test(np.array(a), np.array(b))
    assert found.difference == pytest.approx(1.58)
    assert (found.low, found.high) == pytest.approx((0.7001142, 2.4598858))
    assert found.p == pytest.approx(0.002832890, rel=1e-6)


def test_bootstrap_is_a_function_of_its_seed_and_near_the_t_test():
    a, b = two_runs()
    one, student = paired_bootstrap(a, b), paired_t_test(a, b)
    assert one == paired_bootstrap(a, b) != paired_bootstrap(a, b, seed=1)
    assert one.difference == pytest.approx(np.mean(b - a))
    width = student.high - student.low
    assert one.low == pytest.approx(student.low, abs=0.02 * width)
    assert one.high == pytest.approx(student.high, abs=0.02 * width)
    assert one.p == pytest.approx(student.p, abs=0.005) and one.p < 0.05
    other_way = paired_bootstrap(b, a)
    assert other_way.difference == -one.difference and other_way.p == pytest.approx(
        one.p, abs=0.002
    )
    narrow = paired_bootstrap(a, b, confidence=0.5)
    assert one.low < narrow.low < narrow.high < one.high


def test_bootstrap_of_three_users_by_hand():
    """Differences 0, 0, 3: the drawn mean is k with probability of k of 3 draws of one third."""
    found = paired_bootstrap(np.zeros(3), np.array([0.0, 0, 3]), draws=200_000)
    # At least 1 from the mean 1: 0, 2 or 3, that is all but exactly one of three.
    assert found.p == pytest.approx(1 - 3 * (1 / 3) * (2 / 3) ** 2, abs=0.005)
    # The mean is 0, 1, 2, 3 with probability 8, 12, 6, 1 of 27.
    assert (found.low, found.high) == (0, 3)
    narrow = paired_bootstrap(np.zeros(3), np.array([0.0, 0, 3]), confidence=0.9, draws=200_000)
    assert (narrow.low, narrow.high) == (0, 2)


@pytest.mark.parametrize("test", [paired_bootstrap, paired_t_test])
def test_intervals_hold_the_truth_as_often_as_they_say_and_p_is_uniform(test):
    """Skewed values, many ties, a true difference of 0.1."""
    g = np.random.default_rng(0)
    held, small, rounds = 0, 0, 400
    kwargs = {"draws": 400} if test is paired_bootstrap else {}
    for _ in range(rounds):
        a = g.random(120) < 0.3
        b = np.where(a, g.random(120) < 0.8, g.random(120) < 0.2)  # 0.3 -> 0.38
        held += (found := test(a, b, 0.9, **kwargs)).low <= 0.08 <= found.high
        low = g.random(120) < 0.3
        small += test(a, low, **kwargs).p < 0.1
    assert 0.86 < held / rounds < 0.94 and 0.06 < small / rounds < 0.14


@pytest.mark.parametrize("test", [paired_bootstrap, paired_t_test])
def test_equal_runs_and_constant_differences(test):
    a = np.random.default_rng(0).random(50)
    same = test(a, a)
    assert (same.difference, same.low, same.high, same.p) == (0, 0, 0, 1)
    moved = test(np.zeros(50), np.ones(50))
    assert (moved.low, moved.high) == (1, 1) and moved.p < 0.001


@pytest.mark.parametrize("test", [paired_bootstrap, paired_t_test])
@pytest.mark.parametrize("b", [[1.0], [1.0, np.nan], [[1.0, 2.0]]])
def test_values_must_be_paired(test, b):
    with pytest.raises(ValueError, match="two or more users"):
        test(np.zeros(np.shape(b)), np.array(b))
    with pytest.raises(ValueError, match="two or more users"):
        test(np.zeros(3), np.zeros(2))


@pytest.fixture
def runs(tmp_path):
    a, b = two_runs()
    a[3] = b[3] = np.nan
    user = np.arange(200) * 7
    order = np.random.default_rng(1).permutation(200)
    for name in "ab":
        (tmp_path / name).mkdir()
    write_per_user(tmp_path / "a", user, {"ndcg@10": a, "hr@10": a > 0.5, "mrr": a})
    write_per_user(tmp_path / "b", user[order], {"ndcg@10": b[order], "hr@10": (b > 0.5)[order]})
    return tmp_path / "a", tmp_path / "b", a, b


def test_the_file_by_user(runs):
    user, values = read_per_user(runs[1])
    assert np.array_equal(user, np.arange(200) * 7) and list(values) == ["ndcg@10", "hr@10"]
    assert np.array_equal(values["ndcg@10"], runs[3].astype(np.float32), equal_nan=True)
    assert [path.name for path in runs[1].iterdir()] == [FILE]
    write_per_user(runs[1], np.array(["x", "b"]), {"mrr": np.array([1.0, 2.0])})
    assert read_per_user(runs[1])[1]["mrr"].tolist() == [2, 1]


def test_what_may_not_be_written(tmp_path):
    with pytest.raises(ValueError, match="once"):
        write_per_user(tmp_path, np.array([1, 1]), {"mrr": np.ones(2)})
    for metrics in (
        {"mrr": np.ones(3)},
        {"user": np.ones(2)},
        {"hr": np.ones(2), "mrr": np.ones(3)},
    ):
        with pytest.raises(ValueError, match="one value a user"):
            write_per_user(tmp_path, np.array([1, 2]), metrics)
    assert list(tmp_path.iterdir()) == []


def test_one_command_prints_one_table(runs, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    a, b, first, second = runs
    main([str(a), str(b), "--metric", "ndcg@10"])
    text = capsys.readouterr().out
    has = ~np.isnan(first)
    found = paired_bootstrap(
        first[has].astype(np.float32), second[has].astype(np.float32).astype(float)
    )
    for part in (f"{found.difference:+.4f}", f"{found.low:+.4f} to {found.high:+.4f}", "199"):
        assert part in text
    assert "ndcg@10" in text and "hr@10" not in text and "seed 0" in text
    main([str(a), str(b)])
    both = capsys.readouterr().out
    assert "ndcg@10" in both and "hr@10" in both and "mrr" not in both


def fault(*arguments):
    with pytest.raises(InputError) as caught:
        main([str(argument) for argument in arguments])
    text = str(caught.value)
    assert text[-1] in ".?" and "\n" not in text
    return text


def test_runs_that_cannot_be_compared_are_one_sentence(runs, tmp_path):
    a, b, first, _ = runs
    assert "no metric 'mrr'" in fault(a, b, "--metric", "mrr")
    assert "is no folder" in fault(a, tmp_path / "none")
    assert "does not exist" in fault(a, tmp_path)
    assert "--confidence" in fault(a, b, "--confidence", "95")
    assert "--confidence" in fault(a, b, "--confidence", "0")
    assert "--draws" in fault(a, b, "--draws", "0") and "--draws" in fault(a, b, "--seed", "-1")
    assert "--help" in fault(a) and "--help" in fault(a, b, "--metrc", "x")
    write_per_user(b, np.arange(200), {"ndcg@10": first})
    assert "200 users" in fault(a, b) and "29 are the same" in fault(a, b)
    write_per_user(b, np.arange(200) * 7, {"ndcg@10": np.nan_to_num(first)})
    assert "Different users have a value" in fault(a, b)
    write_per_user(b, np.arange(200) * 7, {"map@10": first})
    assert "no metric in common" in fault(a, b)
    for run in (a, b):
        write_per_user(run, np.arange(3), {"mrr": np.array([np.nan, np.nan, 1])})
    assert "a test needs two" in fault(a, b)


def test_damaged_files_are_one_sentence(runs):
    a, b, _, _ = runs
    whole = (b / FILE).read_bytes()
    middle = len(whole) // 3
    changed = whole[:middle] + bytes(255 - byte for byte in whole[middle : middle + 40])
    for content in (b"", b"hello", whole[:100], whole[:-30], changed + whole[middle + 40 :]):
        (b / FILE).write_bytes(content)
        text = fault(a, b)
        assert str(b / FILE) in text and "again" in text
    contents = [
        {"mrr": np.ones(3)},
        {"user": np.arange(3)},
        {"user": np.arange(3), "mrr": np.ones(2)},
        {"user": np.arange(3), "mrr": np.ones(3), "hr": np.ones(2)},
        {"user": np.arange(3), "mrr": np.array(list("abc"))},
        {"user": np.arange(3) + 0.5, "mrr": np.ones(3)},
        {"user": np.array([1, 1, 2]), "mrr": np.ones(3)},
        {"user": np.arange(3), "mrr": np.array([None] * 3)},
    ]
    for content in contents:
        np.savez(b / FILE, **content)
        text = fault(a, b)
        assert str(b / FILE) in text and "again" in text
    with (b / FILE).open("wb") as file:
        np.save(file, np.ones(3))
    assert str(b / FILE) in fault(a, b)


@pytest.mark.slow
def test_the_command_line_exits_with_one(runs):
    a, b, _, _ = runs

    def command(*arguments):
        line = [sys.executable, "-m", "jrec.evaluate.significance", *map(str, arguments)]
        environment = os.environ | {"COLUMNS": "200"}
        return subprocess.run(line, capture_output=True, text=True, env=environment)

    good = command(a, b, "--metric", "hr@10", "--draws", "100")
    assert good.returncode == 0 and "hr@10" in good.stdout and good.stderr == ""
    bad = command(a, b / "none")
    assert bad.returncode == 1 and bad.stderr.count("\n") == 1 and "Traceback" not in bad.stderr


def test_the_bootstrap_draws_as_often_as_it_says_in_blocks_of_any_size(monkeypatch):
    a, b = two_runs(20)
    whole = paired_bootstrap(a, b)
    assert whole.p * 10_001 == pytest.approx(round(whole.p * 10_001), abs=1e-6)
    moved = paired_bootstrap(np.zeros(5), np.ones(5), draws=1)
    assert (moved.low, moved.high, moved.p) == (1, 1, 0.5)
    some = paired_bootstrap(a, b, draws=50)
    for cells in (3, 70):
        monkeypatch.setattr("jrec.evaluate.paired_tests._CELLS", cells)
        assert paired_bootstrap(a, b, draws=50) == some


@pytest.mark.parametrize(
    ("error", "said"), [(EOFError(), "(EOFError)"), (ValueError("one\ntwo"), "(one)")]
)
def test_the_reason_is_one_line(runs, monkeypatch, error, said):
    def load(*arguments, **settings):
        raise error

    monkeypatch.setattr(np, "load", load)
    assert said in fault(*runs[:2])
