"""Autoencoder training steps beside PyTorch: users/s with and without re-feeding.

    python -m experiments.benchmarks.autoencoder [--cases ml-1m netflix-3m netflix-full] [--compile]

Run it with a Python that has torch; without it only jrec is timed. Both sides train on the same synthetic
ratings in the data set's shape, from the device: jrec's step in a scan, PyTorch's in a loop as its
users write it (sparse batch made dense, eager, or compiled with --compile). The programs alternate;
medians are printed, with the rate of the step's matrix products beside that of a large product alone.
"""

import dataclasses
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from experiments.autoencoder.batches import (
    device_rows,
    gather_users,
    room_for_batches,
)
from experiments.autoencoder.system import build_step
from experiments.benchmarks.turns import Side, alternate, has_peer, matrix_gflops, medians, setting
from jrec.data.rating_parts import RatingRows
from jrec.errors import run_command
from jrec.models.autoencoder import Autoencoder
from jrec.report import markdown_table
from jrec.train.step import init_state

CaseName = Literal["ml-1m", "netflix-3m", "netflix-full"]


@dataclass(frozen=True)
class Case:
    """Shapes of a data set and the source's network for it.

    `popular`: the k-th item is rated about exp(-k / popular) as often as the first, for the k^-0.8 of the
    others. At 700 the first 1,000 items have 75% of the ratings and 128 users rated some 2,800, as on
    MovieLens-1M (77%; 2,816).
    """

    items: int
    ratings_per_user: int
    hidden: tuple[int, ...]
    dropout: float
    popular: float | None = None


CASES = {
    "ml-1m": Case(3706, 115, (128, 256, 256), 0.65, popular=700),
    "netflix-3m": Case(17770, 44, (128, 256, 256), 0.65),
    "netflix-full": Case(17770, 205, (512, 512, 1024), 0.8),
}


@dataclass
class Benchmark:
    """What to time."""

    cases: tuple[CaseName, ...] = ("ml-1m", "netflix-3m")
    """Shapes to time."""
    batch_size: int = 128
    """Users a step."""
    steps: int = 20
    """Steps in each repeat."""
    repeats: int = 7
    """Repeats of each program."""
    refeed: tuple[int, ...] = (0, 1)
    """Re-fed steps after each ordinary one."""
    compile: bool = False
    """Also time torch.compile."""


def made_rows(case: Case, users: int = 4096, seed: int = 0) -> RatingRows:
    """Ratings with long-tailed counts of users and items."""
    generator = np.random.default_rng(seed)
    counts = generator.lognormal(0, 1, users)
    counts = (counts / counts.mean() * case.ratings_per_user).astype(int).clip(1, case.items // 2)
    rank = np.arange(case.items)
    weights = -rank / case.popular if case.popular else -0.8 * np.log(rank + 1)
    # The largest of weights + Gumbel noise are a draw without replacement.
    rated = [
        np.argpartition(-(weights + generator.gumbel(size=case.items)), count)[:count]
        for count in counts
    ]
    offsets = np.cumsum([0, *counts])
    rating = generator.integers(1, 6, offsets[-1]).astype(np.uint8)
    return RatingRows(offsets, np.concatenate(rated).astype(np.uint16), rating)


def jrec_program(case: Case, rows: RatingRows, order: np.ndarray, refeed: int, form: str) -> Side:
    """Returns a run over `order`, int32 [T, B]."""
    model = Autoencoder(case.items, case.hidden, dropout=case.dropout)
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, case.items), jnp.float32))
    optimizer = optax.sgd(0.005, momentum=0.9)
    room = room_for_batches(rows, case.items, order.shape[1])
    step = build_step(model, optimizer, room if form == "rated" else None, refeed)
    data, mask, order_TB = device_rows(rows), jnp.ones(order.shape[1], bool), jnp.asarray(order)

    @partial(jax.jit, donate_argnums=0)
    def chunk(state: Any, data: Any) -> Any:
        return jax.lax.scan(lambda s, u: step(s, gather_users(data, u, mask)), state, order_TB)

    state = init_state(params, optimizer, jax.random.key(1))

    def run(_: int) -> Any:
        nonlocal state
        state, sums = chunk(state, data)
        return sums

    return run


