"""User vectors of a fixed sample of users, to see whether a network tells users apart."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jrec.data.click_examples import Examples
from jrec.models.candidates import CandidateNetwork
from jrec.train.devices import alike

from .batches import make_window_gather, window_data
from .evaluation import take_examples

SAMPLED = 256


def make_sample_vectors(
    length: int,
    model: CandidateNetwork,
    data: dict[str, Any],
    held_out: Mapping[str, Examples],
) -> Callable[[Any], jax.Array]:
    """Returns a function from parameters to user vectors float [N, D] of up to 256 users, compiled once.

    A history is what comes before the user's first validation click; without validation, before the first
    test click.

    Args:
        length: clicks of a history. data: from `experiments.candidates.batches.device_clicks`.
        held_out: `valid` and `test`.
    """
    examples = held_out["valid"] if len(held_out["valid"]) else held_out["test"]
    first = np.unique(examples.user, return_index=True)[1]
    some = first[np.linspace(0, len(first) - 1, min(len(first), SAMPLED)).astype(int)]
    sample = window_data(data, take_examples(examples, some))
    gather = alike(make_window_gather(length))
    batch = gather(sample, np.arange(len(some), dtype=np.int32), np.ones(len(some), bool))
    vectors = alike(lambda params, batch: model.apply(params, batch, method="last_vectors"))
    return lambda params: vectors(params, batch)
