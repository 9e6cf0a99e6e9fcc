"""Training of the embedding MLP at MovieLens-20M's size, beside Keras and PyTorch.

    python -m experiments.benchmarks.embedding_mlp [--keras-python PATH] [--torch-python PATH]

138,493 users, 26,744 items, 16 million made-up ratings, items by Zipf's law; the notebook's network,
optimizer and batch. Keras runs `fit` and PyTorch its usual eager loop, each in a process of its own
(another Python where one is given, else this one if it has them, else not at all) and on a GPU if it
finds one, as jrec does. All take turns, one at a time; given are medians. Results, with the machine,
stand in BUILD_NOTES.md.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# The peers need room on the same GPU.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments.benchmarks.peers import has_peer
from experiments.embedding_mlp.source import Source, gather_pairs, train_state, train_step
from jrec.data.synthetic import SyntheticSize, synthetic_columns
from jrec.errors import InputError, run_command
from jrec.models.embedding_mlp import EmbeddingMlp
from jrec.train.stream import make_chunk, mixed_order

_BATCH, _RATE = 1024, 0.08
Run = Callable[[int], tuple[float, float]]
"""The number of a repeat -> seconds that its steps took, and their mean loss."""


@dataclass
class Benchmark:
    """Print step times, ratings a second, and how near to the machine's arithmetic they are."""

    keras_python: Path | None = None
    """A Python with tensorflow and keras."""
    torch_python: Path | None = None
    """A Python with torch."""
    users: int = 138_493
    """Of the made-up data."""
    items: int = 26_744
    """Of the made-up data."""
    ratings: int = 16_000_000
    """Of the made-up data; an epoch's worth."""
    steps: int = 1000
    """Steps of one contestant in a turn."""
    repeats: int = 5
    """Turns, after one that warms up."""


def made_up_ratings(settings: Benchmark) -> dict[str, np.ndarray]:
    """`user`, `item` int32 [n] rows from 0, popular items anywhere in the table; `rating` centred."""
    size = SyntheticSize(settings.users, settings.items, settings.ratings, factors=1)
    columns = synthetic_columns(size, 0)
    rows = np.random.default_rng(1).permutation(settings.items).astype(np.int32)
    return {
        "user": (columns["user"] - 1).astype(np.int32),
        "item": rows[columns["item"] - 1],
        "rating": columns["rating"] - columns["rating"].mean(),
    }


def jrec_run(columns: dict[str, np.ndarray], settings: Benchmark, tables: str) -> Run:
    """Our training: the whole data set on the device, chunks of steps without the host."""
    source = Source(tables)
    model = EmbeddingMlp(settings.users, settings.items, source.width, source.hidden)
    row = jnp.zeros(1, jnp.int32)
    params = jax.jit(model.init)(jax.random.key(0), row, row)
    state = train_state(source, _RATE, params, jax.random.key(1))
    chunk = make_chunk(train_step(source, model, _RATE), gather_pairs, settings.ratings, _BATCH)
    names = {"user": "user", "item": "item", "target": "rating"}
    data = {ours: jnp.asarray(columns[name]) for ours, name in names.items()}
    order = mixed_order(jax.random.key(2), 0, settings.ratings, _BATCH)

    def run(number: int) -> tuple[float, float]:
        nonlocal state
        start = time.perf_counter()
        state, sums, _ = chunk(state, data, order, number * settings.steps, settings.steps)
        jax.block_until_ready(state)
        seconds = time.perf_counter() - start
        return seconds, float(sums["loss_sum"] / sums["count"])

    return run


def peer_run(python: Path, kind: str, data: Path, settings: Benchmark) -> tuple[str, Run]:
    """A peer's version and its training, in a process that waits between its turns."""
    script = Path(__file__).with_name("embedding_mlp_peer.py")
    command = [str(part) for part in (python, script, kind, data, settings.steps)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )

    def answer() -> object:
        for line in process.stdout:
            if line.startswith("peer:"):
                return json.loads(line.removeprefix("peer:"))
        raise InputError(f"{python} ended without an answer; does it have what {kind} needs?")

    def run(number: int) -> tuple[float, float]:
        process.stdin.write("go\n")
        process.stdin.flush()
        return tuple(answer())

    return answer(), run


