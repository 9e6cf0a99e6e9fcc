"""What the candidate experiment prints and writes beside the model."""

import dataclasses
import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments.baselines.held_out import PROTOCOL
from experiments.baselines.warnings import below_popularity
from jrec.data.click_examples import ClickSplit
from jrec.data.clicks import Clicks
from jrec.data.vocabulary import FIRST
from jrec.evaluate.repeated_targets import repeated_note
from jrec.report import (
    draw_curves,
    markdown_table,
    read_metrics,
    show_warnings,
    write_run,
)

from .settings import Train

SHOWN = ("hr@10", "ndcg@10", "mrr", "recall@50", "recall@100")


def show_split(clicks: Clicks, split: ClickSplit, console: Console) -> None:
    """Prints which data a run uses, how much, and what was left out of it."""
    source = clicks.source
    lines = [
        f"{clicks.name}: {len(clicks):,} clicks of {clicks.users:,} users on "
        f"{clicks.vocabularies['item'].rows - FIRST:,} items from {source.kind} {source.location}",
        f"{split.name}: train {len(split.train):,}, validation {len(split.valid):,}, "
        f"test {len(split.test):,}",
    ]
    lines += [f"note: {source.note}"] if source.note else []
    lines += [f"{count:,} left out: {what}" for what, count in clicks.dropped.items() if count]
    console.print("\n".join(lines), soft_wrap=True)


def finish_candidates_run(
    run_dir: Path,
    settings: Train,
    results: dict[str, Any],
    references: dict[str, dict[str, float]],
    clicks: Clicks,
    console: Console,
) -> None:
    """Writes `results.json`, `environment.json`, `curves.png` and `report.md`; then prints the table."""
    rows = [
        [title, *(numbers.get(name, math.nan) for name in SHOWN)]
        for title, numbers in references.items()
    ]
    own = {name: results[f"test_{name}"] for name in SHOWN}
    rows.append(["candidates", *own.values()])
    warnings = results["warnings"] + below_popularity(references | {"candidates": own})
    seen = "removed" if settings.remove_seen else "kept"
    title = f"test, whole catalogue, seen items {seen}"
    shown = [[n, *("" if math.isnan(v) else f"{v:.4f}" for v in values)] for n, *values in rows]
    repeats = repeated_note(
        results["repeated_targets"],
        results["test_repeats"],
        results["test_targets"],
        "--no-remove-seen",
        settings.remove_seen,
    )
    curve = read_metrics(run_dir)
    series = {
        name: [(line["epoch"], line[name]) for line in curve if line.get(name) is not None]
        for name in ("valid_ndcg@10", "valid_hr@10")
    }
    draw_curves(run_dir / "curves.png", series, "epoch", "validation")
    write_run(
        run_dir,
        "experiments.candidates",
        f"candidates on {clicks.name}",
        [
            markdown_table([title, *SHOWN], shown),
            *([PROTOCOL] if references else []),
            *([repeats] if repeats else []),
            "![validation by epoch](curves.png)",
        ],
        {name: value for name, value in results.items() if name != "warnings"},
        dataclasses.asdict(settings) | {"data_source": vars(clicks.source)},
        {"references": references, "run_settings": dataclasses.asdict(settings)},
        warnings,
    )
    table = Table(title, *SHOWN)
    for row in shown:
        table.add_row(*row)
    console.print(table)
    show_warnings(warnings, console)
    if repeats:
        console.print(repeats, soft_wrap=True)
    if results["test_empty_histories"]:
        console.print(
            f"{results['test_empty_histories']:,} test clicks are their users' first: those users got "
            "the popular list.",
            soft_wrap=True,
        )
    speed = results["examples_per_second"]
    pace = f"; {speed:,.0f} examples/s from the second epoch on" if speed else ""
    console.print(f"run directory: {run_dir}{pace}", soft_wrap=True)
