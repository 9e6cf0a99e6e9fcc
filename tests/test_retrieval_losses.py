"""Sampled losses against float64 formulas, finite differences and bad numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jrec.losses.sampled import (
    binary_cross_entropy,
    gbce_beta,
    in_batch_softmax,
    level_logits,
    nce,
    sampled_softmax,
)

B, K, M = 6, 7, 12


def batch(seed=0, shared=False):
    """Logits and ids with accidental hits in each example."""
    generator = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(generator.normal(size=shape), jnp.float32)  # noqa: E731
    target = jnp.asarray(generator.integers(0, M, B))
    negative = generator.integers(0, M, (K,) if shared else (B, K))
    if not shared:
        negative[:, 2] = target
    log_q = np.log(generator.uniform(0.01, 0.5, negative.shape))
    return {
        "true": draw(B) * 2,
        "negatives": draw(B, K) * 2,
        "target": target,
        "ids": jnp.asarray(negative),
        "log_q": jnp.asarray(log_q, jnp.float32),
        "log_q_true": -jnp.abs(draw(B)),
        "mask": jnp.arange(B) != 1,
        "mask_negative": jnp.asarray(generator.random((B, K)) < 0.7),
    }


def softmax_loss(true, negatives, b):
    return sampled_softmax(
        true, negatives, b["target"], b["ids"], b["log_q"], b["mask"], b["mask_negative"]
    )


def uncorrected_loss(true, negatives, b):
    return sampled_softmax(true, negatives, b["target"], b["ids"], None, b["mask"])


def gbce_loss(true, negatives, b):
    return binary_cross_entropy(
        true, negatives, b["target"], b["ids"], b["mask"], b["mask_negative"], beta=0.3
    )


def nce_loss(true, negatives, b):
    return nce(true, negatives, b["log_q_true"], b["log_q"], b["mask"])


def in_batch_loss(true, negatives, b):
    """The first columns of a square are the negatives' logits; the diagonal the targets'."""
    square = jnp.fill_diagonal(negatives[:, :B], true, inplace=False)
    return in_batch_softmax(square, b["target"] % 4, b["log_q_true"], b["mask"])


LOSSES = {
    "softmax": softmax_loss,
    "uncorrected": uncorrected_loss,
    "gbce": gbce_loss,
    "nce": nce_loss,
    "in batch": in_batch_loss,
}


@functools.cache
def with_gradient(name):
    """(sum, count), and gradients with respect to the target's and the negatives' logits."""
    return jax.jit(jax.value_and_grad(LOSSES[name], argnums=(0, 1), has_aux=True))


# The formulas, in float64, one example at a time.


def expected(name, b):
    b = {key: np.asarray(value, np.float64) for key, value in b.items()}
    total = 0.0
    for i in np.flatnonzero(b["mask"]):
        true, negatives = b["true"][i], b["negatives"][i]
        ids, log_q = (np.broadcast_to(b[key], (B, K))[i] for key in ("ids", "log_q"))
        hit = ids == b["target"][i]
        counted = ~hit & (b["mask_negative"][i] > 0)
        if name == "softmax":
            total -= np.log(np.exp(true) / (np.exp(true) + sum_q(negatives, log_q, K, counted)))
        elif name == "uncorrected":
            total -= np.log(np.exp(true) / (np.exp(true) + np.exp(negatives[~hit]).sum()))
        elif name == "gbce":
            positive = np.log((1 / (1 + np.exp(-true))) ** 0.3)
            total -= (positive - np.log1p(np.exp(negatives[counted])).sum()) / (K + 1)
        elif name == "nce":
            p_true = 1 / (1 + K * np.exp(b["log_q_true"][i] - true))
            p_noise = 1 / (1 + K * np.exp(log_q - negatives))
            total -= np.log(p_true) + np.log(1 - p_noise).sum()
        elif name == "in batch":
            others = b["mask"].astype(bool) & (b["target"] % 4 != b["target"][i] % 4)
            draws = b["mask"].sum() - 1
            rest = sum_q(negatives[:B], b["log_q_true"], draws, others)
            total -= np.log(np.exp(true) / (np.exp(true) + rest))
    return total


def sum_q(logits, log_q, draws, counted):
    return (np.exp(logits - log_q) / draws)[counted].sum()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("shared", [False, True])
@given(seed=st.integers(0, 20))
def test_losses_are_their_formulas(name, shared, seed):
    b = batch(seed, shared)
    (total, count), _ = with_gradient(name)(b["true"], b["negatives"], b)
    assert total.dtype == count.dtype == jnp.float32 and count == B - 1
    np.testing.assert_allclose(total, expected(name, b), rtol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_the_finite_differences(name):
    b, generator = batch(1), np.random.default_rng(1)
    _, gradient = with_gradient(name)(b["true"], b["negatives"], b)
    size = 1e-2
    for _ in range(10):
        way = [generator.normal(size=part.shape).astype(np.float32) for part in gradient]
        ends = [
            with_gradient(name)(b["true"] + sign * way[0], b["negatives"] + sign * way[1], b)[0][0]
            for sign in (size, -size)
        ]
        slope = sum((part * w).sum() for part, w in zip(gradient, way, strict=True))
        np.testing.assert_allclose((ends[0] - ends[1]) / (2 * size), slope, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "in batch"])
def test_examples_have_any_leading_shape_and_masked_is_filtered(name):
    b = batch(2)
    stacked = {key: value.reshape(2, 3, *value.shape[1:]) for key, value in b.items()}
    kept = {key: value[b["mask"]] for key, value in b.items()}
    (total, count), _ = with_gradient(name)(b["true"], b["negatives"], b)
    for other in (stacked, kept):
        result, gradient = with_gradient(name)(other["true"], other["negatives"], other)
        np.testing.assert_allclose(result, (total, count), rtol=1e-6)
        assert gradient[1].shape == other["negatives"].shape


def test_masked_is_filtered_in_a_batch_of_its_own_negatives():
    b = batch(2)
    square, keep = b["negatives"][:, :B], np.flatnonzero(b["mask"])
    loss = jax.jit(in_batch_softmax)
    masked = loss(square, b["target"], b["log_q_true"], b["mask"])
    small = (square[np.ix_(keep, keep)], b["target"][keep], b["log_q_true"][keep])
    np.testing.assert_allclose(loss(*small, jnp.ones(len(keep), bool)), masked, 1e-6)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("rubbish", [np.nan, np.inf, -np.inf])
def test_what_is_masked_may_be_any_number(name, rubbish):
    """Masked examples; their own noise, log_q and ids; and hits and masked negatives elsewhere."""
    b = batch(3)
    result, gradient = with_gradient(name)(b["true"], b["negatives"], b)
    dropped = np.zeros((B, K), bool)
    dropped[1] = True
    if name in ("softmax", "gbce", "uncorrected"):
        dropped |= np.asarray(b["ids"] == b["target"][:, None])
    if name in ("softmax", "gbce"):
        dropped |= ~np.asarray(b["mask_negative"])
    if name == "in batch":
        item = np.asarray(b["target"] % 4)
        dropped[:, :B] |= item[:, None] == item
        dropped[:, 1] = True
        b["log_q_true"] = b["log_q_true"].at[1].set(rubbish)
    else:
        b["log_q"] = jnp.where(dropped, rubbish, b["log_q"])
        b["log_q_true"] = jnp.where(b["mask"], b["log_q_true"], rubbish)
    assert dropped.sum() >= K
    spoilt = jnp.where(dropped, rubbish, b["negatives"])
    again, gradient_again = with_gradient(name)(jnp.where(b["mask"], b["true"], rubbish), spoilt, b)
    np.testing.assert_array_equal(again, result)
    for one, two in zip(gradient, gradient_again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert not np.asarray(gradient_again[1])[dropped].any()
    assert not np.asarray(gradient_again[0])[1]


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("true", [-1e4, 0.0, 1e4])
@pytest.mark.parametrize("negative", [-np.inf, -1e4, 1e4])
def test_extreme_logits_are_finite(name, true, negative):
    b = batch(4)
    (total, _), gradient = with_gradient(name)(
        jnp.full(B, true, jnp.float32), jnp.full((B, K), negative, jnp.float32), b
    )
    assert np.isfinite(total)
    for part in gradient:
        assert np.isfinite(part).all() and np.abs(part).max() <= 1
    if (
        name == "gbce" and true == -1e4 and negative < 0
    ):  # sigmoid(-1e4) is 0 in float32, its log not
        np.testing.assert_allclose(total, (B - 1) * 0.3 * 1e4 / (K + 1), rtol=1e-6)


def test_noise_that_never_is_the_target_leaves_nothing_to_learn():
    b = batch(4)
    never = b | {"log_q_true": jnp.full(B, -jnp.inf)}
    (total, _), gradient = with_gradient("nce")(b["true"], b["negatives"], never)
    assert np.isfinite(total) and not gradient[0].any() and gradient[1].any()


@pytest.mark.parametrize("name", LOSSES)
def test_bfloat16_logits_are_summed_in_float32(name):
    b = batch(5)
    low = jax.tree.map(lambda a: a.astype(jnp.bfloat16), (b["true"], b["negatives"]))
    high = jax.tree.map(lambda a: a.astype(jnp.float32), low)
    (total, _), gradient = with_gradient(name)(*low, b)
    (exact, _), _ = with_gradient(name)(*high, b)
    assert total.dtype == jnp.float32 and gradient[1].dtype == jnp.bfloat16
    np.testing.assert_allclose(total, exact, rtol=1e-6)


def test_all_negatives_may_be_hits():
    b = batch(4)
    b["ids"] = jnp.broadcast_to(b["target"][:, None], (B, K))
    far = jnp.full(B, -1e30)  # below any finite number that might stand for a hit's logit
    (total, _), gradient = with_gradient("softmax")(far, b["negatives"], b)
    assert total == 0 and not gradient[0].any() and not gradient[1].any()
    b["target"] = jnp.zeros(B, int)
    (total, _), gradient = with_gradient("in batch")(far, b["negatives"], b)
    assert total == 0 and not gradient[0].any() and not gradient[1].any()


def test_gbce_at_no_calibration_is_the_plain_loss():
    assert gbce_beta(256, 3416, 0) == gbce_beta(1, 10, 0) == gbce_beta(9, 10, 0.5) == 1
    np.testing.assert_allclose(gbce_beta(256, 3416, 1), 256 / 3415)
    np.testing.assert_allclose(gbce_beta(256, 3416, 0.75), 0.25 + 0.75 * 256 / 3415)
    b = batch(6)
    arguments = (b["true"], b["negatives"], b["target"], b["ids"], b["mask"])
    plain = binary_cross_entropy(*arguments)
    np.testing.assert_array_equal(binary_cross_entropy(*arguments, beta=gbce_beta(9, 50, 0)), plain)
    assert binary_cross_entropy(*arguments, beta=gbce_beta(9, 50, 0.5))[0] < plain[0]
    for bad in ((0, 10, 0.5), (10, 10, 0.5), (5, 10, 1.5), (5, 10, -0.1)):
        with pytest.raises(ValueError, match="gBCE"):
            gbce_beta(*bad)


def test_in_batch_losses_of_devices_add_up_to_one_devices():
    generator = np.random.default_rng(0)
    logits = jnp.asarray(generator.normal(size=(16, 16)), jnp.float32)
    ids, log_q = jnp.asarray(generator.integers(0, 8, 16)), -jnp.arange(16.0)
    mask = jnp.arange(16) % 5 != 0
    whole = jax.jit(in_batch_softmax)(logits, ids, log_q, mask)

    def on_device(rows):
        own = jax.lax.axis_index("data") * 2 + jnp.arange(2)
        return jax.lax.psum(in_batch_softmax(rows, ids, log_q, mask, own), "data")

    parts = jax.jit(jax.vmap(on_device, axis_name="data"))(logits.reshape(8, 2, 16))
    np.testing.assert_allclose([part[0] for part in parts], whole, rtol=1e-6)
    for part in (logits[:2], logits[:, :2]):
        with pytest.raises(ValueError, match="own_B"):
            in_batch_softmax(part, ids, log_q, mask)


def test_level_logits_are_where_the_losses_of_known_items_are_least():
    count_V, q_V = np.array([0, 3, 6, 0]), np.array([0.5, 0.2, 0.3, 0.0])
    p_V = np.array([1, 4, 7, 1]) / 13
    found = level_logits(count_V)
    np.testing.assert_allclose(found, np.log(p_V), rtol=1e-6)
    with np.errstate(divide="ignore"):
        log_q_V = np.log(q_V)
    s = level_logits(count_V, log_q_V, negatives=5, beta=0.5)
    assert found.dtype == s.dtype == np.float32
    sigmoid = 1 / (1 + np.exp(-s))
    np.testing.assert_allclose(0.5 * p_V[:3] * (1 - sigmoid[:3]), 5 * q_V[:3] * sigmoid[:3], 1e-6)
    assert s[3] == s[:3].max() > s[:3].min()
    np.testing.assert_allclose(level_logits(count_V, log_q_V)[:3], np.log(p_V[:3] / q_V[:3]), 1e-5)


@pytest.mark.parametrize("counted", [1, 2])
def test_few_examples_of_a_batch_have_few_draws(counted):
    logits, log_q = jnp.array([[0.3, 1.0], [-0.5, 0.7]]), jnp.log(jnp.array([0.2, 0.4]))
    mask = jnp.arange(2) < counted
    total, count = in_batch_softmax(logits, jnp.arange(2), log_q, mask)
    q, each = np.exp(log_q), np.exp(np.asarray(logits))
    expected = [np.log1p(each[0, 1] / q[1] / each[0, 0]), np.log1p(each[1, 0] / q[0] / each[1, 1])]
    np.testing.assert_allclose(total, sum(expected) if counted == 2 else 0, rtol=1e-5)
    assert count == counted
