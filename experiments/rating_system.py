"""Describes a preset of a rating experiment as its main runs it, and the unit that it trains in."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jrec.data.rating_scale import STARS, RatingScale
from jrec.data.ratings import Ratings, Source
from jrec.train.loop import ChunkReport, EpochReport, Stopped
from jrec.train.read_once import read_once
from jrec.train.step import Step, TrainState
from jrec.train.stream import Gather


@dataclass(frozen=True)
class System:
    """A preset, ready to train.

    Attributes:
        state: before the first step.
        step, gather: the train step, and what makes its batches out of `data`.
        data: what the step trains on, on the device.
        count: examples that `gather` chooses from: ratings, or items.
        batch_size: examples a step.
        predictor: params -> arrays that predict.
        predict: (arrays, user rows int32 [B], item rows [B]) -> stars [B]; pure, it is exported.
    """

    state: TrainState
    step: Step
    gather: Gather
    data: Any
    count: int
    batch_size: int
    predictor: Callable[[Any], Any]
    predict: Callable[[Any, jax.Array, jax.Array], jax.Array]


def in_standard_unit(
    source: Source, rating: np.ndarray, fit: Callable[[], RatingScale], run_dir: Path | None = None
) -> tuple[np.ndarray, RatingScale]:
    """The ratings [n] to train on, float32, and their scale; stars stay as they are.

    Args:
        fit: gives the scale from the training ratings. run_dir: see `read_once`.
    """
    if source.in_stars:
        return rating, STARS

    def convert() -> tuple[dict[str, float], np.ndarray]:
        scale = fit()
        return vars(scale), scale.standard(rating.astype(np.float64)).astype(np.float32)

    fields, standard = read_once(convert, run_dir)
    return standard, RatingScale(**fields)


def with_standard_unit(
    ratings: Ratings, fit: Callable[[], RatingScale], run_dir: Path | None = None
) -> tuple[Ratings, RatingScale]:
    """The same of a whole data set, its range included."""
    rating, scale = in_standard_unit(ratings.source, ratings.rating, fit, run_dir)
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


def costs_in_user_unit(
    reports: Iterable[ChunkReport | EpochReport | Stopped], scale: RatingScale
) -> Iterator[ChunkReport | EpochReport | Stopped]:
    """The reports of training with their losses, which are squares, in the user's unit."""
    for report in reports:
        if isinstance(report, Stopped):
            yield report
        else:
            yield dataclasses.replace(report, loss=report.loss * scale.unit**2)
