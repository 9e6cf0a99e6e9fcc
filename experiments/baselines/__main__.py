"""Traditional recommenders under the protocols of the other systems.

    python -m experiments.baselines rate --method item-neighbours --dataset ml-1m --data-dir ml-1m.zip
    python -m experiments.baselines rank --method ease --dataset ml-1m-sas --data-dir ml-1m_sas.txt.gz

Scores and times of all methods, with their commands, stand in BUILD_NOTES.md.
"""

import dataclasses
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from rich.console import Console
from scipy import sparse

from experiments.rating_data import RatingData, load
from experiments.rating_report import show_ratings, write_rating_errors
from jrec.baselines.implicit_als import ImplicitALS
from jrec.command_line import parse_command
from jrec.console import plain_console
from jrec.data.click_examples import held_out_examples, leave_one_out, repeated_targets
from jrec.data.own_csv import CsvClicks
from jrec.data.ratings import Ratings
from jrec.data.synthetic import SyntheticSize
from jrec.errors import InputError, run_command
from jrec.evaluate.per_user import write_per_user
from jrec.evaluate.ranking_metrics import mean_metrics, ranking_metrics
from jrec.evaluate.repeated_targets import (
    RepeatedTargets,
    check_some_count,
    repeated_note,
    settle_repeated,
)
from jrec.finite import check_finite
from jrec.report import open_run_directory, show_warnings, write_run
from jrec.train.flags import check_at_least

from .held_out import PROTOCOL, held_out_ranks
from .next_item import (
    SEQUENCE_DATASETS,
    NextItemMethod,
    NextItemSettings,
    content_of,
    fit_next_item_baseline,
    load_sequences,
)
from .ratings import Predict, RatingMethod, RatingSettings, fit_rating_baseline, settings_used
from .warnings import below_popularity, not_better_than_mean


@dataclass
class Rate:
    """Predict ratings; fitted to the training ratings, reported on validation and test."""

    method: RatingMethod = "biases"
    """Which baseline."""
    data: Annotated[RatingData, tyro.conf.arg(name="")] = field(default_factory=RatingData)
    """Ratings and their split; nothing is chosen on validation here."""
    clip: bool = False
    """Clip predictions to the data set's lowest and highest rating."""
    settings: Annotated[RatingSettings, tyro.conf.arg(name="")] = field(
        default_factory=RatingSettings
    )
    """Of each method."""
    seed: int = 0
    """Of matrix factorisation: initial vectors and order of the ratings."""
    run_dir: Path | None = None
    """Where the run goes; by default runs/rate-METHOD-DATASET-TIME."""


@dataclass
class Rank:
    """Find each user's last item in the whole catalogue, what was seen before removed.

    Fitted once, to all but the last two items of each user; users of under 3 are fitted to alone. A user's
    scores read the history before the target, on test the validation item too, as a network's do.
    """

    method: NextItemMethod = "popularity"
    """Which baseline."""
    dataset: Literal[SEQUENCE_DATASETS] = "ml-100k"  # type: ignore[valid-type]
    """Which data set: ratings of any MovieLens as events, synthetic ones, or the file of SASRec's."""
    data_dir: Path | None = None
    """Folder, archive or file that holds it. Left out: the cache, else the network."""
    csv: CsvClicks = field(default_factory=CsvClicks)
    """Columns of `--dataset csv`, a file of your own that --data-dir names."""
    synthetic: SyntheticSize = field(default_factory=SyntheticSize)
    """Sizes of `--dataset synthetic`."""
    split_seed: int = 0
    """Seed of the synthetic data."""
    settings: Annotated[NextItemSettings, tyro.conf.arg(name="")] = field(
        default_factory=NextItemSettings
    )
    """Of each method."""
    repeated_targets: RepeatedTargets = "miss"
    """A held-out item that the user has met before is a `miss`, is left out of the means (`exclude`), or is ranked
    as if it were new (`rank`)."""
    seed: int = 0
    """Of implicit ALS: initial vectors."""
    run_dir: Path | None = None
    """Where the run goes; by default runs/rank-METHOD-DATASET-TIME."""


_ABOVE_ZERO = ("learning_rate", "ease.regularisation", "implicit_als.regularisation")
_WHOLE = ("neighbours", "width", "epochs", "batch_size", "sweeps", "solver_steps")


