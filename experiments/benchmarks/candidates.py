"""Examples a second of the source's candidate network, beside the same network in PyTorch.

    python -m experiments.benchmarks.candidates [--items 10000 100000 1000000]

A step: the window's items, categories and tags and the user's features are looked up, an LSTM reads the
items, its maximum over time and the other vectors' means go through the tower (256-31), the target and
noise items are scored (NCE with its own noise for each example, or a sampled softmax with shared
negatives), and Adagrad updates: tables by the rows read. Clicks are drawn at random, items Zipf-like.
The source takes 50 examples a step; 512 fill a processor better. Both gather their windows from the clicks
in the same step and draw noise from alias tables; PyTorch is eager, with `sparse=True` tables. "prefix" is
jrec's other form of the same network: a run of 20 clicks is read once and trains all its positions, 60
examples a step for 50 and 520 for 512 (their histories have 1 to 20 clicks, the windows' all 20). They run
in turns, every other round the other way round, in one process; given are medians over the rounds, of
their ratios too. PyTorch is left out where it is not installed.
"""

import statistics
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments.benchmarks.turns import Side, alternate, has_peer, setting
from experiments.candidates.batches import make_segment_gather, make_window_gather
from experiments.candidates.losses import FormName, Options, loss_of
from experiments.candidates.settings import TABLE_WIDTHS
from experiments.candidates.system import build_optimizers, build_step
from jrec.errors import run_command
from jrec.losses.samplers import alias_table, frequency
from jrec.models.candidates import CandidateNetwork, FeatureColumn
from jrec.report import markdown_table
from jrec.train.chunk import epoch_order, make_chunk

LossName = Literal["nce", "sampled-softmax"]
WINDOW, TAGS, RATE = 20, 3, 0.1
ROWS = {"user": 100_000, "category": 200, "tags": 20_000, "province": 36, "city": 400, "phone": 300}
USER_NAMES = ("user", "province", "city", "phone")


@dataclass
class Benchmark:
    """Print examples a second."""

    items: list[int] = field(default_factory=lambda: [10_000, 100_000, 1_000_000])
    """Items of the catalogue."""
    losses: list[LossName] = field(default_factory=lambda: ["nce", "sampled-softmax"])
    """Losses."""
    batch_sizes: list[int] = field(default_factory=lambda: [50, 512])
    """Examples a step: the source's 50, and more."""
    noise: int = 5
    """Noise items of each example (nce)."""
    shared: int = 256
    """Negatives that all examples of a step share (sampled-softmax)."""
    repeats: int = 15
    """Rounds, after one that warms up."""
    examples: int = 5_000
    """Examples of one contestant in a round, filled up to whole steps."""


