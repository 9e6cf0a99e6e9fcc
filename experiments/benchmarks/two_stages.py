"""Latency of both stages in one call, and where the time goes.

    python -m experiments.benchmarks.two_stages [--items 10000 100000 1000000] [--candidates 100 500 2000]

One request at a time, as a server gets them: a user's last clicks and events go in as host arrays, the
ranked list comes back to the host. The first stage reads 50 clicks by attention (preset `small`, width 64) and
looks at every item; eight tenths of the candidates are the network's, the others from the two other sources.
The second stage reads 25 features of the user, 7 of the item, 100 events and 10 last watches (as for
KuaiRand-Pure). Parameters and logs are drawn at random. `encode`, `candidates` (with it) and `both` are
programs of their own, so that parts are differences of medians. Results, with the machine, stand in BUILD_NOTES.md.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments.benchmarks.turns import setting
from experiments.candidates.settings import small
from jrec.data.vocabulary import FIRST
from jrec.errors import InputError, run_command
from jrec.models.candidates import CandidateNetwork
from jrec.models.ranking import IdColumn, RankingNetwork
from jrec.report import markdown_table
from jrec.retrieval.exact import item_table
from jrec.serving.candidate_features import Events, history_names, number_names
from jrec.serving.two_stages import (
    Encode,
    Request,
    StageSizes,
    candidate_batch,
    find_candidates,
    make_two_stages,
)

USERS, USER_COLUMNS, ITEM_COLUMNS, TAGS, NUMBERS, WIDTH = 10_000, 25, 6, 3, 5, 64
KEYS = ("author", "tag")


@dataclass
class Benchmark:
    """Print milliseconds a request."""

    items: list[int] = field(default_factory=lambda: [10_000, 100_000, 1_000_000])
    """Items of the catalogue."""
    candidates: list[int] = field(default_factory=lambda: [100, 500, 2000])
    """Candidates of all sources together."""
    tower: tuple[int, ...] = (256, 128)
    """Of the ranking network."""
    count: int = 20
    """Length of the list that comes back."""
    requests: int = 300
    """Requests timed, after ten that warm up."""


def sizes_of(candidates: int) -> StageSizes:
    """Eight tenths from the network, a tenth each from the most watched and from ten like the last five."""
    if candidates < 50:
        raise InputError(f"--candidates must be 50 or more, but is {candidates}.")
    tenth = candidates // 10
    return StageSizes(candidates - 2 * tenth, tenth, tenth // 5)


def first_stage(items: int) -> tuple[Encode, Any, int]:
    """The network's program, its arrays with the table, and the clicks that it reads."""
    preset = small()
    names = ("encoder", "item_width", "tower", "tied", "dropout", "table_scale")
    given = {name: getattr(preset, name) for name in names}
    model = CandidateNetwork(items + FIRST, {}, {}, **given)
    one = {"item": jnp.ones((1, 2), jnp.int32), "mask": jnp.ones((1, 2), bool)}
    one |= {"user_features": {}, "item_features": {}, "age": jnp.zeros(1, jnp.float32)}
    params = jax.jit(model.init)(jax.random.key(0), one)

    def encode(arrays: Any, item_BL: jax.Array, mask_BL: jax.Array, user_B: jax.Array) -> jax.Array:
        batch = one | {
            "item": item_BL,
            "mask": mask_BL,
            "age": jnp.zeros(user_B.shape, jnp.float32),
        }
        return model.apply(arrays, batch, method="last_vectors")

    return encode, params, preset.length


def made_up(items: int, sizes: StageSizes) -> tuple[Any, list[IdColumn]]:
    """Arrays of both stages but the networks' own, drawn at random; the second's features of ids."""
    g = np.random.default_rng(0)
    rows = items + FIRST

    def column(length: int, values: int = 1000) -> dict[str, np.ndarray]:
        return {"rows": g.integers(2, values, length).astype(np.int32)}

    users = {f"user_{k}": column(USERS + 1, 100) for k in range(USER_COLUMNS)}
    things = {f"item_{k}": column(rows) for k in range(ITEM_COLUMNS - 1)} | {"author": column(rows)}
    bag = g.integers(2, 48, (rows, TAGS)).astype(np.int32)
    things["tag"] = {"values": bag, "mask": np.ones(bag.shape, bool)}
    things["item"] = {"rows": np.arange(rows, dtype=np.int32)}
    levels = np.linspace(0, 1, 1001, dtype=np.float32)
    features = {
        "user": users,
        "item": things,
        "user_numbers": g.random((USERS + 1, NUMBERS), np.float32),
        "user_known": np.ones((USERS + 1, NUMBERS), bool),
        "item_numbers": g.random((rows, 1), np.float32),
        "item_known": np.ones((rows, 1), bool),
        "quantiles": {
            name: {"knots": np.sort(g.exponential(1e4, 1001)).astype(np.float32), "levels": levels}
            for name in history_names(KEYS)
        },
    }
    table = item_table(g.standard_normal((items, WIDTH), np.float32))
    arrays = {
        "table": {"weights": table.weights, "biases": table.biases, "norm": table.norm},
        "hottest": g.permutation(items)[: sizes.hottest].astype(np.int32),
        "similar": g.integers(0, items, (items, sizes.similar)).astype(np.int32),
        "recent": g.random(rows, np.float32),
        "features": features,
    }
    ids = [IdColumn(name, name) for name in (*users, *things) if name not in ("item", "tag")]
    ids += [IdColumn("item", "item"), IdColumn("tag", "tag", True)]
    return (arrays, table.block_rows), [*ids, IdColumn("watched", "item", True)]


