"""What the README links is there, and its commands for your own data run (the others: test_readme_commands.py)."""

import importlib
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_file_that_the_readme_links_is_there():
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert link.startswith("http") or (ROOT / link).exists(), link
    tree = README[README.index("## Where things are") :]
    for name in re.findall(r"^(?:jrec|experiments|tests)/[\w./]*", tree, re.MULTILINE):
        assert (ROOT / name).exists(), name


@pytest.mark.slow
def test_the_commands_for_your_own_data_run(tmp_path, monkeypatch, capsys):
    generator = np.random.default_rng(0)
    names = ["anna", "bo", "chris", "dora", "emil", "fay"]
    ratings, clicks = ["user,item,rating"], ["user,item,time"]
    for name in names:
        for item in generator.permutation(12)[:9]:
            ratings.append(f"{name},book {item},{generator.integers(1, 6)}")
            clicks.append(f"{name},shoe {item},{len(clicks)}")
    (tmp_path / "my_ratings.csv").write_text("\n".join(ratings))
    (tmp_path / "my_clicks.csv").write_text("\n".join(clicks))
    monkeypatch.chdir(tmp_path)
    section = README[README.index("## Your own data") : README.index("## Experiments")]
    lines = [line for line in section.splitlines() if line.startswith("python -m ")]
    assert len(lines) >= 8
    for line in lines:
        _, _, module, *words = shlex.split(line, comments=True)
        words += ["--epochs", "1"] if words[0] == "train" else []
        is_folder = hasattr(importlib.import_module(module), "__path__")
        program = importlib.import_module(f"{module}.__main__" if is_folder else module)
        monkeypatch.setattr(sys, "argv", [module, *words])
        program.main()
        said = capsys.readouterr().out
        if words[0] in ("recommend", "search"):
            assert ("book " if words[0] == "recommend" else "shoe ") in said
    assert (tmp_path / "runs" / "mine" / "report.md").exists()
