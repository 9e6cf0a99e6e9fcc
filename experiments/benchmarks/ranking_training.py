"""Training examples a second of the ranking network at KuaiRand-Pure's size, beside PyTorch.

    python -m experiments.benchmarks.ranking_training [--towers 1024-512-256 512-256 256-128 none]

Made-up impressions with the columns of KuaiRand-Pure: 35 features of one id each, a bag of tags, the last
ten watched items, 13 numbers with their powers; tables, tower, weighted logistic loss and Adam as
`experiments.ranking` has them. jrec gathers its batches on the device and updates tables by the rows read.
PyTorch, eager, is handed batches that are ready: `sparse` has `sparse=True` tables with SparseAdam,
`dense` one Adam for everything. They run in turns, round after round, in one process; given are medians.
PyTorch is left out where it is not installed.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from experiments.benchmarks.turns import Side, alternate, has_peer, medians, setting
from experiments.ranking.batches import gather_impressions
from experiments.ranking.system import loss
from jrec.embeddings import optimizers as row_optimizers
from jrec.embeddings.row_step import init_row_state, make_row_step
from jrec.errors import InputError, run_command
from jrec.models.matmul import Compute
from jrec.models.ranking import IdColumn, RankingNetwork
from jrec.report import markdown_table
from jrec.train.chunk import epoch_order, make_chunk

RATE, WATCHED, TAGS, NUMBERS = 0.001, 10, 3, 13
_SMALL_USER_ROWS = (10, 4, 4, 10, 11, 9, 10, 4, 9, 52, 1473, 17, 36, 5, 120, 456, 9, 7, 7)
_SMALL_USER_ROWS += (4,) * 6
USER_ROWS = {f"user_{k}": rows for k, rows in enumerate(_SMALL_USER_ROWS)}
ITEM_ROWS = {
    "author": 6512,
    "video_type": 4,
    "day": 5,
    "upload": 15,
    "music": 7204,
    "music_type": 7,
}
CONTEXT_ROWS = {"tab": 17, "hour": 26}
TAG_ROWS = 48


@dataclass
class Benchmark:
    """Print examples a second."""

    towers: list[str] = field(
        default_factory=lambda: ["1024-512-256", "512-256", "256-128", "none"]
    )
    """Widths of the ReLU layers."""
    users: int = 27_287
    """Rows of the users' table."""
    items: int = 7_585
    """Rows of the items' table."""
    batch_size: int = 512
    """Impressions a step."""
    repeats: int = 5
    """Rounds, after one that warms up."""
    steps: int = 20
    """Steps of one contestant in a round."""
    compute: Compute = "float32"
    """Number format of the layers' factors, PyTorch's under `torch.autocast`."""


def columns_of() -> list[tuple[IdColumn, str]]:
    """Every feature of ids, and what it describes: `user`, `item` or `row` (one impression)."""
    columns = [(IdColumn("user", "user"), "user"), (IdColumn("item", "item"), "item")]
    columns += [(IdColumn(name, name), "user") for name in USER_ROWS]
    columns += [(IdColumn(name, name), "item") for name in ITEM_ROWS]
    columns += [(IdColumn(name, name), "row") for name in CONTEXT_ROWS]
    columns += [(IdColumn("tag", "tag", bag=True), "item")]
    return [*columns, (IdColumn("watched", "item", bag=True), "row")]


def table_rows(settings: Benchmark) -> dict[str, int]:
    """Rows of each vocabulary."""
    rows = {"user": settings.users, "item": settings.items, "tag": TAG_ROWS}
    return rows | USER_ROWS | ITEM_ROWS | CONTEXT_ROWS


def table_widths(settings: Benchmark) -> dict[str, int]:
    """As `experiments.ranking` has them by default."""
    return {name: 32 if name in ("user", "item") else 8 for name in table_rows(settings)}


def draw(settings: Benchmark) -> dict[str, Any]:
    """Impressions as `experiments.ranking.batches` holds them; users evenly, items by Zipf's law."""
    g = np.random.default_rng(0)
    n, rows = settings.batch_size * (settings.steps + 1), table_rows(settings)
    weight = 1 / np.arange(1, settings.items - 1)
    shuffled = g.permutation(settings.items - 2) + 2

    def popular(*shape: int) -> np.ndarray:
        cumulative = np.cumsum(weight) / weight.sum()
        place = np.searchsorted(cumulative, g.random(shape)).clip(max=len(shuffled) - 1)
        return shuffled[place].astype(np.int32)

    lengths = {"user": settings.users, "item": settings.items, "row": n}
    ids: dict[str, dict[str, Any]] = {of: {} for of in lengths}
    for column, of in columns_of():
        if column.name in ("user", "item"):
            ids[of][column.name] = np.arange(lengths[of], dtype=np.int32)
        elif column.name == "watched":
            ids[of]["watched"] = popular(n, WATCHED), np.ones((n, WATCHED), bool)
        elif column.bag:
            bag = g.integers(2, rows[column.vocabulary], (lengths[of], TAGS)).astype(np.int32)
            ids[of][column.name] = bag, np.ones(bag.shape, bool)
        else:
            drawn = g.integers(2, rows[column.vocabulary], lengths[of])
            ids[of][column.name] = drawn.astype(np.int32)
    clicked = g.random(n) < 0.4
    return {
        "ids": ids,
        "user": g.integers(2, settings.users, n).astype(np.int32),
        "item": popular(n),
        "numbers": g.random((n, NUMBERS), np.float32),
        "known": np.ones((n, NUMBERS), bool),
        "clicked": clicked,
        "completed": clicked,
        "weight": g.exponential(20, n).astype(np.float32),
        "rows": np.arange(n, dtype=np.int32),
    }


