"""The driver: trains a plan in a run folder. It knows no data, model, loss, export or report."""

import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
from rich.console import Console

from jrec.console import plain_console
from jrec.errors import InputError
from jrec.report import MetricsLog, check_new_folder, open_run_directory
from jrec.train.checkpoints import Checkpoints
from jrec.train.devices import Devices, first_devices, on_devices, on_one, replicated
from jrec.train.flags import RunFlags, check_flags
from jrec.train.loop import Plan, Progress, fit, stop_on_signals
from jrec.train.processes import (
    AUTOMATIC,
    agreed,
    by_first,
    is_first,
    join_processes,
    stop_together,
)
from jrec.train.progress import watch_training


class Trained(NamedTuple):
    """A finished training.

    Attributes:
        params: the chosen ones, on one device.
        results: metrics of the chosen epoch, `best_epoch`, `epochs`, `seconds`, `examples_per_second`
            (from the second epoch on; None without one), `parameters`, `seed`.
        writes: whether this process exports and reports: of several, the first.
    """

    params: Any
    results: dict[str, Any]
    writes: bool


@contextmanager
def running(flags: RunFlags, name: str) -> Iterator[tuple[Path, Console]]:
    """Gives the run's folder and a console; inside, everything runs on the devices that the flags name.

    Args:
        name: the system and its data set, for the default folder.

    Raises InputError for flags that make no sense, and for a folder that holds another run.
    """
    check_flags(flags)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    folder = flags.run_dir or Path("runs") / f"{name}-{stamp}"
    with _joined(flags) as devices, on_devices(devices):
        by_first(lambda: check_new_folder(folder, flags.resume))
        yield folder, plain_console(quiet=not is_first())


@contextmanager
def _joined(flags: RunFlags) -> Iterator[Devices]:
    """Gives the devices to train on; where there are several processes, they stop together."""
    numbers = (flags.processes, flags.process)
    if flags.coordinator is None:
        if numbers != (None, None):
            raise InputError(
                "--processes and --process need --coordinator, HOST:PORT of process 0."
            )
        yield first_devices(1 if flags.devices is None else flags.devices)
        return
    if flags.coordinator == AUTOMATIC and numbers != (None, None):
        raise InputError("--coordinator auto finds --processes and --process; leave them out.")
    if flags.coordinator != AUTOMATIC:
        if None in numbers or not 0 <= flags.process < flags.processes:
            raise InputError("--coordinator needs --processes, and --process from 0 to one less.")
        if not flags.coordinator.rpartition(":")[2].isdigit():
            raise InputError(f"--coordinator must be HOST:PORT, but is {flags.coordinator!r}.")
    if flags.run_dir is None:
        raise InputError("--coordinator needs --run-dir, a folder that all processes see.")
    join_processes(flags.coordinator, *numbers)
    with stop_together(flags.run_dir):
        everything = tuple(jax.devices())
        if flags.devices not in (None, len(everything)):
            raise InputError(
                f"The processes have {len(everything)} devices, and use all of them; leave --devices "
                f"{flags.devices} out."
            )
        yield everything


def run(plan: Plan, flags: RunFlags, folder: Path, record: dict[str, Any]) -> Trained:
    """Trains a plan, from its first step or from the last checkpoint, to the end.

    Writes `settings.json`, `metrics.jsonl`, and checkpoints in `last/` and `best/`. Asked to stop by Ctrl-C or
    SIGTERM it saves, says so, and exits with code 130.

    Args:
        folder: of the run, from `running`.
        record: what `settings.json` keeps, and a resumed run must agree with (JSON-like).

    Raises InputError where the folder holds another run, a loss is not finite, or a file cannot be written.
    """
    by_first(lambda: open_run_directory(folder, flags.resume, record))
    console = plain_console(quiet=not is_first())
    template = jax.eval_shape(lambda: plan.state)
    last, best = Checkpoints(folder / "last", 2), Checkpoints(folder / "best", 1)
    state, progress = replicated(plan.state), Progress()
    if flags.resume and last.latest_step() is not None:
        state, saved = last.restore(template)
        progress = Progress(**saved)
    first_step = int(state.step)
    started = time.perf_counter()
    log = MetricsLog(folder, first_step, write=is_first())
    with closing(log), stop_on_signals() as should_stop:
        reports = fit(plan, flags, last, best, state, progress, agreed(should_stop))
        stopped = watch_training(reports, flags.epochs, plan.stream.steps, log, console, first_step)
    if stopped:
        console.print(
            f"Stopped at step {stopped.step}, saved; resume with --resume --run-dir {folder}."
        )
        sys.exit(130)
    chosen, saved = best.restore(template._replace(opt_state=()))
    results = saved["metrics"] | {
        "best_epoch": saved["epoch"] - 1,
        "epochs": progress.epoch - 1,
        "seconds": time.perf_counter() - started,
        "examples_per_second": progress.examples / progress.seconds if progress.seconds else None,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(chosen.params)),
        "seed": flags.seed,
    }
    return Trained(on_one(chosen.params), results, is_first())
