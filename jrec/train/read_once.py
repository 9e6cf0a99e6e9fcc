"""Data that one of several processes loads, and the others memory-map."""

from collections.abc import Callable
from typing import TypeVar

import jax

from jrec.data.mapped import read_mapped, write_mapped
from jrec.train.processes import by_first, shared_folder, wait_for_all

T = TypeVar("T")


def load_checked(load: Callable[[bool], T]) -> T:
    """Returns `load(False)` of files on disk; process 0 has compared their checksums by `load(True)` before."""
    if jax.process_count() == 1:
        return load(True)

    def check() -> None:
        load(True)

    by_first(check)
    return load(False)


def read_once(load: Callable[[], T]) -> T:
    """Returns what `load` gives. Of several processes only process 0 calls it; the others map its arrays.

    Args:
        load: gives what `jrec.data.mapped.write_mapped` takes.

    Raises InputError, in every process, where process 0 cannot load or write it.
    """
    if jax.process_count() == 1:
        return load()
    run_dir = shared_folder().parent

    def write() -> str:
        value, folder = load(), shared_folder(make=True)
        place = folder / str(len(list(folder.iterdir())))
        write_mapped(value, place)
        return str(place.relative_to(run_dir))

    value = read_mapped(run_dir / by_first(write))
    wait_for_all("read once")  # one that cannot see the folder ends the run before it begins
    return value
