"""The embedding MLP of the TensorFlow 2 recommender notebook on MovieLens.

    python -m experiments.embedding_mlp train --dataset ml-1m --data-dir PATH --epochs 25 --seed 0 --run-dir DIR
    python -m experiments.embedding_mlp predict --run-dir DIR --user 1 --item 783
    python -m experiments.embedding_mlp recommend --run-dir DIR --user 1

The notebook's held-out fifth, which it calls validation, is the test part here: nothing is chosen on
it. Times and scores of the presets, with their commands, stand in BUILD_NOTES.md.
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
from jrec.data.rating_scale import scale_of_ratings
from jrec.data.ratings import Ratings
from jrec.data.splits import Split
from jrec.errors import run_command
from jrec.serving.ratings import export_rating_model
from jrec.train.loop import Plan
from jrec.train.read_once import read_once
from jrec.train.run import run, running
from jrec.train.step import TrainState

from .improved import improved_system
from .settings import PRESETS, Train, check
from .source import mean_rating, source_system


def train(settings: Train) -> None:
    """Loads, plans, trains, exports and reports."""
    check(settings)
    with running(settings.run, f"embedding_mlp-{settings.data.dataset}") as (folder, console):
        ratings, split = read_once(lambda: load(settings.data))
        show_ratings(ratings, split, console)
        known = ratings.rating[split.train]
        standard, scale = with_standard_unit(ratings, lambda: scale_of_ratings(known))
        system = build_system(settings, standard, split)
        system = in_user_unit(system, scale, ratings.rating_range if settings.clip else None)
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
            cost = "mean squared error"
            results = {"valid_rmse": None} | trained.results
            finish_rating_run(
                folder, "embedding_mlp", settings, results, ratings, split, console, cost
            )


def build_system(settings: Train, ratings: Ratings, split: Split) -> System:
    """Returns the chosen preset, ready to train."""
    size, rate = settings.batch_size, settings.learning_rate
    keys = jax.random.split(jax.random.key(settings.run.seed), 3)
    mean = read_once(lambda: mean_rating(ratings, split.train))
    if settings.preset == "improved":
        epochs = settings.run.epochs
        return improved_system(settings.improved, ratings, split, mean, size, rate, epochs, keys)
    return source_system(settings.source, ratings, split, mean, size, rate, settings.clip, keys)


def evaluator(
    system: System, ratings: Ratings, split: Split
) -> Callable[[TrainState], dict[str, float]]:
    """Returns test and validation errors in stars; the costs are their squares, as the notebook prints them."""
    parts = {"test": split.test} | ({"valid": split.valid} if len(split.valid) else {})
    errors = make_part_errors(system, ratings, parts)

    def evaluate(state: TrainState) -> dict[str, float]:
        metrics = {}
        for part, found in errors(state).items():
            metrics |= {f"{part}_cost": found["rmse"] ** 2, f"{part}_rmse": found["rmse"]}
            metrics |= {f"{part}_mae": found["mae"]}
        return metrics

    return evaluate


COMMANDS = {Train: train, Predict: predict, Recommend: recommend}


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line; `arguments` are the process's own by default."""
    settings = parse_command(list(COMMANDS), __doc__, arguments, PRESETS)
    COMMANDS[type(settings)](settings)


if __name__ == "__main__":
    run_command(main)
