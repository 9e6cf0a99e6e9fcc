"""The command that runs all benchmarks: its list, its refusals, its file."""

import importlib.util
import subprocess
import types
from pathlib import Path

import pytest

from experiments.benchmarks import __main__ as bench
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
