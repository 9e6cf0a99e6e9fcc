"""What reads a history from its oldest click on: the state at each position has seen no later one."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jrec.models.layers import Dropout
from jrec.models.matmul import Compute, dot_general_in, products


def running_mean(values_BLE: jax.Array, count_BL: jax.Array) -> jax.Array:
    """Mean of all values up to each position: float [B, L, E] -> [B, L, E]; 0 where none counts yet.

    Args:
        count_BL: bool, what counts; or int, of how many each value is already the sum (0: left out).
    """
    counted_BL1 = (count_BL > 0)[..., None]
    total_BLE = jnp.cumsum(jnp.where(counted_BL1, values_BLE, 0), 1)
    number_BL1 = jnp.cumsum(count_BL.astype(values_BLE.dtype), 1)[..., None]
    return total_BLE / jnp.maximum(number_BL1, 1)


def running_max(values_BLE: jax.Array, mask_BL: jax.Array) -> jax.Array:
    """Maximum of the counted values up to each position, of each of E: float [B, L, E] -> [B, L, E].

    0 where none counts yet.
    """
    lowest = jnp.finfo(values_BLE.dtype).min
    best_BLE = jax.lax.cummax(jnp.where(mask_BL[..., None], values_BLE, lowest), 1)
    return jnp.where(jnp.cumsum(mask_BL, 1)[..., None] > 0, best_BLE, 0)  # by the mask: a NaN shows


def whole_mean(values_BLE: jax.Array, count_BL: jax.Array) -> jax.Array:
    """`running_mean` at the last position, without the others: float [B, E]."""
    total_BE = jnp.where((count_BL > 0)[..., None], values_BLE, 0).sum(1)
    return total_BE / jnp.maximum(count_BL.sum(1), 1)[:, None]


class SelfAttention(nn.Module):
    """Causal self-attention blocks with normalisation before each part (SASRec, Kang and McAuley 2018).

    Order is told by a learned bias for each head and distance (Shaw et al. 2018, as T5 simplifies it),
    not by places counted from an end: so a history gives the same states wherever its window begins.

    Attributes:
        layers, heads: numbers. dropout: on attention weights and both parts' outputs.
        hidden: width of the second part, in widths of the input.
        axis_name: see `jrec.embeddings.batch_axis`. compute: see `jrec.models.matmul`.
    """

    layers: int
    heads: int
    dropout: float = 0.0
    hidden: int = 4
    axis_name: str | None = None
    compute: Compute = "float32"

    @nn.compact
    def __call__(self, x_BLE: jax.Array, mask_BL: jax.Array, train: bool = False) -> jax.Array:
        """float [B, L, E], bool [B, L] -> [B, L, E]."""
        length, width = x_BLE.shape[1:]
        dot_general = dot_general_in(self.compute)
        place_L = jnp.arange(length, dtype=jnp.int32)
        distance_LL = place_L[:, None] - place_L[None]
        sees_LL = distance_LL >= 0
        allowed = sees_LL[None, None] & mask_BL[:, None, None]
        # A position that may see nothing (padding) sees itself: its state means nothing, but is finite.
        allowed = allowed | (distance_LL == 0)[None, None]
        for k in range(self.layers):
            bias_HL = self.param(
                f"distance_{k}", nn.initializers.zeros, (self.heads, MAX_DISTANCE), jnp.float32
            )
            bias_HLL = bias_HL[:, jnp.clip(distance_LL, 0, MAX_DISTANCE - 1)]
            y = nn.LayerNorm(name=f"norm_{k}_attention")(x_BLE)
            heads = (self.heads, width // self.heads)
            query, key, value = (
                nn.DenseGeneral(heads, dot_general=dot_general, name=f"{name}_{k}")(y)
                for name in ("query", "key", "value")
            )
            score = products(query.transpose(0, 2, 1, 3), key.transpose(0, 2, 3, 1), self.compute)
            score = score / heads[1] ** 0.5 + bias_HLL[None]
            weight = jax.nn.softmax(jnp.where(allowed, score, -jnp.inf), -1)
            weight = Dropout(self.dropout, self.axis_name)(weight, deterministic=not train)
            y = products(weight, value.transpose(0, 2, 1, 3), self.compute).transpose(0, 2, 1, 3)
            y = nn.DenseGeneral(width, axis=(-2, -1), dot_general=dot_general, name=f"join_{k}")(y)
            x_BLE = x_BLE + Dropout(self.dropout, self.axis_name)(y, deterministic=not train)
            y = nn.LayerNorm(name=f"norm_{k}_hidden")(x_BLE)
            y = jax.nn.gelu(
                nn.Dense(self.hidden * width, dot_general=dot_general, name=f"hidden_{k}")(y)
            )
            y = nn.Dense(width, dot_general=dot_general, name=f"back_{k}")(y)
            x_BLE = x_BLE + Dropout(self.dropout, self.axis_name)(y, deterministic=not train)
        return nn.LayerNorm(name="norm_out")(x_BLE)


MAX_DISTANCE = 256
"""Distances from here on share one bias."""
