"""Ranking as functions of its settings: features, network, loss, what is measured."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from jrec.data.clicks import Column
from jrec.data.impression_history import history_features, watched_before
from jrec.data.impressions import Impressions
from jrec.evaluate.auc import auc, mean_group_auc
from jrec.evaluate.watch_time import (
    calibration,
    log_loss,
    watch_time_errors,
    weighted_user_loss,
)
from jrec.losses.watch_time import Unit, logistic, weighted_logistic
from jrec.models.ranking import IdColumn, RankingNetwork
from jrec.train.step import Batch

from .settings import Train

# Item columns that history features go by, in synthetic impressions and KuaiRand-Pure.
KEYS = ("author", "author_id", "category", "tag")
_IDS = ("user", "item")


def extra_features(impressions: Impressions, history: bool, watched: int) -> dict[str, Column]:
    """Columns of the impressions from what came before them."""
    columns: dict[str, Column] = {}
    if history:
        features = impressions.item_features
        columns |= history_features(
            impressions, {name: features[name] for name in KEYS if name in features}
        )
    if watched:
        columns["watched"] = watched_before(impressions, watched)
    return columns


def build_model(
    settings: Train,
    impressions: Impressions,
    ids: list[tuple[str, str, bool]],
    numbers: list[str],
    axis_name: str | None = None,
) -> RankingNetwork:
    """The network for a data set's features."""
    heads = ["watch"]
    heads += ["click"] if settings.click_weight else []
    heads += ["completion"] if settings.completion_weight else []
    vocabularies = impressions.vocabularies
    return RankingNetwork(
        table_rows={name: vocabulary.rows for name, vocabulary in vocabularies.items()},
        table_widths={
            name: settings.id_width if name in _IDS else settings.feature_width
            for name in vocabularies
        },
        ids=tuple(IdColumn(*column) for column in ids),
        numbers=len(numbers),
        powers=settings.powers,
        tower=settings.tower,
        heads=tuple(heads),
        dropout=settings.dropout,
        axis_name=axis_name,
        compute=settings.compute,
    )


def loss(
    model: RankingNetwork,
    unit: Unit,
    click_weight: float,
    completion_weight: float,
    params: Any,
    batch: Batch,
    key: jax.Array,
    apply: Callable = nn.Module.apply,
) -> tuple[jax.Array, jax.Array]:
    """Sum over a batch of its heads' weighted losses, and how many impressions count."""
    logits = apply(model, params, batch, train=True, rngs={"dropout": key})
    mask = batch["mask"]
    total, count = weighted_logistic(logits["watch"], batch["clicked"], batch["weight"], mask, unit)
    if click_weight:
        total += click_weight * logistic(logits["click"], batch["clicked"], mask)[0]
    if completion_weight:
        total += completion_weight * logistic(logits["completion"], batch["completed"], mask)[0]
    return total, count


def measure(
    impressions: Impressions, rows: np.ndarray, logits: dict[str, np.ndarray]
) -> dict[str, float]:
    """Metrics of a part; exp of the `watch` logits is the score and the expected watch time.

    `watch_loss` is `weighted_logistic` with weight 1 on all. Pages are ranked by the score; the per-user AUCs (GAUC) are those of all a user's impressions.
    """
    clicked, completed = impressions.clicked[rows], impressions.completed[rows]
    watch, user = impressions.watch_seconds[rows], impressions.user[rows]
    score = logits["watch"]
    metrics = {
        "weighted_loss": weighted_user_loss(score, clicked, watch, impressions.page[rows]),
        "weighted_loss_user": weighted_user_loss(score, clicked, watch, user),
        "click_auc": auc(score, clicked),
        "click_gauc": mean_group_auc(score, clicked, user),
        "completion_auc": auc(score, completed),
        "completion_gauc": mean_group_auc(score, completed, user),
    }
    for name, label in (("click", clicked), ("completion", completed)):
        if name in logits:
            probability = 1 / (1 + np.exp(-logits[name].astype(np.float64)))
            metrics[f"{name}_log_loss"] = log_loss(probability, label)
            metrics[f"{name}_head_auc"] = auc(probability, label)
            metrics[f"{name}_head_gauc"] = mean_group_auc(probability, label, user)
    z = score.astype(np.float64)
    lost = np.where(clicked, watch, 0) * np.logaddexp(0, -z) + np.logaddexp(0, z)
    metrics["watch_loss"] = float(lost.mean())
    expected = watch_seconds_of(score)
    found = watch_time_errors(expected, np.where(clicked, watch, 0))
    metrics |= {f"watch_{name}": value for name, value in found.items()}
    if impressions.expected_watch_seconds is not None:
        truth = impressions.expected_watch_seconds[rows]
        found = watch_time_errors(expected, truth)
        metrics |= {f"planted_{name}": value for name, value in found.items()}
        metrics["planted_weighted_loss"] = weighted_user_loss(
            truth, clicked, watch, impressions.page[rows]
        )
        ratio = calibration(expected, truth)["ratio"]
        metrics["planted_worst_decile"] = float(np.nanmax(np.abs(ratio - 1)))
    return metrics


def watch_seconds_of(logit: np.ndarray) -> np.ndarray:
    """float64, expected watch times; those beyond a year are a year, so that sums stay finite."""
    return np.exp(np.minimum(np.asarray(logit, np.float64), np.log(3.2e7)))


def popularity_scores(impressions: Impressions, train: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """float64 [rows], log of an item's mean watch time an impression of the training part.

    One impression with the mean of all is added to each, so that an unseen item has that.
    """
    items = impressions.vocabularies["item"].rows
    item, watch = impressions.item[train], impressions.watch_seconds[train].astype(np.float64)
    watch = np.where(impressions.clicked[train], watch, 0)
    mean = max(watch.mean(), 1e-6)
    seconds = np.bincount(item, watch, items) + mean
    return np.log(seconds / (np.bincount(item, minlength=items) + 1))[impressions.item[rows]]
