"""Step time of embedding tables: updated by rows, as a whole (Optax), and by PyTorch's sparse gradients.

    python -m experiments.benchmarks.embeddings [--batch-sizes 1024 16384] [--repeats 7]

A step looks rows up, takes the gradient of the sum of their squares (over two), and updates. JAX's steps
run as its users run them, a compiled scan over a round's batches (ours and Optax's alike); PyTorch's and
TensorFlow's are called one by one. All that are compared at one size run in turns, round after round,
in one process: what disturbs one disturbs all. (TensorFlow has a process of its own, right after.) Given
are medians over rounds of a round's mean step. PyTorch and TensorFlow are left out where they are not
installed. Results, with the machine and its load, stand in BUILD_NOTES.md.
"""

import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from experiments.benchmarks.peers import has_peer
from jrec.embeddings import optimizers as row_optimizers
from jrec.embeddings.row_step import init_row_state, make_row_step
from jrec.embeddings.table import Embed
from jrec.errors import InputError, run_command
from jrec.train.step import init_state, make_step

RATE = 0.01
ROWS = {
    "sgd": row_optimizers.sgd(RATE),
    "adagrad": row_optimizers.adagrad(RATE),
    "rowwise adagrad": row_optimizers.rowwise_adagrad(RATE),
    "adam": row_optimizers.adam(RATE),
}
DENSE = {"sgd": optax.sgd(RATE), "adagrad": optax.adagrad(RATE), "adam": optax.adam(RATE)}
Run = Callable[[int], None]
"""Takes the steps of the round of this number."""


@dataclass
class Benchmark:
    """Print step times in milliseconds."""

    table_rows: list[int] = field(default_factory=lambda: [10_000, 1_000_000, 10_000_000])
    """Rows of the table."""
    batch_sizes: list[int] = field(default_factory=lambda: [1024, 16_384])
    """Ids a step."""
    width: int = 64
    """Of a row."""
    dense_up_to: int = 1_000_000
    """Tables of more rows are not updated as a whole."""
    torch_up_to: int = 1_000_000
    """Nor with PyTorch above this: three copies of 10 million rows are 8 GB."""
    tensorflow_python: Path | None = None
    """A Python with tensorflow."""
    repeats: int = 7
    """Rounds."""
    steps: int = 20
    """Steps of one contestant in a round (one of ten for whole tables above 100,000 rows)."""


def draw(kind: str, rows: int, batch_size: int, count: int) -> np.ndarray:
    """int32 [count, batch_size] ids, uniform or Zipf (the k-th row 1 / k as often), rows shuffled."""
    generator = np.random.default_rng(0)
    if kind == "uniform":
        return generator.integers(0, rows, (count, batch_size), dtype=np.int32)
    sums = np.cumsum(1 / np.arange(1, rows + 1))
    places = np.searchsorted(sums, generator.random((count, batch_size)) * sums[-1])
    return generator.permutation(rows).astype(np.int32)[places]


def jax_run(
    rows: int, width: int, ids: np.ndarray, rule: Any, table: np.ndarray, by_rows: bool
) -> Run:
    """A compiled scan over [steps, batch_size] ids, its state donated: the table is written in place."""
    model = Embed(rows, width)

    def loss(params: Any, batch: Any, key: Any, apply: Callable = nn.Module.apply) -> Any:
        return (apply(model, params, batch) ** 2).sum() / 2, jnp.float32(1)

    params, key = {"params": {"embedding": jnp.array(table)}}, jax.random.key(0)
    if by_rows:
        state = init_row_state(params, optax.sgd(RATE), rule, key)
        step = make_row_step(loss, optax.sgd(RATE), rule)
    else:
        state, step = init_state(params, rule, key), make_step(loss, rule)
    rounds = [jnp.asarray(batches) for batches in ids]

    def steps(state: Any, batches: jax.Array) -> Any:
        return jax.lax.scan(step, state, batches)[0]

    compiled = jax.jit(steps, donate_argnums=0).lower(state, rounds[0]).compile()
    del params

    def run(number: int) -> None:
        nonlocal state
        state = jax.block_until_ready(compiled(state, rounds[number % len(rounds)]))

    return run


def torch_run(rows: int, width: int, ids: np.ndarray, name: str, table: np.ndarray) -> Run:
    """PyTorch's step with `sparse=True`."""
    import torch

    layer = torch.nn.Embedding(rows, width, sparse=True)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(table))
    made = {"sgd": torch.optim.SGD, "adagrad": torch.optim.Adagrad, "adam": torch.optim.SparseAdam}
    optimizer = made[name](layer.parameters(), lr=RATE)
    rounds = [torch.from_numpy(batches.astype(np.int64)) for batches in ids]

    def run(number: int) -> None:
        for batch in rounds[number % len(rounds)]:
            optimizer.zero_grad()
            ((layer(batch) ** 2).sum() / 2).backward()
            optimizer.step()

    return run


