"""The convolution of a batch's title words laid one after the other, without padding: fusion's steps 1.4 times as fast."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jrec.embeddings.table import Embed


def packed_convolution(
    embed: Embed,
    filters: nn.Dense,
    window: int,
    pooling: str,
    positions: int,
    ids_BL: jax.Array,
    mask_BL: jax.Array,
) -> jax.Array:
    """As `jrec.models.sequence_convolution.padded_convolution` where at most so many positions count, in prefixes."""
    batch, length = ids_BL.shape
    count_B = mask_BL.sum(1)
    end_B = jnp.cumsum(count_B)
    slot_P = jnp.arange(positions, dtype=jnp.int32)
    row_P = jnp.searchsorted(end_B, slot_P, side="right")  # B beyond the last counted position
    inside_P = jnp.minimum(row_P, batch - 1)
    place_P = slot_P - (end_B - count_B)[inside_P]
    counted_P = row_P < batch
    ids_P = ids_BL[inside_P, jnp.minimum(place_P, length - 1)]
    words_PD = embed(ids_P, counted_P)
    before = window // 2
    wide = jnp.pad(words_PD, ((before, window - 1 - before), (0, 0)))
    taps = []
    for k in range(window):
        neighbour_P = place_P + k - before
        within_P = (neighbour_P >= 0) & (neighbour_P < count_B[inside_P])
        taps.append(jnp.where(within_P[:, None], wide[k : k + positions], 0))
    hidden_PF = jnp.tanh(filters(jnp.concatenate(taps, -1)))
    if pooling == "sum":
        hidden_PF = jnp.where(counted_P[:, None], hidden_PF, 0)
        return jax.ops.segment_sum(hidden_PF, row_P, batch, indices_are_sorted=True)
    best_BF = jax.ops.segment_max(hidden_PF, row_P, batch, indices_are_sorted=True)
    return jnp.where(count_B[:, None] > 0, best_BF, 0)
