"""Fusion training beside the original program: the same costs step by step, and examples/s.

    python -m experiments.benchmarks.fusion --data-dir ml-1m.zip --paddle-python /path/to/python3.7

The peer is paddlepaddle 1.8.5 (CPU), which needs a Python 3.7 of its own
(`python3.7 -m pip install paddlepaddle==1.8.5 'protobuf<3.21'`); without it only jrec is timed. Both
take the same parameters, order and batches; the sides alternate, and medians are printed.
"""

import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from experiments.benchmarks.turns import alternate, medians, setting
from experiments.fusion.source import Source, build_model, loss, train_state, train_step
from jrec.data.ratings import Ratings
from jrec.data.sources import load_ratings
from jrec.data.splits import Split, split_ratings
from jrec.errors import run_command
from jrec.report import markdown_table
from jrec.train.chunk import make_chunk
from jrec.train.rating_batches import device_ratings, feature_tables, gather_ratings
from jrec.train.step import make_step

_BATCH, _RATE = 256, 0.2
_ORIGINAL = "paddlepaddle 1.8.5, with its DataFeeder as in the original"


@dataclass
class Fusion:
    """MovieLens-1M with the source's settings."""

    data_dir: Path | None = None
    """Folder or archive of ml-1m."""
    paddle_python: Path | None = None
    """A Python 3.7 with paddlepaddle 1.8.5."""
    steps: int = 400
    """Steps timed, and compared, in each repeat."""
    repeats: int = 5
    """Repeats of each side."""
    paddle_epochs: int = 0
    """Also train the original for so many epochs, for its test error by epoch."""


def write_peer_data(path: Path, ratings: Ratings, split: Split, order: np.ndarray) -> None:
    """Everything the peer needs, as plain arrays."""
    tables = feature_tables(ratings)
    names = ("user", "gender", "age", "occupation", "item", "genres", "title")
    rows = np.array([ratings.vocabularies[name].rows for name in names])
    columns = {"user": ratings.user, "item": ratings.item, "rating": ratings.rating}
    parts = {"train": split.train, "test": split.test, "order": order, "rows": rows}
    np.savez(path, **columns, **parts, **tables["user"], **tables["item"])


def run_peer(
    python: Path, data: Path, steps: int, epochs: int = 0, feeder: int = 0
) -> dict[str, np.ndarray]:
    """The original program, in its own process."""
    script = Path(__file__).with_name("fusion_paddle.py")
    out = data.with_name("out.npz")
    arguments = [str(part) for part in (python, script, data, out, steps, epochs, feeder)]
    subprocess.run(arguments, check=True, stderr=subprocess.DEVNULL)
    return dict(np.load(out, allow_pickle=False))


def to_flax(peer: dict[str, np.ndarray]) -> dict:
    """The peer's initial parameters in the places of ours (it has gender before age)."""
    init = {
        name[5:]: jnp.asarray(value) for name, value in peer.items() if name.startswith("init/")
    }
    params: dict = {}
    for name in ("user", "gender", "age", "occupation", "item"):
        params[f"{name}_table"] = {"embedding": init[f"{name}_table"]}
        params[f"{name}_layer"] = _dense(init, f"{name}_layer")
    params["genres_table"] = {"embedding": init["genres_table"]}
    params["title"] = {
        "words": {"embedding": init["title_table"]},
        "filters": _dense(init, "title"),
    }
    params["item_tower"] = _dense(init, "item_tower")
    params["user_tower"] = _dense(init, "user_tower")
    user, gender, age, occupation = jnp.split(params["user_tower"]["kernel"], [32, 48, 64])
    params["user_tower"]["kernel"] = jnp.concatenate([user, age, gender, occupation])
    return {"params": params}


def _dense(init: dict, name: str) -> dict:
    return {"kernel": init[f"{name}_kernel"], "bias": init[f"{name}_bias"]}


