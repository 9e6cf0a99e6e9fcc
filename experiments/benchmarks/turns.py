"""What all benchmarks share: sides that take turns, a fresh process, the machine in one line."""

import importlib.metadata
import importlib.util
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

Side = Callable[[int], object]
"""Takes the number of its turn, from 0; JAX arrays that it returns are waited for."""


def has_peer(library: str) -> bool:
    """Returns whether a library is installed; prints a line where it is not."""
    found = importlib.util.find_spec(library) is not None
    if not found:
        print(f"{library} is not installed: it is left out.")
    return found


def alternate(
    sides: dict[str, Side], repeats: int, warm_up: bool = True, pause: float = 0.0
) -> dict[str, list[float]]:
    """Returns the seconds of each side's turns.

    All sides run in each round, every other round in reverse, so that what disturbs one disturbs all. A first
    round compiles and is not counted, unless `warm_up` is False. `pause`: seconds before each turn, for
    threads of a peer that still spin.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repeats + warm_up):
        everyone = list(sides.items())
        for name, run in reversed(everyone) if turn % 2 else everyone:
            time.sleep(pause)
            start = time.perf_counter()
            jax.block_until_ready(run(turn))
            if turn >= warm_up:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def medians(times: dict[str, list[float]]) -> dict[str, float]:
    """Returns the median of each."""
    return {name: statistics.median(each) for name, each in times.items()}


def fastest(run: Callable[[], object]) -> float:
    """Returns the seconds of the fastest of seven calls, after one that compiles."""
    return min(alternate({"": lambda _: run()}, 7)[""])


def matrix_gflops() -> float:
    """Returns GFLOP/s of a large float32 matmul."""
    size = 2048 if jax.default_backend() == "cpu" else 8192
    square, matmul = jnp.ones((size, size), jnp.float32), jax.jit(jnp.matmul)
    return 2 * size**3 / fastest(lambda: matmul(square, square)) / 1e9


def installed(name: str) -> str | None:
    """Returns a distribution's version; None without it."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def setting(*libraries: str) -> str:
    """Returns one line: versions of JAX and of the `libraries` that are installed, device, cores, load."""
    versions = [(name, installed(name)) for name in ("jax", *libraries)]
    shown = [f"{name} {version}" for name, version in versions if version]
    where = f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    return f"python {platform.python_version()}, {', '.join(shown)}; {where}"


def peak_gib() -> float:
    """Returns the most memory that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


def in_fresh_process(function: Callable, *arguments: Any) -> Any:
    """Returns what a top-level function of a benchmark returns in a process of its own, by way of JSON.

    Arguments must read back from their `repr`. Raises CalledProcessError where the process fails.
    """
    module = Path(function.__code__.co_filename).stem  # its `__module__` may be `__main__`
    code = f"import json; from experiments.benchmarks import {module} as m; print(json.dumps(m.{function.__name__}(*{arguments!r})))"
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout.splitlines()[-1])