def product_rate() -> float:
    """Floating-point operations a second of a large float32 matrix product."""
    size = 8192 if jax.devices()[0].platform == "gpu" else 2048
    square = jnp.ones((size, size), jnp.float32)
    multiply = jax.jit(lambda a: a @ a)
    multiply(square).block_until_ready()
    times = []
    for _ in range(7):
        start = time.perf_counter()
        multiply(square).block_until_ready()
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)


def order_seconds(settings: Benchmark) -> float:
    """What an epoch's order takes to draw."""
    times = []
    for epoch in range(4):
        start = time.perf_counter()
        mixed_order(jax.random.key(2), epoch, settings.ratings, _BATCH).block_until_ready()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])  # the first compiles


def main(settings: Benchmark) -> None:
    """Prints the table."""
    if (settings.repeats + 1) * settings.steps * _BATCH > settings.ratings:
        raise InputError("--ratings are too few for so many --steps and --repeats.")
    columns = made_up_ratings(settings)
    pythons = {"keras": settings.keras_python, "torch": settings.torch_python}
    needs = {"keras": "tensorflow", "torch": "torch"}
    runs: dict[str, Run] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.npz"
        np.savez(path, **columns, users=settings.users, items=settings.items)
        for kind, python in pythons.items():
            if has_peer(needs[kind], python):
                version, run = peer_run(python or Path(sys.executable), kind, path, settings)
                runs[version] = run
    device = jax.devices()[0]
    for tables in ("dense", "rows"):
        name = f"jrec, --tables {tables}, jax {jax.__version__}, {device.platform}"
        runs[name] = jrec_run(columns, settings, tables)

    times: dict[str, list[float]] = {name: [] for name in runs}
    losses = {}
    rates = [product_rate()]
    for repeat in range(settings.repeats + 1):
        for name, run in runs.items():
            time.sleep(0.5)  # a peer's threads may still spin
            seconds, losses[name] = run(repeat)
            if repeat:  # the first compiles
                times[name].append(seconds / settings.steps)
        rates.append(product_rate())
    rate, draw = max(rates), order_seconds(settings)

    load = " ".join(f"{number:.1f}" for number in os.getloadavg())
    print(f"\n{device.device_kind}, {os.cpu_count()} cores, load {load}; {settings.users:,} users,")
    print(
        f"{settings.items:,} items, batch {_BATCH}, median of {settings.repeats} x {settings.steps}"
    )
    print(f"steps; a large float32 matrix product: {rate / 1e9:,.0f} GFLOP/s\n")
    print(
        "| program | ms a step | lowest | ratings/s | s an epoch | GFLOP/s of the layer | times jrec's rows | loss |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    work = 3 * 2 * _BATCH * 20 * 1024
    medians = {name: statistics.median(values) for name, values in times.items()}
    ours = list(medians.values())[-1]
    for name, seconds in medians.items():
        drawn = draw if name.startswith("jrec") else 0.0
        epoch = settings.ratings / _BATCH * seconds + drawn
        cells = [name, f"{1000 * seconds:.2f}", f"{1000 * min(times[name]):.2f}"]
        cells += [f"{_BATCH / seconds:,.0f}", f"{epoch:.1f}"]
        cells += [f"{work / seconds / 1e9:,.0f} ({work / seconds / rate:.0%})"]
        cells += [f"{seconds / ours:.1f}", f"{losses[name]:.4f}"]
        print("| " + " | ".join(cells) + " |")
    print(f"\nAn epoch's order ({draw:.2f} s) is in jrec's epochs and left out of the others'.")


if __name__ == "__main__":
    run_command(lambda: main(tyro.cli(Benchmark, description=__doc__)))
