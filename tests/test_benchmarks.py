"""The command that runs all benchmarks: its list, its refusals, its file."""

import importlib.util
import subprocess
import types
from pathlib import Path

import pytest

from experiments.benchmarks import __main__ as bench
from experiments.benchmarks import embeddings, loading, mining, retrieval, turns
from jrec.errors import InputError


def test_every_benchmark_is_a_program_with_its_flags():
    for name in bench.COMMANDS:
        command = bench.command_of(name, bench.Bench())
        module = importlib.util.find_spec(command[2])
        text = Path(module.origin).read_text("utf-8")
        for flag in command[3:]:
            if flag.startswith("--"):
                assert f"    {flag[2:].replace('-', '_')}:" in text, (name, flag)


def test_the_file_has_every_section(tmp_path, monkeypatch, capsys):
    asked = []

    def run(command, stdout, **_):
        asked.append(command)
        stdout.write("| a |\n| 1 |\n")
        return types.SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(bench, "machine", lambda: [("cores", "2")])
    bench.main(["--out", str(tmp_path / "b"), "--only", "loading", "mining"])
    text = (tmp_path / "b" / "bench.md").read_text()
    assert "## loading" in text and "## mining" in text and text.count("| 1 |") == 2
    assert len(asked) == 2 and "experiments.benchmarks.loading" in asked[0]


def test_a_failing_benchmark_is_named(tmp_path, monkeypatch):
    def run(command, stdout, **_):
        stdout.write("no torch\n")
        return types.SimpleNamespace(returncode=1)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(bench, "machine", lambda: [("cores", "2")])
    with pytest.raises(InputError, match=r"loading .* failed: no torch \(its output is in"):
        bench.main(["--out", str(tmp_path), "--only", "loading"])
    with pytest.raises(InputError, match="no benchmark nothing; --only knows embeddings"):
        bench.main(["--out", str(tmp_path), "--only", "nothing"])


def test_an_absent_peer_is_left_out(capsys):
    assert turns.has_peer("json") and not turns.has_peer("no_such_library")
    said = capsys.readouterr().out
    assert said.startswith("no_such_library is not installed") and said.count("\n") == 1


def test_sides_take_turns():
    ran = []
    sides = {name: lambda turn, name=name: ran.append((name, turn)) for name in "ab"}
    times = turns.alternate(sides, 2)
    assert ran == [("a", 0), ("b", 0), ("b", 1), ("a", 1), ("a", 2), ("b", 2)]
    assert [len(each) for each in times.values()] == [2, 2]
    assert turns.medians({"a": [3.0, 1.0, 2.0]}) == {"a": 2.0}
    assert len(turns.alternate(sides, 2, warm_up=False)["a"]) == 2


@pytest.mark.slow
def test_a_fresh_process_gives_its_result(tmp_path):
    loading.write_csv(tmp_path, loading.Loading(rows=50, users=10, items=20))
    *seconds, peak, kept = turns.in_fresh_process(loading.load_once, str(tmp_path))
    assert min(seconds) >= 0 and peak > 0 and 0 < kept <= 50


def test_embeddings_leave_absent_peers_out(monkeypatch, capsys):
    asked = []

    def measure(settings, rows, ids, name, peers):
        asked.append(peers)
        return {}

    monkeypatch.setattr(embeddings, "measure", measure)
    monkeypatch.setattr(embeddings, "has_peer", lambda library: library == "torch")
    embeddings.main(embeddings.Benchmark([8], [4]))
    assert asked[0] == {"torch"} and "| sgd | 8 |" in capsys.readouterr().out


def test_searches_run_without_faiss(monkeypatch, capsys):
    monkeypatch.setattr(retrieval, "has_peer", lambda library: False)
    retrieval.exact(retrieval.Exact(items=500, batch=2, count=5, repeats=1))
    retrieval.approximate(retrieval.Approximate(items=500))
    said = capsys.readouterr().out
    assert "| jrec exact_top_k |" in said and "| faiss flat |" not in said


@pytest.mark.slow
def test_mining_runs_without_faiss_and_pyarrow(monkeypatch, capsys):
    monkeypatch.setattr(mining, "has_peer", lambda library: False)
    monkeypatch.setattr(mining, "default_suffix", lambda: ".tsv")
    mining.main(["--users", "30", "--items", "50", "--count", "5", "--seen", "3", "--repeats", "1"])
    assert "| jrec, seen left out and written |" in capsys.readouterr().out