def ours(world: dict[str, Any], settings: Benchmark, tower: tuple[int, ...]) -> Side:
    """jrec's own experiment: its network, loss, row step and chunk."""
    columns = tuple(column for column, _ in columns_of())
    model = RankingNetwork(
        table_rows(settings),
        table_widths(settings),
        columns,
        NUMBERS,
        tower=tower,
        compute=settings.compute,
    )
    data = jax.tree.map(jnp.asarray, world)
    one = gather_impressions(data, jnp.zeros(1, jnp.int32), jnp.ones(1, bool))
    params = jax.jit(model.init)(jax.random.key(0), one)
    optimizer, row_optimizer = optax.adam(RATE), row_optimizers.adam(RATE)
    state = init_row_state(params, optimizer, row_optimizer, jax.random.key(1))
    step = make_row_step(partial(loss, model, "all", 0.0, 0.0), optimizer, row_optimizer)
    count = len(world["user"])
    chunk = make_chunk(step, gather_impressions, count, settings.batch_size)
    order = epoch_order(jax.random.key(2), 0, count, settings.batch_size)

    def run(_: int) -> None:
        nonlocal state
        state, sums, bad = chunk(state, data, order, jnp.int32(0), jnp.int32(settings.steps))
        assert int(bad) < 0 and np.isfinite(float(sums["loss_sum"]))

    return run


def torch_run(
    world: dict[str, Any], settings: Benchmark, tower: tuple[int, ...], sparse: bool
) -> Side:
    """The same as a PyTorch program."""
    import torch
    from torch import nn
    from torch.nn import functional

    rows, widths = table_rows(settings), table_widths(settings)
    columns = columns_of()

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tables = nn.ModuleDict(
                {n: nn.Embedding(rows[n], widths[n], sparse=sparse) for n in rows}
            )
            for table in self.tables.values():
                nn.init.normal_(table.weight, std=0.01)
            wide = sum(widths[column.vocabulary] for column, _ in columns) + 4 * NUMBERS
            layers: list[nn.Module] = []
            for width in tower:
                layers += [nn.Linear(wide, width), nn.ReLU()]
                wide = width
            self.tower = nn.Sequential(*layers, nn.Linear(wide, 1))

        def forward(self, batch: dict[str, Any]) -> Any:
            parts = []
            for column, _ in columns:
                table, value = self.tables[column.vocabulary], batch[column.name]
                parts.append(table(value).mean(1) if column.bag else table(value))
            x = batch["numbers"]
            parts += [x, batch["known"], x**2, x.sqrt()]
            return self.tower(torch.cat(parts, 1))[:, 0]

    network = Network()
    optimizers: list[Any] = [torch.optim.Adam(network.parameters(), lr=RATE)]
    if sparse:
        optimizers = [
            torch.optim.SparseAdam(list(network.tables.parameters()), lr=RATE),
            torch.optim.Adam(network.tower.parameters(), lr=RATE),
        ]
    batches = []
    for first in range(0, len(world["user"]), settings.batch_size):
        part = slice(first, first + settings.batch_size)
        places = {"user": world["user"][part], "item": world["item"][part]}
        places["row"] = np.arange(len(world["user"]))[part]
        batch = {}
        for column, of in columns:
            value = world["ids"][of][column.name]
            value = value[0] if column.bag else value
            batch[column.name] = torch.from_numpy(value[places[of]]).long()
        for name in ("numbers", "known", "clicked", "weight"):
            batch[name] = torch.from_numpy(world[name][part]).float()
        batches.append(batch)

    def run(_: int) -> None:
        for number in range(settings.steps):
            batch = batches[number % len(batches)]
            for optimizer in optimizers:
                optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=settings.compute == "bfloat16"):
                z = network(batch).float()
            cost = batch["clicked"] * batch["weight"] * functional.softplus(-z)
            cost = (cost + functional.softplus(z)).mean()
            cost.backward()
            for optimizer in optimizers:
                optimizer.step()
        assert np.isfinite(cost.item())

    return run


def widths_of(text: str) -> tuple[int, ...]:
    """Returns a tower's widths from the form of --towers. Raises InputError for any other text."""
    try:
        return () if text == "none" else tuple(int(width) for width in text.split("-"))
    except ValueError:
        raise InputError(
            f"--towers are widths as 1024-512-256, or none; {text!r} is neither."
        ) from None


def main(settings: Benchmark) -> None:
    """Prints one line a tower."""
    names, lines = ["sparse", "dense"] if has_peer("torch") else [], []
    print(setting("torch"), flush=True)
    world = draw(settings)
    for text in settings.towers:
        tower = widths_of(text)
        everyone = {"jrec": ours(world, settings, tower)}
        everyone |= {name: torch_run(world, settings, tower, name == "sparse") for name in names}
        examples = settings.batch_size * settings.steps
        times = medians(alternate(everyone, settings.repeats))
        pace = {name: examples / seconds for name, seconds in times.items()}
        cells = [
            f"{pace[name]:,.0f}" if name in pace else "" for name in ("jrec", "sparse", "dense")
        ]
        best = max((pace[name] for name in names), default=0.0)
        ratio = f"{pace['jrec'] / best:.2f}" if best else ""
        lines.append([text, settings.batch_size, *cells, ratio])
    header = ["tower", "batch", "jrec", "PyTorch, sparse", "PyTorch, dense", "ratio to the faster"]
    print(markdown_table(header, lines))


if __name__ == "__main__":
    run_command(lambda: main(tyro.cli(Benchmark, description=__doc__)))
