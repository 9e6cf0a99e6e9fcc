"""Held-out clicks of the candidate experiment, ranked against the whole catalogue."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jrec.data.click_examples import Examples
from jrec.data.clicks import Clicks
from jrec.data.ragged import Ragged, pad
from jrec.data.vocabulary import FIRST
from jrec.evaluate.next_item import make_next_item_evaluator
from jrec.evaluate.per_user import write_per_user
from jrec.models.candidates import CandidateNetwork
from jrec.train.click_batches import make_window_gather, window_data
from jrec.train.stream import Gather

KS = (10, 50, 100)


def evaluation_data(
    data: dict[str, Any], clicks: Clicks, examples: Examples, remove_seen: bool
) -> dict[str, Any]:
    """Held-out examples on the device, for `evaluation_gather`."""
    ready = window_data(data, examples)
    ready["user"] = jnp.asarray(examples.user)
    ready["recommendable"] = jnp.arange(clicks.vocabularies["item"].rows) >= FIRST
    if remove_seen:
        begin = clicks.offsets[examples.user]
        lengths = examples.end - begin
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        places = np.repeat(begin - offsets[:-1], lengths) + np.arange(offsets[-1])
        seen, mask = pad(Ragged(clicks.item[places], offsets))
        ready["seen"], ready["seen_mask"] = jnp.asarray(seen), jnp.asarray(mask)
    return ready


def evaluation_gather(length: int) -> Gather:
    """Batches as `jrec.evaluate.next_item` wants them."""
    window = make_window_gather(length)

    def gather(data: dict[str, Any], positions: jax.Array, mask: jax.Array) -> dict[str, Any]:
        batch = window(data, positions, mask)
        batch |= {"targets": batch["target"][:, None], "targets_mask": mask[:, None]}
        if "seen" in data:
            batch |= {"seen": data["seen"][positions], "seen_mask": data["seen_mask"][positions]}
        return batch

    return gather


def make_evaluate(
    length: int,
    model: CandidateNetwork,
    clicks: Clicks,
    data: dict[str, Any],
    examples: Examples,
    remove_seen: bool,
) -> Callable[[Any], tuple[dict[str, float], dict[str, np.ndarray]]]:
    """params -> (mean metrics, metrics by example); the examples are put on the device once.

    Args:
        length: clicks of a history. data: from `jrec.train.click_batches.device_clicks`.
    """
    evaluator = make_next_item_evaluator(
        lambda params, batch: model.apply(params, batch, method="last_vectors"),
        lambda params: model.apply(params, jnp.arange(model.item_rows), method="outputs"),
        evaluation_gather(length),
        KS,
    )
    ready = evaluation_data(data, clicks, examples, remove_seen)
    return lambda params: evaluator(params, ready)


def write_test(run_dir: Path, examples: Examples, by_example: dict[str, np.ndarray]) -> None:
    """`per_user.npz`: each user's metrics, the mean over the user's held-out clicks."""
    users, place = np.unique(examples.user, return_inverse=True)
    number = np.bincount(place)
    means = {name: np.bincount(place, values) / number for name, values in by_example.items()}
    write_per_user(run_dir, users, means)
