"""Shows what a click data set holds: `python -m jrec.data.show_clicks --dataset NAME [--data-dir PATH]`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console
from rich.table import Table

from jrec.command_line import parse_command
from jrec.console import plain_console
from jrec.data.click_examples import (
    Examples,
    held_out_examples,
    history_of,
    leave_one_out,
    repeated_targets,
    training_examples,
)
from jrec.data.click_sources import CLICK_DATASETS, load_clicks_dataset
from jrec.data.click_truth import ClickSize
from jrec.data.clicks import Bag, Clicks, Column, Continuous
from jrec.data.kuairand import Watched
from jrec.data.own_csv import CsvClicks
from jrec.data.vocabulary import FIRST, UNKNOWN
from jrec.errors import run_command


@dataclass
class Show:
    """Counts of a click data set, its columns, one user and one training example."""

    dataset: Literal[CLICK_DATASETS] = "synthetic"  # type: ignore[valid-type]
    """Which data set."""
    data_dir: Path | None = None
    """File, folder or archive that holds it; a MovieLens left out comes from the cache or the net."""
    watched: Watched = "long_view"
    """Which rows of kuairand-pure count as clicks."""
    earlier: bool = True
    """Whether kuairand-pure begins with the sequences before its log (needs pyarrow)."""
    feat_appear_limit: int = 20
    """A value of a click-log keeps a row of its own if it appears more often than this."""
    user_appear_limit: int | None = None
    """The same for users; left out, the same limit."""
    skip_bad_lines: bool = False
    """Leave malformed lines of a click-log out and count them, instead of stopping."""
    csv: CsvClicks = field(default_factory=CsvClicks)
    """Columns of `--dataset csv`, a file of your own that --data-dir names."""
    synthetic: ClickSize = field(default_factory=ClickSize)
    """Sizes of `--dataset synthetic`."""
    seed: int = 0
    """Seed of `--dataset synthetic`."""


def show(clicks: Clicks, console: Console) -> None:
    """Prints the whole description."""
    source = clicks.source
    console.print(f"{clicks.name} from {source.kind}: {source.location}", soft_wrap=True)
    for extra in filter(None, (source.checksum, source.note)):
        console.print(f"  {extra}", soft_wrap=True)
    lengths = np.diff(clicks.offsets)
    counts = np.sort(clicks.item_counts[FIRST:])[::-1]
    table = Table("what", "count")
    table.add_row("clicks", f"{len(clicks):,}")
    table.add_row("users (with clicks)", f"{clicks.users:,} ({int((lengths > 0).sum()):,})")
    table.add_row("items (clicked)", f"{len(counts):,} ({int((counts > 0).sum()):,})")
    table.add_row("clicks a user: least, median, most", _quantiles(lengths))
    table.add_row("clicks an item: least, median, most", _quantiles(counts))
    head = max(1, len(counts) // 100)
    table.add_row("clicks on the top 1% of items", f"{counts[:head].sum() / len(clicks):.1%}")
    table.add_row("users with 3 clicks or more", f"{int((lengths >= 3).sum()):,}")
    if clicks.timed:
        ends = (clicks.timestamp.min(), clicks.timestamp.max())
        days = (str(np.datetime64(int(end), "s"))[:10] for end in ends)
        table.add_row("first and last day (UTC)", " to ".join(days))
    else:
        table.add_row("first and last day", "no times, only the order")
    for what, count in clicks.dropped.items():
        table.add_row(f"dropped: {what}", f"{count:,}")
    console.print(table)
    columns = Table("feature", "of", "kind", "values", "unknown", "example")
    user = int(np.argmax(lengths))
    event = int(clicks.offsets[user])
    for of, features, first, row in (
        ("user", clicks.user_features, 0, user),
        ("item", clicks.item_features, FIRST, int(clicks.item[event])),
        ("event", clicks.event_features, 0, event),
    ):
        for name, column in features.items():
            columns.add_row(name, of, *_described(clicks, column, first, row))
    if columns.row_count:
        console.print(columns)
    if (lengths >= 3).any():
        split = leave_one_out(clicks)
        examples = training_examples(clicks, split, window=20)
        console.print(
            f"last click held out: train {len(split.train):,}, validation {len(split.valid):,}, "
            f"test {len(split.test):,}",
            soft_wrap=True,
        )
        repeats = repeated_targets(clicks, held_out_examples(clicks, split, "test"))
        console.print(
            f"test clicks on an item that the user had clicked before: {repeats.sum():,} "
            f"({repeats.mean():.1%})",
            soft_wrap=True,
        )
        console.print(_example(clicks, examples, len(examples) // 2), soft_wrap=True)


def _quantiles(values: np.ndarray) -> str:
    return f"{values.min():,}, {int(np.median(values)):,}, {values.max():,}"


def _described(clicks: Clicks, column: Column, first: int, row: int) -> tuple[str, str, str, str]:
    """Kind, number of values, unknown ones from row `first` on, and the value of `row`."""
    if isinstance(column, Continuous):
        example = f"{column.values[row]:g}" if column.known[row] else "unknown"
        return "continuous", "", f"{int((~column.known[first:]).sum()):,}", example
    values = f"{len(clicks.vocabularies[column.vocabulary].values):,}"
    if isinstance(column, Bag):
        rows = column.rows.values[column.rows.offsets[first] :]
        example = " ".join(_text(clicks, column.vocabulary, r) for r in column.rows[row])
        return "bag", values, f"{int((rows == UNKNOWN).sum()):,}", example or "none"
    unknown = int((column.rows[first:] == UNKNOWN).sum())
    return "categorical", values, f"{unknown:,}", _text(clicks, column.vocabulary, column.rows[row])


def _text(clicks: Clicks, vocabulary: str, row: int) -> str:
    return str(clicks.vocabularies[vocabulary].decode(row)) if row >= FIRST else "unknown"


def _example(clicks: Clicks, examples: Examples, k: int) -> str:
    history = [_text(clicks, "item", row) for row in history_of(clicks, examples, k)]
    shown = " ".join(history if len(history) <= 6 else ["...", *history[-6:]])
    target = _text(clicks, "item", clicks.item[examples.target[k]])
    user = _text(clicks, "user", clicks.user_row[examples.user[k]])
    age = f", {examples.age[k]:.0%} of the training clicks are later" if clicks.timed else ""
    return f"an example: user {user} after {shown} -> {target}{age}"


def main() -> None:
    settings = parse_command((Show,), __doc__)
    clicks = load_clicks_dataset(
        settings.dataset,
        settings.data_dir,
        watched=settings.watched,
        earlier=settings.earlier,
        feat_appear_limit=settings.feat_appear_limit,
        user_appear_limit=settings.user_appear_limit,
        skip_bad_lines=settings.skip_bad_lines,
        size=settings.synthetic,
        seed=settings.seed,
        csv=settings.csv,
    )
    show(clicks, plain_console())


if __name__ == "__main__":
    run_command(main)