def torch_program(
    case: Case, rows: RatingRows, order: np.ndarray, refeed: int, compiled: bool
) -> Side:
    """The same in PyTorch, on the GPU where there is one."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    widths = [case.items, *case.hidden]
    layers: list[Any] = []
    for n_in, n_out in pairwise(widths):
        layers += [torch.nn.Linear(n_in, n_out), torch.nn.SELU()]
    layers.append(torch.nn.Dropout(case.dropout))
    back = widths[::-1]
    for n_in, n_out in pairwise(back):
        layers += [torch.nn.Linear(n_in, n_out), torch.nn.SELU()]
    model = torch.nn.Sequential(*layers).to(device)
    forward = torch.compile(model) if compiled else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.005, momentum=0.9)
    item = torch.from_numpy(rows.item.astype(np.int64)).to(device)
    rating = torch.from_numpy(rows.rating.astype(np.float32)).to(device)

    def loss(outputs: Any, target: Any) -> Any:
        known = target != 0
        error = (outputs * known - target) ** 2
        return error.sum() / known.sum()

    def descend(inputs: Any) -> Any:
        optimizer.zero_grad()
        outputs = forward(inputs)
        loss(outputs, inputs).backward()
        optimizer.step()
        return outputs.detach()

    # The batches' places are worked out beforehand: the feeding is not what is compared.
    batches = []
    for users in order:
        counts = np.diff(rows.offsets)[users]
        places = np.concatenate([np.arange(rows.offsets[u], rows.offsets[u + 1]) for u in users])
        row = torch.from_numpy(np.repeat(np.arange(len(users)), counts)).to(device)
        batches.append((row, torch.from_numpy(places).to(device)))

    def run(_: int) -> None:
        for row, places in batches:
            inputs = torch.zeros(order.shape[1], case.items, device=device)
            inputs[row, item[places]] = rating[places]
            for _ in range(1 + refeed):
                inputs = descend(inputs)
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def operations(case: Case, batch_size: int, refeed: int) -> float:
    """Multiplications and additions of the matrix products of one dense step."""
    widths = [case.items, *case.hidden]
    sizes = [a * b for a, b in pairwise(widths)]
    forward_and_weights = 2 * 2 * 2 * batch_size * sum(sizes)  # both halves; outputs and kernels
    inputs = 2 * batch_size * (2 * sum(sizes) - sizes[0])  # the first layer's are not needed
    return (1 + refeed) * (forward_and_weights + inputs)


def main(settings: Benchmark) -> None:
    """Prints the table."""
    generator, lines = np.random.default_rng(1), []
    with_torch = has_peer("torch")
    for name in settings.cases:
        case = CASES[name]
        rows = made_rows(case)
        order = generator.permutation(len(rows.offsets) - 1)
        order = order[: settings.steps * settings.batch_size].astype(np.int32)
        order = order.reshape(settings.steps, settings.batch_size)
        for refeed in settings.refeed:
            given = case, rows, order, refeed
            programs = {f"jrec, {form}": jrec_program(*given, form) for form in ("rated", "dense")}
            if with_torch:
                programs["torch eager"] = torch_program(*given, False)
            if with_torch and settings.compile:
                programs["torch compiled"] = torch_program(*given, True)
            seconds = medians(alternate(programs, settings.repeats))
            work = operations(case, settings.batch_size, refeed) * settings.steps
            for program, each in seconds.items():
                cells = [name, refeed, program, f"{each / settings.steps * 1e3:.2f}"]
                cells += [f"{order.size / each:,.0f}"]
                cells += [f"{seconds['torch eager'] / each:.2f}" if with_torch else ""]
                lines.append([*cells, f"{work / each / 1e9:,.0f}"])
    print(f"\n{setting('torch')}; batch {settings.batch_size}, {settings.steps} steps, medians of")
    print(f"{settings.repeats}; a large float32 matmul alone: {matrix_gflops():,.0f} GFLOP/s\n")
    header = ["shape", "re-fed", "program", "ms a step", "users/s", "times torch eager"]
    print(markdown_table([*header, "GFLOP/s, counted as dense"], lines))
    for name in settings.cases:
        print(f"{name}: {dataclasses.asdict(CASES[name])}")


if __name__ == "__main__":
    run_command(lambda: main(tyro.cli(Benchmark, description=__doc__)))
