"""Held-out ratings of many users, predicted from the ratings that they gave before."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jrec.data.rating_parts import RatingRows
from jrec.train.user_batches import RatingList, device_rows, rating_list


def make_held_out_predictor(
    predict: Callable[[Any, RatingList, RatingList, int], jax.Array],
    given: dict[str, jax.Array],
    held_out: RatingRows,
    batch_size: int = 256,
) -> Callable[[Any], np.ndarray]:
    """A function params -> predictions float32 [n] of all held-out ratings, in their order.

    Args:
        predict: (params, given ratings, held-out ratings, B) -> float32 [P] for the latter's slots;
            their `rating` is 0 here, so that a prediction cannot read it.
        given: the same users' known ratings, from `jrec.train.user_batches.device_rows`.
        batch_size: B, users at a time; those without held-out ratings are left out.
    """
    lengths = np.diff(held_out.offsets)
    users = np.flatnonzero(lengths).astype(np.int32)
    blocks = [users[k : k + batch_size] for k in range(0, len(users), batch_size)]
    wanted = device_rows(held_out)
    wanted["rating"] = jnp.zeros_like(wanted["rating"])
    given_lengths = np.diff(np.asarray(given["offsets"]))
    slots_given, slots_wanted = (
        -(-max((int(counts[block].sum()) for block in blocks), default=1) // 1024) * 1024
        for counts in (given_lengths, lengths)
    )

    @jax.jit
    def predict_block(params: Any, given: Any, wanted: Any, user_B: Any, mask_B: Any) -> jax.Array:
        inputs, _ = rating_list(given, user_B, mask_B, slots_given)
        outputs, _ = rating_list(wanted, user_B, mask_B, slots_wanted)
        return predict(params, inputs, outputs, batch_size)

    def predict_all(params: Any) -> np.ndarray:
        waiting, parts = None, [np.zeros(0, np.float32)]
        for block in blocks:
            user_B = jnp.asarray(np.pad(block, (0, batch_size - len(block))))
            mask_B = jnp.arange(batch_size) < len(block)
            predicted = predict_block(params, given, wanted, user_B, mask_B)
            if waiting is not None:  # read a block late: the device goes on meanwhile
                parts.append(np.asarray(waiting[0])[: waiting[1]])
            waiting = predicted, int(lengths[block].sum())
        if waiting is not None:
            parts.append(np.asarray(waiting[0])[: waiting[1]])
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
