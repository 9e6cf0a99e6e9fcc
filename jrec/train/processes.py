"""Several processes that run one experiment together, through JAX's own runtime."""

import atexit
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from jrec.errors import InputError, sentence_of

AUTOMATIC = "auto"

# JAX ends a process in the middle of its C++ when another one is gone, with a stack trace. This small process
# outlives it and says what it means.
_WITNESS = """
import sys
if not sys.stdin.buffer.read():
    print("error: " + sys.argv[1], file=sys.stderr, flush=True)
"""
_LOST = "This run has lost one of its processes, and all of them stop; start all of them again with --resume."
_witness: subprocess.Popen | None = None
_leaving = threading.Lock()
_shared: list[Path] = []  # process 0's: the folder of `shared_folder`, then those made to hold it
_run_dir: Path | None = None  # of a run of several processes
_ANSWER_BYTES = 4096


class _Told(InputError):
    """One that all processes have heard of."""


def join_processes(coordinator: str, processes: int | None, process: int | None) -> None:
    """Meets the other processes; must come before anything is computed.

    Args:
        coordinator: HOST:PORT of process 0 (the port after it is used, too), or `auto`, for what JAX finds
            out by itself (SLURM, Open MPI, TPU pods; then the numbers are left out).
        processes: how many there are. process: which one this is, from 0.

    Raises InputError where they cannot meet.
    """
    _call_witness()
    # A save that fails is raised where the next begins; Orbax and asyncio would write its stack trace, too.
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    # Between processes XLA's CPU devices need a library to talk through; GPUs and TPUs have their own.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    given = {} if coordinator == AUTOMATIC else {"coordinator_address": coordinator}
    try:
        jax.distributed.initialize(
            **given,
            num_processes=processes,
            process_id=process,
            initialization_timeout=120,
            shutdown_timeout_seconds=3600,  # process 0 writes reports after the others are done
        )
        if coordinator != AUTOMATIC:
            _watch_others(coordinator, processes, process)
        # While they are near each other: gloo gives a first meeting 30 seconds, later ones have no limit.
        wait_for_all("start")
    except (ValueError, RuntimeError, OSError) as error:
        sentence = (
            f"The processes could not meet at {coordinator} ({_first_line(error)}); start all of them with "
            "the same --coordinator and --processes, and --process from 0."
        )
        if jax.distributed.is_initialized():
            _leave(sentence)
        raise InputError(sentence) from error


def _call_witness() -> None:
    global _witness
    command = [sys.executable, "-S", "-c", _WITNESS, _LOST]
    _witness = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    atexit.register(_dismiss_witness)  # before JAX's own, so that it runs after it


def _dismiss_witness() -> None:
    if _witness is not None:
        _witness.communicate(b"done")


def _watch_others(coordinator: str, processes: int, process: int) -> None:
    """Leaves at once when another process is gone, which JAX notices after a minute or two.

    Each process keeps a connection to process 0; one that breaks before a farewell tells it.
    """
    host, _, port = coordinator.rpartition(":")
    address = (host, int(port) + 1)
    if process == 0:
        with socket.create_server(("", address[1])) as server:
            server.settimeout(120)
            others = [server.accept()[0] for _ in range(processes - 1)]
    else:
        others = [_connected(address)]

    def listen(other: socket.socket) -> None:
        try:
            farewell = other.recv(1)
        except OSError:
            farewell = b""
        if not farewell:
            _leave(_LOST)

    def bid_farewell() -> None:
        for other in others:
            other.sendall(b".")

    for other in others:
        other.settimeout(None)
        threading.Thread(target=listen, args=(other,), daemon=True).start()
    atexit.register(bid_farewell)


def _connected(address: tuple[str, int]) -> socket.socket:
    deadline = time.monotonic() + 120
    while True:
        try:
            return socket.create_connection(address, timeout=120)
        except ConnectionRefusedError:  # process 0 is not there yet
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def is_first() -> bool:
    """Whether this process is the one that prints and writes reports."""
    return jax.process_index() == 0


