"""The source presets of the embedding MLP experiment: the TensorFlow 2 notebook's network and optimizer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.rating_system import System
from jrec.data.ratings import Ratings
from jrec.data.splits import Split
from jrec.embeddings import optimizers as row_optimizers
from jrec.embeddings.row_step import init_row_state, make_row_step
from jrec.errors import InputError
from jrec.losses.ratings import squared_error
from jrec.models.embedding_mlp import EmbeddingMlp
from jrec.models.matmul import Compute
from jrec.train.chunk import mixed_order
from jrec.train.devices import device_axis, placed
from jrec.train.spread import rows_at
from jrec.train.step import Batch, Step, TrainState, init_state, make_step
from jrec.train.streams import DeviceStream


@dataclass(frozen=True)
class Source:
    """Settings of the source presets alone."""

    tables: Literal["dense", "rows"] = "dense"
    """Where momentum acts in a step: `dense`, on all of both tables, as in Keras 3 (so in `source`);
    `rows`, on the rows that the batch reads, as in the notebook's TensorFlow 2.0 (`source-20m`)."""
    width: int = 10
    """Of user and item vectors."""
    hidden: tuple[int, ...] = (1024,)
    """Widths of the ReLU layers, one or more."""
    momentum: float = 0.9
    """Of stochastic gradient descent."""
    compute: Compute = "float32"
    """Format of the factors of matrix products; all else is float32."""


def check_source(source: Source) -> None:
    """Raises InputError for a setting that makes no sense."""
    if not source.hidden:
        raise InputError("--hidden needs the width of at least one layer.")
    for name, values in (("width", (source.width,)), ("hidden", source.hidden)):
        for value in values:
            if not 1 <= value < 2**31:
                raise InputError(f"--{name} must be 1 or more, but is {value}.")
    if not 0 <= source.momentum < 1:
        raise InputError(f"--momentum must be from 0 to below 1, but is {source.momentum}.")


def mean_rating(ratings: Ratings, positions: np.ndarray) -> float:
    """Of the ratings at these positions; training ratings are centred on it."""
    return float(np.mean(ratings.rating[positions], dtype=np.float64))


def training_pairs(ratings: Ratings, positions: np.ndarray, mean: float) -> dict[str, Any]:
    """On the devices (see `placed`): `user`, `item` int32 [n], `target` float32 [n], stars less the mean."""

    def rows_of(rows: slice) -> dict[str, np.ndarray]:
        chosen = positions[rows]
        target = ratings.rating[chosen] - np.float32(mean)
        return {"user": ratings.user[chosen], "item": ratings.item[chosen], "target": target}

    return placed(rows_of, len(positions))


def gather_pairs(data: dict[str, Any], positions: jax.Array, mask: jax.Array) -> Batch:
    """A batch: `user`, `item` int32 [B], `target` float32 [B], `mask` bool [B]."""
    return rows_at(data, positions) | {"mask": mask}


def pair_stream(
    ratings: Ratings, positions: np.ndarray, mean: float, batch_size: int, key: jax.Array
) -> DeviceStream:
    """Returns the batches of the ratings at these positions."""
    data = training_pairs(ratings, positions, mean)
    return DeviceStream(data, gather_pairs, len(positions), batch_size, key, mixed_order)


def build_model(source: Source, ratings: Ratings) -> EmbeddingMlp:
    """The network for a data set's tables."""
    users, items = (ratings.vocabularies[name].rows for name in ("user", "item"))
    return EmbeddingMlp(users, items, source.width, source.hidden, compute=source.compute)


def loss(
    model: EmbeddingMlp,
    params: Any,
    batch: Batch,
    key: jax.Array,
    apply: Callable = nn.Module.apply,
) -> tuple[jax.Array, jax.Array]:
    """Squared error in stars."""
    centred = apply(model, params, batch["user"], batch["item"])
    return squared_error(centred, batch["target"], batch["mask"])


def train_state(source: Source, rate: float, params: Any, key: jax.Array) -> TrainState:
    """The state before the first step."""
    dense = optax.sgd(rate, source.momentum)
    if source.tables == "dense":
        return init_state(params, dense, key)
    return init_row_state(params, dense, row_optimizers.momentum(rate, source.momentum), key)


def train_step(
    source: Source, model: EmbeddingMlp, rate: float, axis_name: str | None = None
) -> Step:
    """Stochastic gradient descent with momentum.

    `dense` is Keras 3's `SGD`: velocity = momentum * velocity - rate * gradient, parameter + velocity,
    for every row. `rows` is the sparse update of TensorFlow's Keras up to 2.x: the rows that a batch
    does not read keep their velocity, and it does not move them (see `row_optimizers.momentum`).
    """
    dense = optax.sgd(rate, source.momentum)
    if source.tables == "dense":
        return make_step(partial(loss, model), dense, axis_name)
    rows = row_optimizers.momentum(rate, source.momentum)
    return make_row_step(partial(loss, model), dense, rows, axis_name)


def predict_rows(
    model: EmbeddingMlp,
    bounds: tuple[float, float] | None,
    arrays: Any,
    user: jax.Array,
    item: jax.Array,
) -> jax.Array:
    """Stars for table rows int32 [B], from `arrays`: {"params", "mean"}; clipped if bounds are given."""
    stars = arrays["mean"] + model.apply(arrays["params"], user, item)
    return stars if bounds is None else jnp.clip(stars, *bounds)


def source_system(
    source: Source,
    ratings: Ratings,
    split: Split,
    mean: float,
    batch_size: int,
    rate: float,
    clip: bool,
    keys: Sequence[jax.Array],
) -> System:
    """Returns everything that trains and predicts with these presets.

    Args:
        mean: of the training ratings. keys: of the initial parameters, the steps and the epochs' orders.
    """
    init_key, step_key, order_key = keys
    model = build_model(source, ratings)
    row = jnp.zeros(1, jnp.int32)
    params = jax.jit(model.init)(init_key, row, row)
    return System(
        state=train_state(source, rate, params, step_key),
        step=train_step(source, model, rate, device_axis()),
        stream=pair_stream(ratings, split.train, mean, batch_size, order_key),
        predictor=lambda params: {"params": params, "mean": jnp.float32(mean)},
        predict=partial(predict_rows, model, ratings.rating_range if clip else None),
    )