def draw(items: int, batch_size: int, batches: int) -> dict[str, Any]:
    """`batches` + 1 batches: clicks, items' and users' features, examples; ids from 2 on, as row 0 is padding, 1 unknown."""
    g = np.random.default_rng(0)
    # whole steps of both forms: a step of runs has as many examples or up to a run's more
    examples, rows = -(-batch_size // WINDOW) * WINDOW * (batches + 1), items + 2
    weight = 1 / np.arange(1, items + 1)
    cumulative = np.cumsum(weight) / weight.sum()
    shuffled = g.permutation(items) + 2
    clicks = shuffled[np.searchsorted(cumulative, g.random(examples + WINDOW))].astype(np.int32)
    count = np.zeros(rows)
    count[shuffled] = weight

    def column(name: str, length: int) -> np.ndarray:
        return g.integers(2, ROWS[name], length).astype(np.int32)

    users = {name: column(name, ROWS["user"]) for name in USER_NAMES if name != "user"}
    return {
        "item": clicks,
        "user": g.integers(2, ROWS["user"], examples).astype(np.int32),
        "start": np.arange(examples, dtype=np.int32),
        "user_features": {"user": np.arange(ROWS["user"], dtype=np.int32)} | users,
        "category": column("category", rows),
        "tags": column("tags", rows * TAGS).reshape(rows, TAGS),
        "count": count,
    }


def network(items: int) -> CandidateNetwork:
    """Returns the preset `source` of `experiments.candidates` on a click log of so many items."""
    columns = [FeatureColumn(n, "user", "categorical", n) for n in USER_NAMES]
    columns += [FeatureColumn("category", "item", "categorical", "category")]
    columns += [FeatureColumn("tags", "item", "bag", "tags")]
    return CandidateNetwork(items + 2, ROWS, TABLE_WIDTHS, tuple(columns))


def ours(
    world: dict[str, Any],
    settings: Benchmark,
    name: LossName,
    items: int,
    batch_size: int,
    form: FormName,
) -> Side:
    """jrec's own experiment: its network, loss, row step and chunk."""
    model = network(items)
    sampler = frequency(world["count"])
    data = {
        "item": world["item"],
        "user_features": world["user_features"],
        "item_features": {
            "category": world["category"],
            "tags": (world["tags"], np.ones_like(world["tags"], bool)),
        },
        "examples": {
            "user": world["user"],
            "start": world["start"],
            "end": world["start"] + WINDOW,
            "target": world["start"] + WINDOW,
            "leads": np.zeros(len(world["user"]), bool),
            "age": np.zeros(len(world["user"]), np.float32),
        },
        "segments": {
            "user": world["user"][::WINDOW],
            "start": 1 + world["start"][::WINDOW],
            "end": 1 + world["start"][::WINDOW] + WINDOW,
        },
        "begins": np.zeros(len(world["item"]), bool),
        "age": np.zeros(len(world["item"]), np.float32),
    }
    data = jax.tree.map(jnp.asarray, data) | {"sampler": sampler}
    window = make_window_gather(WINDOW)
    inner = window if form == "window" else make_segment_gather(WINDOW)
    count, size = len(world["user"]), batch_size
    if form == "prefix":
        count, batch_size = len(data["segments"]["user"]), -(-batch_size // WINDOW)

    def gather(data: Any, positions: jax.Array, mask: jax.Array) -> dict[str, Any]:
        return inner(data, positions, mask) | {"sampler": data["sampler"]}

    batch = window(data, jnp.zeros(1, jnp.int32), jnp.ones(1, bool))
    params = jax.jit(model.init)(jax.random.key(0), batch)
    negatives = settings.noise if name == "nce" else settings.shared
    each = loss_of(name, model, Options(form, negatives, name != "nce", 0.0))
    optimizers = build_optimizers("adagrad", RATE, 0.0, 0)
    state, step = build_step(each, model, params, optimizers, True, False, jax.random.key(1))
    chunk = make_chunk(step, gather, count, batch_size)
    order = epoch_order(jax.random.key(2), 0, count, batch_size)
    steps = -(-settings.examples // size)
    assert steps <= count // batch_size  # a last, unfilled batch would be a cheaper step

    def run(_: int) -> None:
        nonlocal state
        state, sums, bad = chunk(state, data, order, jnp.int32(0), jnp.int32(steps))
        assert int(bad) < 0 and np.isfinite(float(sums["loss_sum"]))

    return run


def torch_run(
    world: dict[str, Any], settings: Benchmark, name: LossName, items: int, batch_size: int
) -> Side:
    """The same as a PyTorch program."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()

            def table(rows: int, width: int) -> nn.Embedding:
                made = nn.Embedding(rows, width, sparse=True)
                nn.init.normal_(made.weight, std=0.001)
                return made

            self.item = table(items + 2, 64)
            self.users = nn.ModuleDict({n: table(ROWS[n], TABLE_WIDTHS[n]) for n in USER_NAMES})
            self.category = table(ROWS["category"], TABLE_WIDTHS["category"])
            width = TABLE_WIDTHS["tags"]
            self.tags = nn.EmbeddingBag(ROWS["tags"], width, mode="mean", sparse=True)
            nn.init.normal_(self.tags.weight, std=0.001)
            self.lstm = nn.LSTM(64, 64)
            wide = 64 + sum(TABLE_WIDTHS[n] for n in (*USER_NAMES, "category", "tags"))
            self.tower = nn.Sequential(
                nn.Linear(wide, 256), nn.ReLU(), nn.Linear(256, 31), nn.ReLU()
            )
            self.output, self.bias = table(items + 2, 31), table(items + 2, 1)

        def forward(self, batch: dict[str, Any]) -> Any:
            states, _ = self.lstm(self.item(batch["item"].T))  # positions first, as it reads
            parts = [states.max(0).values, self.category(batch["category"]).mean(1)]
            parts += [self.tags(batch["tags"])]
            parts += [self.users[n](batch[n]) for n in USER_NAMES]
            return self.tower(torch.cat(parts, 1))

        def score(self, user: Any, ids: Any) -> Any:
            """ids [B]: one each; [B, K]: their own; "shared" ones go through `score_shared`."""
            rows, bias = self.output(ids), self.bias(ids)[..., 0]
            return torch.einsum("bd,b...d->b...", user, rows) + bias

        def score_shared(self, user: Any, ids: Any) -> Any:
            return user @ self.output(ids).T + self.bias(ids)[:, 0]

    network = Network()
    optimizer = torch.optim.Adagrad(network.parameters(), lr=RATE)
    probability = torch.from_numpy(world["count"] / world["count"].sum())
    threshold, alias, _ = alias_table(world["count"])
    kept, alias = torch.from_numpy(threshold / 2**32).float(), torch.from_numpy(alias).long()
    log_q = probability.log().float()
    clicks, users = torch.from_numpy(world["item"]).long(), torch.from_numpy(world["user"]).long()
    tag_rows, category = torch.from_numpy(world["tags"]), torch.from_numpy(world["category"])
    columns = {n: torch.from_numpy(rows) for n, rows in world["user_features"].items()}
    order = torch.from_numpy(world["start"][np.random.default_rng(1).permutation(len(users))])
    window = torch.arange(WINDOW)

    def gather(first: int) -> dict[str, Any]:
        place = order[first : first + batch_size].long()
        history, user = clicks[place[:, None] + window], users[place]
        batch = {"item": history, "category": category[history]}
        batch["tags"] = tag_rows[history].reshape(len(place), WINDOW * TAGS)
        batch["target"] = clicks[place + WINDOW]
        return batch | {n: columns[n][user] for n in USER_NAMES}

    def sample(*shape: int) -> Any:
        slots = torch.randint(len(alias), shape)
        return torch.where(torch.rand(shape) < kept[slots], slots, alias[slots])

    def nce(user: Any, target: Any) -> Any:
        ids = sample(len(target), settings.noise)
        log_k = float(np.log(settings.noise))
        true = network.score(user, target) - log_q[target] - log_k
        noise = network.score(user, ids) - log_q[ids] - log_k
        return (functional.softplus(-true) + functional.softplus(noise).sum(1)).mean()

    def sampled_softmax(user: Any, target: Any) -> Any:
        ids = sample(settings.shared)
        negative = network.score_shared(user, ids) - log_q[ids] - float(np.log(settings.shared))
        negative = negative.masked_fill(target[:, None] == ids[None], -torch.inf)
        logits = torch.cat([network.score(user, target)[:, None], negative], 1)
        return functional.cross_entropy(logits, torch.zeros(len(target), dtype=torch.long))

    objective = nce if name == "nce" else sampled_softmax

    def run(_: int) -> None:
        for number in range(-(-settings.examples // batch_size)):
            batch = gather(number * batch_size)
            optimizer.zero_grad()
            cost = objective(network(batch), batch["target"])
            cost.backward()
            optimizer.step()
        assert np.isfinite(cost.item())

    return run


def main(settings: Benchmark) -> None:
    """Prints one line a loss and catalogue."""
    with_torch, lines = has_peer("torch"), []
    print(setting("torch"), flush=True)
    for batch_size, name, items in product(settings.batch_sizes, settings.losses, settings.items):
        pace, ratio = measure(settings, with_torch, batch_size, name, items)
        cells = [batch_size, name, f"{items:,}", pace["window"], pace.get("torch", "")]
        lines.append([*cells, ratio["window"], pace["prefix"], ratio["prefix"]])
    header = ["examples a step", "loss", "items", "jrec, examples/s", "PyTorch", "ratio"]
    print(markdown_table([*header, "prefix form", "ratio"], lines))


def measure(
    settings: Benchmark, with_torch: bool, batch_size: int, name: LossName, items: int
) -> tuple[dict[str, str], dict[str, str]]:
    """Returns examples a second of each contestant, medians over the rounds, and the median ratio to PyTorch."""
    steps = -(-settings.examples // batch_size)
    world = draw(items, batch_size, steps)
    everyone = {
        form: ours(world, settings, name, items, batch_size, form) for form in ("window", "prefix")
    }
    if with_torch:
        everyone["torch"] = torch_run(world, settings, name, items, batch_size)
    size = dict.fromkeys(everyone, batch_size) | {"prefix": -(-batch_size // WINDOW) * WINDOW}
    times = alternate(everyone, settings.repeats)
    paces = {each: np.divide(size[each] * steps, found) for each, found in times.items()}
    # The machine's pace changes from round to round, for both sides.
    ratio = {
        each: f"{statistics.median(pace / paces['torch']):.2f}" if with_torch else ""
        for each, pace in paces.items()
    }
    return {each: f"{statistics.median(pace):,.0f}" for each, pace in paces.items()}, ratio


if __name__ == "__main__":
    run_command(lambda: main(tyro.cli(Benchmark, description=__doc__)))
