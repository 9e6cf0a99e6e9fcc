"""The largest numbers of each row without a sort, for processors whose `lax.top_k` is slow."""

import jax
import jax.numpy as jnp


def largest_places(value_BN: jax.Array, C: int) -> tuple[jax.Array, jax.Array]:
    """Places of the C largest of each row, by halving an interval of thresholds.

    Returns: int32 [B, C], rising, N at the end where equals leave fewer than C above a threshold;
    float32 [B], that no other value is above.
    """
    B, N = value_BN.shape
    bits_BN = _ordered_bits(jax.lax.bitcast_convert_type(value_BN, jnp.int32))

    # More than C values are above `low_B`, at most C above `high_B`; the two meet where it is C.
    def halve(ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low_B, high_B = ends
        middle_B = (low_B >> 1) + (high_B >> 1) + (low_B & high_B & 1)
        above_B = (bits_BN > middle_B[:, None]).sum(1, dtype=jnp.int32)
        return (
            jnp.where(above_B >= C, middle_B, low_B),
            jnp.where(above_B <= C, middle_B, high_B),
        )

    ends = jnp.full(B, -(2**31), jnp.int32), jnp.full(B, 2**31 - 1, jnp.int32)
    _, threshold_B = jax.lax.while_loop(lambda ends: (ends[0] + 1 < ends[1]).any(), halve, ends)
    # Running counts of what is chosen, by a product within each 32 and a sum over the 32s.
    chosen_BN = jnp.pad(bits_BN > threshold_B[:, None], ((0, 0), (0, -N % 32)))
    within = chosen_BN.reshape(-1, 32).astype(jnp.float32) @ jnp.triu(
        jnp.ones((32, 32), jnp.float32)
    )
    within = within.reshape(B, -1, 32)
    before = jnp.cumsum(within[..., -1], 1) - within[..., -1]
    count_BN = (within + before[..., None]).reshape(B, -1)[:, :N]
    slot_C = jnp.arange(1, C + 1, dtype=jnp.float32)
    place_BC = jax.vmap(lambda count_N: jnp.searchsorted(count_N, slot_C))(count_BN)
    return place_BC, jax.lax.bitcast_convert_type(_ordered_bits(threshold_B), jnp.float32)


def _ordered_bits(bits: jax.Array) -> jax.Array:
    """A float32's bits as an int32 that is ordered as the floats are, and back."""
    return jnp.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
