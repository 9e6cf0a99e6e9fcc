"""Vectors and ranked lists of a finished candidate run, out of its export.

A history is all that the data set knows of a user, held-out clicks included, as it is when a system serves.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jrec.data.clicks import Bag, take
from jrec.data.ragged import Ragged
from jrec.data.vocabulary import FIRST
from jrec.errors import InputError
from jrec.retrieval.ann import Kind
from jrec.retrieval.simple_lsh import item_vectors, user_vectors
from jrec.retrieval.vector_files import save_vectors, write_text_vectors
from jrec.serving.candidate_lists import build_model_index, load_model_index, recommend
from jrec.serving.candidates import CandidateModel, encode_histories, load_candidate_model


@dataclass
class Vectors:
    """Write users and items as SIMPLE-LSH vectors, whose cosine ranks as the network's scores do."""

    run_dir: Path
    """A finished run."""
    out: Path
    """Folder for users.npy, users_ids.npy, items.npy and items_ids.npy."""
    text: bool = False
    """Also users.txt and items.txt: one vector a line, numbers joined by commas, in the order of the ids."""


@dataclass
class Search:
    """Print the best items for a user or a history, seen ones left out."""

    run_dir: Path
    """A finished run."""
    user: str | None = None
    """Raw id of a user."""
    history: tuple[str, ...] = ()
    """Raw ids of items, the oldest first; read in the place of the user's own clicks."""
    count: int = 10
    """How many."""
    seen: bool = False
    """Also items of the history."""
    index: Path | None = None
    """Folder of an approximate index to search with (needs faiss); left out, all items are looked at."""
    build: Kind | None = None
    """First build an index of this kind into --index."""
    effort: int = 200
    """Candidates held (hnsw) or cells looked at (ivf); more find more."""


def vectors(settings: Vectors) -> None:
    """Writes the vectors, and says how many."""
    model = load_candidate_model(settings.run_dir / "export")
    named, ids = named_users(model)
    some = named[np.diff(model.histories.offsets)[named] > 0]
    made = {
        "items": (model.items.values, item_vectors(model.weights, model.biases)),
        "users": (
            ids[np.isin(named, some)],
            user_vectors(encode_histories(model, histories_of(model, some), some)),
        ),
    }
    for name, (own_ids, own) in made.items():
        save_vectors(settings.out, name, own_ids, own)
        if settings.text:
            write_text_vectors(settings.out / f"{name}.txt", own)
        print(f"{len(own):,} {name} of {own.shape[1]} numbers in {settings.out / name}.npy")
    if len(some) < len(named):
        print(f"  {len(named) - len(some):,} users without clicks have no vector")
    print(f"fingerprint {model.fingerprint}")


def search(settings: Search) -> None:
    """Prints the ranked items."""
    if settings.build is not None and settings.index is None:
        raise InputError("--build needs --index, the folder to write the index to.")
    model = load_candidate_model(settings.run_dir / "export")
    index = None
    if settings.build is not None:
        index = build_model_index(model, settings.index, settings.build)
        print(f"built an {settings.build} index of {len(index.ids):,} items in {settings.index}")
    elif settings.index is not None:
        index = load_model_index(model, settings.index)
    found = recommend(
        model,
        settings.count,
        settings.user,
        settings.history or None,
        settings.seen,
        index,
        settings.effort,
    )
    for note in found.notes:
        print(f"note: {note}")
    for rank, (item, score) in enumerate(zip(found.items, found.scores, strict=True), start=1):
        print(f"{rank:>5}  {item}  {score:.4f}")


def named_users(model: CandidateModel) -> tuple[np.ndarray, np.ndarray]:
    """The places of users that have an id of their own, and these ids."""
    named = np.flatnonzero(model.user_rows >= FIRST)
    if len(named) == 0:
        raise InputError(
            "No user of the data has an id of their own; prepare the log again with --user-appear-limit 0."
        )
    return named, model.users.decode(model.user_rows[named])


def histories_of(model: CandidateModel, users: np.ndarray) -> Ragged:
    return take(Bag(model.histories, ""), users).rows
