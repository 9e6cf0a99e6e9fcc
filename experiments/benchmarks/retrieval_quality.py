"""What cosine and approximate searches lose of a trained run's NDCG: exact lists beside SIMPLE-LSH and faiss.

    python -m experiments.benchmarks.retrieval_quality --run-dir DIR

DIR is a finished run of `python -m experiments.candidates train` with leave-one-out; each user's last click
is to be found again after the ones before it, in the whole catalogue without them. Needs the extra `ann`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jrec.command_line import parse_command
from jrec.data.ragged import Ragged
from jrec.errors import InputError, run_command
from jrec.files import read_json
from jrec.report import markdown_table
from jrec.retrieval.ann import build_index, import_faiss, search_index
from jrec.retrieval.exact import ItemTable, item_table
from jrec.retrieval.mining import Fallback, hottest, personal_lists
from jrec.retrieval.recall import mean_recall
from jrec.retrieval.simple_lsh import item_vectors, unit_rows, user_vectors
from jrec.serving.candidates import encode_histories, load_candidate_model


@dataclass
class Quality:
    """What approximate and cosine searches lose of a run's NDCG@10 (leave-one-out, seen removed)."""

    run_dir: Path
    """A finished run of experiments.candidates."""
    count: int = 10
    """Length of a list."""
    effort: int = 200
    """Of HNSW."""


def quality(settings: Quality) -> None:
    import_faiss()
    results = read_json(settings.run_dir / "results.json")
    if results.get("split") != "leave-one-out":
        raise InputError(
            f"{settings.run_dir} was not split by --split leave-one-out; give one that was."
        )
    model = load_candidate_model(settings.run_dir / "export")
    histories = model.histories
    users = np.flatnonzero(histories.lengths >= 3)
    lengths = histories.lengths[users] - 1
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    places = np.repeat(histories.offsets[users] - offsets[:-1], lengths) + np.arange(offsets[-1])
    before = Ragged(histories.values[places], offsets)
    target = histories.values[histories.offsets[users + 1] - 1]
    user_ND, vectors = (
        encode_histories(model, before, users),
        item_vectors(model.weights, model.biases),
    )
    queries = user_vectors(user_ND)
    nobody = Fallback(
        hottest(np.zeros(len(vectors), np.int64), settings.count), np.zeros(len(users), np.int64)
    )

    def exactly(user_ND: np.ndarray, table: ItemTable) -> np.ndarray:
        lists = personal_lists(
            lambda start, stop: user_ND[start:stop], table, settings.count, nobody, seen=before
        )
        return lists(0, len(users)).rows

    found = {
        "exact, w.u + b": exactly(user_ND, model.table),
        "exact, cosine of SIMPLE-LSH": exactly(queries, item_table(unit_rows(vectors))),
    }
    for kind, effort in {"hnsw": settings.effort, "ivf_flat": 32, "ivf_pq": 32}.items():
        index = build_index(vectors, model.items.values, model.name, kind, query_ND=queries[::2])
        rows = search_index(index, queries, settings.count, effort, before)[0]
        found[f"{kind}, effort {effort}"] = rows
    truth, lines = found["exact, w.u + b"], []
    gain_K = 1 / np.log2(2 + np.arange(settings.count))
    wanted = ((truth == target[:, None]) * gain_K).sum(1).mean()
    for name, rows in found.items():
        ndcg = ((rows == target[:, None]) * gain_K).sum(1).mean()
        lost = f"{100 * (1 - ndcg / wanted):.2f}%"
        lines.append([name, f"{ndcg:.5f}", lost, mean_recall(rows, truth)])
    print(f"{settings.run_dir}: {len(users):,} users, {len(vectors):,} items, test click held out")
    print(f"the run's own NDCG@10 on test: {results['test_ndcg@10']:.5f}\n")
    print(
        markdown_table(
            ["search", f"NDCG@{settings.count}", "lost", f"recall@{settings.count}"], lines
        )
    )


def main(arguments: list[str] | None = None) -> None:
    quality(parse_command([Quality], __doc__, arguments))


if __name__ == "__main__":
    run_command(main)
