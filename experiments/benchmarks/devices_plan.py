"""What each system exchanges a step, and what that lets N devices gain: bytes counted in the program, time on paper.

    XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m experiments.benchmarks.devices_plan

A reduction of P bytes over N devices sends 2 (N - 1) / N P of each (a ring), a gathering of G bytes in all
(N - 1) / N G. A step of one device, T, is measured here; of N it is T / min(N, batch size) + bytes / link + collectives x latency.
"""

import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import tyro
from jax.extend.core import jaxprs_in_params

from experiments import autoencoder, candidates, embedding_mlp, fusion, ranking
from jrec.errors import run_command
from jrec.train.loop import Schedule

ML_1M = (
    "--dataset synthetic --synthetic.users 6040 --synthetic.films 3706 --synthetic.ratings 1000000"
)
SYSTEMS = {
    "fusion, dense tables": (fusion, ML_1M),
    "fusion, rows": (fusion, f"{ML_1M} --tables rows"),
    "fusion, improved": (fusion, f"--preset improved {ML_1M}"),
    "autoencoder": (autoencoder, ML_1M),
    "embedding MLP, rows": (embedding_mlp, f"--preset source-20m {ML_1M}"),
    "embedding MLP, improved": (embedding_mlp, f"--preset improved {ML_1M}"),
    "candidates, source": (candidates, "--preset source --batch-size 512"),
    "candidates, attention, full softmax": (candidates, "--preset small"),
    "ranking": (ranking, ""),
}
DEVICES = (8, 64, 512)


@dataclass
class Plan:
    """What the links are, and how long to measure."""

    link: float = 3.1
    """GB/s that a device sends and receives: 25 Gbit/s Ethernet."""
    latency: float = 50.0
    """Microseconds of one collective beside its bytes, for 8 devices; one third more each time they double."""
    steps: int = 30
    """Measured; the best of three runs counts."""
    only: tuple[str, ...] = ()
    """Some of the systems."""


class _Ready(Exception):
    """Carries what an experiment was about to train with."""


def ready(module: ModuleType, flags: str, devices: int) -> tuple:
    """Batch size, state, data, chunk and the first epoch's order of an experiment on so many devices."""

    def instead(
        state: Any, data: Any, chunk: Any, order: Any, _: Any, schedule: Schedule, *__: Any
    ) -> None:
        rows = order(0).size // schedule.steps_per_epoch
        raise _Ready(rows, state, data, chunk, order(0))

    trained, module.fit = module.fit, instead
    try:
        with tempfile.TemporaryDirectory() as folder:
            place = ["--run-dir", str(Path(folder) / "run"), "--devices", str(devices)]
            module.main(["train", *flags.split(), *place])
    except _Ready as found:
        return found.args
    finally:
        module.fit = trained
    raise AssertionError("The experiment did not come to its training.")


def exchanged(jaxpr: Any, devices: int) -> tuple[int, int, int]:
    """(bytes reduced, bytes gathered of all devices, collectives) of one pass through a program.

    Of two sides that a step chooses from, the dearer one counts; collectives of one kind that follow each other
    directly count as one, as XLA joins them.
    """
    total, before = (0, 0, 0), ""
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        size = sum(
            v.aval.size * v.aval.dtype.itemsize for v in equation.invars if hasattr(v, "aval")
        )
        found = (0, 0, 0)
        if name.startswith(("psum", "all_reduce")):
            found = (size, 0, int(name != before))
        elif name.startswith("all_gather"):
            found = (0, size * devices, int(name != before))
        before = name
        inner = [exchanged(sub, devices) for sub in jaxprs_in_params(equation.params)]
        if inner:
            both = max(inner) if name == "cond" else tuple(map(sum, zip(*inner, strict=True)))
            found = tuple(map(sum, zip(found, both, strict=True)))
        total = tuple(map(sum, zip(total, found, strict=True)))
    return total


def step_seconds(settings: Plan, state: Any, data: Any, chunk: Any, order: Any) -> float:
    """Of one device."""
    best = float("inf")
    for _ in range(4):  # the first compiles
        started = time.perf_counter()
        state, sums, _ = chunk(state, data, order, 0, settings.steps)
        taken = sums["count"].block_until_ready()
        best = min(best, (time.perf_counter() - started) / settings.steps)
    assert taken > 0
    return best


def main(settings: Plan) -> None:
    rows = []
    for name, (module, flags) in SYSTEMS.items():
        if settings.only and name not in settings.only:
            continue
        _, state, data, chunk, order = ready(module, flags, 8)
        traced = jax.make_jaxpr(chunk)(state, data, order, 0, 1)
        reduced, gathered, collectives = exchanged(traced.jaxpr, 8)
        batch_size, *given = ready(module, flags, 1)
        seconds = step_seconds(settings, *given)
        cells = []
        for many in DEVICES:
            share = (many - 1) / many
            sent = share * (2 * reduced + gathered)
            wait = collectives * settings.latency * 1e-6 * (4 / 3) ** math.log2(many / 8)
            cells.append(
                (
                    sent,
                    seconds / (seconds / min(many, batch_size) + sent / settings.link / 1e9 + wait),
                )
            )
        rows.append((name, seconds, reduced, gathered, collectives, cells))
    print(
        "| system | ms a step, one device | reduced, KB | gathered, KB | collectives | "
        + " | ".join(f"{n} devices: sent, KB | times as fast" for n in DEVICES)
        + " |"
    )
    for name, seconds, reduced, gathered, collectives, cells in rows:
        parts = [f"{sent / 1e3:,.0f} | {gain:.1f}" for sent, gain in cells]
        print(
            f"| {name} | {seconds * 1e3:.2f} | {reduced / 1e3:,.0f} | {gathered / 1e3:,.0f} | {collectives} | "
            + " | ".join(parts)
            + " |"
        )


if __name__ == "__main__":
    run_command(lambda: main(tyro.cli(Plan, description=__doc__)))
