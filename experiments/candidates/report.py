"""What the candidate experiment prints and writes beside the model."""

import math
import shlex
import sys
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
from jrec.files import write_json
from jrec.report import (
    code,
    draw_curves,
    markdown_table,
    read_metrics,
    settings_table,
    show_warnings,
    write_report,
)

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
    settings: dict[str, Any],
    environment: dict[str, Any],
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
    seen = "removed" if settings["remove_seen"] else "kept"
    title = f"test, whole catalogue, seen items {seen}"
    shown = [[n, *("" if math.isnan(v) else f"{v:.4f}" for v in values)] for n, *values in rows]
    repeats = repeated_note(
        results["repeated_targets"],
        results["test_repeats"],
        results["test_targets"],
        "--remove-seen False",
        settings["remove_seen"],
    )
    curve = read_metrics(run_dir)
    series = {
        name: [(line["epoch"], line[name]) for line in curve if line.get(name) is not None]
        for name in ("valid_ndcg@10", "valid_hr@10")
    }
    draw_curves(run_dir / "curves.png", series, "epoch", "validation")
    command = shlex.join(["python", "-m", "experiments.candidates", *sys.argv[1:]])
    write_report(
        run_dir,
        f"candidates on {clicks.name}",
        f"Command: {code(command)}",
        markdown_table([title, *SHOWN], shown),
        *([PROTOCOL] if references else []),
        *(f"Warning: {sentence}" for sentence in warnings),
        *([repeats] if repeats else []),
        "![validation by epoch](curves.png)",
        "## Results",
        markdown_table(["what", "value"], [[k, v] for k, v in results.items() if k != "warnings"]),
        "## Settings",
        settings_table(settings),
        "## Environment",
        markdown_table(["what", "value"], list(environment.items())),
    )
    write_json(run_dir / "environment.json", environment)
    whole = results | {"references": references, "warnings": warnings}
    whole |= {"command": command, "run_settings": settings}
    write_json(run_dir / "results.json", whole)
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
