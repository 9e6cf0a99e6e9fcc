"""The deep autoencoder of DeepRecommender: ratings in, ratings of everything out, with re-feeding.

    python -m experiments.autoencoder train --dataset ml-1m --data-dir PATH --seed 0 --run-dir DIR
    python -m experiments.autoencoder train --preset netflix-3m --dataset netflix --data-dir OUT/3m --run-dir DIR
    python -m experiments.autoencoder recommend --run-dir DIR --user 1
    python -m experiments.autoencoder recommend --run-dir DIR --ratings my_ratings.txt

Times and scores, with their commands, stand in BUILD_NOTES.md. The folders of `--dataset netflix` are
written by `python -m jrec.data.netflix`.
"""

import dataclasses
import math
import sys
import time
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from experiments.autoencoder_presets import PRESETS, PresetName
from experiments.autoencoder_report import (
    finish_autoencoder_run,
    show_parts,
    write_predictions,
    write_whole_test,
)
from experiments.autoencoder_system import (
    FormName,
    OptimizerName,
    build_optimizer,
    build_step,
    make_predict,
    predict_pairs,
    rated_pays,
)
from experiments.hardware import Hardware, open_run, using
from jrec.centring import Centre, fit_centre
from jrec.command_line import parse_command
from jrec.data.own_csv import CsvRatings
from jrec.data.rating_parts import RatingParts, RatingRows, load_rating_parts, rating_parts
from jrec.data.ratings import Ratings
from jrec.data.sources import DATASETS, load_ratings
from jrec.data.splits import Split, SplitName, split_ratings
from jrec.data.synthetic import SyntheticSize
from jrec.errors import InputError, run_command
from jrec.evaluate.held_out import make_held_out_predictor, star_errors
from jrec.models.autoencoder import ACTIVATIONS, Autoencoder
from jrec.models.products import Compute
from jrec.profile_export import (
    export_profile_model,
    load_profile_model,
    profile_of_user,
    rank_items,
    read_profile,
)
from jrec.progress import watch_training
from jrec.report import MetricsLog, environment
from jrec.train.checkpoints import Checkpoints
from jrec.train.devices import (
    Devices,
    axis_of,
    make_chunk_on,
    on_one,
    replicated,
    split_order,
)
from jrec.train.loop import Progress, Schedule, fit, stop_on_signals
from jrec.train.processes import agreed, is_first
from jrec.train.refeeding import RefeedTarget
from jrec.train.step import TrainState, init_state
from jrec.train.stream import epoch_order
from jrec.train.user_batches import (
    columns_for_batches,
    device_rows,
    gather_users,
    slots_for_batches,
)


@dataclass
class Train:
    """Train, evaluate and export; the run directory explains itself."""

    preset: PresetName = "ml-1m"
    """Fills in what is left open: the source's settings for each data set, or the one found here."""
    dataset: Literal["netflix", *DATASETS] = "ml-100k"  # type: ignore[valid-type]
    """Which data set; `netflix` is a folder that `python -m jrec.data.netflix` wrote."""
    data_dir: Path | None = None
    """Folder or archive that holds it. Left out: the cache, else the network."""
    csv: CsvRatings = field(default_factory=CsvRatings)
    """Columns of `--dataset csv`, a file of your own that --data-dir names."""
    synthetic: SyntheticSize = field(default_factory=SyntheticSize)
    """Sizes of `--dataset synthetic`."""
    split: SplitName = "user-70-30"
    """How ratings are held out (see jrec.data.splits); converted Netflix folders have their own."""
    split_seed: int = 0
    """Seed of the split; the same for all training seeds, so that their scores compare."""
    test_fraction: float = 0.1
    """Share of the ratings that is test; `user-70-30` and the netflix splits have their own."""
    valid_fraction: float = 0.05
    """Share of the rest that is validation; again not in the splits that have their own."""
    hidden: tuple[int, ...] | None = None
    """Widths of the encoder's layers; the decoder mirrors them."""
    activation: Literal[tuple(ACTIVATIONS)] | None = None  # type: ignore[valid-type]
    """After every layer."""
    last_activation: bool | None = None
    """Also after the last layer (left out: yes, but not for sigmoid and tanh, which end at 1)."""
    tied: bool = False
    """Use the encoder's kernels, transposed, in the decoder ("constrained" in the source)."""
    dropout: float | None = None
    """Share of the code that is dropped in training."""
    input_noise: float | None = None
    """Share of the inputs that is dropped in training."""
    centre: bool | None = None
    """Predict what biases of items and users leave over, not the ratings themselves."""
    refeed: int | None = None
    """Steps on the model's own output after each ordinary step."""
    refeed_target: RefeedTarget = "output"
    """What a re-fed output should be: its input (the source's program), or the true ratings."""
    epochs: int | None = None
    """Passes over the users."""
    batch_size: int | None = None
    """Users a step."""
    learning_rate: float | None = None
    """Of the optimizer, at the start."""
    optimizer: OptimizerName | None = None
    """The update rule."""
    milestones: tuple[int, ...] | None = None
    """Epochs after which the rate is halved; with momentum alone, as in the source."""
    weight_decay: float | None = None
    """Added to the gradient, times the parameter (L2)."""
    form: FormName = "auto"
    """Compute the ordinary step for the items that a batch rated, densely, or as pays for this data."""
    compute: Compute = "float32"
    """Format of the factors of matrix products; all else is float32."""
    seed: int = 0
    """Of the initial parameters, the order of the users and dropout."""
    run_dir: Path | None = None
    """Where the run goes; by default runs/autoencoder-DATASET-TIME."""
    resume: bool = False
    """Go on with the run in --run-dir from its last checkpoint."""
    hardware: Annotated[Hardware, tyro.conf.arg(name="")] = field(default_factory=Hardware)
    """Devices and processes; free to change when a run goes on."""
    chunk_steps: int = 100
    """Steps between two looks of the host at the device."""
    checkpoint_steps: int = 0
    """Save a checkpoint also every so many steps; 0: after each epoch."""
    patience: int = 0
    """Stop after so many epochs without a better validation error; 0: never."""


