"""What the command lines say: the list of commands, near values, and no slow import before --help."""

import subprocess
import sys
from dataclasses import dataclass, field
from typing import Literal

import pytest

from experiments.__main__ import commands, main
from jrec.command_line import parse_command
from jrec.errors import InputError

# Each takes a tenth of a second or more to import, and none is needed to explain flags.
SLOW = ("pandas", "orbax", "pooch", "requests", "matplotlib", "pyarrow", "scipy.stats", "faiss")


@dataclass
class Size:
    """Sizes."""

    users: int = 3
    """How many."""


@dataclass
class Train:
    """Train."""

    dataset: Literal["ml-100k", "ml-1m", "synthetic"] = "ml-100k"
    """Which."""
    preset: Literal["source", "improved"] | None = None
    """Fills in."""
    epochs: int | None = None
    """Passes."""
    size: Size = field(default_factory=Size)
    """Sizes."""


@dataclass
class Predict:
    """Predict."""

    user: str
    """Whose."""


def refused(*arguments):
    with pytest.raises(InputError) as fault:
        parse_command((Train, Predict), None, list(arguments))
    said = str(fault.value)
    assert said.endswith("; --help explains every flag.") and "\n" not in said
    return said


@pytest.mark.parametrize(
    ("arguments", "near"),
    [
        (["train", "--dataset", "ml100k"], "did you mean ml-100k;"),
        (["train", "--dataset", "sintetic"], "did you mean synthetic;"),
        (["train", "--preset", "improvd"], "did you mean improved;"),
        (["trian"], "did you mean train;"),
        (["train", "--epoch", "3"], "--epochs"),
        (["train", "--size.user", "3"], "--size.users"),
    ],
)
def test_the_nearest_valid_one_is_named(arguments, near):
    assert near in refused(*arguments)


def test_nothing_is_guessed_where_nothing_is_near():
    assert "did you mean" not in refused("train", "--dataset", "qqqq") + refused("zzzz")


def test_a_title_is_not_said_twice():
    assert refused("train", "--dataset", "ml-100").startswith(
        "Invalid choice 'ml-100' for argument"
    )
    assert refused("trian").startswith("Unrecognized options: trian Available subcommands: train")
    assert refused().startswith("Missing subcommand: Expected one of")


def test_the_list_names_every_command_once(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["experiments"])
    main()
    said = capsys.readouterr().out
    for name in commands():
        assert said.count(f"\n  python -m {name} ") == 1, name
    assert all(described.endswith(".") for described in commands().values())
    systems = said[: said.index("\n\n")]
    for name in ("fusion", "candidates.compare_losses", "autoencoder.ablations", "ranking.table"):
        assert f"python -m experiments.{name} " in systems
    for name in ("jrec.data", "jrec.data.netflix", "experiments.benchmarks.retrieval"):
        assert f"python -m {name} " in said
    monkeypatch.setattr(sys, "argv", ["experiments", "fusoin"])
    with pytest.raises(InputError, match=r"did you mean python -m experiments\.fusion\."):
        main()


@pytest.mark.slow
def test_no_slow_import_comes_before_help():
    modules = [name for name in commands() if ".benchmarks." not in name]
    script = f"""
import importlib, sys
for name in {modules}:
    importlib.import_module(name + ".__main__" if name == "jrec.data" else name)
    slow = sorted(m for m in {SLOW} if m in sys.modules)
    assert not slow, (name, slow)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_package_alone_imports_nothing():
    script = "import sys, jrec; print(sorted(m for m in sys.modules if m in ('jax', 'numpy')))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
