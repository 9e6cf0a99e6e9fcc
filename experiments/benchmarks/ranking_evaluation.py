"""Whole-catalogue evaluation beside a PyTorch loop that scores batch by batch and sorts: seconds.

    python -m experiments.benchmarks.ranking_evaluation [--repeats 5]

Random user and item vectors, one target a user, and removed items of skewed numbers (mean 165 and many
ten times that, as on MovieLens-1M). All compute the rank of each target and from it NDCG@10, which must
agree. They run in turns, round after round, in one process; given are medians. "sort" is the loop as it
is often written: matrix product, seen items to -inf, sort, place of the target. "count" is the same loop
with a comparison instead of the sort. PyTorch is left out where it is not installed.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments.benchmarks.turns import alternate, has_peer, medians, setting
from jrec.errors import InputError, run_command
from jrec.evaluate.next_item import make_next_item_ranker
from jrec.evaluate.ranking_metrics import ranking_metrics
from jrec.report import markdown_table

Evaluate = Callable[[], np.ndarray]
"""Gives NDCG@10 [n]."""


@dataclass
class Benchmark:
    """Print seconds of one evaluation."""

    items: list[int] = field(default_factory=lambda: [3416, 100_000])
    """Items of the catalogue: those of MovieLens-1M, and many."""
    users: list[int] = field(default_factory=lambda: [6040, 1024])
    """Users, one number for each catalogue."""
    width: int = 64
    """Of the vectors."""
    batch_size: int = 256
    """Users scored at once, by all."""
    item_block: int = 4096
    """Items that jrec scores at once."""
    repeats: int = 5
    """Rounds, after one that warms up."""


def draw(users: int, items: int, width: int) -> dict[str, np.ndarray]:
    """Vectors, targets, and seen items in a flat array with offsets."""
    g = np.random.default_rng(0)
    lengths = np.minimum(g.lognormal(np.log(96), 1.04, users), items // 2).astype(np.int64)
    return {
        "user_vectors": g.standard_normal((users, width), np.float32),
        "item_vectors": g.standard_normal((items, width), np.float32),
        "bias": g.standard_normal(items, np.float32),
        "target": g.integers(0, items, users).astype(np.int32),
        "seen": g.integers(0, items, lengths.sum()).astype(np.int32),
        "offset": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32),
    }


def ours(world: dict[str, np.ndarray], settings: Benchmark) -> Evaluate:
    longest = int(np.diff(world["offset"]).max())

    def gather(data: Any, positions: jax.Array, mask: jax.Array) -> dict[str, jax.Array]:
        places = data["offset"][positions][:, None] + jnp.arange(longest, dtype=jnp.int32)[None]
        seen_mask = places < data["offset"][positions + 1][:, None]
        return {
            "user": positions,
            "targets": data["target"][positions][:, None],
            "targets_mask": mask[:, None],
            "seen": data["seen"][places],
            "seen_mask": seen_mask,
        }

    ranker = make_next_item_ranker(
        lambda params, batch: params["user_vectors"][batch["user"]],
        lambda params: (params["item_vectors"], params["bias"]),
        gather,
        batch_size=settings.batch_size,
        item_block=settings.item_block,
    )
    names = ("user_vectors", "item_vectors", "bias")
    params = {name: jnp.asarray(world[name]) for name in names}
    data = {name: jnp.asarray(world[name]) for name in ("target", "seen", "offset")}
    data["user"] = jnp.arange(len(world["target"]), dtype=jnp.int32)
    data["recommendable"] = jnp.ones(len(world["bias"]), bool)
    return lambda: ranking_metrics(*ranker(params, data))["ndcg@10"]


def torch_loop(world: dict[str, np.ndarray], settings: Benchmark, sort: bool) -> Evaluate:
    import torch

    user, item = (torch.from_numpy(world[name]) for name in ("user_vectors", "item_vectors"))
    bias, target = torch.from_numpy(world["bias"]), torch.from_numpy(world["target"]).long()
    seen, offset = torch.from_numpy(world["seen"]).long(), world["offset"]
    lengths = torch.from_numpy(np.diff(offset)).long()

    @torch.inference_mode()
    def evaluate() -> np.ndarray:
        ranks = []
        for start in range(0, len(user), settings.batch_size):
            end = min(start + settings.batch_size, len(user))
            score = user[start:end] @ item.T + bias
            row, goal = torch.arange(end - start), target[start:end]
            own = score[row, goal]
            removed = seen[offset[start] : offset[end]]
            score[torch.repeat_interleave(row, lengths[start:end]), removed] = -torch.inf
            score[row, goal] = own
            if sort:
                order = torch.sort(score, dim=1, descending=True).indices
                ranks.append((order == goal[:, None]).int().argmax(1) + 1)
            else:
                ranks.append((score >= own[:, None]).sum(1))
        rank = torch.cat(ranks).numpy()
        return np.where(rank <= 10, 1 / np.log2(rank + 1), 0)

    return evaluate


def main(settings: Benchmark) -> None:
    """Prints one line a catalogue."""
    if len(settings.items) != len(settings.users):
        raise InputError("--items and --users need as many numbers each.")
    with_torch, lines = has_peer("torch"), []
    print(setting("torch"), flush=True)
    for users, items in zip(settings.users, settings.items, strict=True):
        world = draw(users, items, settings.width)
        everyone = {"jrec": ours(world, settings)}
        if with_torch:
            everyone["sort"] = torch_loop(world, settings, sort=True)
            everyone["count"] = torch_loop(world, settings, sort=False)
        found = {name: evaluate() for name, evaluate in everyone.items()}
        for name, ndcg in found.items():
            # A rank may differ where PyTorch's rounding decides between near scores.
            if differ := int((np.abs(ndcg - found["jrec"]) > 1e-9).sum()):
                print(f"NDCG@10 of {differ} users differs between jrec and {name}")
        turns = {name: lambda _, run=run: run() for name, run in everyone.items()}
        seconds = medians(alternate(turns, settings.repeats))
        ours_s = seconds.pop("jrec")
        cells = [f"{users:,} x {items:,} x {settings.width}", f"{ours_s:.3f}"]
        for each in seconds.values():
            cells += [f"{each:.3f}", f"{each / ours_s:.1f}"]
        lines.append(cells + [""] * (6 - len(cells)))
    header = ["users x items x width", "jrec, s", "PyTorch sort, s", "ratio"]
    print(markdown_table([*header, "PyTorch count, s", "ratio"], lines))


if __name__ == "__main__":
    run_command(lambda: main(tyro.cli(Benchmark, description=__doc__)))
