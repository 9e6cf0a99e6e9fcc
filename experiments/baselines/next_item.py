"""Baselines of the next item: their data, their settings, and how each is fitted."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jrec.baselines.content import content_vectors, score_content
from jrec.baselines.ease import fit_ease, score_ease
from jrec.baselines.implicit_als import fit_implicit_als, score_implicit_als
from jrec.baselines.neighbours import fit_item_neighbours, score_item_neighbours
from jrec.baselines.popularity import fit_popularity, score_popularity
from jrec.baselines.user_neighbours import fit_user_neighbours, score_user_neighbours
from jrec.data.click_pairs import read_pairs
from jrec.data.clicks import Clicks
from jrec.data.clicks_csv import read_clicks_csv
from jrec.data.own_csv import CsvClicks
from jrec.data.ragged import Ragged
from jrec.data.rating_clicks import clicks_of_ratings
from jrec.data.sources import DATASETS, load_ratings
from jrec.data.synthetic import SyntheticSize
from jrec.errors import InputError

from .held_out import ITEM_NEIGHBOURS, ITEM_SHRINKAGE, Score

SEQUENCE_DATASETS = (*DATASETS, "ml-1m-sas")
NextItemMethod = Literal[
    "popularity", "user-neighbours", "item-neighbours", "content", "ease", "implicit-als"
]


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
    item_neighbours: NeighbourSettings = field(
        default_factory=lambda: NeighbourSettings(ITEM_NEIGHBOURS, ITEM_SHRINKAGE)
    )
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
