"""Describes a preset of a rating experiment as its main runs it, and the unit that it trains in."""

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jrec.data.rating_scale import STARS, RatingScale
from jrec.data.ratings import Ratings, Source
from jrec.data.splits import Split
from jrec.evaluate.rating_errors import make_rating_errors
from jrec.train.devices import replicated
from jrec.train.flags import kept_settings
from jrec.train.read_once import read_once
from jrec.train.step import Batch, Step, TrainState
from jrec.train.streams import DeviceStream


@dataclass(frozen=True)
class System:
    """A preset, ready to train.

    Attributes:
        state: before the first step.
        step: the train step. stream: its batches.
        predictor: params -> arrays that predict.
        predict: (arrays, user rows int32 [B], item rows [B]) -> stars [B]; pure, it is exported.
    """

    state: TrainState
    step: Step
    stream: DeviceStream
    predictor: Callable[[Any], Any]
    predict: Callable[[Any, jax.Array, jax.Array], jax.Array]


def in_standard_unit(
    source: Source, rating: np.ndarray, fit: Callable[[], RatingScale]
) -> tuple[np.ndarray, RatingScale]:
    """The ratings [n] to train on, float32, and their scale; stars stay as they are.

    Args:
        fit: gives the scale from the training ratings.
    """
    if source.in_stars:
        return rating, STARS

    def convert() -> tuple[dict[str, float], np.ndarray]:
        scale = fit()
        return vars(scale), scale.standard(rating.astype(np.float64)).astype(np.float32)

    fields, standard = read_once(convert)
    return standard, RatingScale(**fields)


def with_standard_unit(
    ratings: Ratings, fit: Callable[[], RatingScale]
) -> tuple[Ratings, RatingScale]:
    """The same of a whole data set, its range included."""
    rating, scale = in_standard_unit(ratings.source, ratings.rating, fit)
    low, high = (scale.standard(end) for end in ratings.rating_range)
    return dataclasses.replace(ratings, rating=rating, rating_range=(low, high)), scale


def in_user_unit(system: System, scale: RatingScale, bounds: tuple[float, float] | None) -> System:
    """The system with predictions in the user's unit, clipped there too where bounds are given."""
    if scale == STARS:
        return system

    def predict(arrays: Any, user: jax.Array, item: jax.Array) -> jax.Array:
        rating = scale.user(system.predict(arrays, user, item))
        # A clipped prediction may have left the range again by rounding.
        return rating if bounds is None else jnp.clip(rating, *bounds)

    return dataclasses.replace(system, predict=predict)


def make_part_errors(
    system: System, ratings: Ratings, parts: dict[str, np.ndarray]
) -> Callable[[TrainState], dict[str, dict[str, float]]]:
    """Returns a function state -> {"rmse", "mae"} in stars of each part, int positions [n] of ratings."""

    def gather(data: Any, positions: jax.Array, mask: jax.Array) -> Batch:
        return {name: data[name][positions] for name in ("user", "item", "rating")}

    def predict(arrays: Any, batch: Batch) -> jax.Array:
        return system.predict(arrays, batch["user"], batch["item"])

    errors = make_rating_errors(predict, gather)
    # Each device evaluates whole batches, so all parts lie on all of them.
    columns = {name: getattr(ratings, name) for name in ("user", "item", "rating")}
    data = {
        part: replicated({name: jnp.asarray(column[rows]) for name, column in columns.items()})
        for part, rows in parts.items()
    }

    def of_state(state: TrainState) -> dict[str, dict[str, float]]:
        arrays = system.predictor(state.params)
        return {part: errors(arrays, found) for part, found in data.items()}

    return of_state


def record(settings: Any, ratings: Ratings, split: Split) -> dict[str, Any]:
    """Returns what `settings.json` keeps, and a resumed run must agree with."""
    parts = b"".join(part.tobytes() for part in (split.train, split.valid, split.test))
    return kept_settings(settings) | {
        "data_source": dataclasses.asdict(ratings.source) | {"location": None},
        "split_sha256": hashlib.sha256(parts).hexdigest(),
        "unit": "stars" if ratings.source.in_stars else "standard",
    }