def main(settings: Fusion) -> None:
    ratings = load_ratings("ml-1m", settings.data_dir)
    split = split_ratings(ratings, valid_fraction=0)
    count = len(split.train)
    order = np.random.RandomState(0).permutation(count)
    tables = jax.tree.map(jnp.asarray, feature_tables(ratings))
    data = device_ratings(ratings, split.train, tables)
    padded = jnp.asarray(np.append(order, np.full(-count % _BATCH, count)).astype(np.int32))
    dense, rows = Source(tables="dense"), Source(tables="rows")
    model = build_model(dense, ratings)
    first = gather_ratings(data, jnp.zeros(1, jnp.int32), jnp.ones(1, bool))
    fresh = jax.jit(model.init)(jax.random.key(0), first["user"], first["item"])

    everything = make_step(partial(loss, model), optax.sgd(_RATE))
    programs = {
        "jrec, --tables rows": (rows, train_step(rows, ratings, _RATE)),
        "jrec, --tables dense": (dense, train_step(dense, ratings, _RATE)),
        "jrec, dense, padded title words convolved too": (dense, everything),
    }
    chunks = {
        name: (source, make_chunk(step, gather_ratings, count, _BATCH))
        for name, (source, step) in programs.items()
    }

    def side(source: Source, chunk: Callable) -> Callable[[int], Any]:
        state = train_state(source, _RATE, jax.tree.map(jnp.copy, fresh), jax.random.key(0))

        def run(_: int) -> Any:
            nonlocal state
            state, sums, _ = chunk(state, data, padded, 0, settings.steps)
            return sums

        return run

    sides = {name: side(*each) for name, each in chunks.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.npz"
        write_peer_data(path, ratings, split, order)
        peer = partial(run_peer, settings.paddle_python, path, settings.steps)
        runs: dict[str, list] = {}
        if settings.paddle_python:
            for feeder, name in enumerate(("paddlepaddle 1.8.5, fed columns", _ORIGINAL)):
                own = runs.setdefault(name, [])
                sides[name] = lambda _, own=own, feeder=feeder: own.append(peer(feeder=feeder))
        times = alternate(sides, settings.repeats)
        # Of the original only its own seconds count, not the start of its process; the first turn warms up.
        times |= {name: [float(run["seconds"][0]) for run in own[1:]] for name, own in runs.items()}
        if settings.paddle_python:
            for name in ("jrec, --tables rows", "jrec, --tables dense"):
                costs = runs[_ORIGINAL][-1]
                gap = cost_gap(costs, *chunks[name], data, padded, settings.steps)
                print(f"{name}: largest relative gap of {settings.steps} costs to paddle {gap:.1e}")
            if settings.paddle_epochs:
                peer(settings.paddle_epochs)
    print(f"\n{setting()}; MovieLens-1M, batch {_BATCH},")
    print(f"{settings.steps} steps, median of {settings.repeats}, compilation excluded\n")
    seconds, examples = medians(times), settings.steps * _BATCH
    last = list(seconds.values())[-1]
    lines = [[name, f"{examples / s:,.0f}", f"{last / s:.1f}"] for name, s in seconds.items()]
    print(markdown_table(["program", "examples/s", "ratio to the last row"], lines))


def cost_gap(
    peer: dict[str, np.ndarray],
    source: Source,
    chunk: Callable,
    data: dict[str, Any],
    order: jax.Array,
    steps: int,
) -> float:
    """How far our costs are from the original's, step by step, from its own parameters."""
    state = train_state(source, _RATE, to_flax(peer), jax.random.key(0))
    ours = []
    for step in range(steps):
        state, sums, _ = chunk(state, data, order, step, 1)
        ours.append(float(sums["loss_sum"] / sums["count"]))
    return float(np.abs(np.array(ours) / peer["costs"] - 1).max())


if __name__ == "__main__":
    run_command(lambda: main(tyro.cli(Fusion, description=__doc__)))
