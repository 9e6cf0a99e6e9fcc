"""The source preset of the fusion experiment: the Paddle book's network, one rating an example."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from experiments.rating_system import System
from jrec.data.ratings import Ratings
from jrec.data.splits import Split
from jrec.embeddings import optimizers as row_optimizers
from jrec.embeddings.row_step import init_row_state, make_row_step
from jrec.errors import InputError
from jrec.losses.ratings import squared_error
from jrec.models.fusion import Fusion
from jrec.models.matmul import Compute
from jrec.train.devices import device_axis, first_batch
from jrec.train.rating_batches import device_ratings, feature_tables, features, gather_ratings
from jrec.train.step import Batch, Step, TrainState, choose_step, init_state, make_step
from jrec.train.streams import DeviceStream

_WORDS = 4


@dataclass(frozen=True)
class Source:
    """Settings of the source preset alone."""

    tables: Literal["dense", "rows"] = "dense"
    """How embedding tables are updated: as a whole, or only the rows that a batch reads."""
    title_pooling: Literal["sum", "max"] = "sum"
    """Over a title's convolved words: the source's program sums, its text takes the maximum."""
    id_width: int = 32
    """Width of user and item id vectors."""
    tower_width: int = 200
    """Width of both towers' last layer."""
    compute: Compute = "float32"
    """Format of the factors of matrix products; all else is float32."""


def check_source(source: Source) -> None:
    """Raises InputError for a setting that makes no sense."""
    for name in ("id_width", "tower_width"):
        value = getattr(source, name)
        if not 1 <= value < 2**31:
            raise InputError(f"--{name.replace('_', '-')} must be 1 or more, but is {value}.")


def build_model(source: Source, ratings: Ratings) -> Fusion:
    """The network for a data set's tables."""
    return Fusion(
        table_rows={name: vocabulary.rows for name, vocabulary in ratings.vocabularies.items()},
        id_width=source.id_width,
        tower_width=source.tower_width,
        title_pooling=source.title_pooling,
        compute=source.compute,
    )


def loss(
    model: Fusion,
    params: Any,
    batch: Batch,
    key: jax.Array,
    apply: Callable = nn.Module.apply,
    words: int | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Squared error on the source's scale, where the target is 2 * stars - 5.

    Args:
        words: the batch's titles have at most so many an item, all in all; None for any number.
    """
    if words is not None:
        model = model.clone(title_positions=words * len(batch["rating"]))
    score = apply(model, params, batch["user"], batch["item"])
    return squared_error(score, 2 * batch["rating"] - 5, batch["mask"])


def predict_rows(model: Fusion, arrays: Any, user: jax.Array, item: jax.Array) -> jax.Array:
    """Stars for table rows int32 [B], from `arrays`: {"params", "tables"}."""
    return (model.apply(arrays["params"], *features(arrays["tables"], user, item)) + 5) / 2


def train_state(source: Source, rate: float, params: Any, key: jax.Array) -> TrainState:
    """The state before the first step."""
    if source.tables == "dense":
        return init_state(params, optax.sgd(rate), key)
    return init_row_state(params, optax.sgd(rate), row_optimizers.sgd(rate), key)


def train_step(source: Source, ratings: Ratings, rate: float, axis_name: str | None = None) -> Step:
    """The step, on padded titles only where it must be.

    Titles are padded to the longest (15 words on 1M) but have 3 on average: nearly every batch has
    under 4 an item in all, and then only these are convolved.
    """
    model = build_model(source, ratings)

    def step_of(words: int | None) -> Step:
        each = partial(loss, model, words=words)
        if source.tables == "dense":
            return make_step(each, optax.sgd(rate), axis_name)
        return make_row_step(each, optax.sgd(rate), row_optimizers.sgd(rate), axis_name)

    def fits(batch: Batch) -> jax.Array:
        return batch["item"]["title_mask"].sum() <= _WORDS * len(batch["rating"])

    return choose_step(fits, step_of(_WORDS), step_of(None), axis_name)


def source_system(
    source: Source,
    ratings: Ratings,
    split: Split,
    batch_size: int,
    rate: float,
    keys: Sequence[jax.Array],
) -> System:
    """Returns everything that trains and predicts with this preset.

    Args:
        batch_size: ratings a step. keys: of the initial parameters, the steps and the epochs' orders.
    """
    init_key, step_key, order_key = keys
    tables = jax.tree.map(jnp.asarray, feature_tables(ratings))
    data = device_ratings(ratings, split.train, tables)
    model = build_model(source, ratings)
    first = first_batch(gather_ratings, data)
    params = jax.jit(model.init)(init_key, first["user"], first["item"])
    return System(
        state=train_state(source, rate, params, step_key),
        step=train_step(source, ratings, rate, device_axis()),
        stream=DeviceStream(data, gather_ratings, len(split.train), batch_size, order_key),
        predictor=lambda params: {"params": params, "tables": tables},
        predict=partial(predict_rows, model),
    )
