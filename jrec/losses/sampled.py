"""Losses of one true item against sampled ones: pure functions of logits, (sum, count) in float32.

Shapes: [...] are the examples (a batch [B], or all positions [B, L]), with K negatives each, shared
(ids and log_q [K]) or their own ([..., K]). Logits are the caller's, from rows that it looked up: so
tables may be updated by rows. An accidental hit is a negative that is its example's target. What a
mask leaves out has no gradient, even if it is not finite. The mean loss is sum / count; over devices,
sum both first. The full softmax is in `jrec.losses.full_softmax`, samplers in `jrec.losses.samplers`.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np


def nce(
    logit_true: jax.Array,
    logits_noise: jax.Array,
    log_q_true: jax.Array,
    log_q_noise: jax.Array,
    mask: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Noise contrastive estimation: is it data or one of K noise samples?

    loss = -log sigmoid(s_t - log(K q_t)) - sum over noise of log(1 - sigmoid(s_i - log(K q_i)))

    (Gutmann and Hyvärinen 2012, eq. 3 to 5; Mnih and Teh 2012). Its minimum is s = log p(item), not
    only up to a constant. Noise that is the target stays, as the theory has it.

    Args:
        logit_true: float [...], s of the target. logits_noise: float [..., K].
        log_q_true: float [...], the noise's log-probability of the target. -inf, a target that noise
            never is, leaves nothing to learn from that target.
        log_q_noise: float [K] or [..., K].
        mask: bool [...], the examples that count.
    """
    log_k = math.log(logits_noise.shape[-1])
    log_q_noise = jnp.broadcast_to(log_q_noise, logits_noise.shape)
    true = _kept(logit_true, mask) - _kept(log_q_true, mask) - log_k
    noise = _kept(logits_noise, mask[..., None]) - _kept(log_q_noise, mask[..., None]) - log_k
    loss = jax.nn.softplus(-true) + jax.nn.softplus(noise).sum(-1)
    return jnp.where(mask, loss, 0).sum(), _count(mask)


