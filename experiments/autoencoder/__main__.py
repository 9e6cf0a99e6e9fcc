"""The deep autoencoder of DeepRecommender: ratings in, ratings of everything out, with re-feeding.

    python -m experiments.autoencoder train --dataset ml-1m --data-dir PATH --seed 0 --run-dir DIR
    python -m experiments.autoencoder train --preset netflix-3m --dataset netflix --data-dir OUT/3m --run-dir DIR
    python -m experiments.autoencoder recommend --run-dir DIR --user 1
    python -m experiments.autoencoder recommend --run-dir DIR --ratings my_ratings.txt

Scores, times and sources stand in this folder's README.md. The folders of `--dataset netflix` are
written by `python -m jrec.data.netflix`.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.table import Column, Table

from experiments.rating_system import in_standard_unit
from jrec.command_line import parse_command
from jrec.console import plain_console
from jrec.data.rating_parts import RatingParts, RatingRows
from jrec.data.rating_scale import RatingScale, scale_of_ratings
from jrec.errors import InputError, run_command
from jrec.models.autoencoder import Autoencoder
from jrec.serving.profiles import (
    export_profile_model,
    held_out_of_user,
    load_profile_model,
    profile_of_user,
    rank_items,
    read_profile,
)
from jrec.train.devices import device_axis
from jrec.train.flags import kept_settings
from jrec.train.loop import Plan
from jrec.train.read_once import read_once
from jrec.train.run import run, running
from jrec.train.step import TrainState, init_state
from jrec.train.streams import DeviceStream

from .batches import (
    Room,
    device_rows,
    gather_users,
    room_for_batches,
)
from .centring import Centre, fit_centre
from .held_out import make_held_out_predictor, star_errors
from .report import (
    finish_autoencoder_run,
    show_parts,
    write_predictions,
    write_whole_test,
)
from .settings import PRESETS, Train, check, load_parts
from .system import (
    build_optimizer,
    build_step,
    make_predict,
    parts_pay,
    predict_pairs,
)


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


def record(settings: Train, parts: RatingParts) -> dict[str, Any]:
    """Returns what `settings.json` keeps, and a resumed run must agree with."""
    return kept_settings(settings) | {
        "data_source": dataclasses.asdict(parts.source) | {"location": None},
        "sizes": {part: len(getattr(parts, part)) for part in ("train", "valid", "test")},
        "unit": "stars" if parts.source.in_stars else "standard",
    }


def centred(train: RatingRows, items: int) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """The fields of the training ratings' `Centre`, its user biases, and the ratings as distances from both."""
    centre = fit_centre(train, items)
    user_bias = centre.user(train)
    rest = (train.rating - centre.of(train, user_bias)).astype(np.float32)
    return vars(centre), user_bias, rest


def train(settings: Train) -> None:
    """Loads, plans, trains, exports and reports."""
    check(settings)
    with running(settings.run, f"autoencoder-{settings.data.dataset}") as (folder, console):
        parts, whole = load_parts(settings.data)
        rows, scale = training_rows(settings, parts)
        show_parts(parts, console)
        centre, user_bias, rows = centred_rows(settings, parts, rows)
        data, model = device_rows(rows), build_model(settings, len(parts.items))
        room, dense = form_of(settings, rows, len(parts.items))
        predicted = make_predicted(model, data, parts, scale, centre, user_bias)

        def evaluate(state: TrainState) -> dict[str, float]:
            return errors(parts, "valid", predicted("valid", state.params))

        keys = jax.random.split(jax.random.key(settings.run.seed), 3)
        users, size = len(parts.users), settings.batch_size
        stream = DeviceStream(data, gather_users, users, size, keys[2])
        optimizer = build_optimizer(
            settings.optimizer,
            settings.learning_rate,
            settings.milestones,
            settings.weight_decay,
            stream.steps * (1 + settings.refeed),
        )
        params = jax.jit(model.init)(keys[0], jnp.zeros((1, len(parts.items)), jnp.float32))
        plan = Plan(
            init_state(params, optimizer, keys[1]),
            build_step(
                model, optimizer, None if dense else room, settings.refeed, settings.refeed_target
            ),
            stream,
            evaluate,
            watch="valid_rmse" if len(parts.valid) else None,
            cost_scale=scale.unit**2,
        )
        trained = run(plan, settings.run, folder, record(settings, parts))
        test = predicted("test", trained.params)
        if not trained.writes:
            return
        arrays = {
            "params": trained.params,
            "mean": np.full(1, centre.mean, np.float32),
            "item": centre.item,
            "centred": np.full(1, settings.centre, np.float32),
        }
        program = make_predict(model, centre.regularisation, scale)
        export_profile_model(folder / "export", program, arrays, parts)
        write_predictions(folder / "predictions.tsv", parts, parts.test, test)
        results = trained.results | errors(parts, "test", test)
        if whole is not None:
            results |= write_whole_test(folder, *whole, test)
        # An example is a user here; the loop counts ratings, which are what the loss counts.
        pace, each = results["examples_per_second"], len(parts.train) / users
        results["examples_per_second"] = pace and pace / each
        results |= {
            "form": "dense" if dense else "rated",
            "split": "netflix" if settings.data.dataset == "netflix" else settings.data.split,
            "split_seed": settings.data.split_seed,
        }
        finish_autoencoder_run(folder, settings, results, parts, console)


