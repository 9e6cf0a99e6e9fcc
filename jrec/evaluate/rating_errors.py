"""RMSE and MAE of predicted ratings, in stars, on the device in fixed-size batches; errors by user."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jrec.train.stream import Gather


def make_rating_errors(
    predict: Callable[[Any, Any], jax.Array], gather: Gather, batch_size: int = 4096
) -> Callable[[Any, Any], dict[str, float]]:
    """An evaluator, made once from a predict function.

    Args:
        predict: (params, batch) -> float32 [B], stars.
        gather: as in `jrec.train.stream.make_chunk`; the batch it makes has `rating` and `mask`.
        batch_size: B; the last batch is masked.

    Returns:
        A function (params, data) -> {"rmse", "mae"} in stars, over all of `data["rating"]` [n]. Sums
        are float32 over batches; without any rating both are NaN.
    """

    @jax.jit
    def sums(params: Any, data: Any) -> tuple[jax.Array, jax.Array]:
        count = data["rating"].shape[0]

        def add(total: tuple, start: jax.Array) -> tuple:
            positions = start + jnp.arange(batch_size)
            mask = positions < count
            batch = gather(data, jnp.where(mask, positions, 0), mask)
            error = jnp.where(mask, predict(params, batch) - batch["rating"], 0)
            return (total[0] + (error**2).sum(), total[1] + jnp.abs(error).sum()), None

        zero = jnp.zeros((), jnp.float32)
        return jax.lax.scan(add, (zero, zero), jnp.arange(0, count, batch_size))[0]

    def evaluate(params: Any, data: Any) -> dict[str, float]:
        count = data["rating"].shape[0]
        if count == 0:
            return {"rmse": float("nan"), "mae": float("nan")}
        squared, absolute = sums(params, data)
        return {"rmse": float(squared / count) ** 0.5, "mae": float(absolute / count)}

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