def wait_for_all(name: str) -> None:
    """Returns when every process has come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def by_first(act: Callable[[], str | None]) -> str:
    """What process 0 alone does while the others wait; returns, in every process, what it says in the end.

    Raises InputError, in every process, where it raises that in process 0 or the system refuses it a file.
    """
    if jax.process_count() == 1:
        return act() or ""
    answer, fault = "", None
    if is_first():
        try:
            answer = act() or ""
        except (InputError, OSError) as error:
            fault = sentence_of(error)
            if fault is None:
                raise
    said = ("=" + answer if fault is None else "!" + fault).encode(errors="surrogateescape")
    padded = np.frombuffer(said[:_ANSWER_BYTES].ljust(_ANSWER_BYTES, b"\0"), np.uint8)
    heard = bytes(multihost_utils.broadcast_one_to_all(padded)).rstrip(b"\0")
    heard = heard.decode(errors="surrogateescape")
    if heard.startswith("!"):
        raise _Told(heard[1:])
    return heard[1:]


def shared_folder(make: bool = False) -> Path:
    """Returns process 0's folder for what all processes read, inside the run's folder.

    It is deleted when the processes part, and the run's folder too if it is empty then. Of one that was
    killed `jrec.files.clear_leftovers` knows the name.
    """
    assert _run_dir is not None, "shared_folder is for the inside of stop_together"
    folder = _run_dir / f".shared.{os.getpid()}"
    if _run_dir.is_file():
        raise InputError(f"{_run_dir} is a file; give --run-dir a folder.")
    if make and not _shared:
        _shared.extend([folder, *(parent for parent in folder.parents if not parent.exists())])
        shutil.rmtree(folder, ignore_errors=True)  # another process's of this number
        folder.mkdir(parents=True)
    return folder


def _delete_shared() -> None:
    if not _shared:
        return
    shutil.rmtree(_shared[0], ignore_errors=True)
    for folder in _shared[1:]:
        with suppress(OSError):  # it holds something by now
            folder.rmdir()
    _shared.clear()


def agreed(flag: Callable[[], bool]) -> Callable[[], bool]:
    """A function that tells whether the flag is up in any process; all must call it together."""
    if jax.process_count() == 1:
        return flag

    def any_process() -> bool:
        return bool(multihost_utils.process_allgather(jax.numpy.asarray(flag())).any())

    return any_process


@contextmanager
def stop_together(run_dir: Path) -> Iterator[None]:
    """One process cannot go on without the others: it stops with a sentence where one of them is gone.

    A process that fails leaves at once, without the farewell that JAX would wait for, so that the others
    notice.

    Args:
        run_dir: a folder that all processes see.
    """
    global _run_dir
    _run_dir = run_dir
    try:
        yield
        wait_for_all("end")
        _delete_shared()  # nobody reads it any more
    except (SystemExit, _Told) as stop:  # asked to stop, as all were
        wait_for_all("stop")
        _delete_shared()
        raise stop
    except BaseException as error:
        if jax.process_count() == 1:
            raise
        if (sentence := sentence_of(error)) is not None:
            _leave(sentence)
        if isinstance(error, KeyboardInterrupt):  # before or after training, which saves and stops
            _leave("Stopped, as asked.")
        if isinstance(error, jax.errors.JaxRuntimeError):
            _leave(_LOST)
        sys.excepthook(type(error), error, error.__traceback__)
        _leave("This process has failed; the others stop, too.")


def _leave(sentence: str) -> None:
    _leaving.acquire(timeout=10)  # never given back: several threads may notice, one says it
    print(f"error: {sentence}", file=sys.stderr, flush=True)
    _dismiss_witness()
    _delete_shared()
    sys.stdout.flush()
    os._exit(1)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
