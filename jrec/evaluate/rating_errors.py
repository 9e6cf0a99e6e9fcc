"""RMSE and MAE of predicted ratings, in stars, on the device in fixed-size batches; errors by user."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jrec.train.chunk import Gather
from jrec.train.devices import over_devices


def make_rating_errors(
    predict: Callable[[Any, Any], jax.Array],
    gather: Gather,
    batch_size: int = 4096,
) -> Callable[[Any, Any], dict[str, float]]:
    """An evaluator, made once from a predict function.

    Args:
        predict: (params, batch) -> float32 [B], stars.
        gather: as in `jrec.train.chunk.make_chunk`; the batch it makes has `rating` and `mask`.
        batch_size: B; the last batch is masked.

    Returns:
        A function (params, data) -> {"rmse", "mae"} in stars, over all of `data["rating"]` [n]. A batch's
        sums are float32, those over batches float64; without any rating both are NaN.
    """

    def sums(arguments: tuple[Any, Any], starts: jax.Array) -> tuple[jax.Array, jax.Array]:
        params, data = arguments
        count = data["rating"].shape[0]

        def of_batch(start: jax.Array) -> tuple[jax.Array, jax.Array]:
            positions = start + jnp.arange(batch_size, dtype=jnp.int32)
            mask = positions < count
            batch = gather(data, jnp.where(mask, positions, 0), mask)
            error = jnp.where(mask, predict(params, batch) - batch["rating"], 0)
            return (error**2).sum(), jnp.abs(error).sum()

        return jax.lax.map(of_batch, starts)

    all_sums = over_devices(sums)

    def evaluate(params: Any, data: Any) -> dict[str, float]:
        count = data["rating"].shape[0]
        if count == 0:
            return {"rmse": float("nan"), "mae": float("nan")}
        found = all_sums((params, data), np.arange(0, count, batch_size))
        squared, absolute = (float(np.asarray(part).sum(dtype=np.float64)) for part in found)
        return {"rmse": (squared / count) ** 0.5, "mae": absolute / count}

    return evaluate


def errors_by_user(
    user: np.ndarray, predicted: np.ndarray, actual: np.ndarray
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Sums over each user's ratings, for paired tests in which the user is drawn, not the rating.

    The mean over users of the difference of two models' `squared_error` is that of their mean squared
    errors times the ratings a user has on average.

    Args:
        user, predicted, actual: [n], table rows and stars.

    Returns:
        Users [N], rising; `squared_error` and `absolute_error`, float64 [N] each.
    """
    users, place = np.unique(user, return_inverse=True)
    error = np.asarray(predicted, np.float64) - actual
    sums = {"squared_error": error**2, "absolute_error": np.abs(error)}
    return users, {name: np.bincount(place, values, len(users)) for name, values in sums.items()}
