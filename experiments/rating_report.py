"""What the rating experiments print and write once a model is trained."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Column, Table

from experiments.baselines.warnings import not_better_than_mean
from jrec.baselines.biases import fit_biases, fit_means
from jrec.console import plain_console
from jrec.data.ratings import Ratings
from jrec.data.splits import Split
from jrec.evaluate.per_user import write_per_user
from jrec.evaluate.rating_errors import errors_by_user
from jrec.finite import check_finite
from jrec.report import (
    draw_curves,
    markdown_table,
    read_metrics,
    show_warnings,
    write_run,
)
from jrec.serving.ratings import (
    RatingModel,
    known_rating,
    load_rating_model,
    predict_stars,
    rank_items,
    row_of,
)


@dataclass
class Predict:
    """Predict the rating that one user gives one item."""

    run_dir: Path
    """A finished run."""
    user: str = "1"
    """The user's id in the data set."""
    item: str = "783"
    """The item's id in the data set."""


@dataclass
class Recommend:
    """Rank all items for one user, best first."""

    run_dir: Path
    """A finished run."""
    user: str = "1"
    """The user's id in the data set."""
    count: int = 10
    """How many items to print."""
    seen: bool = False
    """Rank the items that the user has rated, too."""


def show_ratings(ratings: Ratings, split: Split, console: Console) -> None:
    """Prints which data a run uses, how much, and what was odd in it."""
    source = ratings.source
    lines = [f"{ratings.name}: {len(ratings):,} ratings from {source.kind} {source.location}"]
    if source.note:
        lines.append(f"note: {source.note}")
    lines.append(
        f"train {len(split.train):,}, validation {len(split.valid):,}, test {len(split.test):,}"
    )
    if ratings.repeated:
        lines.append(f"{ratings.repeated:,} ratings repeat a (user, item) pair: the latest is kept")
    for name, count in ratings.unknown.items():
        if count:
            lines.append(f"{count:,} ratings have an unknown {name}: they use the unknown row")
    console.print("\n".join(lines), soft_wrap=True)


def baseline_errors(ratings: Ratings, split: Split) -> dict[str, dict[str, float]]:
    """Test RMSE and MAE, in stars, of the baselines that any model must beat."""
    user, item, stars = (c[split.train] for c in (ratings.user, ratings.item, ratings.rating))
    users, items = (ratings.vocabularies[name].rows for name in ("user", "item"))
    test_user, test_item = ratings.user[split.test], ratings.item[split.test]
    mean, by_user = fit_means(user, stars, users)
    _, by_item = fit_means(item, stars, items)
    predictions = {
        "global mean": np.full(len(split.test), mean),
        "user mean": mean + by_user[test_user],
        "item mean": mean + by_item[test_item],
        "regularised biases": fit_biases(user, item, stars, users, items).predict(
            test_user, test_item
        ),
    }
    actual = ratings.rating[split.test]
    return {
        name: {
            "rmse": float(np.sqrt(np.mean((p - actual) ** 2))),
            "mae": float(np.mean(np.abs(p - actual))),
        }
        for name, p in predictions.items()
    }