def requests_of(settings: Benchmark, items: int, length: int, sizes: StageSizes) -> list[Request]:
    """Requests of known users with full logs, host arrays."""
    g, found = np.random.default_rng(1), []
    for _ in range(settings.requests + 10):
        clicks = g.integers(FIRST, items + FIRST, (1, length)).astype(np.int32)
        shown = g.integers(FIRST, items + FIRST, (1, sizes.events)).astype(np.int32)
        ages = g.exponential(1e5, shown.shape).astype(np.float32)
        full = np.ones(shown.shape, bool)
        events = Events(shown, g.random(shown.shape) < 0.4, ages, full)
        user = g.integers(0, USERS, 1).astype(np.int32)
        found.append(Request(user, clicks, np.ones(clicks.shape, bool), events))
    return found


def milliseconds(run: Callable[[Request], Any], requests: list[Request]) -> np.ndarray:
    """Of each request, one after the other; what it gives is on the host."""
    taken = []
    for request in requests:
        start = time.perf_counter()
        jax.tree.map(np.asarray, run(request))
        taken.append(1000 * (time.perf_counter() - start))
    return np.array(taken[10:])


def main(settings: Benchmark) -> None:
    """Prints one line for each catalogue and number of candidates."""
    tower = "-".join(map(str, settings.tower))
    print(f"{setting()}; tower {tower}, {settings.requests} requests, milliseconds", flush=True)
    lines = []
    for items, candidates in product(settings.items, settings.candidates):
        if candidates > items:
            raise InputError(f"{candidates} candidates are more than {items} items.")
        lines.append(measure(settings, items, candidates))
    header = ["items", "candidates", "p50", "p99", "encode", "search and join"]
    print(markdown_table([*header, "features and ranking"], lines))


def measure(settings: Benchmark, items: int, candidates: int) -> list[str]:
    """The cells of one line."""
    sizes = sizes_of(candidates)
    encode, params, length = first_stage(items)
    (arrays, block_rows), ids = made_up(items, sizes)
    vocabularies = sorted({column.vocabulary for column in ids})
    features = arrays["features"]
    numbers = [str(k) for k in range(NUMBERS)], ["0"]
    ranker = RankingNetwork(
        {name: items + FIRST if name == "item" else 1000 for name in vocabularies},
        {name: 32 if name == "item" else 8 for name in vocabularies},
        tuple(ids),
        len(number_names(*numbers, KEYS)),
        tower=settings.tower,
        heads=("watch", "completion"),
    )
    requests = requests_of(settings, items, length, sizes)
    arrays = jax.tree.map(jnp.asarray, arrays | {"first": params})
    find = jax.jit(partial(_find, encode, block_rows, sizes))
    found = find(arrays, requests[0])
    batch = candidate_batch(
        {"features": features},
        KEYS,
        sizes,
        requests[0],
        found,
        jnp.zeros(found.rows.shape, jnp.float32),
    )
    arrays["ranker"] = jax.jit(ranker.init)(jax.random.key(1), batch)
    both = jax.jit(
        make_two_stages(encode, ranker.apply, KEYS, sizes, block_rows, "completion", settings.count)
    )
    alone = jax.jit(lambda arrays, r: encode(arrays["first"], r.clicks, r.clicks_mask, r.user))
    whole = milliseconds(partial(both, arrays), requests)
    parts = [np.median(milliseconds(partial(run, arrays), requests)) for run in (alone, find)]
    p50, p99 = np.median(whole), np.quantile(whole, 0.99)
    shares = [parts[0], parts[1] - parts[0], p50 - parts[1]]
    return [f"{items:,}", f"{candidates:,}", *(f"{x:.1f}" for x in (p50, p99, *shares))]


def _find(encode: Encode, block_rows: int, sizes: StageSizes, arrays: Any, request: Request) -> Any:
    return find_candidates(arrays, encode, block_rows, sizes, request)


if __name__ == "__main__":
    run_command(lambda: main(tyro.cli(Benchmark, description=__doc__)))
