"""The fusion rating model of the Paddle book on MovieLens.

    python -m experiments.fusion train --dataset ml-1m --data-dir PATH --epochs 20 --seed 0 --run-dir DIR
    python -m experiments.fusion predict --run-dir DIR --user 1 --film 783
    python -m experiments.fusion recommend --run-dir DIR --user 1

Times and scores of both presets, with their commands, stand in BUILD_NOTES.md.
"""

import dataclasses
import hashlib
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console

from experiments.rating_report import finish_rating_run, show_ratings, show_recommendations
from jrec import row_optimizers
from jrec.command_line import parse_command
from jrec.data.ratings import Ratings
from jrec.data.sources import DATASETS, load_ratings
from jrec.data.splits import Split, SplitName, split_ratings
from jrec.data.synthetic import SyntheticSize
from jrec.errors import InputError, run_command
from jrec.evaluate.rating_errors import make_rating_errors
from jrec.losses import squared_error
from jrec.models.fusion import Fusion
from jrec.progress import watch_training
from jrec.rating_export import export_rating_model, load_rating_model, predict_stars
from jrec.report import MetricsLog, environment, open_run_directory
from jrec.train.checkpoints import Checkpoints
from jrec.train.loop import Progress, Schedule, fit, stop_on_signals
from jrec.train.rating_batches import device_ratings, feature_tables, features, gather_ratings
from jrec.train.row_step import init_row_state, make_row_step
from jrec.train.step import Batch, Step, TrainState, choose_step, init_state, make_step
from jrec.train.stream import epoch_order, make_chunk


@dataclass
class Train:
    """Train, evaluate and export; the run directory explains itself."""

    dataset: Literal[DATASETS] = "ml-100k"  # type: ignore[valid-type]
    """Which data set; `synthetic` is made up on the spot."""
    data_dir: Path | None = None
    """Folder or archive that holds it. Left out: the cache, else the network."""
    synthetic: SyntheticSize = field(default_factory=SyntheticSize)
    """Sizes of `--dataset synthetic`."""
    split: SplitName = "random"
    """How test ratings are held out (see jrec.data.splits)."""
    split_seed: int = 0
    """Seed of the split; the same for all training seeds, so that their scores compare."""
    test_fraction: float = 0.1
    """Share of the ratings that is test."""
    valid_fraction: float = 0.05
    """Share of the rest that chooses the best epoch; 0: the last epoch is reported."""
    epochs: int = 20
    """Passes over the training ratings."""
    batch_size: int = 256
    """Ratings a step."""
    learning_rate: float = 0.2
    """Of plain stochastic gradient descent."""
    tables: Literal["dense", "rows"] = "dense"
    """How embedding tables are updated: as a whole, or only the rows that a batch reads."""
    title_pooling: Literal["sum", "max"] = "sum"
    """Over a title's convolved words: the source's program sums, its text takes the maximum."""
    id_width: int = 32
    """Width of user and film id vectors."""
    tower_width: int = 200
    """Width of both towers' last layer."""
    seed: int = 0
    """Of the initial parameters and the order of the ratings."""
    run_dir: Path | None = None
    """Where the run goes; by default runs/fusion-DATASET-TIME."""
    resume: bool = False
    """Go on with the run in --run-dir from its last checkpoint."""
    chunk_steps: int = 500
    """Steps between two looks of the host at the device."""
    checkpoint_steps: int = 0
    """Save a checkpoint also every so many steps; 0: after each epoch."""
    patience: int = 0
    """Stop after so many epochs without a better validation error; 0: never."""


@dataclass
class Predict:
    """Predict the stars that one user gives one film."""

    run_dir: Path
    """A finished run."""
    user: int = 1
    """The user's id in the data set."""
    film: int = 783
    """The film's id in the data set."""


@dataclass
class Recommend:
    """Rank all films for one user, best first."""

    run_dir: Path
    """A finished run."""
    user: int = 1
    """The user's id in the data set."""
    count: int = 10
    """How many films to print."""
    seen: bool = False
    """Rank the films that the user has rated, too."""


