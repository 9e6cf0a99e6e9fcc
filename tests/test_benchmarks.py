"""The command that runs all benchmarks: its list, its refusals, its file."""

import importlib.util
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from experiments.benchmarks import __main__ as bench
from experiments.benchmarks import embeddings, mining, peers, retrieval
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
    bench.main(["--out", str(tmp_path / "b"), "--only", "loading", "netflix"])
    text = (tmp_path / "b" / "bench.md").read_text()
    assert "## loading" in text and "## netflix" in text and text.count("| 1 |") == 2
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


@pytest.mark.parametrize("python", [None, sys.executable, "another"])
def test_a_peer_is_found_in_its_python_or_left_out(python, tmp_path, capsys):
    if python == "another":
        python = tmp_path / "python"
        python.symlink_to(sys.executable)
    python = python and Path(python)
    assert peers.has_peer("json", python) and not peers.has_peer("no_such_library", python)
    said = capsys.readouterr().out
    assert said.startswith("no_such_library is not installed") and said.count("\n") == 1


def test_embeddings_leave_absent_peers_out(monkeypatch, capsys):
    asked = []

    def measure(settings, rows, ids, name, with_torch):
        asked.append((settings.tensorflow_python, with_torch))
        return {}

    monkeypatch.setattr(embeddings, "measure", measure)
    monkeypatch.setattr(embeddings, "has_peer", lambda *library: False)
    settings = embeddings.Benchmark([8], [4], tensorflow_python=Path(sys.executable))
    embeddings.main(settings)
    assert set(asked) == {(None, False)} and "| sgd | 8 |" in capsys.readouterr().out


def test_a_peer_that_fails_is_one_sentence(monkeypatch):
    done = types.SimpleNamespace(returncode=1, stderr="a\nno TensorFlow\n", stdout="")
    monkeypatch.setattr(subprocess, "run", lambda *command, **how: done)
    settings = embeddings.Benchmark(tensorflow_python=Path("python3"))
    with pytest.raises(InputError, match=r"failed in python3: no TensorFlow\."):
        embeddings.tensorflow_step(settings, 8, np.zeros((1, 1, 4), np.int32), "sgd")


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
