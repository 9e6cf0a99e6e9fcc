"""Ranked items out of an exported candidate model, exactly or with an index; needs no model code."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jrec.data.clicks import Bag, take
from jrec.data.ragged import Ragged
from jrec.errors import InputError
from jrec.retrieval.ann import AnnIndex, Kind, build_index, search_index
from jrec.retrieval.ann_files import load_index, save_index
from jrec.retrieval.exact import list_size
from jrec.retrieval.grouped import exact_top_k
from jrec.retrieval.mining import hottest, item_counts
from jrec.retrieval.simple_lsh import item_vectors, user_vectors
from jrec.serving.candidates import CandidateModel, asked_for, encode_histories

_SAMPLE = 4096  # users whose vectors an index is made for


class Recommended(NamedTuple):
    """A ranked list.

    Attributes:
        items: raw ids, best first. scores: w.u + b of each, or its clicks under the rule `popular`.
        rule: `personal`, or `popular` where nothing is known of the user.
        notes: sentences for what was asked for and is not known.
    """

    items: list[int | str]
    scores: list[float]
    rule: str
    notes: list[str]


def recommend(
    model: CandidateModel,
    count: int,
    user: int | str | None = None,
    history: Sequence[int | str] | None = None,
    include_seen: bool = False,
    index: AnnIndex | None = None,
    effort: int = 200,
) -> Recommended:
    """The items of the highest w.u + b for a user, or for anybody with a history.

    Args:
        count: K. user: raw id, whose features and clicks are read. history: raw item ids, the oldest
            first, to read in the place of the user's own clicks.
        include_seen: also items of the history.
        index: from `load_model_index` or `build_model_index`; else all items are looked at.
        effort: see `jrec.retrieval.ann.search_index`.

    Raises InputError for a count or effort below 1, and where neither user nor history is given.
    """
    for flag, value in (("count", count), ("effort", effort)):
        if value < 1:
            raise InputError(f"--{flag} must be 1 or more, but is {value}.")
    count = min(count, len(model.biases))
    place, rows, notes = asked_for(model.users, model.user_rows, model.items, user, history)
    if rows is None:
        rows = model.histories[place] if place < len(model.user_rows) else np.zeros(0, np.int32)
    seen = np.unique(rows[rows >= 0]).astype(np.int32)
    if len(seen) == 0:
        notes.append("there is no known click to go by: the most clicked items")
        popular = hottest(item_counts(model.histories.values, len(model.biases)), count)
        return _named(model, popular.rows[0][popular.mask[0]], popular.scores[0], "popular", notes)

    one = Ragged(rows.astype(np.int32), np.array([0, len(rows)]))
    vector_1D = encode_histories(model, one, np.array([place]), batch=1)
    left_out = seen[:0] if include_seen else seen
    if index is None:
        # A list of one of a few sizes, cut on the host: a program for each size, not for each request.
        size = list_size(count + len(left_out), len(model.biases))
        ranked = exact_top_k(model.table, vector_1D, size)
        kept = np.asarray(ranked.mask[0])
        found, scores = np.asarray(ranked.rows[0])[kept], np.asarray(ranked.scores[0])[kept]
        new = ~np.isin(found, left_out)
        found, scores = found[new][:count], scores[new][:count]
    else:
        query, without = user_vectors(vector_1D), Ragged(left_out, np.array([0, len(left_out)]))
        found, _, mask = search_index(index, query, count, effort, without)
        found = found[0][mask[0]]
        scores = model.weights[found] @ vector_1D[0] + model.biases[found]
        order = np.lexsort((found, -scores))  # cosines round otherwise than scores
        found, scores = found[order], scores[order]
    if len(found) == 0:
        notes.append(
            f"nothing is left to recommend: {len(left_out):,} of {len(model.biases):,} items have been "
            f"clicked (--seen ranks them, too)"
        )
    return _named(model, found, scores, "personal", notes)


def build_model_index(model: CandidateModel, folder: Path, kind: Kind = "hnsw") -> AnnIndex:
    """An index of the model's items, made for its users; written to a folder.

    Raises InputError where faiss is missing.
    """
    vectors = item_vectors(model.weights, model.biases)
    queries = user_vectors(_some_users(model))
    index = build_index(vectors, model.items.values, model.name, kind, query_ND=queries)
    save_index(index, folder)
    return index


def load_model_index(model: CandidateModel, folder: Path) -> AnnIndex:
    """An index from disk; raises InputError where it is missing, damaged or of another model or catalogue."""
    index = load_index(folder, model.fingerprint)
    if not np.array_equal(index.ids, model.items.values):
        raise InputError(
            f"{folder} holds this model's items in another order; build the index again."
        )
    return index


def _some_users(model: CandidateModel) -> np.ndarray:
    """u float32 [at most 4,096, D] of users with clicks, evenly out of all."""
    clicked = np.flatnonzero(np.diff(model.histories.offsets) > 0)
    chosen = clicked[:: max(len(clicked) // _SAMPLE, 1)][:_SAMPLE]
    if len(chosen) == 0:
        return np.zeros((0, model.weights.shape[1]), np.float32)
    return encode_histories(model, take(Bag(model.histories, ""), chosen).rows, chosen)


def _named(
    model: CandidateModel, rows: np.ndarray, scores: np.ndarray, rule: str, notes: list[str]
) -> Recommended:
    ids = model.items.values[rows].tolist()
    return Recommended(ids, scores[: len(ids)].astype(float).tolist(), rule, notes)
