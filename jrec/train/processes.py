"""Several processes that run one experiment together, through JAX's own runtime."""

import atexit
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax
from jax.experimental import multihost_utils

from jrec.errors import InputError

AUTOMATIC = "auto"

# JAX ends a process in the middle of its C++ when another one is gone, with a stack trace. This small process
# outlives it and says what it means.
_WITNESS = """
import sys
if not sys.stdin.buffer.read():
    print("error: This run has lost one of its processes, and all of them stop; start all of them again with "
          "--resume.", file=sys.stderr, flush=True)
"""
_witness: subprocess.Popen | None = None


def join_processes(coordinator: str, processes: int | None, process: int | None) -> None:
    """Meets the other processes; must come before anything is computed.

    Args:
        coordinator: HOST:PORT of process 0, or `auto`, for what JAX finds out by itself (SLURM, Open MPI, TPU
            pods; then the numbers are left out).
        processes: how many there are. process: which one this is, from 0.

    Raises InputError where they cannot meet.
    """
    _call_witness()
    # Between processes XLA's CPU devices need a library to talk through; GPUs and TPUs have their own.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    given = {} if coordinator == AUTOMATIC else {"coordinator_address": coordinator}
    try:
        jax.distributed.initialize(
            **given,
            num_processes=processes,
            process_id=process,
            initialization_timeout=120,
            heartbeat_timeout_seconds=20,
            shutdown_timeout_seconds=3600,  # process 0 writes reports after the others are done
        )
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"The processes could not meet at {coordinator} ({_first_line(error)}); start all of them with "
            "the same --coordinator and --processes, and --process from 0."
        ) from error


def _call_witness() -> None:
    global _witness
    command = [sys.executable, "-S", "-c", _WITNESS]
    _witness = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    atexit.register(_dismiss_witness)  # before JAX's own, so that it runs after it


def _dismiss_witness() -> None:
    if _witness is not None:
        _witness.communicate(b"done")


def is_first() -> bool:
    """Whether this process is the one that prints and writes reports."""
    return jax.process_index() == 0


def wait_for_all(name: str) -> None:
    """Returns when every process has come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def agreed(flag: Callable[[], bool]) -> Callable[[], bool]:
    """A function that tells whether the flag is up in any process; all must call it together."""
    if jax.process_count() == 1:
        return flag

    def any_process() -> bool:
        return bool(multihost_utils.process_allgather(jax.numpy.asarray(flag())).any())

    return any_process


@contextmanager
def stop_together() -> Iterator[None]:
    """One process cannot go on without the others: it stops with a sentence where one of them is gone.

    A process that fails leaves at once, without the farewell that JAX would wait for, so that the others
    notice.
    """
    try:
        yield
    except SystemExit as stop:  # asked to stop, as all were
        if jax.process_count() > 1:
            wait_for_all("stop")
        raise stop
    except BaseException as error:
        if jax.process_count() == 1:
            raise
        if isinstance(error, InputError):
            _leave(str(error))
        if isinstance(error, jax.errors.JaxRuntimeError):
            _leave(
                f"Another process of this run is gone ({_first_line(error)}); start all of them again with "
                "--resume."
            )
        sys.excepthook(type(error), error, error.__traceback__)
        _leave("This process has failed; the others stop, too.")


def _leave(sentence: str) -> None:
    print(f"error: {sentence}", file=sys.stderr, flush=True)
    _dismiss_witness()
    sys.stdout.flush()
    os._exit(1)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
