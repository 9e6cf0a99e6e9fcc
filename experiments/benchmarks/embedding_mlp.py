"""Training of the embedding MLP at MovieLens-20M's size, beside Keras and PyTorch.

    python -m experiments.benchmarks.embedding_mlp [--steps 1000] [--repeats 5]

138,493 users, 26,744 items, 16 million synthetic ratings, items by Zipf's law; the notebook's network,
optimizer and batch. Keras runs `fit` and PyTorch its usual eager loop, on a GPU if they find one, as jrec
does; what is not installed is left out. All take turns in one process; given are medians. Results, with the
machine, stand in BUILD_NOTES.md.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# The peers need room on the same GPU.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments.benchmarks.turns import alternate, has_peer, matrix_gflops, medians, setting
from experiments.embedding_mlp.source import Source, gather_pairs, train_state, train_step
from jrec.data.synthetic import SyntheticSize, synthetic_columns
from jrec.errors import InputError, run_command
from jrec.models.embedding_mlp import EmbeddingMlp
from jrec.report import markdown_table
from jrec.train.chunk import make_chunk, mixed_order

_BATCH, _RATE, _MOMENTUM, _WIDTH, _HIDDEN = 1024, 0.08, 0.9, 10, 1024
Run = Callable[[int], float]
"""Takes the steps of a turn on the next part of the ratings; returns their mean loss."""


@dataclass
class Benchmark:
    """Print step times, ratings a second, and how near to the machine's arithmetic they are."""

    users: int = 138_493
    """Of the synthetic data."""
    items: int = 26_744
    """Of the synthetic data."""
    ratings: int = 16_000_000
    """Of the synthetic data; an epoch's worth."""
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

    def run(number: int) -> float:
        nonlocal state
        state, sums, _ = chunk(state, data, order, number * settings.steps, settings.steps)
        return float(sums["loss_sum"] / sums["count"])

    return run


def keras_run(columns: dict[str, np.ndarray], settings: Benchmark) -> Run:
    """`fit`, as in the notebook."""
    import keras

    u, m = keras.Input((1,)), keras.Input((1,))
    u_vector = keras.layers.Flatten()(keras.layers.Embedding(settings.users, _WIDTH)(u))
    m_vector = keras.layers.Flatten()(keras.layers.Embedding(settings.items, _WIDTH)(m))
    x = keras.layers.Concatenate()([u_vector, m_vector])
    x = keras.layers.Dense(_HIDDEN, activation="relu")(x)
    model = keras.Model([u, m], keras.layers.Dense(1)(x))
    model.compile(loss="mse", optimizer=keras.optimizers.SGD(_RATE, momentum=_MOMENTUM))

    def run(number: int) -> float:
        size = settings.steps * _BATCH
        user, item, rating = (
            columns[name][number * size : (number + 1) * size]
            for name in ("user", "item", "rating")
        )
        history = model.fit([user, item], rating, batch_size=_BATCH, epochs=1, verbose=0)
        return history.history["loss"][0]

    return run


def torch_run(columns: dict[str, np.ndarray], settings: Benchmark) -> Run:
    """The usual eager loop, on tensors that are on the device already."""
    import torch
    from torch import nn

    device = "cuda" if torch.cuda.is_available() else "cpu"

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.user = nn.Embedding(settings.users, _WIDTH)
            self.item = nn.Embedding(settings.items, _WIDTH)
            for table in (self.user, self.item):
                nn.init.uniform_(table.weight, -0.05, 0.05)
            self.hidden, self.output = nn.Linear(2 * _WIDTH, _HIDDEN), nn.Linear(_HIDDEN, 1)
            for layer in (self.hidden, self.output):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

        def forward(self, u: Any, m: Any) -> Any:
            x = torch.cat([self.user(u), self.item(m)], 1)
            return self.output(torch.relu(self.hidden(x)))[:, 0]

    kinds = {"user": np.int64, "item": np.int64, "rating": np.float32}
    user, item, rating = (
        torch.from_numpy(columns[name].astype(kind)).to(device) for name, kind in kinds.items()
    )
    order = torch.randperm(len(user), device=device)
    net, mse = Net().to(device), nn.MSELoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=_RATE, momentum=_MOMENTUM)

    def run(number: int) -> float:
        total = torch.zeros((), device=device)
        for step in range(number * settings.steps, (number + 1) * settings.steps):
            batch = order[step * _BATCH : (step + 1) * _BATCH]
            optimizer.zero_grad()
            loss = mse(net(user[batch], item[batch]), rating[batch])
            loss.backward()
            optimizer.step()
            total += loss.detach()
        return total.item() / settings.steps  # waits for the device

    return run


def main(settings: Benchmark) -> None:
    """Prints the table."""
    if (settings.repeats + 1) * settings.steps * _BATCH > settings.ratings:
        raise InputError("--ratings are too few for so many --steps and --repeats.")
    columns = made_up_ratings(settings)
    runs: dict[str, Run] = {}
    if has_peer("torch"):  # first: imported after TensorFlow, PyTorch's Triton ends the process
        runs["PyTorch eager"] = torch_run(columns, settings)
    if has_peer("tensorflow"):
        runs["Keras"] = keras_run(columns, settings)
    for tables in ("dense", "rows"):
        runs[f"jrec, --tables {tables}"] = jrec_run(columns, settings, tables)
    losses: dict[str, float] = {}

    def turn(name: str) -> Callable[[int], None]:
        return lambda number: losses.update({name: runs[name](number)})

    times = alternate({name: turn(name) for name in runs}, settings.repeats, pause=0.5)
    times = {name: [each / settings.steps for each in values] for name, values in times.items()}
    rate = matrix_gflops() * 1e9
    epochs = {"": lambda k: mixed_order(jax.random.key(2), k, settings.ratings, _BATCH)}
    draw = medians(alternate(epochs, 3))[""]
    print(f"\n{setting('torch', 'tensorflow', 'keras')}; {settings.users:,} users,")
    print(f"{settings.items:,} items, batch {_BATCH}, median of {settings.repeats} turns of")
    print(f"{settings.steps} steps; a large float32 matmul: {rate / 1e9:,.0f} GFLOP/s\n")
    work, lines = 3 * 2 * _BATCH * 2 * _WIDTH * _HIDDEN, []
    ours = medians(times)["jrec, --tables rows"]
    for name, seconds in medians(times).items():
        drawn = draw if name.startswith("jrec") else 0.0
        cells = [name, f"{1000 * seconds:.2f}", f"{1000 * min(times[name]):.2f}"]
        cells += [f"{_BATCH / seconds:,.0f}", f"{settings.ratings / _BATCH * seconds + drawn:.1f}"]
        cells += [f"{work / seconds / 1e9:,.0f} ({work / seconds / rate:.0%})"]
        lines.append([*cells, f"{seconds / ours:.1f}", losses[name]])
    header = ["program", "ms a step", "lowest", "ratings/s", "s an epoch", "GFLOP/s of the layer"]
    print(markdown_table([*header, "times jrec's rows", "loss"], lines))
    print(f"\nAn epoch's order ({draw:.2f} s) is in jrec's epochs and left out of the others'.")


if __name__ == "__main__":
    run_command(lambda: main(tyro.cli(Benchmark, description=__doc__)))
