"""Held-out clicks of the candidate experiment, ranked against the whole catalogue."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jrec.data.click_examples import Examples, repeated_targets
from jrec.data.clicks import Clicks
from jrec.data.ragged import Ragged, pad
from jrec.data.vocabulary import FIRST
from jrec.evaluate.next_item import make_next_item_ranker, make_recommender
from jrec.evaluate.per_user import means_by, write_per_user
from jrec.evaluate.ranking_metrics import mean_metrics, ranking_metrics
from jrec.evaluate.recommended_items import coverage, exposure, gini, popularity_bias
from jrec.evaluate.repeated_targets import RepeatedTargets, check_some_count, settle_repeated
from jrec.models.candidates import CandidateNetwork
from jrec.train.chunk import Gather
from jrec.train.devices import placed, replicated

from .baselines import (
    empty_histories,
    popular_lists,
    popularity_ranks,
)
from .batches import make_window_gather, window_data

KS = (10, 50, 100)
LISTED = 10
"""Length of the lists whose make-up is measured."""


def evaluation_data(
    data: dict[str, Any],
    clicks: Clicks,
    examples: Examples,
    remove_seen: bool,
) -> dict[str, Any]:
    """Held-out examples on the devices (see `placed`), for `evaluation_gather`."""
    ready = window_data(data, examples)
    widest = int((examples.end - clicks.offsets[examples.user]).max(initial=1))

    def rows_of(rows: slice) -> dict[str, np.ndarray]:
        user = examples.user[rows]
        if not remove_seen:
            return {"user": user.astype(np.int32)}
        begin = clicks.offsets[user]
        lengths = examples.end[rows] - begin
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        places = np.repeat(begin - offsets[:-1], lengths) + np.arange(offsets[-1])
        seen, mask = pad(Ragged(clicks.item[places], offsets), lengths=[widest])
        return {"user": user.astype(np.int32), "seen": seen, "seen_mask": mask}

    ready |= placed(rows_of, len(examples))
    ready["recommendable"] = jnp.arange(clicks.vocabularies["item"].rows, dtype=jnp.int32) >= FIRST
    return ready


def evaluation_gather(length: int) -> Gather:
    """Batches as `jrec.evaluate.next_item` wants them."""
    window = make_window_gather(length)

    def gather(data: dict[str, Any], positions: jax.Array, mask: jax.Array) -> dict[str, Any]:
        batch = window(data, positions, mask)
        batch |= {"targets": batch["target"][:, None], "targets_mask": mask[:, None]}
        if "seen" in data:
            batch |= {"seen": data["seen"][positions], "seen_mask": data["seen_mask"][positions]}
        return batch

    return gather


def make_evaluate(
    length: int,
    model: CandidateNetwork,
    clicks: Clicks,
    data: dict[str, Any],
    examples: Examples,
    remove_seen: bool,
    counts: np.ndarray,
    choice: RepeatedTargets = "miss",
) -> tuple[Callable[[Any], tuple[dict[str, float], dict[str, np.ndarray]]], Callable]:
    """Two functions of the parameters; the examples are put on the device once.

    Users without any click before the held-out one get the list of most clicked items.

    Raises InputError where the choice leaves no target that counts.

    Args:
        length: clicks of a history. data: from `experiments.candidates.batches.device_clicks`.
        counts: [V], training clicks of each item row.
        choice: what a target counts as that the user has clicked before, where seen items are removed.

    Returns:
        params -> (mean metrics, metrics by example), and params -> what the lists are made of, see
        `list_metrics`, with the numbers of empty histories and of repeated targets.
    """

    def user_vectors(params: Any, batch: Any) -> jax.Array:
        return model.apply(params, batch, method="last_vectors")

    def item_vectors(params: Any) -> tuple[jax.Array, jax.Array]:
        return model.apply(params, jnp.arange(model.item_rows, dtype=jnp.int32), method="outputs")

    gather = evaluation_gather(length)
    ranker = make_next_item_ranker(user_vectors, item_vectors, gather)
    recommender = make_recommender(user_vectors, item_vectors, gather, LISTED)
    ready = replicated(evaluation_data(data, clicks, examples, remove_seen))
    empty = np.flatnonzero(empty_histories(clicks, examples))
    without = take_examples(examples, empty)
    popular_ranks = popularity_ranks(clicks, counts, without, remove_seen)[:, None]
    repeated = never_listed(clicks, examples, remove_seen)
    check_some_count(choice, int(repeated.sum()), len(repeated))
    popular_list = popular_lists(clicks, counts, without, remove_seen, LISTED)

    def evaluate(params: Any) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        rank, counted = ranker(params, ready)
        rank = rank.copy()
        rank[empty] = popular_ranks
        settled = settle_repeated(choice, rank, counted, repeated[:, None])
        by_example = ranking_metrics(*settled, KS)
        return mean_metrics(by_example), by_example

    def lists(params: Any) -> dict[str, float]:
        ids, _, mask = recommender(params, ready)
        ids, mask = ids.copy(), mask.copy()
        ids[empty], mask[empty] = popular_list
        repeats = int(repeated_targets(clicks, examples).sum())
        numbers = {"empty_histories": len(empty), "repeats": repeats}
        return list_metrics(ids, mask, counts) | numbers

    return evaluate, lists


def never_listed(clicks: Clicks, examples: Examples, remove_seen: bool) -> np.ndarray:
    """bool [E], targets that no list can hold: the user has clicked them before, and seen items are removed."""
    if not remove_seen:
        return np.zeros(len(examples), bool)
    return repeated_targets(clicks, examples)


def take_examples(examples: Examples, rows: np.ndarray) -> Examples:
    """Some of the examples."""
    names = ("user", "start", "end", "target", "starts_with_unknown", "age")
    return dataclasses.replace(examples, **{name: getattr(examples, name)[rows] for name in names})


def list_metrics(ids: np.ndarray, mask: np.ndarray, counts: np.ndarray) -> dict[str, float]:
    """Coverage, Gini and mean popularity of lists: `jrec.evaluate.recommended_items`.

    Args:
        ids: int [E, K] item rows, a list for each held-out click. mask: bool, false where there is none.
        counts: [V], training clicks of each item row.
    """
    recommendable = np.arange(len(counts)) >= FIRST
    shown = exposure(ids, mask, len(counts))
    bias = popularity_bias(ids, mask, counts)
    K = ids.shape[1]
    return {
        f"coverage@{K}": coverage(shown, recommendable),
        f"gini@{K}": gini(shown, recommendable),
    } | {f"{name}@{K}": float(np.nanmean(values)) for name, values in bias.items()}


def write_test(run_dir: Path, examples: Examples, by_example: dict[str, np.ndarray]) -> None:
    """`per_user.npz`: each user's metrics, the mean over the held-out clicks that count; NaN without any."""
    users, place = np.unique(examples.user, return_inverse=True)
    means = {name: means_by(place, values, len(users)) for name, values in by_example.items()}
    write_per_user(run_dir, users, means)