def sampled_softmax(
    logit_true: jax.Array,
    logits_negative: jax.Array,
    target_ids: jax.Array,
    negative_ids: jax.Array,
    log_q: jax.Array | None,
    mask: jax.Array,
    mask_negative: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Softmax cross-entropy whose denominator is estimated from K draws.

    loss = -log(exp(s_t) / (exp(s_t) + sum over negatives that are not t of exp(s_i - log(K q_i))))

    The sum's mean over draws is that of exp(s_i) over all items but t, so the loss and its gradient tend
    to the full softmax's as K grows (Bengio and Sénécal 2008). The target is not drawn but always
    there, so it is not corrected; the widespread form that corrects it as well has another limit
    (Khrylchenko et al. 2025, arXiv:2507.09331). An accidental hit has probability 0, exactly.

    Args:
        logit_true: float [...]. logits_negative: float [..., K]; -inf is a probability of 0.
        target_ids: integers [...]. negative_ids: integers [K] or [..., K], drawn with replacement.
        log_q: float [K] or [..., K], from the sampler. None leaves the correction out: the loss then
            learns p(item) / q(item).
        mask: bool [...], the examples that count.
        mask_negative: bool [K] or [..., K], negatives that count; None for all. One left out is as a hit,
            a draw that was made: K stays.
    """
    kept = _no_hits(target_ids, negative_ids, logits_negative.shape, mask, mask_negative)
    negative = _kept(logits_negative, kept)
    if log_q is not None:
        shift = jnp.broadcast_to(log_q, kept.shape)
        negative = negative - _kept(shift, kept) - math.log(kept.shape[-1])
    loss = _cross_entropy(_kept(logit_true, mask), jnp.where(kept, negative, -jnp.inf))
    return jnp.where(mask, loss, 0).sum(), _count(mask)


def in_batch_softmax(
    logits_BC: jax.Array,
    ids_C: jax.Array,
    log_q_C: jax.Array | None,
    mask_C: jax.Array,
    own_B: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """`sampled_softmax` with the other examples' targets as each example's negatives.

    K is the number of other examples that count, and q the targets' distribution: `log_q` of
    `jrec.losses.samplers.frequency` at power 1 (Yi et al. 2019 correct the target as well). Other columns with an example's own target have
    probability 0, exactly.

    Args:
        logits_BC: float, example b with the target of example c. On one device C = B; under `pmap`
            B are the device's own examples and C all devices', so that the loss is one device's.
        ids_C: integers, the targets.
        log_q_C: float, or None to leave the correction out (popular items are then held down).
        mask_C: bool, the examples that count, as examples and as negatives.
        own_B: integers, the column of each example; None for 0 to B - 1.

    Raises ValueError where C is not B and `own_B` is not given.
    """
    if own_B is None:
        if logits_BC.shape[0] != logits_BC.shape[1]:
            raise ValueError(f"Logits {logits_BC.shape} are not square: give own_B.")
        own_B = jnp.arange(len(logits_BC), dtype=jnp.int32)
    mask_B = mask_C[own_B]
    kept = _no_hits(ids_C[own_B], ids_C, logits_BC.shape, mask_B, mask_C)
    true = jnp.take_along_axis(logits_BC, own_B[:, None], 1)[:, 0]
    others = _kept(logits_BC, kept)
    if log_q_C is not None:
        draws = jnp.maximum(mask_C.sum() - 1, 1).astype(jnp.float32)
        others = others - _kept(jnp.broadcast_to(log_q_C, kept.shape), kept) - jnp.log(draws)
    loss = _cross_entropy(_kept(true, mask_B), jnp.where(kept, others, -jnp.inf))
    return jnp.where(mask_B, loss, 0).sum(), _count(mask_B)


def binary_cross_entropy(
    logit_true: jax.Array,
    logits_negative: jax.Array,
    target_ids: jax.Array,
    negative_ids: jax.Array,
    mask: jax.Array,
    mask_negative: jax.Array | None = None,
    beta: float = 1.0,
) -> tuple[jax.Array, jax.Array]:
    """Binary cross-entropy of the target and K negatives; with `gbce_beta`, gBCE.

    loss = -(log(sigmoid(s_t)^beta) + sum over negatives of log(1 - sigmoid(s_i))) / (K + 1)

    (Petrov and Macdonald 2023, gSASRec). Accidental hits are left out; K stays.

    Args:
        logit_true: float [...]. logits_negative: float [..., K].
        target_ids: integers [...]. negative_ids: integers [K] or [..., K].
        mask: bool [...], the examples that count.
        mask_negative: bool [K] or [..., K], negatives that count; None for all.
        beta: power of the target's probability.
    """
    kept = _no_hits(target_ids, negative_ids, logits_negative.shape, mask, mask_negative)
    positive = beta * jax.nn.softplus(-_kept(logit_true, mask))
    negative = jnp.where(kept, jax.nn.softplus(_kept(logits_negative, kept)), 0).sum(-1)
    loss = (positive + negative) / (kept.shape[-1] + 1)
    return jnp.where(mask, loss, 0).sum(), _count(mask)


def gbce_beta(negatives: int, items: int, calibration: float) -> float:
    """gBCE's beta = a (t (1 - 1 / a) + 1 / a) with a = K / (M - 1), t the calibration.

    At t = 0 it is 1, the plain loss, whose sigmoid is too sure of itself by the sampling rate; at t = 1
    it is a, and the sigmoid is calibrated (Petrov and Macdonald 2023, eq. 14; they train with 0.75).

    Raises ValueError for t outside [0, 1] or K outside 1 to M - 1.
    """
    if not (0 <= calibration <= 1 and 1 <= negatives <= items - 1):
        raise ValueError(
            f"gBCE needs a calibration from 0 to 1 and from 1 to M - 1 negatives, but was given "
            f"{calibration:g}, and {negatives} negatives of {items} items."
        )
    rate = negatives / (items - 1)
    return rate * (calibration * (1 - 1 / rate) + 1 / rate)


def level_logits(
    count_V: np.ndarray, log_q_V: np.ndarray | None = None, negatives: int = 1, beta: float = 1.0
) -> np.ndarray:
    """The logits of least loss for a model that knows items alone: where biases start, float32 [V].

    `nce` and `binary_cross_entropy` fix the level of logits, not only their differences, and it lies far
    from 0: for NCE at s_i = log p_i, for K negatives of q and a power beta at s_i = log(beta p_i /
    (K q_i)). Biases that start at 0 must first travel there by all steps together, through user vectors
    that become one constant direction on the way. Softmax losses have no level, and start at 0.

    Args:
        count_V: [V], how often each row is a target; p = (count + 1) / their sum, as any row may be one.
        log_q_V: float [V], the negatives' of `binary_cross_entropy`; None for `nce`. What is never drawn
            (-inf) starts at the highest level of what is.
        negatives: K. beta: of gBCE.
    """
    p_V = np.asarray(count_V, np.float64) + 1
    level_V = np.log(p_V / p_V.sum())
    if log_q_V is not None:
        drawn_V = np.isfinite(log_q_V)
        level_V = level_V + math.log(beta / negatives) - np.where(drawn_V, log_q_V, 0)
        level_V = np.where(drawn_V, level_V, level_V[drawn_V].max())
    return level_V.astype(np.float32)


def _kept(values: jax.Array, kept: jax.Array) -> jax.Array:
    return jnp.where(kept, values, 0).astype(jnp.float32)


def _count(mask: jax.Array) -> jax.Array:
    return mask.sum().astype(jnp.float32)


def _no_hits(
    target_ids: jax.Array,
    negative_ids: jax.Array,
    shape: tuple[int, ...],
    mask: jax.Array,
    mask_negative: jax.Array | None,
) -> jax.Array:
    """bool [..., K]: negatives that count, of examples that count, and are not the target."""
    kept = (target_ids[..., None] != jnp.broadcast_to(negative_ids, shape)) & mask[..., None]
    return kept if mask_negative is None else kept & jnp.broadcast_to(mask_negative, shape)


def _cross_entropy(true: jax.Array, others: jax.Array) -> jax.Array:
    """-log softmax of `true` [...] beside `others` [..., K], some of which, or all, may be -inf."""
    largest = jax.lax.stop_gradient(jnp.maximum(true, others.max(-1)))
    total = jnp.exp(true - largest) + jnp.exp(others - largest[..., None]).sum(-1)
    return jnp.log(total) + (largest - true)
