"""Step time of embedding tables: updated by rows, as a whole (Optax), and by PyTorch's sparse gradients.

    python -m experiments.benchmarks.embeddings [--batch-sizes 1024 16384] [--repeats 7]

A step looks rows up, takes the gradient of the sum of their squares (over two), and updates. JAX's steps
run as its users run them, a compiled scan over a round's batches (ours and Optax's alike); PyTorch's and
TensorFlow's are called one by one. All that are compared at one size run in turns, round after round,
in one process: what disturbs one disturbs all. Given are medians over rounds of a round's mean step. PyTorch and TensorFlow are left out where they are not
installed. Results, with the machine and its load, stand in BUILD_NOTES.md.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from experiments.benchmarks.turns import Side, alternate, has_peer, medians, setting
from jrec.embeddings import optimizers as row_optimizers
from jrec.embeddings.row_step import init_row_state, make_row_step
from jrec.embeddings.table import Embed
from jrec.errors import run_command
from jrec.report import markdown_table
from jrec.train.step import init_state, make_step

RATE = 0.01
ROWS = {
    "sgd": row_optimizers.sgd(RATE),
    "adagrad": row_optimizers.adagrad(RATE),
    "rowwise adagrad": row_optimizers.rowwise_adagrad(RATE),
    "adam": row_optimizers.adam(RATE),
}
DENSE = {"sgd": optax.sgd(RATE), "adagrad": optax.adagrad(RATE), "adam": optax.adam(RATE)}


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
    peers_up_to: int = 1_000_000
    """Nor with PyTorch and TensorFlow above this: three copies of 10 million rows are 8 GB."""
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
) -> Side:
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


def torch_run(rows: int, width: int, ids: np.ndarray, name: str, table: np.ndarray) -> Side:
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


def tensorflow_run(ids: np.ndarray, name: str, table: np.ndarray, steps: int) -> Side:
    """TensorFlow's step, whose gradients are IndexedSlices."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    import tensorflow as tf

    rules = tf.compat.v1.train
    made = {"sgd": rules.GradientDescentOptimizer, "adagrad": rules.AdagradOptimizer}
    optimizer = (made | {"adam": rules.AdamOptimizer})[name](RATE)
    variable = tf.Variable(table)
    rounds = [[tf.constant(batch) for batch in batches[:steps]] for batches in ids]

    @tf.function
    def step(batch: Any) -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.nn.embedding_lookup(variable, batch) ** 2) / 2
        gradient = tape.gradient(loss, variable)
        assert isinstance(gradient, tf.IndexedSlices)
        optimizer.apply_gradients([(gradient, variable)])

    def run(number: int) -> None:
        for batch in rounds[number % len(rounds)]:
            step(batch)
        variable[0].numpy()  # waits

    return run


def contestants(
    settings: Benchmark, rows: int, ids: np.ndarray, name: str, peers: set[str]
) -> Iterator[tuple[str, Side, int]]:
    """Yields (kind, run, steps a round) of all that train with one rule; ids are [rounds, steps, batch_size]."""
    table = np.random.default_rng(0).standard_normal((rows, settings.width), np.float32)
    few = settings.steps if rows <= 100_000 else max(settings.steps // 10, 1)
    yield "rows", jax_run(rows, settings.width, ids, ROWS[name], table, True), settings.steps
    if name in DENSE and rows <= settings.dense_up_to:
        yield "dense", jax_run(rows, settings.width, ids[:, :few], DENSE[name], table, False), few
    if name not in DENSE or rows > settings.peers_up_to:
        return
    if "torch" in peers:  # first: imported after TensorFlow, PyTorch's Triton ends the process
        yield "torch", torch_run(rows, settings.width, ids, name, table), settings.steps
    if "tensorflow" in peers:
        steps = few if name == "adam" else settings.steps  # its Adam updates the whole table
        yield "tensorflow", tensorflow_run(ids, name, table, steps), steps


def measure(
    settings: Benchmark, rows: int, ids: np.ndarray, name: str, peers: set[str]
) -> dict[str, float]:
    """Returns milliseconds a step of each kind of contestant."""
    everyone = list(contestants(settings, rows, ids, name, peers))
    seconds = medians(alternate({kind: run for kind, run, _ in everyone}, settings.repeats))
    return {kind: 1000 * seconds[kind] / steps for kind, _, steps in everyone}


def main(settings: Benchmark) -> None:
    """Prints one line for each size, kind of ids and rule."""
    peers = {library for library in ("torch", "tensorflow") if has_peer(library)}
    print(setting("optax", "torch", "tensorflow"), flush=True)
    kinds, lines = ("rows", "dense", "torch", "tensorflow"), []
    for batch_size, kind, name, rows in product(
        settings.batch_sizes, ("uniform", "zipf"), ROWS, settings.table_rows
    ):
        ids = draw(kind, rows, batch_size, 4 * settings.steps)
        ids = ids.reshape(4, settings.steps, batch_size)
        found = measure(settings, rows, ids, name, peers)
        cells = [f"{found[each]:.3f}" if each in found else "" for each in kinds]
        load = f"{os.getloadavg()[0]:.1f}"
        lines.append([batch_size, kind, name, f"{rows:,}", *cells, load])
    header = ["batch", "ids", "rule", "rows", "by rows, ms", "whole (Optax)", "PyTorch sparse"]
    print(markdown_table([*header, "TensorFlow sparse", "load"], lines))


if __name__ == "__main__":
    run_command(lambda: main(tyro.cli(Benchmark, description=__doc__)))
