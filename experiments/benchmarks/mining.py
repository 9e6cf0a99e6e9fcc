"""Offline lists for all users, what they have seen left out, written to Parquet (TSV without pyarrow); beside faiss.

    python -m experiments.benchmarks.mining [--users 1000000] [--first 81920]

The same vectors, users and files: jrec searches, or faiss's flat index does, for as many more items as the
longest history holds, and NumPy takes out what was seen. A third row is the flat index's bare search, with
nothing left out and nothing written. They take turns in one process; medians. Needs the extras `ann` and
`parquet`.
"""

import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmarks.retrieval import make_vectors
from experiments.benchmarks.turns import Side, alternate, has_peer, medians, peak_gib, setting
from jrec.command_line import parse_command
from jrec.data.ragged import Ragged
from jrec.errors import run_command
from jrec.report import markdown_table
from jrec.retrieval.ann import import_faiss
from jrec.retrieval.exact import item_table
from jrec.retrieval.list_files import Lists, ListSource, default_suffix, write_lists
from jrec.retrieval.mining import Fallback, hottest, personal_lists
from jrec.retrieval.simple_lsh import item_vectors, user_vectors


@dataclass
class Mine:
    """All users' lists in one pass."""

    users: int = 1_000_000
    """Users."""
    items: int = 100_000
    """Items."""
    count: int = 100
    """Length of a list."""
    seen: int = 30
    """Mean number of seen items a user."""
    batch: int = 256
    """Users that jrec searches for together."""
    first: int | None = None
    """List only so many of the users, with all users in memory."""
    repeats: int = 5
    """Turns of each side, after one that compiles."""


def faiss_lists(
    flat: Any, query_ND: np.ndarray, count: int, histories: Ragged, items: int
) -> ListSource:
    """As `personal_lists`, by the flat index and NumPy; every user has a vector."""

    def lists(start: int, stop: int) -> Lists:
        part = slice(histories.offsets[start], histories.offsets[stop])
        seen_N = histories.lengths[start:stop]
        scores, rows = flat.search(query_ND[start:stop], count + int(seen_N.max(initial=0)))
        user_N = np.arange(stop - start)
        seen = np.repeat(user_N, seen_N) * items + histories.values[part]
        left_out = np.isin(user_N[:, None] * items + rows, seen)
        kept = np.argsort(left_out, axis=1, kind="stable")[:, :count]
        rows, scores = (np.take_along_axis(values, kept, 1) for values in (rows, scores))
        return Lists(rows, scores, np.ones(rows.shape, bool), np.full(len(rows), "personal"))

    return lists


def main(arguments: list[str] | None = None) -> None:
    settings = parse_command((Mine,), __doc__, arguments)
    faiss = import_faiss() if has_peer("faiss") else None
    users, items, count = settings.users, settings.items, settings.count
    vectors, weights, biases = make_vectors(None, items, users)
    lengths = np.random.default_rng(1).poisson(settings.seen, users)
    clicked = np.random.default_rng(2).integers(0, items, lengths.sum(), np.int32)
    histories = Ragged(clicked, np.concatenate([[0], np.cumsum(lengths)]))
    popular = hottest(np.bincount(clicked, minlength=items), count)
    ours = personal_lists(
        lambda start, stop: vectors[start:stop],
        item_table(weights, biases),
        count,
        Fallback(popular, np.zeros(users, np.int64)),
        seen=histories,
        batch=settings.batch,
    )
    listed = np.arange(users if settings.first is None else min(settings.first, users))

    with tempfile.TemporaryDirectory() as temporary:

        def writing(source: ListSource) -> Side:
            def run(_: int) -> None:
                folder = Path(temporary) / "lists"
                folder.mkdir()
                path, names = folder / f"lists{default_suffix()}", np.arange(items)
                for _ in write_lists(path, "user", listed, names, source, {"made": True}):
                    pass
                shutil.rmtree(folder)

            return run

        start = time.perf_counter()
        writing(ours)(0)
        peak, once = peak_gib(), time.perf_counter() - start
        sides, sizes = {"jrec, seen left out and written": writing(ours)}, [len(listed)]
        if faiss is not None:
            flat = faiss.IndexFlatIP(vectors.shape[1] + 2)
            flat.add(item_vectors(weights, biases))
            queries = user_vectors(vectors[: len(listed)])
            some = queries[:8192]
            sides |= {
                "faiss flat, seen left out and written": writing(
                    faiss_lists(flat, queries, count, histories, items)
                ),
                f"faiss flat, search alone ({len(some):,} users)": lambda _: flat.search(
                    some, count
                ),
            }
            sizes += [len(listed), len(some)]
        seconds = medians(alternate(sides, settings.repeats))
    rates = [size / each for size, each in zip(sizes, seconds.values(), strict=True)]
    print(
        f"{setting('faiss-cpu')}\n{len(listed):,} of {users:,} users x {items:,} "
        f"items, lists of {count}, {settings.repeats} turns; jrec's first pass {once:.0f} s, with "
        f"compilation, {peak:.2f} GiB at most\n"
    )
    lines = [
        [name, f"{rate:,.0f}", f"{rates[0] / rate:.2f}"]
        for name, rate in zip(sides, rates, strict=True)
    ]
    print(markdown_table(["program", "users/s", "jrec is times as fast"], lines))


if __name__ == "__main__":
    run_command(main)
