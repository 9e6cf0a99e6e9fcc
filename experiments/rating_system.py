"""What a preset of a rating experiment gives its main, which runs all presets alike."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from jrec.train.step import Step, TrainState
from jrec.train.stream import Gather


@dataclass(frozen=True)
class System:
    """A preset, ready to train.

    Attributes:
        state: before the first step.
        step, gather: the train step, and what makes its batches out of `data`.
        data: what the step trains on, on the device.
        count: examples that `gather` chooses from: ratings, or films.
        batch_size: examples a step.
        predictor: params -> arrays that predict.
        predict: (arrays, user rows int32 [B], film rows [B]) -> stars [B]; pure, it is exported.
    """

    state: TrainState
    step: Step
    gather: Gather
    data: Any
    count: int
    batch_size: int
    predictor: Callable[[Any], Any]
    predict: Callable[[Any, jax.Array, jax.Array], jax.Array]
