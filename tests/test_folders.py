"""Each system's folder stands alone: it may be copied under another name and changed there."""

import ast
import dataclasses
import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.__main__ import commands as known_commands
from experiments.fusion import __main__ as fusion
from jrec.command_line import parse_command
from jrec.errors import InputError
from jrec.files import plain
from jrec.report import open_run_directory
from jrec.train.flags import settings_of

ROOT = Path(__file__).parents[1]
SYSTEMS = ("fusion", "embedding_mlp", "autoencoder", "candidates", "ranking", "two_stages")
SYSTEMS += ("baselines",)
FOLDERS = (*SYSTEMS, "results", "benchmarks")
SMALL = "--dataset synthetic --synthetic.users 30 --synthetic.items 20 --synthetic.ratings 300"


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_imports_its_own_files_relatively(folder):
    for path in (ROOT / "experiments" / folder).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                own = node.level == 0 and (node.module or "").startswith(f"experiments.{folder}")
                assert not own or folder == "benchmarks", f"{path}, line {node.lineno}"


@pytest.mark.slow
def test_a_copied_folder_runs_under_its_new_name(tmp_path):
    leave = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments", ignore=leave)
    shutil.copytree(ROOT / "experiments" / "candidates", tmp_path / "experiments" / "mine")
    size = "--synthetic.users 60 --synthetic.items 20 --synthetic.clicks 6 --synthetic.groups 3"
    size += " --synthetic.categories 4 --epochs 1 --item-width 8 --length 4"
    command = [sys.executable, "-m", "experiments.mine", "train", *size.split()]
    found = {"PYTHONPATH": str(ROOT)}  # jrec; the folder that one stands in comes first
    done = subprocess.run(
        [*command, "--run-dir", "run"], cwd=tmp_path, env=os.environ | found, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    assert (tmp_path / "run" / "results.json").exists()


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_has_a_readme_of_one_screen_whose_commands_parse(folder, monkeypatch, capsys):
    text = (ROOT / "experiments" / folder / "README.md").read_text()
    lines = text.splitlines()
    assert len(lines) <= 45 and max(map(len, lines)) <= 140
    commands = re.findall(r"^(?:make|python -m) .*$", text, re.MULTILINE)
    assert len(commands) >= 3
    for command in commands:
        first, *words = shlex.split(command)
        if first == "make":
            assert f"\n{words[0]}:" in (ROOT / "Makefile").read_text(), command
            continue
        assert words[1] in known_commands(), command
        if words[1] == f"experiments.{folder}" and folder in SYSTEMS and "--help" not in words:
            module = importlib.import_module(f"experiments.{folder}.__main__")
            presets = getattr(module, "PRESETS", None)
            parse_command(list(module.COMMANDS), None, words[2:], presets)


def test_a_run_of_another_version_is_refused_in_one_sentence(tmp_path, monkeypatch, capsys):
    flags = [*SMALL.split(), "--epochs", "1", "--run-dir", str(tmp_path / "run")]
    monkeypatch.setattr(fusion, "run", lambda plan, flags, folder, record: write(folder, record))

    class Written(Exception):
        pass

    def write(folder, record):
        open_run_directory(folder, False, record)
        raise Written

    with pytest.raises(Written):
        fusion.main(["train", *flags])
    path = tmp_path / "run" / "settings.json"
    older = json.loads(path.read_text())
    older["film_width"] = older.pop("batch_size")
    path.write_text(json.dumps(older))
    with pytest.raises(InputError) as fault:
        record = older | {"batch_size": 256}
        del record["film_width"]
        open_run_directory(tmp_path / "run", True, record)
    assert "made by another version of jrec, whose settings have other names" in str(fault.value)
    assert "film_width" in str(fault.value)
    capsys.readouterr()


def test_written_settings_come_back_and_other_names_are_refused(tmp_path):
    settings = fusion.PRESETS["improved"]()
    written = plain(dataclasses.asdict(settings))
    assert settings_of(fusion.Train, written, tmp_path) == settings
    run = {name: value for name, value in written["run"].items() if name != "seed"}
    fewer = {name: value for name, value in written.items() if name != "batch_size"}
    for other in (fewer, written | {"width": 3}, written | {"run": run}):
        with pytest.raises(InputError, match="made by another version of jrec"):
            settings_of(fusion.Train, other, tmp_path)
