"""What the two-stage experiment prints and writes beside the models."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from jrec.evaluate.paired_tests import Comparison, paired_bootstrap
from jrec.evaluate.per_user import means_by, write_per_user
from jrec.evaluate.ranking_metrics import mean_metrics
from jrec.evaluate.repeated_targets import repeated_note
from jrec.report import markdown_table, write_run

from .lists import Lists
from .settings import Train
from .system import list_metrics, source_scores

SHOWN = ("ndcg@10", "hr@10", "recall@10", "mrr", "recall@50")


def finish_two_stages(
    run_dir: Path,
    settings: Train,
    trained: dict[str, Any],
    test: Lists,
    logits: dict[str, np.ndarray],
    fresh: Lists | None,
    console: Console,
) -> None:
    """Measures all orders on test, writes `results.json` and `report.md`, then prints the table.

    Args:
        test: its lists. logits: each head's, of their candidates.
        fresh: the same lists with candidates of a first stage that was trained on more days.
    """
    orders = source_scores(test)
    orders["second stage"] = logits[settings.rank_by]
    orders["second stage, network's candidates alone"] = np.where(
        orders["network"] > -np.inf, logits[settings.rank_by], -np.inf
    )
    if settings.rank_by != "watch":
        orders["second stage, by expected watch time"] = logits["watch"]
    choice = settings.repeated_targets
    by_list = {name: list_metrics(test, score, choice) for name, score in orders.items()}
    if fresh is not None:
        by_list["network, trained on more days"] = list_metrics(
            fresh, source_scores(fresh)["network"], choice
        )
    means = {name: mean_metrics(values) for name, values in by_list.items()}
    named = float(test.completed.sum() / test.targets.lengths.sum())
    users = np.unique(test.request.user)

    def by_user(name: str) -> np.ndarray:
        """A user's NDCG@10, the mean over days that have one; NaN without any."""
        place = np.searchsorted(users, test.request.user)
        return means_by(place, by_list[name]["ndcg@10"], len(users))

    first, second = by_user("network"), by_user("second stage")
    has = ~np.isnan(first)
    nothing = Comparison(*[float("nan")] * 4)
    gain = paired_bootstrap(first[has], second[has]) if has.sum() > 1 else nothing
    repeats = int(test.repeats.sum())
    results: dict[str, Any] = {
        "orders": means,
        "lists": len(test),
        "targets": int(test.targets.lengths.sum()),
        "targets_named": named,
        "repeats": repeats,
        "ndcg@10_gain_by_user": vars(gain),
        **trained,
    }
    write_per_user(run_dir, users, {"ndcg@10": second})
    rows = [[name, *(values[metric] for metric in SHOWN)] for name, values in means.items()]
    sentence = (
        f"{len(test):,} lists, {results['targets']:,} targets, {named:.1%} of them named by a source; "
        f"second stage less the first by user: {gain.difference:+.4f} NDCG@10 "
        f"({gain.low:+.4f} to {gain.high:+.4f}, p = {gain.p:.2g}, paired bootstrap)"
    )
    if note := repeated_note(choice, repeats, results["targets"]):
        sentence += f".\n{note}"
    asked = dataclasses.asdict(settings)
    write_run(
        run_dir,
        "experiments.two_stages",
        f"both stages on {settings.data.dataset}",
        [markdown_table(["test", *SHOWN], rows), sentence],
        {name: value for name, value in results.items() if name != "orders"},
        asked,
        {"orders": means, "run_settings": asked},
    )
    table = Table("test", *SHOWN)
    for name, *values in rows:
        table.add_row(name, *(f"{value:.4f}" for value in values))
    console.print(table)
    console.print(sentence, soft_wrap=True)
    console.print(f"run directory: {run_dir}", soft_wrap=True)
