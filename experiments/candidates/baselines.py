"""Popularity and item neighbours on held-out clicks.

They are `experiments.baselines rank`'s, by the same functions: on the same clicks both give one number.
"""

from collections.abc import Sequence

import numpy as np

from experiments.baselines.held_out import ITEM_NEIGHBOURS, ITEM_SHRINKAGE, held_out_ranks
from jrec.baselines.neighbours import fit_item_neighbours, score_item_neighbours
from jrec.baselines.popularity import Popularity, score_popularity
from jrec.data.click_examples import ClickSplit, Examples
from jrec.data.clicks import Clicks
from jrec.data.vocabulary import FIRST
from jrec.evaluate.ranking_metrics import mean_metrics, ranking_metrics
from jrec.evaluate.repeated_targets import RepeatedTargets, settle_repeated

MOST_ITEMS = 50_000
"""Item neighbours are left out of larger catalogues: they take time with its square."""


def empty_histories(clicks: Clicks, examples: Examples) -> np.ndarray:
    """bool [E], examples of users who had clicked nothing yet."""
    return examples.end == clicks.offsets[examples.user]


def popularity_ranks(
    clicks: Clicks, counts: np.ndarray, examples: Examples, remove_seen: bool
) -> np.ndarray:
    """int64 [E], each target's rank in the list of most clicked items; ties stand before the target.

    Args:
        counts: [V], training clicks of each item row.
    """
    model = Popularity(counts)
    return held_out_ranks(
        lambda history, user: score_popularity(model, len(user)), clicks, examples, remove_seen
    )


def popular_lists(
    clicks: Clicks, counts: np.ndarray, examples: Examples, remove_seen: bool, K: int
) -> tuple[np.ndarray, np.ndarray]:
    """Each example's K most clicked items, equals by row: (ids int32 [E, K], mask bool [E, K]).

    Never clicked ones are on it, too, at its end. Where fewer than K are left: id -1, mask false.
    """
    order = FIRST + np.argsort(-counts[FIRST:].astype(np.int64), kind="stable")
    ids = np.full((len(examples), K), -1, np.int32)
    for k, user in enumerate(examples.user):
        seen = clicks.item[clicks.offsets[user] : examples.end[k]] if remove_seen else ()
        head = order[: K + len(seen)]
        head = head[~np.isin(head, seen)][:K]
        ids[k, : len(head)] = head
    return ids, ids >= 0


def item_neighbour_ranks(
    clicks: Clicks, split: ClickSplit, examples: Examples, remove_seen: bool
) -> np.ndarray:
    """int64 [E], each target's rank by item neighbours with the settings of `baselines rank`."""
    user, item = clicks.user_of_event[split.train], clicks.item[split.train]
    items = clicks.vocabularies["item"].rows
    model = fit_item_neighbours(user, item, clicks.users, items, ITEM_NEIGHBOURS, ITEM_SHRINKAGE)
    return held_out_ranks(
        lambda history, user: score_item_neighbours(model, history), clicks, examples, remove_seen
    )


def rank_metrics(
    ranks: np.ndarray,
    ks: Sequence[int],
    choice: RepeatedTargets = "rank",
    repeated: np.ndarray | None = None,
) -> dict[str, float]:
    """Means of `ranking_metrics` for one target an example, repeated ones (bool [E]) treated by the choice."""
    repeated = np.zeros(len(ranks), bool) if repeated is None else repeated
    rank, counted = settle_repeated(choice, ranks, np.ones(len(ranks), bool), repeated)
    return mean_metrics(ranking_metrics(rank[:, None], counted[:, None], ks))
