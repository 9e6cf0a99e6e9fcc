"""Held-out ratings of many users, predicted from the ratings that they gave before."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jrec.data.rating_parts import RatingRows
from jrec.train.devices import current_devices, over_devices, replicated

from .batches import RatingList, device_rows, rating_list


def make_held_out_predictor(
    predict: Callable[[Any, RatingList, RatingList, int], jax.Array],
    given: dict[str, Any],
    held_out: RatingRows,
    batch_size: int = 256,
) -> Callable[[Any], np.ndarray]:
    """A function params -> predictions float32 [n] of all held-out ratings, in their order.

    Args:
        predict: (params, given ratings, held-out ratings, B) -> float32 [P] for the latter's slots;
            their `rating` is 0 here, so that a prediction cannot read it.
        given: the same users' known ratings, from `experiments.autoencoder.batches.device_rows`.
        batch_size: B, users at a time; those without held-out ratings are left out.

    """
    lengths = np.diff(held_out.offsets)
    users = np.flatnonzero(lengths).astype(np.int32)
    blocks = [users[k : k + batch_size] for k in range(0, len(users), batch_size)]
    wanted = device_rows(held_out)
    wanted["rating"] = jax.tree.map(jnp.zeros_like, wanted["rating"])
    wanted = replicated(wanted)  # once, not at every block
    given_lengths = np.diff(np.asarray(given["offsets"]))
    slots_given, slots_wanted = (
        max((int(counts[block].sum()) for block in blocks), default=1)
        for counts in (given_lengths, lengths)
    )

    def predict_blocks(arguments: tuple[Any, Any, Any], users: tuple) -> jax.Array:
        params, given, wanted = arguments

        def one(user: tuple) -> jax.Array:
            inputs, _ = rating_list(given, *user, slots_given)
            outputs, _ = rating_list(wanted, *user, slots_wanted)
            return predict(params, inputs, outputs, batch_size)

        return jax.lax.map(one, users)

    shared, many = over_devices(predict_blocks), max(len(current_devices()), 1)

    def read(waiting: tuple) -> list[np.ndarray]:
        rows = zip(np.asarray(waiting[0]), waiting[1], strict=False)
        return [row[: lengths[block].sum()] for row, block in rows]

    def predict_all(params: Any) -> np.ndarray:
        waiting, parts = None, [np.zeros(0, np.float32)]
        for k in range(0, len(blocks), many):
            some = blocks[k : k + many]
            filled = some + [users[:0]] * (many - len(some))  # one shape, one compilation
            user = np.stack([np.pad(block, (0, batch_size - len(block))) for block in filled])
            mask = np.stack([np.arange(batch_size) < len(block) for block in filled])
            predicted = shared((params, given, wanted), (user, mask))
            if waiting is not None:  # read a block late: the device goes on meanwhile
                parts += read(waiting)
            waiting = predicted, some
        if waiting is not None:
            parts += read(waiting)
        return np.concatenate(parts)

    return predict_all


def star_errors(predicted: np.ndarray, actual: np.ndarray) -> dict[str, float]:
    """`rmse`, `rmse_rounded` (predictions rounded to whole stars first) and `mae`; NaN without any.

    Args:
        predicted, actual: [n], stars; sums are float64.
    """
    if len(actual) == 0:
        return dict.fromkeys(("rmse", "rmse_rounded", "mae"), float("nan"))
    actual = actual.astype(np.float64)
    error, rounded = predicted - actual, np.rint(predicted) - actual
    return {
        "rmse": float(np.sqrt(np.mean(error**2))),
        "rmse_rounded": float(np.sqrt(np.mean(rounded**2))),
        "mae": float(np.mean(np.abs(error))),
    }
