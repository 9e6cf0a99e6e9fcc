"""Baselines of the next item: their data, their settings, how each is fitted and evaluated.

A baseline is fitted to the training part alone, like a network, and reads the history before the target,
like a network: on test that is everything before the test item, the validation item included. A network's
report (`experiments.candidates`) has its baselines from here, so that both commands give one number.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy import sparse

from jrec.baselines.content import content_vectors, score_content
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
from jrec.data.click_examples import Examples
from jrec.data.click_pairs import read_pairs
from jrec.data.clicks import Clicks
from jrec.data.clicks_csv import read_clicks_csv
from jrec.data.own_csv import CsvClicks
from jrec.data.ragged import Ragged
from jrec.data.rating_clicks import clicks_of_ratings
from jrec.data.sources import DATASETS, load_ratings
from jrec.data.synthetic import SyntheticSize
from jrec.data.vocabulary import FIRST
from jrec.errors import InputError
from jrec.evaluate.ranks import ranks_of_scores

SEQUENCE_DATASETS = (*DATASETS, "ml-1m-sas")
NextItemMethod = Literal[
    "popularity", "user-neighbours", "item-neighbours", "content", "ease", "implicit-als"
]
Score = Callable[[sparse.csr_array, np.ndarray], np.ndarray]
"""(binary histories [B, items], users [B] whose they are) -> scores [B, items]."""
PROTOCOL = (
    "Baselines are fitted to the training part alone and score by the history before the target, as a network "
    "does; on test the validation item is in it. Ties count against them."
)
_SCORES = 1 << 25  # that exist at one time


def load_sequences(
    name: str,
    data_dir: Path | None,
    size: SyntheticSize,
    seed: int,
    csv: CsvClicks | None = None,
) -> Clicks:
    """Returns all ratings of a data set as clicks, in time order of each user.

    Args:
        name: one of `SEQUENCE_DATASETS`; `ml-1m-sas` is a file of `user item` lines, each user's in
            time order. size, seed: of the synthetic data. csv: what the columns of `csv` are.
    """
    if name in ("ml-1m-sas", "csv"):
        if data_dir is None:
            raise InputError(f"--dataset {name} is not fetched; give its file with --data-dir.")
        if name == "csv":
            return read_clicks_csv(data_dir, csv or CsvClicks())
        return read_pairs(name, data_dir)
    return clicks_of_ratings(load_ratings(name, data_dir, size, seed))


def content_of(clicks: Clicks) -> list[Ragged]:
    """Returns genres and title words of each item row; empty where nothing is known."""
    names = [name for name in ("genres", "title") if name in clicks.item_features]
    return [clicks.item_features[name].rows for name in names]


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
    unobserved_weight: float | None = None
    """Of a pair that was not met; one that was has 1 more. Left out: 25 times the density, at most 1."""
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
    method: NextItemMethod,
    settings: NextItemSettings,
    clicks: Clicks,
    train: np.ndarray,
    seed: int = 0,
) -> tuple[Any, Score]:
    """Fits a baseline.

    Args:
        train: positions of the clicks to fit to. seed: of implicit ALS.

    Returns:
        The model (a dataclass of arrays, or an array), and its scores.
    """
    user, item = clicks.user_of_event[train], clicks.item[train]
    data = (user, item, clicks.users, clicks.vocabularies["item"].rows)
    if method == "popularity":
        model = fit_popularity(item, data[-1])
        return model, lambda history, user: score_popularity(model, len(user))
    if method == "item-neighbours":
        chosen = settings.item_neighbours
        model = fit_item_neighbours(*data, chosen.neighbours, chosen.shrinkage)
        return model, lambda history, user: score_item_neighbours(model, history)
    if method == "user-neighbours":
        chosen = settings.user_neighbours
        model = fit_user_neighbours(*data, chosen.neighbours, chosen.shrinkage)
        return model, lambda history, user: score_user_neighbours(model, history, user)
    if method == "content":
        vectors = content_vectors(content_of(clicks), [1.0, settings.content.title_weight])
        return vectors, lambda history, user: score_content(vectors, history)
    if method == "ease":
        model = fit_ease(*data, settings.ease.regularisation)
        return model, lambda history, user: score_ease(model, history)
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
    return model, lambda history, user: score_implicit_als(model, history)


def held_out_ranks(
    score: Score, clicks: Clicks, examples: Examples, remove_seen: bool = True
) -> np.ndarray:
    """Returns int64 [E], each target's rank in the whole catalogue, by the rules of `target_ranks`.

    Args:
        examples: targets and what was clicked before each, which the score reads.
        remove_seen: leave that out of the ranking.
    """
    rows = clicks.vocabularies["item"].rows
    recommendable = np.arange(rows) >= FIRST
    size = min(max(_SCORES // rows, 1), 512)
    ranks = [np.zeros(0, np.int64)]
    for first in range(0, len(examples), size):
        part = slice(first, first + size)
        user, target = examples.user[part], clicks.item[examples.target[part]]
        history = _histories(clicks, user, examples.end[part])
        seen = history if remove_seen else None
        ranks.append(ranks_of_scores(score(history, user), target, seen, recommendable))
    return np.concatenate(ranks)


def _histories(clicks: Clicks, user: np.ndarray, end: np.ndarray) -> sparse.csr_array:
    """Returns float32 [B, V], 1 for what each of the users had clicked before position `end`."""
    begin = clicks.offsets[user]
    lengths = end - begin
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    place = np.repeat(begin - offsets[:-1], lengths) + np.arange(offsets[-1])
    row = np.repeat(np.arange(len(user)), lengths)
    return interaction_matrix(row, clicks.item[place], len(user), clicks.vocabularies["item"].rows)


def below_popularity(metrics: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Returns a sentence for each row of one protocol whose NDCG@10 is below popularity's.

    Args:
        metrics: by name of the row; `popularity` is one of them, else nothing is compared.
    """
    if "popularity" not in metrics:
        return []
    least = metrics["popularity"]["ndcg@10"]
    return [
        f"{name} has test NDCG@10 {values['ndcg@10']:.4f}, below popularity's {least:.4f} on the same "
        f"held-out items."
        for name, values in metrics.items()
        if values["ndcg@10"] < least
    ]
