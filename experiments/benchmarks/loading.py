"""Loading and preparing a large `ratings.csv`: seconds and peak memory.

    python -m experiments.benchmarks.loading --rows 20000000

Makes seeded ratings in the official 20M layout under a temporary folder, then loads them in a fresh
process. There is no peer: the target is 15 s and 3 GB on 2 cores.
"""

import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from experiments.benchmarks.turns import in_fresh_process, peak_gib
from jrec.data.sources import load_ratings
from jrec.data.splits import split_ratings
from jrec.data.synthetic import SyntheticSize, synthetic_columns
from jrec.errors import run_command
from jrec.report import markdown_table


@dataclass
class Loading:
    """Sizes of ML-20M by default."""

    rows: int = 20_000_263
    """Ratings in the file."""
    users: int = 138_493
    """Users."""
    items: int = 27_278
    """Items."""
    repeats: int = 3
    """Fresh processes; the median is printed."""


def write_csv(folder: Path, settings: Loading) -> None:
    """`ratings.csv` and `movies.csv` as GroupLens writes them, users in order."""
    # A quarter more than asked for: real data has no repeated pairs, so these are dropped.
    drawn = SyntheticSize(settings.users, settings.items, settings.rows * 5 // 4)
    columns = synthetic_columns(drawn, 0)
    _, kept = np.unique(columns["user"] * settings.items + columns["item"], return_index=True)
    kept = np.sort(kept)[: settings.rows]
    order = kept[np.argsort(columns["user"][kept], kind="stable")]
    with (folder / "ratings.csv").open("w", encoding="utf-8") as file:
        file.write("userId,movieId,rating,timestamp\n")
        for start in range(0, len(order), 1_000_000):
            part = order[start : start + 1_000_000]
            rows = zip(*(columns[name][part].tolist() for name in columns), strict=True)
            file.write("".join(f"{u},{f},{s},{t}\n" for u, f, s, t in rows))
    with (folder / "movies.csv").open("w", encoding="utf-8") as file:
        file.write("movieId,title,genres\n")
        file.writelines(
            f'{k},"Item, The {k} (1999)",Drama|War\n' for k in range(1, settings.items + 1)
        )


def load_once(folder: str) -> list[float]:
    """Returns seconds to load, seconds to split, this process's peak memory and the number of ratings."""
    start = time.perf_counter()
    ratings = load_ratings("ml-20m", Path(folder))
    loaded = time.perf_counter()
    split_ratings(ratings)
    return [loaded - start, time.perf_counter() - loaded, peak_gib(), len(ratings)]


def main(settings: Loading) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_csv(Path(folder), settings)
        size = (Path(folder) / "ratings.csv").stat().st_size / 1e6
        runs = [in_fresh_process(load_once, folder) for _ in range(settings.repeats)]
    load, split, peak, kept = (statistics.median(column) for column in zip(*runs, strict=True))
    cells = [f"{kept:,.0f}", f"{size:,.0f}", f"{load:.1f}", f"{split:.1f}", f"{peak:.2f}"]
    print(markdown_table(["rows", "file MB", "load s", "split s", "peak GiB"], [cells]))


if __name__ == "__main__":
    run_command(lambda: main(tyro.cli(Loading, description=__doc__)))
