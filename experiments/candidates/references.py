"""What a run is reported beside: popularity, item neighbours, and a synthetic log's own optimum."""

from collections.abc import Sequence

import numpy as np

from jrec.data.click_examples import ClickSplit, Examples
from jrec.data.click_maker import make_clicks
from jrec.data.click_optimum import planted_optimum
from jrec.data.click_truth import ClickSize
from jrec.data.clicks import Clicks
from jrec.evaluate.repeated_targets import RepeatedTargets

from .baselines import MOST_ITEMS, item_neighbour_ranks, popularity_ranks, rank_metrics
from .evaluation import KS, never_listed
from .settings import Train


def references_of(
    settings: Train, clicks: Clicks, split: ClickSplit, counts: np.ndarray, examples: Examples
) -> dict[str, dict[str, float]]:
    """Returns `reference_metrics` under a run's settings; `examples` are its test clicks."""
    synthetic = settings.data.dataset == "synthetic"
    return reference_metrics(
        clicks,
        split,
        counts,
        examples,
        settings.remove_seen,
        KS,
        (settings.data.synthetic, settings.data.split_seed) if synthetic else None,
        settings.repeated_targets,
        never_listed(clicks, examples, settings.remove_seen),
    )


def reference_metrics(
    clicks: Clicks,
    split: ClickSplit,
    counts: np.ndarray,
    examples: Examples,
    remove_seen: bool,
    ks: Sequence[int],
    planted: tuple[ClickSize, int] | None = None,
    choice: RepeatedTargets = "rank",
    repeated: np.ndarray | None = None,
) -> dict[str, dict[str, float]]:
    """Metrics by name of what the same held-out clicks allow without a network.

    Args:
        planted: size and seed of a synthetic log, whose best rankings (`planted_optimum`) are then given,
            too; they are of users' last clicks, seen items removed.
        choice, repeated: see `rank_metrics`; a synthetic log repeats nothing.
    """
    ranks = popularity_ranks(clicks, counts, examples, remove_seen)
    found = {"popularity": rank_metrics(ranks, ks, choice, repeated)}
    if clicks.vocabularies["item"].rows <= MOST_ITEMS:
        ranks = item_neighbour_ranks(clicks, split, examples, remove_seen)
        found["item neighbours"] = rank_metrics(ranks, ks, choice, repeated)
    if planted is not None and remove_seen and split.name == "leave-one-out":
        best = planted_optimum(*make_clicks(*planted), ks)
        for name, title in (
            ("from_history", "planted: best from the log alone"),
            ("knowing_taste", "planted: knowing each user's taste"),
        ):
            numbers = best[name]  # one item is held out: its recall is its hit rate
            found[title] = numbers | {f"recall@{k}": numbers[f"hr@{k}"] for k in ks}
    return found
