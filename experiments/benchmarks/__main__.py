"""Every benchmark beside its peers, at small sizes, in one table file.

    python -m experiments.benchmarks [--only embeddings retrieval-exact] [--out bench]

Each is the command that the table names, in a process of its own, one after the other; sides alternate within
it, and its figures are medians. `--out` gets one text file a benchmark and `bench.md` with all of
them, the machine's own rates and every library's version. Peers that are not installed are left out by the
benchmarks, which say so. The numbers in BUILD_NOTES.md come from the same programs at their full sizes.
"""

import os
import platform
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import jax
import jax.numpy as jnp
from rich.console import Console

from experiments.benchmarks.turns import fastest, installed, matrix_gflops
from jrec.command_line import parse_command
from jrec.console import plain_console
from jrec.errors import InputError, run_command
from jrec.files import replacing
from jrec.report import markdown_table

COMMANDS: dict[str, tuple[str, ...]] = {
    "embeddings": (
        *("embeddings", "--table-rows", "10000", "1000000", "--batch-sizes", "1024"),
        *("--repeats", "5"),
    ),
    "embedding-mlp": (
        *("embedding_mlp", "--ratings", "4000000", "--steps", "300", "--repeats", "5"),
    ),
    "autoencoder": ("autoencoder", "--cases", "ml-1m", "--steps", "10", "--repeats", "5"),
    "candidates": (
        *("candidates", "--items", "10000", "100000", "--examples", "2500", "--repeats", "7"),
    ),
    "ranking-evaluation": ("ranking_evaluation", "--repeats", "5"),
    "ranking-training": ("ranking_training", "--repeats", "5"),
    "two-stages": ("two_stages", "--items", "10000", "100000"),
    "baselines": ("baselines", "--repeats", "5", "--widths", "64"),
    "retrieval-exact": ("retrieval", "exact", "--repeats", "5"),
    "retrieval-approximate": (
        *("retrieval", "approximate", "--items", "100000", "--queries", "512", "--repeats", "5"),
        *("--figure", "{out}/recall.png"),
    ),
    "mining": ("mining", "--users", "100000", "--first", "16384", "--repeats", "5"),
    "loading": ("loading", "--rows", "2000000", "--repeats", "5"),
}
_VERSIONS = ("jax", "flax", "optax", "numpy", "scipy", "torch", "tensorflow", "keras", "faiss-cpu")
_VERSIONS += ("implicit", "scikit-learn", "pyarrow")


@dataclass
class Bench:
    """Run them, and write one table file."""

    only: tuple[str, ...] = ()
    """Names of benchmarks (left out: all)."""
    out: Path = field(default_factory=lambda: Path("bench"))
    """Folder for the tables."""
    data_dir: Path | None = None
    """The file of SASRec's MovieLens-1M for `baselines`; left out, made clicks."""


def machine() -> list[tuple[str, str]]:
    """What the machine is, and its measured rates in float32."""
    return [
        (
            "machine",
            f"{os.cpu_count()} cores, {platform.machine()}, {jax.devices()[0].device_kind}",
        ),
        ("load before", " ".join(f"{load:.1f}" for load in os.getloadavg())),
        ("product of 2048 x 2048 matrices", f"{matrix_gflops():.0f} GFLOP/s"),
        ("sum of two arrays of 256 MB", f"{memory_gb_per_s():.1f} GB/s"),
        ("Python", platform.python_version()),
        *((name, version) for name in _VERSIONS if (version := installed(name))),
    ]


def memory_gb_per_s() -> float:
    """The best of seven additions of arrays that no cache holds; bytes read and written."""
    array = jnp.ones(1 << 26, jnp.float32)
    add = jax.jit(jnp.add)
    return 3 * array.nbytes / fastest(lambda: add(array, array)) / 1e9


def command_of(name: str, settings: Bench) -> list[str]:
    """What a reader types, `python` for this one."""
    module, *flags = (part.format(out=settings.out) for part in COMMANDS[name])
    if name == "baselines":
        place = settings.data_dir
        flags += ["--dataset", "synthetic"] if place is None else ["--data-dir", str(place)]
    return ["python", "-m", f"experiments.benchmarks.{module}", *flags]


def run_one(name: str, settings: Bench, console: Console) -> str:
    """A benchmark's section of the table file. Raises InputError where it fails."""
    command = command_of(name, settings)
    console.print(f"{name}: {shlex.join(command)}", soft_wrap=True)
    log, faults = settings.out / f"{name}.txt", settings.out / f"{name}.err.txt"
    start = time.perf_counter()
    with log.open("w", encoding="utf-8") as file, faults.open("w", encoding="utf-8") as errors:
        code = subprocess.run(
            [sys.executable, *command[1:]],
            stdout=file,
            stderr=errors,
            env=os.environ | {"COLUMNS": "200", "TERM": "dumb", "PYTHONWARNINGS": "ignore"},
        ).returncode
    said = log.read_text("utf-8", "replace").strip()
    if code:
        lines = (said + "\n" + faults.read_text("utf-8", "replace").strip()).strip().splitlines()
        last = lines[-1] if lines else "it said nothing"
        raise InputError(f"{shlex.join(command)} failed: {last} (its output is in {settings.out}).")
    shown = "\n".join(line for line in said.splitlines() if "\r" not in line)
    seconds = time.perf_counter() - start
    return f"## {name}\n\n`{shlex.join(command)}` ({seconds:.0f} s)\n\n{shown}\n"


def main(arguments: list[str] | None = None) -> None:
    """The command line; `arguments` are the process's own by default."""
    settings = parse_command((Bench,), __doc__, arguments)
    for name in settings.only:
        if name not in COMMANDS:
            raise InputError(f"There is no benchmark {name}; --only knows {', '.join(COMMANDS)}.")
    settings.out.mkdir(parents=True, exist_ok=True)
    console = plain_console()
    sections = ["# Benchmarks\n", markdown_table(["", ""], list(map(list, machine())))]
    for name in settings.only or COMMANDS:
        sections.append(run_one(name, settings, console))
        with replacing(settings.out / "bench.md") as path:
            path.write_text("\n".join(sections), "utf-8")
    console.print(f"tables: {settings.out / 'bench.md'}", soft_wrap=True)


if __name__ == "__main__":
    run_command(main)
