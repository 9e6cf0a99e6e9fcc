"""Scaling of expected watch times: found where it was planted, harmless where there is nothing to find."""

import numpy as np
import pytest
from scipy.optimize import minimize

from jrec.evaluate.watch_time import calibration
from jrec.watch_scaling import Scaling, fit_scaling


def planted(unit, n=400_000):
    """Logits that are twice as steep as they should be, and 1 too low."""
    g = np.random.default_rng(0)
    true = g.normal(0.5, 1, n)  # log-odds of the weighted problem
    chance = g.uniform(0.05, 0.6, n)
    clicked = g.random(n) < chance
    side = 1.0 if unit == "all" else 1 - chance
    mean = np.exp(true) * side / chance  # so that E[clicked T] / side = exp(true)
    watch = mean * g.gamma(2.0, 0.5, n)
    return 2 * true - 1, clicked, watch, chance * mean


@pytest.mark.parametrize("unit", ["all", "unclicked"])
def test_what_was_planted_is_found(unit):
    logit, clicked, watch, _ = planted(unit)
    found = fit_scaling(logit, clicked, watch, unit)
    assert found.slope == pytest.approx(0.5, abs=0.02)
    assert found.intercept == pytest.approx(0.5, abs=0.02)


def test_it_minimises_the_loss_and_calibrates_the_deciles():
    logit, clicked, watch, expected = planted("all")

    def loss(theta):
        z = theta[0] * logit + theta[1]
        lost = np.where(clicked, watch, 0) * np.logaddexp(0, -z) + np.logaddexp(0, z)
        return lost.mean()

    found = fit_scaling(logit, clicked, watch)
    assert loss(found) <= minimize(loss, [1.0, 0.0]).fun + 1e-9
    before = calibration(np.exp(logit), expected)["ratio"]
    after = calibration(np.exp(found(logit)), expected)["ratio"]
    assert np.abs(after - 1).max() < 0.05 < np.abs(before - 1).max()


def test_without_watches_or_differences_nothing_changes():
    logit = np.linspace(-1, 1, 9)
    nobody = np.zeros(9, bool)
    assert fit_scaling(logit, nobody, np.ones(9)) == Scaling(1.0, 0.0)
    assert fit_scaling(np.zeros(9), ~nobody, np.ones(9)) == Scaling(1.0, 0.0)
    extreme = fit_scaling(1000 * logit, logit > 0.9, np.full(9, 1e4))
    assert np.isfinite(extreme).all()
