"""Baselines of rating prediction: their settings and how each is fitted to a data set."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from experiments.rating_system import with_standard_unit
from jrec.baselines.biases import fit_biases, fit_means
from jrec.baselines.content import content_vectors, fit_rating_content, predict_rating_content
from jrec.baselines.matrix_factorisation import (
    fit_matrix_factorisation,
    predict_matrix_factorisation,
)
from jrec.baselines.rating_neighbours import fit_rating_neighbours, predict_rating_neighbours
from jrec.data.rating_scale import scale_of_ratings
from jrec.data.ratings import Ratings

RatingMethod = Literal[
    "global-mean",
    "user-mean",
    "item-mean",
    "biases",
    "user-neighbours",
    "item-neighbours",
    "content",
    "matrix-factorisation",
]
Predict = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(user rows [n], item rows [n]) -> stars [n]."""


@dataclass
class BiasSettings:
    """Regularised biases, alone and below neighbours and content."""

    regularisation: float = 5.0
    """In ratings."""


@dataclass
class NeighbourSettings:
    """Collaborative filtering by items or users."""

    neighbours: int = 25
    """At most so many count."""
    shrinkage: float = 25.0
    """Of similarities, in common ratings."""
    norms: Literal["all", "common"] = "all"
    """Lengths over all ratings (cosine) or over the common ones (Pearson)."""


@dataclass
class ContentSettings:
    """Genres and title words."""

    title_weight: float = 1.0
    """Of title words beside genres."""
    damping: float = 5.0
    """In similar ratings."""


@dataclass
class FactorSettings:
    """Matrix factorisation with biases."""

    width: int = 128
    """Of the vectors."""
    epochs: int = 20
    """Passes over the training ratings."""
    batch_size: int = 1024
    """Ratings a step."""
    learning_rate: float = 0.03
    """At the start; it falls linearly to 0."""
    regularisation: float = 0.05
    """Of biases and vectors, for each rating."""


@dataclass
class RatingSettings:
    """Of all methods; defaults were chosen on 5% of the training ratings of MovieLens-1M."""

    biases: BiasSettings = field(default_factory=BiasSettings)
    user_neighbours: NeighbourSettings = field(default_factory=lambda: NeighbourSettings(40))
    item_neighbours: NeighbourSettings = field(default_factory=NeighbourSettings)
    content: ContentSettings = field(default_factory=ContentSettings)
    matrix_factorisation: FactorSettings = field(default_factory=FactorSettings)


def settings_used(method: RatingMethod) -> tuple[str, ...]:
    """Names of the fields of `RatingSettings` that a method reads."""
    name = method.replace("-", "_")
    below = ("biases",) if method.endswith("neighbours") or method == "content" else ()
    return (*below, name) if hasattr(RatingSettings(), name) else ()


def fit_rating_baseline(
    method: RatingMethod, settings: RatingSettings, ratings: Ratings, train: np.ndarray, seed: int
) -> tuple[Any, Predict]:
    """A fitted baseline.

    Args:
        train: positions of the training ratings. seed: of matrix factorisation.

    Returns:
        The model (a dataclass of arrays, or arrays), fitted in the standard unit, and its predictions in the
        user's.
    """
    standard, scale = with_standard_unit(ratings, lambda: scale_of_ratings(ratings.rating[train]))
    model, predict = _fit(method, settings, standard, train, seed)
    return model, lambda user, item: scale.user(predict(user, item))


def _fit(
    method: RatingMethod, settings: RatingSettings, ratings: Ratings, train: np.ndarray, seed: int
) -> tuple[Any, Predict]:
    user, item, stars = (c[train] for c in (ratings.user, ratings.item, ratings.rating))
    users, items = (ratings.vocabularies[name].rows for name in ("user", "item"))
    data = (user, item, stars, users, items)
    shrink = settings.biases.regularisation
    if method == "global-mean":
        mean, _ = fit_means(user, stars, users)
        return mean, lambda user, item: np.full(len(user), mean)
    if method == "user-mean":
        mean, by_user = fit_means(user, stars, users)
        return (mean, by_user), lambda user, item: mean + by_user[user]
    if method == "item-mean":
        mean, by_item = fit_means(item, stars, items)
        return (mean, by_item), lambda user, item: mean + by_item[item]
    if method == "biases":
        model = fit_biases(*data, shrink)
        return model, model.predict
    if method in ("user-neighbours", "item-neighbours"):
        by = method.removesuffix("-neighbours")
        chosen = getattr(settings, f"{by}_neighbours")
        model = fit_rating_neighbours(
            *data, by, chosen.neighbours, chosen.shrinkage, chosen.norms, shrink
        )
        return model, lambda user, item: predict_rating_neighbours(model, user, item)
    if method == "content":
        groups = [ratings.item_features[name] for name in ("genres", "title")]
        vectors = content_vectors(groups, [1.0, settings.content.title_weight])
        model = fit_rating_content(*data, vectors, settings.content.damping, shrink)
        return model, lambda user, item: predict_rating_content(model, user, item)
    chosen = settings.matrix_factorisation
    model = fit_matrix_factorisation(
        *data,
        chosen.width,
        chosen.epochs,
        chosen.batch_size,
        chosen.learning_rate,
        chosen.regularisation,
        seed,
    )
    return model, lambda user, item: predict_matrix_factorisation(model, user, item)
