"""Baselines of the next item: their data, their settings, how each is fitted and evaluated."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy import sparse

from jrec.baselines.content import content_vectors, fit_content, score_content
from jrec.baselines.ease import fit_ease, score_ease
from jrec.baselines.implicit_als import fit_implicit_als, score_implicit_als
from jrec.baselines.interactions import interaction_matrix
from jrec.baselines.neighbours import (
    fit_item_neighbours,
    fit_user_neighbours,
    score_item_neighbours,
    score_user_neighbours,
)
from jrec.baselines.popularity import fit_popularity, score_popularity
from jrec.data.click_sources import read_pairs
from jrec.data.clicks import Clicks
from jrec.data.own_csv import CsvClicks, read_clicks_csv
from jrec.data.ragged import Ragged
from jrec.data.ratings import Source
from jrec.data.sources import DATASETS, load_ratings
from jrec.data.splits import Split, split_ratings
from jrec.data.synthetic import SyntheticSize
from jrec.data.vocabulary import FIRST
from jrec.errors import InputError
from jrec.evaluate.repeated_targets import RepeatedTargets, check_some_count, settle_repeated

SEQUENCE_DATASETS = (*DATASETS, "ml-1m-sas")
NextItemMethod = Literal[
    "popularity", "user-neighbours", "item-neighbours", "content", "ease", "implicit-als"
]
Score = Callable[[np.ndarray], np.ndarray]
"""user rows [B] -> scores [B, items]."""


@dataclass(frozen=True)
class Events:
    """Who met what, and which event of each user is held out.

    Attributes:
        user, item: int32 [n], table rows. users, items: numbers of table rows.
        split: each user's last event is test, the one before it validation.
        content: Ragged of `items` rows for each kind of content; empty where nothing is known.
    """

    name: str
    source: Source
    user: np.ndarray
    item: np.ndarray
    users: int
    items: int
    split: Split
    content: list[Ragged]


def load_events(
    name: str,
    data_dir: Path | None,
    size: SyntheticSize,
    seed: int,
    csv: CsvClicks | None = None,
) -> Events:
    """All ratings of a data set as events, in time order of each user.

    Args:
        name: one of `SEQUENCE_DATASETS`; `ml-1m-sas` is a file of `user item` lines, each user's in
            time order. size, seed: of the synthetic data. csv: what the columns of `csv` are.
    """
    if name in ("ml-1m-sas", "csv"):
        if data_dir is None:
            raise InputError(f"--dataset {name} is not fetched; give its file with --data-dir.")
        if name == "csv":
            return _last_held_out(read_clicks_csv(data_dir, csv or CsvClicks()))
        return _last_held_out(read_pairs(name, data_dir))
    ratings = load_ratings(name, data_dir, size, seed)
    split = split_ratings(ratings, "leave-one-out")
    users, items = (ratings.vocabularies[key].rows for key in ("user", "film"))
    content = [ratings.film_features[key] for key in ("genres", "title")]
    return Events(name, ratings.source, ratings.user, ratings.film, users, items, split, content)


def _last_held_out(clicks: Clicks) -> Events:
    """Clicks as events; users of one or two stay in train."""
    user = clicks.user_of_event
    count = np.diff(clicks.offsets)[user]
    left = clicks.offsets[1:][user] - np.arange(len(user))  # 1 for a user's last event
    held = np.where(count < 3, 0, np.where(left > 2, 0, left))
    split = Split(*(np.flatnonzero(held == part) for part in (0, 2, 1)))
    users, items = (clicks.vocabularies[key].rows for key in ("user", "item"))
    user = clicks.user_row[user]
    return Events(clicks.name, clicks.source, user, clicks.item, users, items, split, [])


@dataclass
class NeighbourSettings:
    """Collaborative filtering by items or users."""

    neighbours: int
    """How many are kept for each."""
    shrinkage: float
    """Of similarities, in common events."""


@dataclass
class ContentSettings:
    """Genres and title words."""

    title_weight: float = 1.0
    """Of title words beside genres."""


@dataclass
class EaseSettings:
    """EASE."""

    regularisation: float = 200.0
    """In events."""


@dataclass
class AlsSettings:
    """Implicit alternating least squares."""

    width: int = 128
    """Of the vectors."""
    sweeps: int = 10
    """Each solves all users, then all items."""
    unobserved_weight: float = 1.0
    """Of a pair that was not met; one that was has 1 more."""
    regularisation: float = 0.003
    """Of the vectors."""
    exponent: float = 1.0
    """1 scales the regularisation by frequency, 0 keeps it the same for all rows."""
    solver_steps: int = 2
    """Of preconditioned conjugate gradients in each half sweep."""


@dataclass
class NextItemSettings:
    """Of all methods; defaults were chosen on the validation items of ml-1m-sas."""

    user_neighbours: NeighbourSettings = field(default_factory=lambda: NeighbourSettings(50, 20.0))
    item_neighbours: NeighbourSettings = field(default_factory=lambda: NeighbourSettings(10, 0.0))
    content: ContentSettings = field(default_factory=ContentSettings)
    ease: EaseSettings = field(default_factory=EaseSettings)
    implicit_als: AlsSettings = field(default_factory=AlsSettings)


def fit_next_item_baseline(
    method: NextItemMethod, settings: NextItemSettings, events: Events, train: np.ndarray, seed: int
) -> tuple[Any, Score]:
    """A fitted baseline.

    Args:
        train: positions of the events to fit to. seed: of implicit ALS.

    Returns:
        The model (a dataclass of arrays), and its scores.
    """
    data = (events.user[train], events.item[train], events.users, events.items)
    if method == "popularity":
        model = fit_popularity(*data)
        return model, lambda user_B: score_popularity(model, user_B)
    if method == "item-neighbours":
        chosen = settings.item_neighbours
        model = fit_item_neighbours(*data, chosen.neighbours, chosen.shrinkage)
        return model, lambda user_B: score_item_neighbours(model, user_B)
    if method == "user-neighbours":
        chosen = settings.user_neighbours
        model = fit_user_neighbours(*data, chosen.neighbours, chosen.shrinkage)
        return model, lambda user_B: score_user_neighbours(model, user_B)
    if method == "content":
        vectors = content_vectors(events.content, [1.0, settings.content.title_weight])
        model = fit_content(*data, vectors)
        return model, lambda user_B: score_content(model, user_B)
    if method == "ease":
        model = fit_ease(*data, settings.ease.regularisation)
        return model, lambda user_B: score_ease(model, user_B)
    chosen = settings.implicit_als
    model = fit_implicit_als(
        *data,
        chosen.width,
        chosen.sweeps,
        chosen.unobserved_weight,
        chosen.regularisation,
        chosen.exponent,
        chosen.solver_steps,
        seed,
    )
    return model, lambda user_B: score_implicit_als(model, user_B)


def evaluate(
    score: Score,
    events: Events,
    seen: np.ndarray,
    held: np.ndarray,
    K: int = 10,
    choice: RepeatedTargets = "miss",
) -> dict[str, np.ndarray]:
    """Hit rate and NDCG of each held-out item among the whole catalogue, less what was seen.

    The rank of a target is 1 + the number of other items that do not score below it (ties count against
    it), so constant scores find nothing.

    Args:
        seen, held: positions of events; of each user in `held` one.
        choice: what a held-out item counts as that its user has met before; NaN where it does not count.
    """
    history = interaction_matrix(events.user[seen], events.item[seen], events.users, events.items)
    rank = np.concatenate(
        [
            _ranks(score(events.user[block]), events.item[block], history[events.user[block]])
            for block in np.split(held, range(512, len(held), 512))
        ]
    )
    repeated = repeated_events(events, seen, held)
    check_some_count(choice, int(repeated.sum()), len(repeated))
    rank, counted = settle_repeated(choice, rank, np.ones(len(rank), bool), repeated)
    found = rank <= K
    gain = np.where(found, 1 / np.log2(1 + rank), 0)
    values = {f"hr@{K}": found.astype(np.float64), f"ndcg@{K}": gain}
    return {name: np.where(counted, value, np.nan) for name, value in values.items()}


def repeated_events(events: Events, seen: np.ndarray, held: np.ndarray) -> np.ndarray:
    """bool, which of the events at positions `held` repeat one of their users' at positions `seen`."""
    pair = events.user.astype(np.int64) * events.items + events.item
    return np.isin(pair[held], pair[seen])


def _ranks(score_BM: np.ndarray, target_B: np.ndarray, seen_BM: sparse.csr_array) -> np.ndarray:
    target_score_B = score_BM[np.arange(len(target_B)), target_B]
    ahead_BM = score_BM >= target_score_B[:, None]
    ahead_BM[:, :FIRST] = False  # padding and unknown are no items
    ahead_BM[seen_BM.nonzero()] = False
    ahead_BM[np.arange(len(target_B)), target_B] = False
    return 1 + ahead_BM.sum(1)