def check(settings: Rate | Rank, used: tuple[str, ...]) -> None:
    """Raises InputError for a setting that makes no sense; `used` names the groups that are read."""
    check_at_least(settings, {"seed": 0})
    check_at_least(settings.data if isinstance(settings, Rate) else settings, {"split_seed": 0})
    for group in used:
        for name, value in dataclasses.asdict(getattr(settings.settings, group)).items():
            if value is None or isinstance(value, str):
                continue
            above = name in _ABOVE_ZERO or f"{group}.{name}" in _ABOVE_ZERO
            lowest = 1 if name in _WHOLE else 0
            if not lowest <= value < 2**31 or (above and value == 0):
                flag = f"{group}.{name}".replace("_", "-")
                bound = "above 0" if above else f"{lowest} or more"
                raise InputError(f"--{flag} must be {bound} (and below 2^31), but is {value}.")


def rate(command: Rate) -> None:
    """Runs a rating baseline from data to report."""
    used = settings_used(command.method)
    check(command, used)
    console = plain_console()
    ratings, split = load(command.data)
    if command.method == "content" and not any(
        len(ratings.vocabularies[name].values) for name in ("genres", "title")
    ):
        raise InputError(f"--dataset {command.data.dataset} has no content; take another method.")
    run_dir, kept = open_run(command, "rate", command.data.dataset, used, ratings.source)
    show_ratings(ratings, split, console)
    start = time.perf_counter()
    model, predict = fit_rating_baseline(
        command.method, command.settings, ratings, split.train, command.seed
    )
    seconds = time.perf_counter() - start
    results = {
        f"{name}_{error}": value
        for name, positions in (("test", split.test), ("valid", split.valid))
        for error, value in rating_errors(predict, ratings, positions, command.clip).items()
    }
    results |= {"split": command.data.split, "split_seed": command.data.split_seed}
    remedy = "check the ratings and the settings of the method"
    errors = [results["test_rmse"], results["test_mae"]]
    check_finite(f"Test errors of {command.method} are", remedy, errors)
    write_rating_errors(
        run_dir, ratings, split.test, predict_stars(predict, ratings, split.test, command.clip)
    )
    warnings = []
    if command.method != "global-mean":
        _, mean = fit_rating_baseline("global-mean", command.settings, ratings, split.train, 0)
        by_mean = rating_errors(mean, ratings, split.test, command.clip)
        warnings = not_better_than_mean(command.method, results["test_rmse"], by_mean["rmse"])
    protocol = "Fitted to the training ratings alone."
    finish(run_dir, command, kept, protocol, results, warnings, model, seconds, console)


def predict_stars(
    predict: Predict, ratings: Ratings, positions: np.ndarray, clip: bool
) -> np.ndarray:
    """Stars [n] of the ratings at `positions`, clipped to the data set's range on demand."""
    predicted = predict(ratings.user[positions], ratings.item[positions])
    return np.clip(predicted, *ratings.rating_range) if clip else predicted


def rating_errors(
    predict: Predict, ratings: Ratings, positions: np.ndarray, clip: bool
) -> dict[str, float]:
    """RMSE and MAE in stars over the ratings at `positions`; NaN without any."""
    if len(positions) == 0:
        return {"rmse": float("nan"), "mae": float("nan")}
    error = predict_stars(predict, ratings, positions, clip) - ratings.rating[positions]
    return {"rmse": float(np.sqrt((error**2).mean())), "mae": float(np.abs(error).mean())}


