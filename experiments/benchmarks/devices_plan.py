"""What each system exchanges a step, and what that lets N devices gain: bytes counted in the program, time on paper.

    XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m experiments.benchmarks.devices_plan

A reduction of P bytes over N devices sends 2 (N - 1) / N P of each (a ring), a gathering of G bytes in all
(N - 1) / N G, a routing of R bytes on each to the others (N - 1) / N R. A step of one device, T, is measured here;
of N it is T / min(N, batch size) + bytes / link + collectives x latency. Eight devices are one machine's, which
hold the training data whole; more are those of several processes, each with its share of it, so that a batch's
rows are gathered and routed, too. What grows with N is drawn on from 4 and 8 devices.
"""

import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from unittest.mock import patch

import jax
import tyro
from jax.extend.core import jaxprs_in_params

from experiments.autoencoder import __main__ as autoencoder
from experiments.candidates import __main__ as candidates
from experiments.embedding_mlp import __main__ as embedding_mlp
from experiments.fusion import __main__ as fusion
from experiments.ranking import __main__ as ranking
from jrec.errors import run_command
from jrec.report import markdown_table
from jrec.train import devices as placing
from jrec.train.loop import Schedule

ML_1M = (
    "--dataset synthetic --synthetic.users 6040 --synthetic.items 3706 --synthetic.ratings 1000000"
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


class Exchange(NamedTuple):
    """One pass through a program.

    Attributes:
        reduced, gathered, routed: bytes: on each device, of all devices, and on each device.
        collectives: those of one kind that follow each other directly count as one, as XLA joins them.
    """

    reduced: float = 0
    gathered: float = 0
    routed: float = 0
    collectives: float = 0


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


def exchange(module: ModuleType, flags: str, devices: int, spread: bool) -> Exchange:
    """What a step of an experiment exchanges; `spread` has the data as several processes have it."""
    with patch.object(placing, "several_processes", lambda: spread):
        _, state, data, chunk, order = ready(module, flags, devices)
        return exchanged(jax.make_jaxpr(chunk)(state, data, order, 0, 1).jaxpr, devices)


def exchanged(jaxpr: Any, devices: int) -> Exchange:
    """Of two sides that a step chooses from, the dearer one counts."""
    total, before = Exchange(), ""
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        size = sum(
            v.aval.size * v.aval.dtype.itemsize for v in equation.invars if hasattr(v, "aval")
        )
        found = Exchange()
        if name.startswith(("psum", "all_reduce")):
            found = Exchange(reduced=size, collectives=int(name != before))
        elif name.startswith("all_gather"):
            found = Exchange(gathered=size * devices, collectives=int(name != before))
        elif name.startswith("all_to_all"):
            found = Exchange(routed=size, collectives=int(name != before))
        before = name
        inner = [exchanged(sub, devices) for sub in jaxprs_in_params(equation.params)]
        if inner:
            both = max(inner) if name == "cond" else map(sum, zip(*inner, strict=True))
            found = map(sum, zip(found, both, strict=True))
        total = Exchange(*map(sum, zip(total, found, strict=True)))
    return total


def drawn_on(of_4: Exchange, of_8: Exchange, devices: int) -> Exchange:
    """A line through both."""
    pairs = zip(of_4, of_8, strict=True)
    return Exchange(*(eight + (eight - four) * (devices - 8) / 4 for four, eight in pairs))


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
    lines = []
    for name, (module, flags) in SYSTEMS.items():
        if settings.only and name not in settings.only:
            continue
        whole = exchange(module, flags, 8, False)
        shares = [exchange(module, flags, many, True) for many in (4, 8)]
        batch_size, *given = ready(module, flags, 1)
        seconds = step_seconds(settings, *given)
        cells = [f"{seconds * 1e3:.2f}", *(f"{size / 1e3:,.0f}" for size in whole[:2])]
        cells.append(f"{whole.collectives:.0f} / {shares[1].collectives:.0f}")
        for many in DEVICES:
            found = whole if many == 8 else drawn_on(*shares, many)
            sent = (many - 1) / many * (2 * found.reduced + found.gathered + found.routed)
            wait = found.collectives * settings.latency * 1e-6 * (4 / 3) ** math.log2(many / 8)
            taken = seconds / min(many, batch_size) + sent / settings.link / 1e9 + wait
            cells += [f"{sent / 1e3:,.0f}", f"{seconds / taken:.1f}"]
        lines.append([name, *cells])
    header = ["system", "ms a step, one device", "reduced, KB", "gathered, KB"]
    header.append("collectives of 8 / of more devices")
    for many in DEVICES:
        header += [f"{many} devices: sent, KB", "times as fast"]
    print(markdown_table(header, lines))


if __name__ == "__main__":
    run_command(lambda: main(tyro.cli(Plan, description=__doc__)))
