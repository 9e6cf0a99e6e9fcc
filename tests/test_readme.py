"""Every command of the README is one that its program takes, and every snippet of Python runs."""

import importlib
import re
import shlex
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.__main__ import commands as known_commands
from jrec import command_line
from jrec.data.synthetic import SyntheticSize, synthetic_ratings
from jrec.rating_export import export_rating_model

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands():
    """`python -m …` of code blocks and of inline code, each without its comment."""
    blocks = re.findall(r"^```\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += re.findall(
        r"`(python -m [^`]+)`", re.sub(r"^```.*?^```", "", README, flags=re.M | re.S)
    )
    lines = [line for line in lines if line.startswith("python -m ")]
    return sorted({" ".join(shlex.split(line, comments=True)) for line in lines})


class Taken(Exception):
    """The command line was understood."""


@pytest.mark.parametrize("command", commands())
def test_a_command_is_understood(command, monkeypatch, capsys):
    _, _, module, *words = command.split()
    words = [word for word in words if "…" not in word]
    main = (
        f"{module}.__main__"
        if module in ("experiments", "experiments.benchmarks", "jrec.data")
        else module
    )
    program = importlib.import_module(main)
    monkeypatch.setattr(sys, "argv", [module, *words])
    if module == "experiments":
        return program.main()
    assert module in known_commands()

    def only_parse(kinds, description, arguments=None):
        command_line.parse_command(kinds, description, arguments)
        raise Taken

    if hasattr(program, "parse_command"):
        monkeypatch.setattr(program, "parse_command", only_parse)
    with pytest.raises((Taken, SystemExit)) as end:
        program.main()
    assert end.type is Taken or "--help" in words
    return None


def test_the_readme_has_its_commands():
    assert len(commands()) > 30
    wrong = "python -m experiments.fusion train --datasett ml-1m"
    assert wrong not in commands()


def test_the_first_snippet_ranks_films(tmp_path, monkeypatch):
    ratings = synthetic_ratings(SyntheticSize(30, 20, 600), 0)
    export_rating_model(
        tmp_path / "runs" / "fusion" / "export",
        lambda arrays, user, film: arrays["bias"][film] + 0.0 * user,
        {"bias": jnp.arange(ratings.vocabularies["film"].rows, dtype=jnp.float32)},
        ratings,
        np.arange(0),
    )
    monkeypatch.chdir(tmp_path)
    first, *others = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    found = {}
    exec(first, found)
    assert [film for film, _, _ in found["films"]] == list(range(20, 10, -1))
    for snippet in others:
        lines = [line for line in snippet.splitlines() if line.startswith(("from ", "import "))]
        exec("\n".join(lines), {})
        compile(snippet, "README.md", "exec")


def test_every_file_that_the_readme_links_is_there():
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert link.startswith("http") or (ROOT / link).exists(), link
    tree = README[README.index("## Where things are") :]
    for name in re.findall(r"^(?:jrec|experiments|tests)/[\w./]*", tree, re.MULTILINE):
        assert (ROOT / name).exists(), name


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
        program = importlib.import_module("jrec.data.__main__" if module == "jrec.data" else module)
        monkeypatch.setattr(sys, "argv", [module, *words])
        program.main()
        said = capsys.readouterr().out
        if words[0] in ("recommend", "search"):
            assert ("book " if words[0] == "recommend" else "shoe ") in said
    assert (tmp_path / "runs" / "mine" / "report.md").exists()
