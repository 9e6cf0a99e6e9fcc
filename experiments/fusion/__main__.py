"""The fusion rating model of the Paddle book on MovieLens.

    python -m experiments.fusion train --dataset ml-1m --data-dir PATH --epochs 20 --seed 0 --run-dir DIR
    python -m experiments.fusion predict --run-dir DIR --user 1 --item 783
    python -m experiments.fusion recommend --run-dir DIR --user 1

Scores, times and sources stand in this folder's README.md.
"""

from collections.abc import Callable

import jax

from experiments.rating_data import load
from experiments.rating_report import (
    Predict,
    Recommend,
    finish_rating_run,
    predict,
    recommend,
    show_ratings,
)
from experiments.rating_system import (
    System,
    in_user_unit,
    make_part_errors,
    record,
    with_standard_unit,
)
from jrec.command_line import parse_command
from jrec.data.rating_scale import RatingScale, scale_of_range, scale_of_ratings
from jrec.data.ratings import Ratings
from jrec.data.splits import Split
from jrec.errors import run_command
from jrec.serving.ratings import export_rating_model
from jrec.train.loop import Plan
from jrec.train.read_once import read_once
from jrec.train.run import run, running
from jrec.train.step import TrainState

from .improved import improved_system, ratings_by_item
from .settings import PRESETS, Train, check
from .source import source_system


def train(settings: Train) -> None:
    """Loads, plans, trains, exports and reports."""
    check(settings)
    with running(settings.run, f"fusion-{settings.data.dataset}") as (folder, console):
        ratings, split = read_once(lambda: load(settings.data))
        show_ratings(ratings, split, console)
        improved = settings.preset == "improved"

        def fit_scale() -> RatingScale:
            # The source's cosine reaches 0 to 5 alone, so there the whole range goes into 1 to 5.
            known = ratings.rating[split.train]
            return scale_of_ratings(known) if improved else scale_of_range(*ratings.rating_range)

        standard, scale = with_standard_unit(ratings, fit_scale)
        system = build_system(settings, standard, split)
        system = in_user_unit(system, scale, ratings.rating_range if improved else None)
        plan = Plan(
            system.state,
            system.step,
            system.stream,
            evaluator(system, ratings, split),
            watch="valid_rmse" if len(split.valid) else None,
            cost_scale=scale.unit**2,
        )
        trained = run(plan, settings.run, folder, record(settings, ratings, split))
        arrays = system.predictor(trained.params)
        if trained.writes:
            export_rating_model(folder / "export", system.predict, arrays, ratings, split)
            cost = "mean squared error of 2 x stars"
            results = trained.results
            finish_rating_run(folder, "fusion", settings, results, ratings, split, console, cost)


def build_system(settings: Train, ratings: Ratings, split: Split) -> System:
    """Returns the chosen preset, ready to train."""
    size, rate = settings.batch_size, settings.learning_rate
    keys = jax.random.split(jax.random.key(settings.run.seed), 3)
    if settings.preset == "source":
        return source_system(settings.source, ratings, split, size, rate, keys)
    by_item = read_once(lambda: ratings_by_item(ratings, split.train))
    epochs = settings.run.epochs
    return improved_system(settings.improved, ratings, by_item, size, rate, epochs, keys)


def evaluator(
    system: System, ratings: Ratings, split: Split
) -> Callable[[TrainState], dict[str, float]]:
    """Returns test and validation errors in stars; the cost is the source's, of 2 * stars."""
    errors = make_part_errors(system, ratings, {"test": split.test, "valid": split.valid})

    def evaluate(state: TrainState) -> dict[str, float]:
        found = errors(state)
        test, valid = found["test"], found["valid"]
        return {
            "test_cost": 4 * test["rmse"] ** 2,
            "test_rmse": test["rmse"],
            "test_mae": test["mae"],
            "valid_rmse": valid["rmse"],
        }

    return evaluate


COMMANDS = {Train: train, Predict: predict, Recommend: recommend}


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line; `arguments` are the process's own by default."""
    settings = parse_command(list(COMMANDS), __doc__, arguments, PRESETS)
    COMMANDS[type(settings)](settings)


if __name__ == "__main__":
    run_command(main)
