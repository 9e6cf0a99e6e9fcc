"""How much of the exact lists an approximate search finds, and how fast: figures and a picture."""

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jrec.files import replacing


class SearchPoint(NamedTuple):
    """One setting of one search: `recall` of the exact lists, `queries_per_s` over a whole batch."""

    name: str
    effort: int
    recall: float
    queries_per_s: float


def mean_recall(found_BK: np.ndarray, exact_BK: np.ndarray) -> float:
    """The share of the exact rows that a search found, mean over queries; NaN without any.

    Both int [B, K], rows of a list distinct, -1 where it has ended; shorter exact lists count by what
    they hold.
    """
    B = len(exact_BK)
    rows = int(max(found_BK.max(initial=0), exact_BK.max(initial=0))) + 1
    offset_B1 = np.arange(B, dtype=np.int64)[:, None] * rows
    hit_BK = np.isin(exact_BK + offset_B1, (found_BK + offset_B1)[found_BK >= 0]) & (exact_BK >= 0)
    length_B = (exact_BK >= 0).sum(1)
    counted = length_B > 0
    return float((hit_BK.sum(1)[counted] / length_B[counted]).mean()) if counted.any() else np.nan


def measure_search(
    name: str,
    search: Callable[[int], np.ndarray],
    efforts: Sequence[int],
    exact_BK: np.ndarray,
    repeats: int = 3,
) -> list[SearchPoint]:
    """Recall and speed of `search(effort) -> rows [B, K]` at each effort; the median of the repeats."""
    points = []
    for effort in efforts:
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            found_BK = search(effort)
            seconds.append(time.perf_counter() - start)
        recall = mean_recall(found_BK, exact_BK)
        rate = len(exact_BK) / statistics.median(seconds)
        points.append(SearchPoint(name, effort, recall, rate))
    return points


def measure_alone(
    searches: Sequence[Callable[[int], object]], turns: int = 8, queries: int = 8
) -> list[float]:
    """Median milliseconds of each search for one query alone, what it gives being on the host.

    They take turns: each searches for one query that warms up and for some more, query `k` of `search(k)`
    counted from 0, before the next one does.
    """
    times: list[list[float]] = [[] for _ in searches]
    for turn in range(turns):
        for search, own in zip(searches, times, strict=True):
            for k in range(turn * (queries + 1), (turn + 1) * (queries + 1)):
                start = time.perf_counter()
                search(k)
                if k % (queries + 1):
                    own.append(time.perf_counter() - start)
    return [1e3 * statistics.median(own) for own in times]


def draw_recall(path: Path, points: Sequence[SearchPoint], count: int) -> None:
    """Queries per second (logarithmic) over recall@count as a PNG, one line for each name."""
    from matplotlib.figure import Figure  # slow to import

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for name in dict.fromkeys(point.name for point in points):
        own = [point for point in points if point.name == name]
        axes.plot(
            [point.recall for point in own],
            [point.queries_per_s for point in own],
            marker=".",
            label=name,
        )
    axes.set(xlabel=f"recall@{count}", ylabel="queries/s", yscale="log")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)