def contestants(
    settings: Benchmark, rows: int, ids: np.ndarray, name: str, with_torch: bool
) -> Iterator[tuple[str, Run, int]]:
    """(kind, run, steps a round) of all that train with one rule; ids are [rounds, steps, batch_size]."""
    table = np.random.default_rng(0).standard_normal((rows, settings.width), np.float32)
    yield "rows", jax_run(rows, settings.width, ids, ROWS[name], table, True), settings.steps
    if name in DENSE and rows <= settings.dense_up_to:
        steps = settings.steps if rows <= 100_000 else max(settings.steps // 10, 1)
        yield (
            "dense",
            jax_run(rows, settings.width, ids[:, :steps], DENSE[name], table, False),
            steps,
        )
    if with_torch and name in DENSE and rows <= settings.torch_up_to:
        yield "torch", torch_run(rows, settings.width, ids, name, table), settings.steps


def measure(settings: Benchmark, rows: int, ids: np.ndarray, name: str, with_torch: bool) -> dict:
    """Milliseconds a step of each kind of contestant."""
    everyone = list(contestants(settings, rows, ids, name, with_torch))
    times: dict[str, list[float]] = {kind: [] for kind, _, _ in everyone}
    for round_number in range(settings.repeats + 1):
        for kind, run, steps in everyone:
            start = time.perf_counter()
            run(round_number)
            if round_number:  # the first warms up
                times[kind].append(1000 * (time.perf_counter() - start) / steps)
    medians = {kind: statistics.median(each) for kind, each in times.items()}
    if settings.tensorflow_python and name in DENSE and rows <= settings.torch_up_to:
        del everyone
        medians["tensorflow"] = tensorflow_step(settings, rows, ids, name)
    return medians


def tensorflow_step(settings: Benchmark, rows: int, ids: np.ndarray, name: str) -> float:
    """Milliseconds a step of TensorFlow, in a process of its own."""
    script = Path(__file__).with_name("embeddings_tensorflow.py")
    steps = settings.steps if rows <= 100_000 or name != "adam" else max(settings.steps // 10, 1)
    with tempfile.TemporaryDirectory() as folder:
        table = np.random.default_rng(0).standard_normal((rows, settings.width), np.float32)
        np.save(Path(folder) / "table.npy", table)
        np.save(Path(folder) / "ids.npy", ids[0])
        arguments = [str(part) for part in (script, folder, name, steps, settings.repeats)]
        said = subprocess.run(
            [str(settings.tensorflow_python), *arguments],
            capture_output=True,
            text=True,
            errors="replace",
        )
    if said.returncode:
        last = said.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise InputError(f"TensorFlow's steps failed in {settings.tensorflow_python}: {last[0]}.")
    return float(said.stdout.split()[-1])


def busy() -> str:
    """The load of the machine, as `uptime` gives it."""
    return " ".join(f"{load:.1f}" for load in os.getloadavg())


def main(settings: Benchmark) -> None:
    """Prints one line for each size, kind of ids and rule."""
    with_torch = has_peer("torch")
    if settings.tensorflow_python and not has_peer("tensorflow", settings.tensorflow_python):
        settings = replace(settings, tensorflow_python=None)
    versions = f"python {platform.python_version()}, jax {jax.__version__}"
    versions += f", optax {optax.__version__}"
    if with_torch:
        import torch

        versions += f", torch {torch.__version__} ({torch.get_num_threads()} threads)"
    print(f"{versions}; {jax.devices()[0].device_kind}, {os.cpu_count()} cores, load {busy()}")
    print(
        "| batch | ids | rule | rows | by rows, ms | whole (Optax) | PyTorch sparse | TensorFlow sparse | load |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for batch_size in settings.batch_sizes:
        for kind in ("uniform", "zipf"):
            for name in ROWS:
                for rows in settings.table_rows:
                    ids = draw(kind, rows, batch_size, 4 * settings.steps)
                    ids = ids.reshape(4, settings.steps, batch_size)
                    found = measure(settings, rows, ids, name, with_torch)
                    cells = [
                        f"{found[k]:.3f}" if k in found else ""
                        for k in ("rows", "dense", "torch", "tensorflow")
                    ]
                    line = [batch_size, kind, name, f"{rows:,}", *cells, busy()]
                    print("| " + " | ".join(map(str, line)) + " |", flush=True)


if __name__ == "__main__":
    run_command(lambda: main(tyro.cli(Benchmark, description=__doc__)))