def check(settings: Train) -> None:
    """Raises InputError for a setting that makes no sense."""
    at_least = {"epochs": 1, "batch_size": 1, "chunk_steps": 1, "id_width": 1, "tower_width": 1}
    at_least |= {"checkpoint_steps": 0, "patience": 0, "seed": 0, "split_seed": 0}
    for name, lowest in at_least.items():
        value = getattr(settings, name)
        if not lowest <= value < 2**31:
            flag = name.replace("_", "-")
            raise InputError(f"--{flag} must be {lowest} or more (and below 2^31), but is {value}.")
    if not (settings.learning_rate > 0 and math.isfinite(settings.learning_rate)):
        raise InputError(f"--learning-rate must be above 0, but is {settings.learning_rate}.")
    if settings.patience and not settings.valid_fraction:
        raise InputError("--patience needs validation ratings; set --valid-fraction above 0.")
    if settings.resume and settings.run_dir is None:
        raise InputError("--resume needs --run-dir, to know which run to go on with.")


def build_model(settings: Train, ratings: Ratings, title_positions: int | None = None) -> Fusion:
    """The network for a data set's tables."""
    return Fusion(
        table_rows={name: vocabulary.rows for name, vocabulary in ratings.vocabularies.items()},
        id_width=settings.id_width,
        tower_width=settings.tower_width,
        title_pooling=settings.title_pooling,
        title_positions=title_positions,
    )


def loss(
    model: Fusion, params: Any, batch: Batch, key: jax.Array, apply: Callable = nn.Module.apply
) -> tuple[jax.Array, jax.Array]:
    """Squared error on the source's scale, where the target is 2 * stars - 5."""
    score = apply(model, params, batch["user"], batch["film"])
    return squared_error(score, 2 * batch["rating"] - 5, batch["mask"])


def predict_batch(model: Fusion, params: Any, batch: Batch) -> jax.Array:
    """Stars, float32 [B]."""
    return (model.apply(params, batch["user"], batch["film"]) + 5) / 2


def predict_rows(model: Fusion, arrays: Any, user: jax.Array, film: jax.Array) -> jax.Array:
    """Stars for table rows int32 [B], from `arrays`: {"params", "tables"}; this is exported."""
    inputs = features(arrays["tables"], user, film)
    return (model.apply(arrays["params"], *inputs) + 5) / 2


def train_state(settings: Train, params: Any, key: jax.Array) -> TrainState:
    """The state before the first step."""
    if settings.tables == "dense":
        return init_state(params, optax.sgd(settings.learning_rate), key)
    return init_row_state(
        params, optax.sgd(settings.learning_rate), row_optimizers.sgd(settings.learning_rate), key
    )


def train_step(settings: Train, ratings: Ratings) -> Step:
    """The step, on padded titles only where it must be.

    Titles are padded to the longest (15 words on 1M) but have 3 on average: nearly every batch has
    under 4 a film in all, and then only these are convolved.
    """
    word_limit = 4 * settings.batch_size
    rate = settings.learning_rate

    def step_of(title_positions: int | None) -> Step:
        each = partial(loss, build_model(settings, ratings, title_positions))
        if settings.tables == "dense":
            return make_step(each, optax.sgd(rate))
        return make_row_step(each, optax.sgd(rate), row_optimizers.sgd(rate))

    def fits(batch: Batch) -> jax.Array:
        return batch["film"]["title_mask"].sum() <= word_limit

    return choose_step(fits, step_of(word_limit), step_of(None))


def record(settings: Train, ratings: Ratings, split: Split) -> dict[str, Any]:
    """What `settings.json` keeps, and a resumed run must agree with."""
    free = ("resume", "run_dir", "data_dir")  # may differ between a run and its continuation
    kept = {k: v for k, v in dataclasses.asdict(settings).items() if k not in free}
    parts = b"".join(part.tobytes() for part in (split.train, split.valid, split.test))
    source = dataclasses.asdict(ratings.source) | {"location": None}
    return kept | {"source": source, "split_sha256": hashlib.sha256(parts).hexdigest()}


