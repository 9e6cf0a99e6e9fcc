"""Offline mining of a finished candidate run: hottest items, lists of users and items, as files."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from jrec.console import plain_console
from jrec.data.ragged import Ragged
from jrec.errors import InputError
from jrec.retrieval.list_files import Lists, ListSource, default_suffix, watch_lists, write_lists
from jrec.retrieval.mining import (
    Fallback,
    cooccurrence_lists,
    fall_back,
    hottest,
    hottest_by_category,
    item_counts,
    personal_lists,
    similar_lists,
)
from jrec.serving.candidates import CandidateModel, encode_histories, load_candidate_model

from .search import histories_of, named_users

_DAY = 86_400


@dataclass
class Mine:
    """Write ranked lists for all users, items or categories; the same command goes on after a stop."""

    run_dir: Path
    """A finished run."""
    lists: Literal[
        "personal", "user-id", "similar", "clicked-together", "hottest", "hottest-by-category"
    ] = "personal"
    """For users: `personal`, or `user-id`, with everything but the user's own vector zeroed. For items:
    `similar` (cosine of their vectors) or `clicked-together`. Else the most clicked items."""
    out: Path | None = None
    """File to write, .parquet or .tsv; by default in the run directory, Parquet where pyarrow is installed."""
    count: int = 100
    """Length of a list."""
    seen: bool = False
    """Also items that the user has clicked."""
    days: float | None = None
    """Count only clicks of the last so many days as popular."""
    category: str = "category"
    """Which feature of the items hottest-by-category and fallbacks of items go by."""
    batch: int = 256
    """Users or items searched for together."""


def mine(settings: Mine) -> None:
    """Writes the lists, and says how many keys each rule served."""
    for flag, value in (("count", settings.count), ("batch", settings.batch)):
        if value < 1:
            raise InputError(f"--{flag} must be 1 or more, but is {value}.")
    if settings.days is not None and not settings.days > 0:
        raise InputError(f"--days must be above 0, but is {settings.days}.")
    if settings.seen and settings.lists not in ("personal", "user-id"):
        raise InputError("--seen has a meaning for lists of users alone; leave it out.")
    model = load_candidate_model(settings.run_dir / "export", settings.lists == "user-id")
    settings = replace(settings, count=min(settings.count, len(model.biases)))
    out = settings.out or settings.run_dir / f"{settings.lists}{default_suffix()}"
    if settings.lists in ("personal", "user-id"):
        key, ids, source = "user", *_user_lists(model, settings)
    elif settings.lists in ("similar", "clicked-together"):
        key, ids, source = "source", *_item_lists(model, settings)
    else:
        popular = _popular(model, settings)
        key, ids = "list", np.array([popular.rules[0]])
        if settings.lists == "hottest-by-category":
            key, (ids, popular) = settings.category, _by_category(model, settings)
        source = _standing(popular)
    free = ("run_dir", "out", "batch")
    record = {k: v for k, v in vars(settings).items() if k not in free}
    out.parent.mkdir(parents=True, exist_ok=True)
    done = write_lists(
        out, key, ids, model.items.values, source, record | {"fingerprint": model.fingerprint}
    )
    written = watch_lists(done, len(ids), f"{key}s", plain_console(stderr=True))
    if written < len(ids):
        print(
            f"  {len(ids) - written:,} of {len(ids):,} {key} ids have an empty list, which has no line"
        )
    print(f"{written:,} lists of up to {settings.count} in {out}")


def _user_lists(model: CandidateModel, settings: Mine) -> tuple[np.ndarray, ListSource]:
    named, ids = named_users(model)
    if len(named) < len(model.user_rows):
        print(
            f"  {len(model.user_rows) - len(named):,} users without an id of their own are left out"
        )
    histories = histories_of(model, named)

    def vectors_of(start: int, stop: int) -> np.ndarray:
        own = Ragged(
            histories.values[histories.offsets[start] : histories.offsets[stop]],
            histories.offsets[start : stop + 1] - histories.offsets[start],
        )
        if settings.lists == "user-id":
            own = Ragged(own.values[:0], np.zeros_like(own.offsets))
        return encode_histories(model, own, named[start:stop], settings.batch)

    popular = Fallback(_popular(model, settings), np.zeros(len(named), np.int64))
    return ids, personal_lists(
        vectors_of,
        model.table,
        settings.count,
        popular,
        histories.lengths > 0,
        None if settings.seen else histories,
        settings.lists,
        settings.batch,
    )


def _item_lists(model: CandidateModel, settings: Mine) -> tuple[np.ndarray, ListSource]:
    M = len(model.biases)
    popular, choice = _popular(model, settings), None
    by_category = popular
    if settings.category in model.groups:
        _, by_category = _by_category(model, settings)
        group = model.groups[settings.category].of_item
        choice = np.full(M, -1)
        some = group.lengths > 0
        choice[some] = group.values[group.offsets[:-1][some]]  # the first, of several
    fallback = fall_back(choice, by_category, popular, M)
    if settings.lists == "clicked-together":
        lists = cooccurrence_lists(model.histories, M, settings.count, fallback)
    else:
        has_vector_M = model.trained & (model.weights != 0).any(1)
        lists = similar_lists(
            model.weights, settings.count, fallback, has_vector_M, batch=settings.batch
        )
    return model.items.values, lists


def _counts(model: CandidateModel, settings: Mine) -> np.ndarray:
    since = None
    if settings.days is not None:
        if model.timestamps is None:
            raise InputError("These clicks have no times to count days by; leave --days out.")
        since = model.timestamps.max() - settings.days * _DAY
    return item_counts(model.histories.values, len(model.biases), model.timestamps, since)


def _popular(model: CandidateModel, settings: Mine) -> Lists:
    rule = "popular" if settings.days is None else f"popular-in-{settings.days:g}-days"
    return hottest(_counts(model, settings), settings.count, rule=rule)


def _by_category(model: CandidateModel, settings: Mine) -> tuple[np.ndarray, Lists]:
    if settings.category not in model.groups:
        known = ", ".join(model.groups) or "none"
        raise InputError(
            f"The items have no feature {settings.category!r} to give to --category; they have: {known}."
        )
    of_item, ids = model.groups[settings.category]
    rule = f"popular-in-{settings.category}"
    rule += "" if settings.days is None else f"-in-{settings.days:g}-days"
    counts = _counts(model, settings)
    return ids, hottest_by_category(counts, of_item, len(ids), settings.count, rule=rule)


def _standing(lists: Lists) -> ListSource:
    return lambda start, stop: Lists(*(part[start:stop] for part in lists))
