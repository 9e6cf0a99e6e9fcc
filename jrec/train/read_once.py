"""What one of several processes reads or computes, and the others map: of it each reads its rows alone."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import jax

from jrec.data.mapped import read_mapped, write_mapped
from jrec.train.processes import by_first, shared_folder, wait_for_all

T = TypeVar("T")


def read_once(load: Callable[[], T], run_dir: Path | None) -> T:
    """What `load` gives, which process 0 alone calls; with one process, no more than `load()`.

    With several, its arrays are read-only and mapped in all of them, so that nobody keeps the whole in memory.

    Args:
        load: gives what `jrec.data.mapped.write_mapped` takes.
        run_dir: a folder that all processes see; with one process it may be None.

    Raises InputError, in every process, where process 0 cannot load or write it.
    """
    if jax.process_count() == 1:
        return load()

    def write() -> str:
        value, folder = load(), shared_folder(run_dir)
        place = folder / str(len(list(folder.iterdir())))
        write_mapped(value, place)
        return str(place.relative_to(run_dir))

    value = read_mapped(run_dir / by_first(write))
    wait_for_all("read once")  # one that cannot see the folder ends the run before it begins
    return value
