"""Scaling of expected watch times: found where it was planted, harmless where there is nothing to find."""

import numpy as np
import pytest
from scipy.optimize import minimize

from experiments.ranking.watch_scaling import Scaling, fit_scaling
from jrec.evaluate.watch_time import calibration
from tests.conftest import slow_but


def planted(unit, n=400_000, bend=0.0):
    """Logits that are twice as steep as they should be, 1 too low, and bent."""
    g = np.random.default_rng(0)
    logit = g.normal(0, 2, n)
    true = 0.5 + 0.5 * logit + bend * logit**2  # log-odds of the weighted problem
    chance = g.uniform(0.05, 0.6, n)
    clicked = g.random(n) < chance
    side = 1.0 if unit == "all" else 1 - chance
    mean = np.exp(true) * side / chance  # so that E[clicked T] / side = exp(true)
    watch = mean * g.gamma(2.0, 0.5, n)
    return logit, clicked, watch, chance * mean


@pytest.mark.parametrize("unit", slow_but("all", ["all", "unclicked"]))
def test_what_was_planted_is_found(unit):
    logit, clicked, watch, _ = planted(unit)
    line = fit_scaling(logit, clicked, watch, unit, degree=1)
    np.testing.assert_allclose(line.coefficients, [0.5, 0.5], atol=0.02)
    bent = fit_scaling(logit, clicked, watch, unit)
    np.testing.assert_allclose(bent.coefficients, [0.5, 0.5, 0], atol=0.03)


@pytest.mark.slow
def test_it_minimises_the_loss_and_calibrates_the_deciles():
    logit, clicked, watch, expected = planted("all", bend=0.03)

    def loss(theta):
        z = theta[0] + theta[1] * logit + theta[2] * logit**2
        lost = np.where(clicked, watch, 0) * np.logaddexp(0, -z) + np.logaddexp(0, z)
        return lost.mean()

    found = fit_scaling(logit, clicked, watch)
    assert loss(found.coefficients) <= minimize(loss, [0.0, 1.0, 0.0]).fun + 1e-6
    worst = [
        np.abs(calibration(np.exp(z), expected)["ratio"] - 1).max()
        for z in (found(logit), fit_scaling(logit, clicked, watch, degree=1)(logit), logit)
    ]
    assert worst[0] < 0.05 < worst[1] < worst[2]
    order = np.argsort(logit)
    assert (np.diff(found(logit[order])) >= 0).all()
    beyond = found(np.array([-100.0, found.low, found.high, 100.0]))
    assert (np.diff(beyond) > 0).all()


def test_a_parabola_that_falls_somewhere_gives_way_to_a_line():
    g = np.random.default_rng(0)
    logit = g.uniform(-2, 2, 20_000)
    clicked = g.random(20_000) < 0.5
    found = fit_scaling(logit, clicked, np.exp(logit - logit**2), degree=2)
    assert len(found.coefficients) == 2 and found.coefficients[1] > 0


def test_without_watches_or_differences_nothing_changes():
    logit = np.linspace(-1, 1, 9)
    nobody = np.zeros(9, bool)
    assert fit_scaling(logit, nobody, np.ones(9)) == Scaling()
    assert fit_scaling(np.zeros(9), ~nobody, np.ones(9)) == Scaling()
    extreme = fit_scaling(1000 * logit, logit > 0.9, np.full(9, 1e4))
    assert np.isfinite(extreme.coefficients).all()
    np.testing.assert_array_equal(Scaling()(logit), logit)
