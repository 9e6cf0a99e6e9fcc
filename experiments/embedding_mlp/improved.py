"""The improved preset of the embedding MLP experiment: a matrix factorisation beside the layers.

Several networks are trained side by side in one step, and their mean predicts. What was tried and
measured on the way here stands in BUILD_NOTES.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.rating_system import System
from jrec.data.ratings import Ratings
from jrec.data.splits import Split
from jrec.errors import InputError
from jrec.losses.ratings import squared_error
from jrec.models.embedding_mlp import EmbeddingMlp
from jrec.models.matmul import Compute
from jrec.train.devices import device_axis
from jrec.train.step import Batch, init_state, make_step

from .source import pair_stream


@dataclass(frozen=True)
class Improved:
    """Settings of the improved preset alone, chosen on a validation part of MovieLens-1M's training."""

    heads: int = 4
    """Networks trained side by side, from their own initial values; their mean predicts."""
    factors: int = 128
    """Width of the matrix factorisation's vectors."""
    width: int = 10
    """Of the vectors that go into the layers."""
    hidden: tuple[int, ...] = (256,)
    """Widths of the ReLU layers."""
    factor_decay: float = 0.6
    """Decoupled weight decay of the factors, times the learning rate at each step."""
    bias_decay: float = 0.06
    """The same of the biases of users and items."""
    vector_decay: float = 1.0
    """The same of the vectors that go into the layers."""
    layer_decay: float = 0.3
    """The same of the layers' weights."""
    compute: Compute = "float32"
    """Format of the factors of matrix products; all else is float32."""


def check_improved(improved: Improved) -> None:
    """Raises InputError for a setting that makes no sense."""
    if not improved.hidden:
        raise InputError("--improved.hidden needs the width of at least one layer.")
    sizes = {"heads": (improved.heads,), "factors": (improved.factors,)}
    sizes |= {"width": (improved.width,), "hidden": improved.hidden}
    for name, values in sizes.items():
        for value in values:
            if not 1 <= value < 2**31:
                raise InputError(f"--improved.{name} must be 1 or more, but is {value}.")
    for name in ("factor_decay", "bias_decay", "vector_decay", "layer_decay"):
        if not 0 <= getattr(improved, name) < np.inf:
            raise InputError(f"--improved.{name.replace('_', '-')} must be 0 or more.")


def improved_optimizer(
    improved: Improved, learning_rate: float, steps: int
) -> optax.GradientTransformation:
    """AdamW with a short linear warm-up and a cosine down to 0; each kind of table has its decay."""
    warmup = max(1, steps // 20)
    rate = optax.warmup_cosine_decay_schedule(0.0, learning_rate, warmup, max(steps, warmup + 1))
    decays = {
        "factors": improved.factor_decay,
        "biases": improved.bias_decay,
        "vectors": improved.vector_decay,
        "kernel": improved.layer_decay,
    }
    parts = [
        optax.add_decayed_weights(decay, partial(_is_kind, kind)) for kind, decay in decays.items()
    ]
    return optax.chain(optax.scale_by_adam(), *parts, optax.scale_by_learning_rate(rate))


def _is_kind(kind: str, params: Any) -> Any:
    """True for the leaves with a name that ends in `kind`, or that belong to such a module."""

    def matches(path: tuple, leaf: Any) -> bool:
        return any(str(part.key).endswith(kind) for part in path)

    return jax.tree_util.tree_map_with_path(matches, params)


def improved_loss(
    model: EmbeddingMlp, params: Any, batch: Batch, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The mean over the heads of their squared errors, in stars; `params` are stacked over heads."""

    def head_loss(params: Any) -> tuple[jax.Array, jax.Array]:
        centred = model.apply(params, batch["user"], batch["item"])
        return squared_error(centred, batch["target"], batch["mask"])

    sums_H, counts_H = jax.vmap(head_loss)(params)
    return sums_H.mean(), counts_H.mean()


def predict_mean(
    model: EmbeddingMlp,
    bounds: tuple[float, float],
    arrays: Any,
    user: jax.Array,
    item: jax.Array,
) -> jax.Array:
    """Stars for table rows int32 [B], from `arrays`: {"params" of all heads, "mean"}."""
    centred_HB = jax.vmap(model.apply, (0, None, None))(arrays["params"], user, item)
    return jnp.clip(arrays["mean"] + centred_HB.mean(0), *bounds)


def improved_system(
    improved: Improved,
    ratings: Ratings,
    split: Split,
    mean: float,
    batch_size: int,
    rate: float,
    epochs: int,
    keys: Sequence[jax.Array],
) -> System:
    """Returns everything that trains and predicts with this preset.

    Args:
        mean: of the training ratings. keys: of the initial parameters, the steps and the epochs' orders.
    """
    init_key, step_key, order_key = keys
    users, items = (ratings.vocabularies[name].rows for name in ("user", "item"))
    model = EmbeddingMlp(
        users, items, improved.width, improved.hidden, improved.factors, compute=improved.compute
    )
    row = jnp.zeros(1, jnp.int32)
    init = jax.jit(jax.vmap(lambda key: model.init(key, row, row)))
    steps = epochs * math.ceil(len(split.train) / batch_size)
    optimizer = improved_optimizer(improved, rate, steps)
    params = init(jax.random.split(init_key, improved.heads))
    return System(
        state=init_state(params, optimizer, step_key),
        step=make_step(partial(improved_loss, model), optimizer, device_axis()),
        stream=pair_stream(ratings, split.train, mean, batch_size, order_key),
        predictor=lambda params: {"params": params, "mean": jnp.float32(mean)},
        predict=partial(predict_mean, model, ratings.rating_range),
    )
