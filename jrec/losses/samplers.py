"""Noise distributions over table rows: every sampler draws `(ids, log_q)` and knows any id's log_q.

A sampler is a pytree of a few arrays and pure methods. Give it to a jitted function as an argument:
one that is closed over becomes a constant of the program, tables and all.

A key gives the draw for the whole batch, however many devices share it. Negatives [K] that all
examples share are drawn by each device alike, from the step's one key. Negatives of each example
[B, K] are drawn alike, too, for the whole batch, and each device keeps its own rows
(`jrec.embeddings.batch_axis.local_part`).
"""

import math
from dataclasses import dataclass, field
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jrec.data.vocabulary import FIRST

Draw = tuple[jax.Array, jax.Array]
"""ids int32 and log_q float32, of one shape; log_q is an id's log-probability at one draw."""

_ONE = 1 << 32
"""The probability mass of one slot of an alias table, in units of what a uint32 can tell apart."""


class Sampler(Protocol):
    """What a sampler does; draws are independent and with replacement."""

    def sample(self, key: jax.Array, shape: tuple[int, ...]) -> Draw:
        """Draws ids of a shape."""

    def log_q(self, ids: jax.Array) -> jax.Array:
        """float32 log-probability of each id, of the ids' shape; -inf for what is never drawn."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Uniform:
    """q(i) = 1 / (last - first + 1) for rows `first` to `last`, both drawn.

    Attributes:
        last: V - 1 for a table's items.
        first: 2 by default, as row 0 is padding and row 1 unknown.

    Raises ValueError for an empty range.
    """

    last: int = field(metadata={"static": True})
    first: int = field(default=FIRST, metadata={"static": True})

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.last:
            raise ValueError(f"There are no rows from {self.first} to {self.last}.")

    def sample(self, key: jax.Array, shape: tuple[int, ...]) -> Draw:
        ids = jax.random.randint(key, shape, self.first, self.last + 1, jnp.int32)
        return ids, self.log_q(ids)

    def log_q(self, ids: jax.Array) -> jax.Array:
        inside = (ids >= self.first) & (ids <= self.last)
        return jnp.where(inside, jnp.float32(-math.log(self.last - self.first + 1)), -jnp.inf)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Weighted:
    """Any probabilities, drawn by an alias table (Walker 1977); made by `weighted` and its kin.

    A slot v of V is drawn, and a 32-bit number: below `threshold_V[v]` the id is v, else
    `alias_V[v]`.

    Attributes:
        threshold_V: uint32. alias_V: int32. log_q_V: float32, of the very table.
    """

    threshold_V: jax.Array
    alias_V: jax.Array
    log_q_V: jax.Array

    def sample(self, key: jax.Array, shape: tuple[int, ...]) -> Draw:
        slot_key, bits_key = jax.random.split(key)
        slots = jax.random.randint(slot_key, shape, 0, len(self.alias_V), jnp.int32)
        bits = jax.random.bits(bits_key, shape, jnp.uint32)
        ids = jnp.where(bits < self.threshold_V[slots], slots, self.alias_V[slots])
        return ids, self.log_q_V[ids]

    def log_q(self, ids: jax.Array) -> jax.Array:
        return self.log_q_V.at[ids].get(
            mode="fill", fill_value=-jnp.inf, wrap_negative_indices=False
        )


def weighted(weight_V: np.ndarray) -> Weighted:
    """q(v) = weight_V[v] / sum of weight_V; what weighs 0 is never drawn, anything else may be.

    Args:
        weight_V: [V] of any number type, V < 2^31. Probabilities are rounded to 2^-32 / V (to no less
            for a weight above 0), and `log_q` is that of the rounded ones.

    Raises ValueError for weights that are negative, not finite, or all 0.
    """
    weight_V = np.asarray(weight_V, np.float64)
    if not (np.isfinite(weight_V).all() and (weight_V >= 0).all() and weight_V.any()):
        raise ValueError("Weights must be finite and 0 or more, and one of them more than 0.")
    threshold_V, alias_V, mass_V = alias_table(weight_V)
    with np.errstate(divide="ignore"):
        log_q_V = np.log(mass_V) - math.log(len(mass_V) * _ONE)
    return Weighted(
        jnp.asarray(threshold_V), jnp.asarray(alias_V), jnp.asarray(log_q_V, jnp.float32)
    )


def frequency(count_V: np.ndarray, power: float = 1.0, first: int = FIRST) -> Weighted:
    """q(v) proportional to count_V[v] ** power from row `first` on; a count of 0 is never drawn.

    A power of 0.75 is word2vec's (Mikolov et al. 2013), 1 the source's noise, 0 uniform over what
    occurs. Its `log_q` at power 1 is the in-batch softmax's, too, where counts are known.
    """
    count_V = np.asarray(count_V, np.float64)
    weight_V = np.power(count_V, power, where=count_V > 0, out=np.zeros(len(count_V)))
    weight_V[:first] = 0
    return weighted(weight_V)


def log_uniform(count_V: np.ndarray, first: int = FIRST) -> Weighted:
    """Zipf over ranks: q = log((r + 2) / (r + 1)) / log(R + 1) for the row of rank r = 0 to R - 1.

    Args:
        count_V: [V] numbers that rank rows from `first` on, the largest being 0; equals keep their
            order. R = V - first. Only the order counts, so rows of count 0 are drawn.
    """
    count_V = np.asarray(count_V)
    by_rank = first + np.argsort(-count_V[first:].astype(np.float64), kind="stable")
    weight_V = np.zeros(len(count_V))
    weight_V[by_rank] = np.log1p(1 / np.arange(1, len(by_rank) + 1))
    return weighted(weight_V)


def alias_table(weight_V: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An alias table in whole numbers, so that it is exact, and without a loop over rows.

    Light rows (below the mean) take what their slots lack from the first heavy row with anything to
    spare, in order; a heavy row that thereby becomes light takes from the next (the sweep of
    Hübschle-Schneider and Sanders 2019). Who takes from whom follows from cumulative sums.

    Returns:
        threshold_V uint32, alias_V int32, and mass_V int64: q(v) = mass_V[v] / (V * 2^32) exactly.
    """
    rows = len(weight_V)
    mean = (weight_V / weight_V.max()).mean()
    mass_V = np.rint(weight_V / weight_V.max() * (_ONE / mean)).astype(np.int64)
    mass_V = np.where(weight_V > 0, np.maximum(mass_V, 1), 0)
    mass_V[mass_V.argmax()] += rows * _ONE - mass_V.sum()

    light, heavy = np.flatnonzero(mass_V < _ONE), np.flatnonzero(mass_V >= _ONE)
    lacking = np.cumsum(_ONE - mass_V[light])
    spare = np.cumsum(mass_V[heavy] - _ONE)
    threshold_V, alias_V = mass_V.copy(), np.arange(rows)
    lacking_before = lacking - (_ONE - mass_V[light])
    alias_V[light] = heavy[np.searchsorted(spare, lacking_before)]
    # The light row that made a heavy one light; the last heavy rows stay whole: they are their own
    # alias, whatever the threshold.
    by = np.searchsorted(lacking, spare, side="right")
    emptied = np.flatnonzero(by < len(lacking))
    threshold_V[heavy[emptied]] = _ONE + spare[emptied] - lacking[by[emptied]]
    alias_V[heavy[emptied]] = heavy[emptied + 1]
    whole = alias_V == np.arange(rows)
    return np.where(whole, 0, threshold_V).astype(np.uint32), alias_V.astype(np.int32), mass_V