def finish_rating_run(
    run_dir: Path,
    system: str,
    settings: Any,
    results: dict[str, Any],
    ratings: Ratings,
    split: Split,
    console: Console,
    cost: str,
) -> None:
    """Writes `results.json`, `environment.json`, `curves.png`, `report.md`, `per_user.npz` (test errors);
    then prints table and items.

    `cost` says what the metrics `train_cost`, `valid_cost` and `test_cost` are, for the curves.
    """
    results |= {"split": settings.data.split, "split_seed": settings.data.split_seed}
    errors = [results["test_rmse"], results["test_mae"]]
    check_finite(f"Test errors of {system} are", "take a lower --learning-rate", errors)
    baselines = baseline_errors(ratings, split)
    warnings = not_better_than_mean(system, errors[0], baselines["global mean"]["rmse"])
    rows = [[name, errors["rmse"], errors["mae"]] for name, errors in baselines.items()]
    rows.append([system, results["test_rmse"], results["test_mae"]])
    title = f"test error, in {ratings.source.unit}"
    model = load_rating_model(run_dir / "export")
    predicted = predict_in_blocks(model, ratings.user[split.test], ratings.item[split.test])
    write_rating_errors(run_dir, ratings, split.test, predicted)
    curve = read_metrics(run_dir)
    series = {
        name: [(line["epoch"], line[name]) for line in curve if line.get(name) is not None]
        for name in ("train_cost", "valid_cost", "test_cost")
    }
    draw_curves(run_dir / "curves.png", series, "epoch", cost)
    write_run(
        run_dir,
        f"experiments.{system}",
        f"{system} on {ratings.name}",
        [markdown_table([title, "RMSE", "MAE"], rows), "![costs by epoch](curves.png)"],
        results,
        dataclasses.asdict(settings) | {"data_source": vars(ratings.source)},
        {"baselines": baselines},
        warnings,
    )
    table = Table(title, "RMSE", "MAE")
    for name, rmse, mae in rows:
        table.add_row(name, f"{rmse:.4f}", f"{mae:.4f}")
    console.print(table)
    show_warnings(warnings, console)
    user = model.users.decode(ratings.user[split.test[:1]].clip(min=2)).tolist()[0]
    show_recommendations(model, user, 10, False, console)
    speed = results["examples_per_second"]
    pace = f"; {speed:,.0f} examples/s from the second epoch on" if speed else ""
    console.print(f"run directory: {run_dir}{pace}", soft_wrap=True)


def show_prediction(model: RatingModel, user: int | str, item: int | str) -> None:
    """Prints the predicted stars of raw ids, who the user is, and the actual rating where the data set has one."""
    stars, notes = predict_stars(model, user, item)
    for note in notes:
        print(f"note: {note}")
    if label := model.labels[row_of(model.users, "user", user)]:
        print(f"user {user}: {label}")
    title = model.titles[row_of(model.items, "item", item)]
    print(f"user {user}, item {item} {title!s}: {stars:.2f} stars")
    if known := known_rating(model, user, item):
        print("actual: {:g} stars ({})".format(*known))
    else:
        print("actual: the data set has no rating of this pair")


def predict_in_blocks(
    model: RatingModel, user: np.ndarray, item: np.ndarray, size: int = 4096
) -> np.ndarray:
    """Stars float32 [n] for table rows [n]; blocks of one size, the last filled up, need one compilation."""
    blocks = [np.zeros(0, np.float32)]
    for start in range(0, len(user), size):
        rows = [column[start : start + size] for column in (user, item)]
        count = len(rows[0])
        padded = (np.pad(column, (0, size - count), mode="edge") for column in rows)
        blocks.append(np.asarray(model.predict(*padded))[:count])
    return np.concatenate(blocks)


def write_rating_errors(
    run_dir: Path, ratings: Ratings, positions: np.ndarray, predicted: np.ndarray
) -> None:
    """`per_user.npz`: test errors of the ratings at `positions`, summed by user's table row."""
    user, actual = ratings.user[positions], ratings.rating[positions]
    write_per_user(run_dir, *errors_by_user(user, predicted, actual))


def show_recommendations(
    model: RatingModel, user: int | str, count: int, include_seen: bool, console: Console
) -> None:
    """Prints the items ranked for one user."""
    ranked, notes = rank_items(model, user, count, include_seen)
    for note in notes:
        console.print(f"note: {note}", soft_wrap=True)
    if not ranked:
        return
    table = Table(
        Column("item", overflow="fold"),
        "title",
        "stars",
        title=f"for user {user}",
        title_justify="left",
    )
    for item, title, stars in ranked:
        table.add_row(str(item), title, f"{stars:.2f}")
    console.print(table)


def predict(settings: Predict) -> None:
    """Prints the predicted rating, and the actual one where the data set has it."""
    model = load_rating_model(settings.run_dir / "export")
    show_prediction(model, settings.user, settings.item)


def recommend(settings: Recommend) -> None:
    """Prints the ranked items."""
    model = load_rating_model(settings.run_dir / "export")
    show_recommendations(model, settings.user, settings.count, settings.seen, plain_console())
