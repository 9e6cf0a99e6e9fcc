"""How often items occur, estimated as training goes, for the in-batch softmax's logQ correction."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Frequencies:
    """Steps between occurrences, in H hash tables of W buckets (Yi et al. 2019, algorithms 2 and 3).

    Attributes:
        step: int32 scalar, batches seen.
        last_HW: int32, the step of the bucket's last occurrence.
        interval_HW: float32, mean steps from one occurrence to the next; 0 where there was none.
    """

    step: jax.Array
    last_HW: jax.Array
    interval_HW: jax.Array


def init_frequencies(buckets: int, hashes: int = 1) -> Frequencies:
    """Nothing seen. The first hash is id mod W: with V buckets, one is exact and one is enough."""
    shape = (hashes, buckets)
    return Frequencies(jnp.int32(0), jnp.zeros(shape, jnp.int32), jnp.zeros(shape, jnp.float32))


def observe(
    frequencies: Frequencies, ids: jax.Array, mask: jax.Array, rate: float = 0.02
) -> Frequencies:
    """The estimates after one more batch.

    An id that occurs n times in the batch, g steps after its last batch, has had n intervals of mean
    g / n, so interval <- (1 - rate)^n interval + (1 - (1 - rate)^n) g / n. With n = 1 that is the
    paper's rule; a rule that knew no n could not tell ids that are in every batch apart. The first
    occurrence sets the interval: the paper's starts at 0 and forgets that slowly.

    Args:
        ids: [B] integers, the whole batch's targets: under `pmap`, gathered from all devices.
        mask: bool [B], what counts.
        rate: of the moving mean; its relative noise is about sqrt(rate / 2).
    """
    step = frequencies.step + 1
    hashes, width = frequencies.last_HW.shape
    bucket_HB = jnp.where(mask[None], _buckets(ids, hashes, width), width)
    table_HB = jnp.broadcast_to(jnp.arange(hashes, dtype=jnp.int32)[:, None], bucket_HB.shape)

    def occurrences(bucket_B: jax.Array) -> jax.Array:
        ordered = jnp.sort(bucket_B)
        first = jnp.searchsorted(ordered, bucket_B, side="left")
        return jnp.searchsorted(ordered, bucket_B, side="right") - first

    count_HB = jax.vmap(occurrences)(bucket_HB).astype(jnp.float32)
    place = (table_HB, bucket_HB)  # masked ids fall on bucket W, which is none
    before_HB = frequencies.interval_HW.at[place].get(mode="fill", fill_value=0)
    gap_HB = (step - frequencies.last_HW.at[place].get(mode="fill", fill_value=0)) / count_HB
    keep_HB = jnp.where(before_HB > 0, (1 - rate) ** count_HB, 0)
    interval_HB = keep_HB * before_HB + (1 - keep_HB) * gap_HB
    # Equal buckets write equal numbers, so their order is of no consequence.
    return Frequencies(
        step,
        frequencies.last_HW.at[place].set(step, mode="drop"),
        frequencies.interval_HW.at[place].set(interval_HB, mode="drop"),
    )


def log_frequency(frequencies: Frequencies, ids: jax.Array, draws: int | jax.Array) -> jax.Array:
    """log_q of the ids at one draw: -log(interval) - log(draws), float32 of the ids' shape.

    The longest of the H intervals counts: a collision can only shorten one. An id never seen counts
    as one that comes next step.

    Args:
        ids: integers of any shape.
        draws: of a step, that is the number of ids that its mask counts.
    """
    hashes, width = frequencies.last_HW.shape
    bucket_H = _buckets(ids, hashes, width)
    tables = jnp.arange(hashes, dtype=jnp.int32).reshape(hashes, *[1] * ids.ndim)
    interval_H = frequencies.interval_HW[jnp.broadcast_to(tables, bucket_H.shape), bucket_H]
    unseen = (frequencies.step + 1).astype(jnp.float32)
    interval = jnp.where(interval_H > 0, interval_H, unseen).max(0)
    return -jnp.log(interval) - jnp.log(jnp.asarray(draws, jnp.float32))


def _buckets(ids: jax.Array, hashes: int, width: int) -> jax.Array:
    """int32 [H, ...]: id mod W, then W buckets by multiplicative hashes."""
    ids = ids.astype(jnp.uint32)
    rows = [ids]
    for number in range(1, hashes):
        mixed = (ids + jnp.uint32(number)) * jnp.uint32(0x9E3779B9)
        mixed = (mixed ^ (mixed >> 16)) * jnp.uint32(0x85EBCA6B)
        rows.append(mixed ^ (mixed >> 13))
    return (jnp.stack(rows) % jnp.uint32(width)).astype(jnp.int32)