@dataclass
class Recommend:
    """Rank all items for a user of the training data, or for a new one with the given ratings."""

    run_dir: Path
    """A finished run."""
    user: str | None = None
    """A user's id in the data set."""
    ratings: Path | None = None
    """A new user's ratings instead: a text file with `item rating` on each line."""
    count: int = 10
    """How many items to print."""
    seen: bool = False
    """Rank the items that the user has rated, too."""


def with_preset(settings: Train) -> Train:
    """The settings with what was left open filled in; raises InputError for what makes no sense."""
    preset = PRESETS[settings.preset]
    missing = {name: value for name, value in preset.items() if getattr(settings, name) is None}
    settings = dataclasses.replace(settings, **missing)
    if settings.last_activation is None:
        reaches = settings.activation not in ("sigmoid", "tanh")
        settings = dataclasses.replace(settings, last_activation=reaches)
    check(settings)
    return settings


def check(settings: Train) -> None:
    """Raises InputError for a setting that makes no sense."""
    at_least = {"epochs": 1, "batch_size": 1, "chunk_steps": 1, "refeed": 0}
    at_least |= {"checkpoint_steps": 0, "patience": 0, "seed": 0, "split_seed": 0}
    for name, lowest in at_least.items():
        value = getattr(settings, name)
        if not lowest <= value < 2**31:
            flag = name.replace("_", "-")
            raise InputError(f"--{flag} must be {lowest} or more (and below 2^31), but is {value}.")
    if not settings.hidden or not all(1 <= width < 2**20 for width in settings.hidden):
        raise InputError(f"--hidden must be widths of 1 or more, but is {settings.hidden}.")
    for name in ("dropout", "input_noise"):
        if not 0 <= getattr(settings, name) < 1:
            flag, value = name.replace("_", "-"), getattr(settings, name)
            raise InputError(f"--{flag} must be 0 or more and below 1, but is {value}.")
    if not 0 < settings.learning_rate < float(np.finfo(np.float32).max):
        raise InputError(f"--learning-rate must be above 0, but is {settings.learning_rate}.")
    if not 0 <= settings.weight_decay < 1:
        raise InputError(f"--weight-decay must lie in [0, 1), but is {settings.weight_decay}.")
    if any(epoch < 1 for epoch in settings.milestones):
        raise InputError(f"--milestones must be 1 or more, but are {settings.milestones}.")
    if settings.last_activation and settings.activation in ("sigmoid", "tanh"):
        raise InputError(
            f"--last-activation with {settings.activation} cannot reach a rating of 5; leave it out."
        )
    if settings.resume and settings.run_dir is None:
        raise InputError("--resume needs --run-dir, to know which run to go on with.")
    if settings.dataset == "netflix" and settings.data_dir is None:
        raise InputError(
            "--dataset netflix needs --data-dir, a folder that python -m jrec.data.netflix wrote."
        )