def rank(command: Rank) -> None:
    """Runs a baseline of the next item from data to report."""
    group = command.method.replace("-", "_")
    used = (group,) if hasattr(command.settings, group) else ()
    check(command, used)
    console = plain_console()
    clicks = load_sequences(
        command.dataset, command.data_dir, command.synthetic, command.split_seed, command.csv
    )
    if command.method == "content" and not content_of(clicks):
        raise InputError(f"--dataset {command.dataset} has no content; take another method.")
    split = leave_one_out(clicks)
    run_dir, kept = open_run(command, "rank", command.dataset, used, clicks.source)
    console.print(
        f"{clicks.name}: {len(clicks):,} events from {clicks.source.kind} "
        f"{clicks.source.location}; {len(split.test):,} users with a held-out item",
        soft_wrap=True,
    )
    start = time.perf_counter()
    model, score = fit_next_item_baseline(
        command.method, command.settings, clicks, split.train, command.seed
    )
    seconds = time.perf_counter() - start
    results = {}
    if isinstance(model, ImplicitALS):
        results["unobserved_weight"] = model.unobserved_weight
    choice, repeats = command.repeated_targets, {}
    held_out = {part: held_out_examples(clicks, split, part) for part in ("valid", "test")}
    for part, examples in held_out.items():
        repeats[part] = repeated_targets(clicks, examples)
        found = ranked(held_out_ranks(score, clicks, examples), choice, repeats[part])
        results |= {f"{part}_{name}": value for name, value in mean_metrics(found).items()}
        results[f"{part}_repeats"] = int(repeats[part].sum())
    write_per_user(run_dir, held_out["test"].user, found)
    _, popular = fit_next_item_baseline("popularity", command.settings, clicks, split.train)
    popular_ranks = held_out_ranks(popular, clicks, held_out["test"])
    by_popularity = ranked(popular_ranks, choice, repeats["test"])
    warnings = below_popularity(
        {"popularity": mean_metrics(by_popularity), command.method: mean_metrics(found)}
    )
    note = repeated_note(
        choice,
        results["test_repeats"],
        len(held_out["test"]),
        "experiments.candidates --no-remove-seen",
    )
    results |= {"repeated_targets": choice, "note": note} if note else {}
    finish(run_dir, command, kept, PROTOCOL, results, warnings, model, seconds, console)


def ranked(
    ranks: np.ndarray, choice: RepeatedTargets, repeated: np.ndarray
) -> dict[str, np.ndarray]:
    """Returns hit rate and NDCG at 10 of each held-out item, from its rank; NaN where it does not count."""
    check_some_count(choice, int(repeated.sum()), len(repeated))
    rank, counted = settle_repeated(choice, ranks, np.ones(len(ranks), bool), repeated)
    found = ranking_metrics(rank[:, None], counted[:, None])
    return {name: found[name] for name in ("hr@10", "ndcg@10")}


def open_run(
    command: Rate | Rank, task: str, dataset: str, used: tuple[str, ...], source: Any
) -> tuple[Path, dict[str, Any]]:
    """Makes the run directory with its `settings.json`; returns it and the settings."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    name = f"{task}-{command.method}-{dataset}-{stamp}"
    run_dir = command.run_dir or Path("runs") / name
    kept = dataclasses.asdict(command)
    groups = kept.pop("settings")
    kept |= {"task": task, "dataset": dataset, "data_source": dataclasses.asdict(source)}
    kept |= {group: groups[group] for group in used}
    open_run_directory(run_dir, False, kept)
    return run_dir, kept


def finish(
    run_dir: Path,
    command: Rate | Rank,
    kept: dict[str, Any],
    protocol: str,
    results: dict[str, Any],
    warnings: list[str],
    model: Any,
    seconds: float,
    console: Console,
) -> None:
    """Writes `results.json`, `environment.json` and `report.md`, and prints the results and warnings."""
    results = {"method": command.method, **results}
    results |= {"seconds": seconds, "parameters": count_numbers(model), "seed": command.seed}
    title = f"{command.method} on {kept['dataset']}"
    write_run(run_dir, "experiments.baselines", title, [protocol], results, kept, {}, warnings)
    for name, value in results.items():
        shown = f"{value:.4f}" if isinstance(value, float) else value
        console.print(f"{name}: {shown}", soft_wrap=True)
    show_warnings(warnings, console)
    console.print(f"run directory: {run_dir}", soft_wrap=True)


def count_numbers(model: Any) -> int:
    """How many numbers a model keeps: entries of its arrays, stored ones of sparse arrays."""
    if dataclasses.is_dataclass(model):
        model = [getattr(model, part.name) for part in dataclasses.fields(model)]
    if isinstance(model, list | tuple):
        return sum(count_numbers(part) for part in model)
    if isinstance(model, sparse.sparray):
        return model.nnz
    if isinstance(model, np.ndarray):
        return model.size
    return int(isinstance(model, int | float))


COMMANDS = {Rate: rate, Rank: rank}


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line; `arguments` are the process's own by default."""
    command = parse_command(list(COMMANDS), __doc__, arguments)
    COMMANDS[type(command)](command)


if __name__ == "__main__":
    run_command(main)
