"""What the autoencoder experiment prints and writes beside the model."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from experiments.baselines.warnings import not_better_than_mean
from jrec.baselines.biases import fit_biases
from jrec.data.parts_table import parts_table
from jrec.data.rating_parts import RatingParts, RatingRows
from jrec.data.ratings import Ratings
from jrec.data.splits import Split
from jrec.data.vocabulary import FIRST
from jrec.evaluate.per_user import write_per_user
from jrec.evaluate.rating_errors import errors_by_user
from jrec.files import replacing
from jrec.finite import check_finite
from jrec.report import (
    draw_curves,
    markdown_table,
    read_metrics,
    show_warnings,
    write_run,
)

from .centring import fit_centre
from .held_out import star_errors
from .settings import PUBLISHED, Train


def show_parts(parts: RatingParts, console: Console) -> None:
    """Prints which data a run uses, how much, and what was left out of it."""
    source = parts.source
    console.print(f"{parts.name} from {source.kind} {source.location}", soft_wrap=True)
    if source.note:
        console.print(f"note: {source.note}", soft_wrap=True)
    console.print(parts_table([parts]))
    for what, count in parts.dropped.items():
        if count:
            console.print(
                f"{count:,} ratings were left out: {what} not in training", soft_wrap=True
            )


def baseline_errors(parts: RatingParts, held_out: RatingRows) -> dict[str, dict[str, float]]:
    """Errors, in stars, of what any model must beat."""
    mean = float(np.mean(parts.train.rating, dtype=np.float64))
    centre = fit_centre(parts.train, len(parts.items))
    biased = centre.of(held_out, centre.user(parts.train))
    return {
        "global mean": star_errors(np.full(len(held_out), mean), held_out.rating),
        "regularised biases": star_errors(biased, held_out.rating),
    }


def write_predictions(
    path: Path, parts: RatingParts, held_out: RatingRows, predicted: np.ndarray
) -> None:
    """A line for each held-out rating: user, item, prediction, rating, in the data's own ids."""
    user = np.repeat(parts.users, np.diff(held_out.offsets))
    item, rating = parts.items[held_out.item], held_out.rating
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write("user\titem\tprediction\trating\n")
        for line in zip(user, item, predicted, rating, strict=True):
            file.write("{}\t{}\t{:.4f}\t{:g}\n".format(*line))


def write_whole_test(
    run_dir: Path, ratings: Ratings, split: Split, predicted: np.ndarray
) -> dict[str, float]:
    """`per_user.npz` and errors over every test rating, as the other rating systems count them.

    The network has no row for users and items without training ratings; biases predict theirs.

    Args:
        predicted: of the ratings that `jrec.data.rating_parts` kept, user by user in time order.
    """
    columns = [(c[split.train], c[split.test]) for c in (ratings.user, ratings.item)]
    kept = np.all([(test >= FIRST) & np.isin(test, train) for train, test in columns], 0)
    (train_user, user), (train_item, item) = columns
    rows = (ratings.vocabularies[name].rows for name in ("user", "item"))
    biases = fit_biases(train_user, train_item, ratings.rating[split.train], *rows)
    everything = biases.predict(user, item)
    by_user = np.lexsort((ratings.timestamp[split.test], user))
    everything[by_user[kept[by_user]]] = predicted
    write_per_user(run_dir, *errors_by_user(user, everything, ratings.rating[split.test]))
    errors = star_errors(everything, ratings.rating[split.test])
    return {
        "whole_test_rmse": errors["rmse"],
        "whole_test_mae": errors["mae"],
        "test_from_biases": int((~kept).sum()),
    }


def beside_published(settings: Train, parts: RatingParts, rmse: float) -> list[list]:
    """Rows of the source's table (split, test RMSE, layers) and this run's; none but for Netflix data."""
    if settings.data.dataset != "netflix":
        return []
    layers = ",".join(str(width) for width in settings.hidden)
    own = [f"this run: {parts.name}", rmse, f"n,{layers},dp {settings.dropout:g},…"]
    return [*([row.split, row.rmse, row.layers] for row in PUBLISHED), own]


def finish_autoencoder_run(
    run_dir: Path,
    settings: Train,
    results: dict[str, Any],
    parts: RatingParts,
    console: Console,
) -> None:
    """Writes `results.json`, `environment.json`, `curves.png` and `report.md`; then prints the tables."""
    names = ("rmse", "rmse_rounded", "mae")
    errors = [results[f"test_{key}"] for key in names]
    check_finite("Test errors of the autoencoder are", "take a lower --learning-rate", errors)
    baselines = baseline_errors(parts, parts.test)
    warnings = not_better_than_mean("autoencoder", errors[0], baselines["global mean"]["rmse"])
    rows = [[name, *(errors[key] for key in names)] for name, errors in baselines.items()]
    rows.append(["autoencoder", *errors])
    unit = parts.source.unit
    columns = [f"test error, in {unit}", "RMSE", "RMSE, rounded", "MAE"]
    published, compared = beside_published(settings, parts, results["test_rmse"]), []
    if published:
        compared.append("Published by the source, and this run:")
        compared.append(markdown_table(["split", "test RMSE", "layers"], published))
    curve = read_metrics(run_dir)
    series = {
        "train, root of the cost": [
            (line["epoch"], max(line["train_cost"], 0) ** 0.5) for line in curve
        ],
        "validation": [
            (line["epoch"], line["valid_rmse"]) for line in curve if line["valid_rmse"] is not None
        ],
    }
    draw_curves(run_dir / "curves.png", series, "epoch", f"RMSE in {unit}")
    write_run(
        run_dir,
        "experiments.autoencoder",
        f"autoencoder on {parts.name}",
        [
            markdown_table(columns, rows),
            "![root mean squared error by epoch](curves.png)",
            *compared,
        ],
        results,
        dataclasses.asdict(settings) | {"data_source": vars(parts.source)},
        {"baselines": baselines},
        warnings,
    )
    table = Table(*columns)
    for name, *values in rows:
        table.add_row(name, *(f"{value:.4f}" for value in values))
    console.print(table)
    show_warnings(warnings, console)
    if published:
        table = Table("published, and this run", "test RMSE", "layers")
        for name, value, what in published:
            table.add_row(name, f"{value:.4f}", what)
        console.print(table)
    speed = results["examples_per_second"]
    pace = f"; {speed:,.0f} users/s from the second epoch on" if speed else ""
    console.print(f"run directory: {run_dir}{pace}", soft_wrap=True)