def train(settings: Train) -> None:
    """Runs the experiment from data to export."""
    check(settings)
    console = Console()
    ratings = load_ratings(
        settings.dataset, settings.data_dir, settings.synthetic, settings.split_seed
    )
    split = split_ratings(
        ratings,
        settings.split,
        settings.split_seed,
        settings.test_fraction,
        settings.valid_fraction,
    )
    stamp = time.strftime("%Y%m%d-%H%M%S")
    run_dir = settings.run_dir or Path("runs") / f"fusion-{settings.dataset}-{stamp}"
    open_run_directory(run_dir, settings.resume, record(settings, ratings, split))
    show_ratings(ratings, split, console)

    tables = jax.tree.map(jnp.asarray, feature_tables(ratings))
    train_data, valid_data, test_data = (
        device_ratings(ratings, part, tables) for part in (split.train, split.valid, split.test)
    )
    model = build_model(settings, ratings)
    # Three keys: the state's own is donated with it, chunk by chunk.
    init_key, step_key, order_key = jax.random.split(jax.random.key(settings.seed), 3)
    count = len(split.train)
    first = gather_ratings(train_data, jnp.zeros(1, jnp.int32), jnp.ones(1, bool))
    params = jax.jit(model.init)(init_key, first["user"], first["film"])
    state = train_state(settings, params, step_key)
    template = jax.eval_shape(lambda: state)
    step = train_step(settings, ratings)
    errors = make_rating_errors(partial(predict_batch, model), gather_ratings)

    def evaluate(state: TrainState) -> dict[str, float]:
        test, valid = errors(state.params, test_data), errors(state.params, valid_data)
        # The cost is the source's: the squared error of 2 * stars.
        return {
            "test_cost": 4 * test["rmse"] ** 2,
            "test_rmse": test["rmse"],
            "test_mae": test["mae"],
            "valid_rmse": valid["rmse"],
        }

    schedule = Schedule(
        epochs=settings.epochs,
        steps_per_epoch=math.ceil(count / settings.batch_size),
        chunk_steps=settings.chunk_steps,
        checkpoint_steps=settings.checkpoint_steps,
        watch="valid_rmse" if len(split.valid) else None,
        patience=settings.patience,
    )
    last, best = Checkpoints(run_dir / "last", keep=2), Checkpoints(run_dir / "best", keep=1)
    progress = Progress()
    if settings.resume and last.latest_step() is not None:
        state, saved = last.restore(template)
        progress = Progress(**saved)
    first_step = int(state.step)
    log = MetricsLog(run_dir, first_step)
    with stop_on_signals() as should_stop:
        reports = fit(
            state,
            train_data,
            make_chunk(step, gather_ratings, count, settings.batch_size),
            lambda epoch: epoch_order(order_key, epoch, count, settings.batch_size),
            evaluate,
            schedule,
            last,
            best,
            progress,
            should_stop,
        )
        stopped = watch_training(reports, schedule, log, console, first_step)
    log.close()
    if stopped:
        console.print(
            f"Stopped at step {stopped.step}, saved; go on with --resume --run-dir {run_dir}."
        )
        sys.exit(130)

    chosen, saved = best.restore(template)
    arrays = {"params": chosen.params, "tables": tables}
    export_rating_model(
        run_dir / "export", partial(predict_rows, model), arrays, ratings, split.train
    )
    results = saved["metrics"] | {
        "best_epoch": saved["epoch"] - 1,
        "epochs": progress.epoch - 1,
        "examples_per_second": progress.examples / progress.seconds if progress.seconds else None,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(chosen.params)),
        "seed": settings.seed,
        "split": settings.split,
        "split_seed": settings.split_seed,
    }
    kept = dataclasses.asdict(settings) | {"source": dataclasses.asdict(ratings.source)}
    finish_rating_run(run_dir, "fusion", kept, environment(), results, ratings, split, console)


def predict(settings: Predict) -> None:
    """Prints the predicted stars."""
    model = load_rating_model(settings.run_dir / "export")
    predicted, notes = predict_stars(model, settings.user, settings.film)
    for note in notes:
        print(f"note: {note}")
    title = model.titles[model.films.encode(np.array([settings.film]))[0]]
    print(f"user {settings.user}, film {settings.film} {title!s}: {predicted:.2f} stars")


def recommend(settings: Recommend) -> None:
    """Prints the ranked films."""
    model = load_rating_model(settings.run_dir / "export")
    show_recommendations(model, settings.user, settings.count, settings.seen, Console())


def main(arguments: list[str] | None = None) -> None:
    """The command line; `arguments` are the process's own by default."""
    settings = parse_command((Train, Predict, Recommend), __doc__, arguments)
    {Train: train, Predict: predict, Recommend: recommend}[type(settings)](settings)


if __name__ == "__main__":
    run_command(main)
