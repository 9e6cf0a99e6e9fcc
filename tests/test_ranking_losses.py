"""Losses of rankers: their optimum on a problem worked out on paper, masks, extreme logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jrec.losses.watch_time import logistic, weighted_logistic

CLICKED = jnp.array([True, False, True, False, False])
WATCHED = jnp.array([30.0, 7.0, 10.0, 0.0, 0.0])  # what an unclicked one has must not count
EVERY = jnp.ones(5, bool)


@pytest.mark.parametrize("unit, odds", [("unclicked", 40 / 3), ("all", 40 / 5)])
def test_the_optimums_odds_are_the_watch_time_an_impression(unit, odds):
    """30 s and 10 s were watched of 5 impressions: 8 s each; the paper divides by the 3 unclicked."""

    def slope(logit):
        return weighted_logistic(jnp.full(5, logit), CLICKED, WATCHED, EVERY, unit)[0]

    best = jnp.log(odds)
    assert float(jax.grad(slope)(best)) == pytest.approx(0, abs=1e-5)
    for other in (best - 0.1, best + 0.1):
        assert float(slope(other)) > float(slope(best)) + 0.01


@pytest.mark.parametrize("unit", ["unclicked", "all"])
def test_descent_finds_each_groups_expected_watch_time(unit):
    """Two kinds of impressions with their own click rates (3 of 8, 1 of 16), one logit each."""
    kind = jnp.array([0] * 8 + [1] * 16)
    clicked = jnp.array([True] * 3 + [False] * 5 + [True] + [False] * 15)
    watch = jnp.where(clicked, jnp.where(kind == 0, 4.0, 24.0), 0.0)
    mask = jnp.ones(24, bool)

    def loss(logits):
        return weighted_logistic(logits[kind], clicked, watch, mask, unit)[0]

    def newton(logits, _):
        return logits - jnp.linalg.solve(jax.hessian(loss)(logits), jax.grad(loss)(logits)), None

    found, _ = jax.lax.scan(newton, jnp.zeros(2), None, 30)
    expected = [1.5, 1.5] if unit == "all" else [12 / 5, 24 / 15]
    np.testing.assert_allclose(np.exp(found), expected, rtol=1e-4)


def test_it_is_the_sum_that_the_docstring_writes():
    logit = jnp.array([0.3, -1.0, 2.0, 0.0, -0.5])
    p = 1 / (1 + np.exp(-np.asarray(logit, np.float64)))
    positive = np.where(CLICKED, WATCHED, 0) * -np.log(p)
    for unit, ones in (("unclicked", ~np.asarray(CLICKED)), ("all", np.ones(5))):
        total, count = weighted_logistic(logit, CLICKED, WATCHED, EVERY, unit)
        assert float(total) == pytest.approx((positive + ones * -np.log(1 - p)).sum(), rel=1e-5)
        assert float(count) == 5 and total.dtype == count.dtype == jnp.float32
    total, count = logistic(logit, CLICKED, EVERY)
    plain = -np.where(CLICKED, np.log(p), np.log(1 - p)).sum()
    assert (float(total), float(count)) == (pytest.approx(plain, rel=1e-5), 5)


@pytest.mark.parametrize("unit", ["unclicked", "all"])
def test_what_the_mask_leaves_out_has_no_part(unit):
    mask = jnp.array([True, True, False, False, True])
    bad = jnp.array([0.3, -1.0, jnp.nan, jnp.inf, -0.5])
    weight = WATCHED.at[2].set(jnp.nan)

    def loss(logit, weight):
        return weighted_logistic(logit, CLICKED, weight, mask, unit)

    (total, count), slope = (
        jax.value_and_grad(loss, has_aux=True)(bad, weight)[0],
        jax.grad(lambda logit: loss(logit, weight)[0])(bad),
    )
    alone = weighted_logistic(bad[mask], CLICKED[mask], WATCHED[mask], EVERY[:3], unit)
    assert (float(total), float(count)) == (pytest.approx(float(alone[0])), 3)
    assert np.isfinite(slope).all() and not slope[2:4].any() and slope[jnp.array([0, 1, 4])].all()


def test_extreme_logits_stay_finite():
    logit = jnp.array([500.0, -500.0, -500.0, 500.0, 0.0])
    for unit in ("unclicked", "all"):
        value, slope = jax.value_and_grad(
            lambda z, unit=unit: weighted_logistic(z, CLICKED, WATCHED, EVERY, unit)[0]
        )(logit)
        assert np.isfinite(value) and np.isfinite(slope).all()


def test_an_unknown_unit_is_refused():
    with pytest.raises(ValueError, match="unit"):
        weighted_logistic(WATCHED, CLICKED, WATCHED, EVERY, "clicked")
