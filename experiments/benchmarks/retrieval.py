"""Search at a million items, beside faiss: time, recall and memory.

    python -m experiments.benchmarks.retrieval exact          # top 100 of 1M x 33 beside faiss's flat index
    python -m experiments.benchmarks.retrieval approximate    # recall@100 and queries/s, a table and a figure
    python -m experiments.benchmarks.retrieval memory         # top 100 of 10M x 33 in a fresh process

All but `memory` need the extra `ann`. Vectors are drawn from a
standard normal distribution, which has no structure and is the hardest case for an approximate search;
or, with `--like FOLDER`, items from the normal distribution with the mean and covariance of a trained
model's (`items.npy` and `users.npy` as `python -m experiments.candidates vectors` writes them) and users
from its own. Sides alternate; medians. All sides use all cores, in batches and for one query alone.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.turns import (
    alternate,
    has_peer,
    in_fresh_process,
    medians,
    peak_gib,
)
from jrec.command_line import parse_command
from jrec.errors import run_command
from jrec.report import markdown_table
from jrec.retrieval.ann import (
    KINDS,
    AnnIndex,
    Kind,
    build_index,
    import_faiss,
    search_index,
)
from jrec.retrieval.ann_files import fingerprint, load_index, save_index
from jrec.retrieval.exact import approximate_top_k, item_table
from jrec.retrieval.grouped import exact_top_k
from jrec.retrieval.recall import draw_recall, mean_recall, measure_alone, measure_search
from jrec.retrieval.simple_lsh import item_vectors, user_vectors
from jrec.retrieval.vector_files import load_vectors

_WIDTH = 31  # of the source's user vectors; with 1 and 0 they have 33 numbers
_EFFORTS = {
    "hnsw": (100, 200, 400, 600, 800, 1200),
    "ivf_flat": (8, 16, 32, 64, 128, 256),
    "ivf_pq": (8, 16, 32, 64, 128, 256),
}


@dataclass
class Exact:
    """Exact lists, the same ones from both sides."""

    items: int = 1_000_000
    """Items."""
    batch: int = 64
    """Queries searched for together."""
    count: int = 100
    """Length of a list."""
    repeats: int = 9
    """Repeats of each side."""
    like: Path | None = None
    """Folder of a trained model's vectors."""


@dataclass
class Approximate:
    """Approximate lists against the exact ones."""

    items: int = 1_000_000
    """Items."""
    queries: int = 1024
    """Queries searched for together."""
    count: int = 100
    """Length of a list."""
    repeats: int = 3
    """Repeats of each search."""
    like: Path | None = None
    """Folder of a trained model's vectors."""
    kinds: tuple[str, ...] = KINDS
    """Indexes to build."""
    metric: bool = True
    """Place items by how a sample of users scores them; --no-metric: by their own distance."""
    indexes: Path | None = None
    """Folder to keep the built indexes in, and to take them from."""
    figure: Path = Path("recall.png")
    """Where the figure goes."""


@dataclass
class Memory:
    """Peak memory of a fresh process that makes the vectors and searches."""

    items: int = 10_000_000
    """Items."""
    batch: int = 64
    """Queries searched for together."""
    count: int = 100
    """Length of a list."""