def training_rows(settings: Train, parts: RatingParts) -> tuple[RatingRows, RatingScale]:
    """Returns the training ratings in the unit that is trained in, and its scale.

    Raises InputError where nothing can be measured, or the last activation cannot reach the ratings.
    """
    if not len(parts.test):
        raise InputError(
            f"No test rating of {parts.name} is of a user and an item that training has, so nothing can be "
            f"measured; use another split or more data."
        )
    known = parts.train.rating
    standard, scale = in_standard_unit(parts.source, known, lambda: scale_of_ratings(known))
    if settings.last_activation and not settings.centre and standard.min() < 0:
        raise InputError(
            f"Ratings below {scale.user(0.0):g} are out of reach of {settings.activation} after the last layer; "
            f"add --centre --no-last-activation."
        )
    return RatingRows(parts.train.offsets, parts.train.item, standard), scale


def centred_rows(
    settings: Train, parts: RatingParts, rows: RatingRows
) -> tuple[Centre, np.ndarray, RatingRows]:
    """Returns what ratings are centred on, the users' biases, and what the network is trained on."""
    items, users = len(parts.items), len(parts.users)
    if not settings.centre:
        centre = Centre(0.0, np.zeros(items, np.float32), 0.0)
        return centre, np.zeros(users, np.float32), rows
    fields, user_bias, rest = read_once(lambda: centred(rows, items))
    return Centre(**fields), user_bias, RatingRows(rows.offsets, rows.item, rest)


def build_model(settings: Train, items: int) -> Autoencoder:
    """Returns the network for a number of items."""
    return Autoencoder(
        items,
        settings.hidden,
        settings.activation,
        settings.last_activation,
        settings.tied,
        settings.dropout,
        settings.input_noise,
        axis_name=device_axis(),
        compute=settings.compute,
    )


def form_of(settings: Train, rows: RatingRows, items: int) -> tuple[Room, bool]:
    """Returns the room that batches need, and whether the ordinary step is computed densely."""
    room = room_for_batches(rows, items, settings.batch_size)
    pays = parts_pay(items, settings.batch_size, room) and jax.default_backend() == "cpu"
    return room, settings.form == "dense" or (settings.form == "auto" and not pays)


def make_predicted(
    model: Autoencoder,
    data: dict[str, Any],
    parts: RatingParts,
    scale: RatingScale,
    centre: Centre,
    user_bias: np.ndarray,
) -> Callable[[str, Any], np.ndarray]:
    """Returns a function (`valid` or `test`, params) -> that part's predicted ratings, in the user's unit."""
    predictors = {
        part: make_held_out_predictor(partial(predict_pairs, model), data, getattr(parts, part))
        for part in ("valid", "test")
    }

    def predicted(part: str, params: Any) -> np.ndarray:
        return scale.user(predictors[part](params) + centre.of(getattr(parts, part), user_bias))

    return predicted


def errors(parts: RatingParts, part: str, predicted: np.ndarray) -> dict[str, float]:
    """Returns a part's errors under names that begin with the part's."""
    measured = star_errors(predicted, getattr(parts, part).rating)
    return {f"{part}_{name}": value for name, value in measured.items()}


def recommend(settings: Recommend) -> None:
    """Prints the ranked items."""
    if (settings.user is None) == (settings.ratings is None):
        raise InputError("recommend needs either --user or --ratings; give one of them.")
    model = load_profile_model(settings.run_dir / "export")
    if settings.ratings is not None:
        profile, notes, held = read_profile(settings.ratings), [], []
    else:
        profile, notes = profile_of_user(model, settings.user)
        held = held_out_of_user(model, settings.user)
    ranked, more = rank_items(model, profile, settings.count, settings.seen, held)
    for note in notes + more:
        print(f"note: {note}")
    if not ranked:
        return
    table = Table(Column("item", overflow="fold"), "title", "stars")
    for item, title, stars in ranked:
        table.add_row(str(item), title, f"{stars:.2f}")
    plain_console().print(table)


COMMANDS = {Train: train, Recommend: recommend}


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line; `arguments` are the process's own by default."""
    settings = parse_command(list(COMMANDS), __doc__, arguments, PRESETS)
    COMMANDS[type(settings)](settings)


if __name__ == "__main__":
    run_command(main)