def load_parts(settings: Train) -> tuple[RatingParts, tuple[Ratings, Split] | None]:
    """The data set's train, validation and test ratings by user, and as they were before (not Netflix)."""
    if settings.dataset == "netflix":
        return load_rating_parts(settings.data_dir), None
    ratings = load_ratings(
        settings.dataset,
        settings.data_dir,
        settings.synthetic,
        settings.split_seed,
        settings.csv,
    )
    split = split_ratings(
        ratings,
        settings.split,
        settings.split_seed,
        settings.test_fraction,
        settings.valid_fraction,
    )
    return rating_parts(ratings, split), (ratings, split)


def record(settings: Train, parts: RatingParts) -> dict[str, Any]:
    """What `settings.json` keeps, and a resumed run must agree with."""
    # What may differ between a run and its continuation.
    free = ("resume", "run_dir", "data_dir", "hardware")
    kept = {k: v for k, v in dataclasses.asdict(settings).items() if k not in free}
    sizes = {part: len(getattr(parts, part)) for part in ("train", "valid", "test")}
    source = dataclasses.asdict(parts.source) | {"location": None}
    return kept | {"data_source": source, "sizes": sizes}


def centred(rows: RatingRows, centre: Centre, user: np.ndarray) -> RatingRows:
    """The same ratings as distances from the biases."""
    rest = (rows.rating - centre.of(rows, user)).astype(np.float32)
    return RatingRows(rows.offsets, rows.item, rest)


def train(settings: Train) -> None:
    """Runs the experiment on the devices that the settings name."""
    with using(settings.hardware, settings.run_dir) as devices:
        train_on(devices, settings)