def make_vectors(
    like: Path | str | None, items: int, users: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """u [N, D], w [M, D] and b [M], float32, seeded."""
    generator = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return generator.standard_normal(shape, dtype=np.float32)

    if like is None:
        return draw(users, _WIDTH), draw(items, _WIDTH), draw(items)
    _, user_ND = load_vectors(Path(like), "users")
    _, item_MD = load_vectors(Path(like), "items")
    drawn = generator.integers(0, len(user_ND), users)
    user_ND, item_MD = user_ND[:, :-1] / user_ND[:, :1], item_MD[:, :-1].astype(np.float64)
    values, directions = np.linalg.eigh(np.cov(item_MD.T))
    root = directions * np.sqrt(np.maximum(values, 0))
    made = draw(items, len(root)) @ root.T.astype(np.float32) + item_MD.mean(0, dtype=np.float32)
    return user_ND[drawn, 1:], made[:, 1:], made[:, 0]


def exact(settings: Exact) -> None:
    users, weights, biases = make_vectors(settings.like, settings.items, settings.batch)
    table, queries = item_table(weights, biases), jnp.asarray(users)
    plain = jax.jit(
        lambda table, q: jax.lax.top_k(q @ table.weights.T + table.biases[None], settings.count)
    )
    sides = {
        "jrec exact_top_k": lambda _: exact_top_k(table, queries, settings.count),
        "jrec approximate_top_k, recall 0.95": lambda _: approximate_top_k(
            table, queries, settings.count
        ),
        "one matmul, lax.top_k": lambda _: plain(table, queries),
    }
    rows = np.asarray(sides["jrec exact_top_k"](0).rows)
    if has_peer("faiss"):
        flat = import_faiss().IndexFlatIP(_WIDTH + 1)
        flat.add(np.concatenate([biases[:, None], weights], 1))
        with_one = np.concatenate([np.ones((len(users), 1), np.float32), users], 1)
        sides["faiss flat"] = lambda _: flat.search(with_one, settings.count)
        same = (rows == sides["faiss flat"](0)[1]).mean()
        print(f"places that agree with faiss: {same:.4f}")
    approximate = np.asarray(sides["jrec approximate_top_k, recall 0.95"](0).rows)
    seconds = medians(alternate(sides, settings.repeats))
    print(f"{settings.items:,} items, vectors like {settings.like}, batch {settings.batch}")
    print(f"recall of the approximate lists: {mean_recall(approximate, rows):.4f}\n")
    per_query = {name: 1e3 * value / settings.batch for name, value in seconds.items()}
    flat_ms = per_query.get("faiss flat")
    lines = [[name, ms, flat_ms / ms if flat_ms else ""] for name, ms in per_query.items()]
    print(markdown_table(["search", "ms a query", "times faiss flat"], lines))


def kept_index(
    settings: Approximate, vectors: np.ndarray, kind: Kind, sample: np.ndarray
) -> AnnIndex:
    """The index from --indexes, or a new one; it is made for the users of a sample."""
    ids = np.arange(len(vectors))
    folder = None if settings.indexes is None else settings.indexes / kind
    if folder is not None and (folder / "index.json").exists():
        return load_index(folder, fingerprint("made", ids, vectors))
    start = time.perf_counter()
    query_ND = sample if settings.metric else None
    index = build_index(vectors, ids, "made", kind, query_ND=query_ND)
    print(f"{kind}: built in {time.perf_counter() - start:.0f} s", flush=True)
    if folder is not None:
        save_index(index, folder)
    return index


def approximate(settings: Approximate) -> None:
    if not has_peer("faiss"):  # jrec's own approximate search needs it, too
        return
    faiss = import_faiss()
    users, weights, biases = make_vectors(settings.like, settings.items, settings.queries + 4096)
    # The index is made for other users than those who search.
    users, others = users[: settings.queries], user_vectors(users[settings.queries :])
    vectors, queries = item_vectors(weights, biases), user_vectors(users)
    table = item_table(weights, biases)

    def exact_rows(_: int) -> np.ndarray:
        # In batches whose scores of a block of items fit in the cache.
        parts = [users[first : first + 64] for first in range(0, len(users), 64)]
        return np.concatenate([exact_top_k(table, part, settings.count).rows for part in parts])

    indexes = {kind: kept_index(settings, vectors, kind, others) for kind in settings.kinds}
    truth = exact_rows(0)
    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(vectors)
    searches = {
        "jrec exact": (
            exact_rows,
            lambda k, _: np.asarray(exact_top_k(table, users[k : k + 1], settings.count).rows),
        ),
        "faiss flat": (
            lambda _: flat.search(queries, settings.count)[1],
            lambda k, _: flat.search(queries[k : k + 1], settings.count),
        ),
    }
    for kind, index in indexes.items():
        searches[kind] = (
            lambda effort, index=index: search_index(index, queries, settings.count, effort)[0],
            lambda k, effort, index=index: search_index(
                index, queries[k : k + 1], settings.count, effort
            ),
        )
    points, ones = [], []
    for name, (whole, one) in searches.items():
        efforts = _EFFORTS.get(name, (0,))
        points += measure_search(name, whole, efforts, truth, settings.repeats)
        ones += [lambda k, one=one, effort=effort: one(k, effort) for effort in efforts]
    alone = measure_alone(ones)
    lines = []
    for (name, effort, recall, rate), ms in zip(points, alone, strict=True):
        times = [f"{rate / point.queries_per_s:.1f}" for point in points[:2]]
        times += [f"{theirs / ms:.1f}" for theirs in alone[:2]]
        lines.append([name, effort, recall, f"{rate:,.0f}", f"{ms:.2f}", *times])
    header = ["search", "effort", f"recall@{settings.count}", "queries/s", "ms alone"]
    header += ["times jrec exact", "times faiss flat", "alone: jrec exact", "alone: faiss flat"]
    print(f"\n{settings.items:,} items, vectors like {settings.like}, batch {settings.queries}\n")
    print(markdown_table(header, lines))
    draw_recall(settings.figure, points, settings.count)


def search_many(items: int, batch: int, count: int) -> list[float]:
    """Returns milliseconds a query, and this process's peak memory in GiB."""
    users, weights, biases = make_vectors(None, items, batch)
    table = item_table(weights, biases)
    seconds = medians(alternate({"": lambda _: exact_top_k(table, users, count)}, 3))[""]
    return [1e3 * seconds / batch, peak_gib()]


def memory(settings: Memory) -> None:
    ms, peak = in_fresh_process(search_many, settings.items, settings.batch, settings.count)
    print(f"{settings.items:,} x 33, top {settings.count}, batch {settings.batch}, fresh process\n")
    print(markdown_table(["ms a query", "peak GiB"], [[f"{ms:.2f}", f"{peak:.2f}"]]))


def main(arguments: list[str] | None = None) -> None:
    commands = {Exact: exact, Approximate: approximate, Memory: memory}
    settings = parse_command(list(commands), __doc__, arguments)
    commands[type(settings)](settings)


if __name__ == "__main__":
    run_command(main)
