"""Gradient-boosted trees on the ranking network's features, by scikit-learn (the extra `bench`)."""

from typing import Any

import numpy as np

from jrec.data.clicks import Bag, Categorical, Continuous, take
from jrec.data.impressions import Impressions, ImpressionSplit
from jrec.errors import InputError

from .settings import Train
from .system import extra_features, measure

_MOST_CATEGORIES = 250  # of a column that the histograms take as it is


def tree_metrics(
    settings: Train, impressions: Impressions, split: ImpressionSplit, most_trees: int = 300
) -> dict[str, float]:
    """Test metrics of trees that foretell completed watches; how many trees, validation decides.

    The features are the network's: numbers as they are, unknown ones missing; ids of few values as
    categories, of many (users, items, authors, music) as the cross-fitted mean label of each (Micci-Barreca
    2001); the tags one column each. The bag of last watched items, which trees cannot read, is left out.

    Raises InputError where scikit-learn is missing.
    """
    try:
        from sklearn.ensemble import HistGradientBoostingClassifier
    except ImportError as error:
        raise InputError(
            "The trees need scikit-learn, which is not installed; pip install 'jrec[bench]' brings it, "
            "or leave them out with --no-trees."
        ) from error
    few, many, numbers = tree_columns(settings, impressions)
    parts = {"train": split.train, "valid": split.valid, "test": split.test}
    label = {name: impressions.completed[rows] for name, rows in parts.items()}
    means = mean_labels(many, impressions.completed, split.train, settings.run.seed)
    x = {
        name: np.concatenate([few[rows], means[rows], numbers[rows]], 1)
        for name, rows in parts.items()
    }
    trees = HistGradientBoostingClassifier(
        learning_rate=0.05,
        max_iter=most_trees,
        categorical_features=np.arange(x["train"].shape[1]) < few.shape[1],
        early_stopping=True,
        n_iter_no_change=20,
        random_state=settings.run.seed,
    )
    trees.fit(x["train"], label["train"], X_val=x["valid"], y_val=label["valid"])
    score = trees.predict_proba(x["test"])[:, 1]
    logit = np.log(score / (1 - score))
    found = measure(impressions, parts["test"], {"watch": logit, "completion": logit})
    return found | {"trees": float(trees.n_iter_)}


def mean_labels(
    ids: np.ndarray, label: np.ndarray, train: np.ndarray, seed: int, folds: int = 5
) -> np.ndarray:
    """float32, the shape of `ids`: the mean training label of each row's id, ten rows of the mean of all added.

    A training row's own fold is left out of its mean, or the trees would read their own labels.

    Args:
        ids: int [n, F]. label: bool [n]. train: int, positions. folds: that training rows are drawn into.
    """
    fold = np.full(len(ids), folds)  # of rows that are not trained on
    fold[train] = np.random.default_rng(seed).integers(0, folds, len(train))
    overall = float(label[train].mean())
    means = np.empty(ids.shape, np.float32)
    for column in range(ids.shape[1]):
        own, size = ids[:, column], int(ids[:, column].max(initial=0)) + 1
        for k in range(folds + 1):
            others = train[fold[train] != k]
            count = np.bincount(own[others], minlength=size)
            total = np.bincount(own[others], label[others], size)
            rows = fold == k
            means[rows, column] = ((total + 10 * overall) / (count + 10))[own[rows]]
    return means


def tree_columns(
    settings: Train, impressions: Impressions
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns of n rows: categories float32 (few values), ids int32 (many), numbers float32 (NaN unknown)."""
    extra = extra_features(impressions, settings.history, 0)
    own: dict[str, Any] = {"item": Categorical(impressions.item, "item")}
    if settings.user_id:
        own["user"] = Categorical(impressions.user_row[impressions.user], "user")
    places = {"user_features": impressions.user, "item_features": impressions.item}
    columns = own | impressions.context_features | extra
    for of, place in places.items():
        columns |= {name: take(column, place) for name, column in getattr(impressions, of).items()}
    few, many, numbers = [], [], []
    for column in columns.values():
        if isinstance(column, Continuous):
            numbers.append(np.where(column.known, column.values, np.nan).astype(np.float32))
        elif isinstance(column, Bag):
            rows = impressions.vocabularies[column.vocabulary].rows
            hot = np.zeros((len(impressions), rows), np.float32)
            hot[np.repeat(np.arange(len(hot)), column.rows.lengths), column.rows.values] = 1
            numbers += list(hot.T)
        elif impressions.vocabularies[column.vocabulary].rows <= _MOST_CATEGORIES:
            few.append(column.rows.astype(np.float32))
        else:
            many.append(column.rows)
    return np.stack(few, 1), np.stack(many, 1), np.stack(numbers, 1)
