"""What an experiment runs on; it may change when a run goes on, and the numbers do not depend on it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from jrec.errors import InputError
from jrec.report import open_run_directory
from jrec.train.devices import Devices, first_devices
from jrec.train.processes import AUTOMATIC, by_first, join_processes, stop_together


@dataclass(frozen=True)
class Hardware:
    """Devices and processes."""

    devices: int | None = None
    """Devices that share each batch (left out: one; of several processes, all that they have)."""
    coordinator: str | None = None
    """To train in several processes: HOST:PORT of process 0, the same for all; `auto` on SLURM and TPU pods."""
    processes: int | None = None
    """How many processes there are; not with `auto`."""
    process: int | None = None
    """Which of them this is, from 0; not with `auto`."""


@contextmanager
def using(hardware: Hardware, run_dir: Path | None) -> Iterator[Devices]:
    """Gives the devices to train on; where there are several processes, they stop together.

    Raises InputError for settings that make no sense.
    """
    numbers = (hardware.processes, hardware.process)
    if hardware.coordinator is None:
        if numbers != (None, None):
            raise InputError(
                "--processes and --process need --coordinator, HOST:PORT of process 0."
            )
        yield first_devices(1 if hardware.devices is None else hardware.devices)
        return
    if hardware.coordinator == AUTOMATIC and numbers != (None, None):
        raise InputError("--coordinator auto finds --processes and --process; leave them out.")
    if hardware.coordinator != AUTOMATIC:
        if None in numbers or not 0 <= hardware.process < hardware.processes:
            raise InputError("--coordinator needs --processes, and --process from 0 to one less.")
        if not hardware.coordinator.rpartition(":")[2].isdigit():
            raise InputError(f"--coordinator must be HOST:PORT, but is {hardware.coordinator!r}.")
    if run_dir is None:
        raise InputError("--coordinator needs --run-dir, a folder that all processes see.")
    join_processes(hardware.coordinator, *numbers)
    with stop_together():
        everything = tuple(jax.devices())
        if hardware.devices not in (None, len(everything)):
            raise InputError(
                f"The processes have {len(everything)} devices, and use all of them; leave --devices "
                f"{hardware.devices} out."
            )
        yield everything


def open_run(run_dir: Path, resume: bool, settings: Callable[[], dict[str, Any]]) -> None:
    """`open_run_directory`, by one process for all; it alone computes the settings."""
    by_first(lambda: open_run_directory(run_dir, resume, settings()))