def train_on(devices: Devices, settings: Train) -> None:
    """Runs the experiment from data to export."""
    settings = with_preset(settings)
    console = Console(quiet=not is_first())
    parts, whole = load_parts(settings)
    items, users = len(parts.items), len(parts.users)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    run_dir = settings.run_dir or Path("runs") / f"autoencoder-{settings.dataset}-{stamp}"
    if settings.last_activation and not settings.centre and parts.rating_range[0] < 0:
        raise InputError(
            f"Ratings from {parts.rating_range[0]:g} on are below what {settings.activation} gives; add "
            f"--centre True and --last-activation False."
        )
    open_run(run_dir, settings.resume, record(settings, parts))
    show_parts(parts, console)

    centre = Centre(0.0, np.zeros(items, np.float32), 0.0)
    user_bias, rows = np.zeros(users, np.float32), parts.train
    if settings.centre:
        centre = fit_centre(parts.train, items)
        user_bias = centre.user(parts.train)
        rows = centred(parts.train, centre, user_bias)
    data = replicated(device_rows(rows), devices)
    slots = slots_for_batches(np.asarray(rows.offsets), settings.batch_size)
    columns = columns_for_batches(rows, items, settings.batch_size)
    pays = rated_pays(items, columns, settings.refeed) and jax.default_backend() == "cpu"
    dense = settings.form == "dense" or (settings.form == "auto" and not pays)
    model = Autoencoder(
        items,
        settings.hidden,
        settings.activation,
        settings.last_activation,
        settings.tied,
        settings.dropout,
        settings.input_noise,
        axis_name=axis_of(devices),
        compute=settings.compute,
    )
    steps_per_epoch = math.ceil(users / settings.batch_size)
    optimizer = build_optimizer(
        settings.optimizer,
        settings.learning_rate,
        settings.milestones,
        settings.weight_decay,
        steps_per_epoch * (1 + settings.refeed),
    )
    step = build_step(
        model,
        optimizer,
        None if dense else (slots, columns),
        settings.refeed,
        settings.refeed_target,
    )
    init_key, step_key, order_key = jax.random.split(jax.random.key(settings.seed), 3)
    params = jax.jit(model.init)(init_key, jnp.zeros((1, items)))
    state = replicated(init_state(params, optimizer, step_key), devices)
    template = jax.eval_shape(lambda: state)

    predictors = {
        part: make_held_out_predictor(
            partial(predict_pairs, model), data, getattr(parts, part), devices=devices
        )
        for part in ("valid", "test")
    }

    def predicted(part: str, params: Any) -> np.ndarray:
        return predictors[part](params) + centre.of(getattr(parts, part), user_bias)

    def errors(part: str, stars: np.ndarray) -> dict[str, float]:
        measured = star_errors(stars, getattr(parts, part).rating)
        return {f"{part}_{name}": value for name, value in measured.items()}

    def evaluate(state: TrainState) -> dict[str, float]:
        return errors("valid", predicted("valid", state.params))

    schedule = Schedule(
        epochs=settings.epochs,
        steps_per_epoch=steps_per_epoch,
        chunk_steps=settings.chunk_steps,
        checkpoint_steps=settings.checkpoint_steps,
        watch="valid_rmse" if len(parts.valid) else None,
        patience=settings.patience,
    )
    last = Checkpoints(run_dir / "last", 2, devices)
    best = Checkpoints(run_dir / "best", 1, devices)
    progress = Progress()
    if settings.resume and last.latest_step() is not None:
        state, saved = last.restore(template)
        progress = Progress(**saved)
    first_step = int(state.step)
    started = time.perf_counter()

    def order(epoch: int) -> jax.Array:
        whole = epoch_order(order_key, epoch, users, settings.batch_size)
        return split_order(whole, settings.batch_size, devices)

    chunk = make_chunk_on(devices, step, gather_users, users, settings.batch_size)
    log = MetricsLog(run_dir, first_step, write=is_first())
    with closing(log), stop_on_signals() as should_stop:
        reports = fit(
            state,
            data,
            chunk,
            order,
            evaluate,
            schedule,
            last,
            best,
            progress,
            agreed(should_stop),
        )
        stopped = watch_training(reports, schedule, log, console, first_step)
    if stopped:
        console.print(
            f"Stopped at step {stopped.step}, saved; go on with --resume --run-dir {run_dir}."
        )
        sys.exit(130)

    seconds = time.perf_counter() - started
    chosen, saved = best.restore(template._replace(opt_state=()))
    test = predicted("test", chosen.params)
    if not is_first():
        return
    arrays = {
        "params": on_one(chosen.params),
        "mean": np.full(1, centre.mean, np.float32),
        "item": centre.item,
        "centred": np.full(1, settings.centre, np.float32),
    }
    export_profile_model(
        run_dir / "export", make_predict(model, centre.regularisation), arrays, parts
    )
    write_predictions(run_dir / "predictions.tsv", parts, parts.test, test)
    results = saved["metrics"] | errors("test", test)
    if whole is not None:
        results |= write_whole_test(run_dir, *whole, test)
    results |= {
        "best_epoch": saved["epoch"] - 1,
        "epochs": progress.epoch - 1,
        "seconds": seconds,
        "examples_per_second": _users_per_second(progress, len(parts.train) / users),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(chosen.params)),
        "form": "dense" if dense else "rated",
        "seed": settings.seed,
        "split": "netflix" if settings.dataset == "netflix" else settings.split,
        "split_seed": settings.split_seed,
    }
    kept = dataclasses.asdict(settings) | {"data_source": dataclasses.asdict(parts.source)}
    finish_autoencoder_run(run_dir, kept, environment(), results, parts, console)


def _users_per_second(progress: Progress, ratings_per_user: float) -> float | None:
    """An example is a user here; the loop counts ratings, which are what the loss counts."""
    if not progress.seconds:
        return None
    return progress.examples / progress.seconds / ratings_per_user


def recommend(settings: Recommend) -> None:
    """Prints the ranked items."""
    if (settings.user is None) == (settings.ratings is None):
        raise InputError("recommend needs either --user or --ratings; give one of them.")
    model = load_profile_model(settings.run_dir / "export")
    if settings.ratings is not None:
        profile, notes = read_profile(settings.ratings), []
    else:
        profile, notes = profile_of_user(model, settings.user)
    ranked, more = rank_items(model, profile, settings.count, settings.seen)
    for note in notes + more:
        print(f"note: {note}")
    table = Table("item", "title", "stars")
    for item, title, stars in ranked:
        table.add_row(str(item), title, f"{stars:.2f}")
    Console().print(table)


def main(arguments: list[str] | None = None) -> None:
    """The command line; `arguments` are the process's own by default."""
    settings = parse_command((Train, Recommend), __doc__, arguments)
    {Train: train, Recommend: recommend}[type(settings)](settings)


if __name__ == "__main__":
    run_command(main)
