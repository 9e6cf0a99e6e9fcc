"""What the ranking experiment prints and writes beside the model."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from jrec.data.impressions import Impressions, ImpressionSplit
from jrec.finite import check_finite
from jrec.report import (
    draw_curves,
    markdown_table,
    read_metrics,
    show_warnings,
    write_run,
)

from .settings import Train

SHOWN = (
    "weighted_loss",
    "click_gauc",
    "completion_auc",
    "completion_gauc",
    "watch_mae",
    "watch_bias",
)
_WHY = "its impressions have clicks, completions or watched seconds of one kind only."


def show_impressions(impressions: Impressions, split: ImpressionSplit, console: Console) -> None:
    """Prints which data a run uses, and how much."""
    source = impressions.source
    real = ~impressions.history_only
    lines = [
        f"{impressions.name}: {int(real.sum()):,} impressions of {len(impressions.user_row):,} users "
        f"from {source.kind} {source.location}; {impressions.clicked[real].mean():.1%} clicked, "
        f"{int((~real).sum()):,} earlier watches as history",
        f"train {len(split.train):,}, validation {len(split.valid):,}, test {len(split.test):,}",
    ]
    lines += [f"note: {source.note}"] if source.note else []
    console.print("\n".join(lines), soft_wrap=True)


def finish_ranking_run(
    run_dir: Path,
    settings: Train,
    results: dict[str, Any],
    popular: dict[str, float],
    bins: dict[str, np.ndarray],
    console: Console,
) -> None:
    """Writes `results.json`, `environment.json`, two figures and `report.md`; then prints the table.

    Args:
        bins: from `jrec.evaluate.watch_time.calibration`, of the test part.
    """
    loss = results["test_watch_loss"]  # finite wherever the scores are
    check_finite("The test loss of ranking is", "take a lower --learning-rate", loss)
    rows = [[name, popular[name], results[f"test_{name}"]] for name in SHOWN]
    absent = [name for name, _, value in rows if np.isnan(value)]
    warnings = [f"The test part has no value of {', '.join(absent)}: {_WHY}"] if absent else []
    curve = read_metrics(run_dir)
    series = {
        name: [(line["epoch"], line[name]) for line in curve if line.get(name) is not None]
        for name in ("valid_weighted_loss", "valid_click_gauc")
    }
    draw_curves(run_dir / "curves.png", series, "epoch", "validation")
    pairs = list(zip(bins["predicted"].tolist(), bins["actual"].tolist(), strict=True))
    diagonal = [(predicted, predicted) for predicted, _ in pairs]
    lines = {"tenths of the test impressions": pairs, "calibrated": diagonal}
    draw_curves(
        run_dir / "calibration.png", lines, "predicted watch time, s", "actual watch time, s"
    )
    tenths = zip(*(column.tolist() for column in bins.values()), strict=True)
    asked = dataclasses.asdict(settings)
    write_run(
        run_dir,
        "experiments.ranking",
        f"ranking on {settings.data.dataset}",
        [
            markdown_table(["test", "popularity", "ranking"], rows),
            "![validation by epoch](curves.png)",
            "## Calibration",
            "![predicted and actual watch time](calibration.png)",
            markdown_table(list(bins), [list(line) for line in tenths]),
        ],
        results,
        asked,
        {
            "popularity": popular,
            "run_settings": asked,
            "calibration": {name: column.tolist() for name, column in bins.items()},
        },
        warnings,
    )
    table = Table("test", "popularity", "ranking")
    for name, *values in rows:
        table.add_row(name, *(f"{value:.4f}" for value in values))
    console.print(table)
    show_warnings(warnings, console)
    speed = results["examples_per_second"]
    pace = f"; {speed:,.0f} examples/s from the second epoch on" if speed else ""
    console.print(f"run directory: {run_dir}{pace}", soft_wrap=True)
