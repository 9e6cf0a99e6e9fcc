"""Samplers against the probabilities they state."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from jrec.embeddings.batch_axis import local_part
from jrec.losses.samplers import (
    Uniform,
    alias_table,
    frequency,
    log_uniform,
    weighted,
)

pytestmark = pytest.mark.bits
V, DRAWS = 30, 200_000
COUNTS = np.r_[7, 7, np.random.default_rng(0).integers(0, 50, V - 2)]
COUNTS[[4, 9]] = 0, 4000
SAMPLERS = {
    "uniform": Uniform(V - 1),
    "uniform from 0": Uniform(9, first=0),
    "frequency": frequency(COUNTS),
    "frequency, power": frequency(COUNTS, 0.75),
    "log-uniform": log_uniform(COUNTS),
}
draw = jax.jit(lambda sampler, key: sampler.sample(key, (DRAWS,)))


@pytest.mark.parametrize("name", SAMPLERS)
def test_draws_follow_the_stated_probabilities(name):
    sampler = SAMPLERS[name]
    ids, log_q = draw(sampler, jax.random.key(5))
    assert ids.dtype == jnp.int32 and log_q.dtype == jnp.float32
    every = np.arange(-3, V + 5)
    log_q_all = np.asarray(sampler.log_q(jnp.asarray(every)), np.float64)
    np.testing.assert_allclose(np.exp(log_q_all).sum(), 1, rtol=1e-6)
    np.testing.assert_array_equal(log_q, sampler.log_q(ids))
    counts = np.bincount(np.asarray(ids) + 3, minlength=len(every))
    drawn = log_q_all > -np.inf
    assert counts[~drawn].sum() == 0 and not drawn[(every < 0) | (every >= V)].any()
    assert chisquare(counts[drawn], DRAWS * np.exp(log_q_all[drawn]), sum_check=False).pvalue > 1e-3


def test_the_probabilities_are_the_formulas():
    everyone = jnp.arange(V)
    items = np.where(np.arange(V) >= 2, COUNTS, 0)
    for sampler, weights in (
        (SAMPLERS["uniform"], np.arange(V) >= 2),
        (SAMPLERS["frequency"], items),
        (SAMPLERS["frequency, power"], items**0.75),
        (frequency(COUNTS, 0), items > 0),
        (frequency(COUNTS, first=0), COUNTS),
    ):
        q = np.exp(np.asarray(sampler.log_q(everyone), np.float64))
        np.testing.assert_allclose(q, weights / weights.sum(), rtol=1e-5)
    rank = np.argsort(np.argsort(-COUNTS[2:], kind="stable"))
    expected = np.log((rank + 2) / (rank + 1)) / np.log(V - 1)
    q = np.exp(np.asarray(SAMPLERS["log-uniform"].log_q(everyone), np.float64))
    np.testing.assert_allclose(q[2:], expected, rtol=1e-5)
    assert not q[:2].any()


weights = st.lists(
    st.one_of(st.just(0.0), st.just(1.0), st.floats(1e-30, 1e30), st.integers(1, 9).map(float)),
    min_size=1,
    max_size=40,
).filter(any)


@given(weights)
def test_an_alias_table_gives_each_row_its_mass_exactly(weights):
    weights = np.array(weights)
    threshold, alias, mass = alias_table(weights)
    one, given = 1 << 32, [0] * len(weights)
    for slot in range(len(weights)):
        given[slot] += int(threshold[slot])
        given[alias[slot]] += one - int(threshold[slot])
    assert given == mass.tolist() and sum(given) == one * len(weights)
    assert ((mass == 0) == (weights == 0)).all()
    share = weights / weights.max()
    np.testing.assert_allclose(
        mass / sum(given),
        share / share.sum(),
        rtol=1e-12,
        atol=1.5 / one,
        err_msg="rounded to 2^-32",
    )


def test_a_row_of_no_weight_is_not_drawn_by_the_lowest_bits_either(monkeypatch):
    monkeypatch.setattr(jax.random, "bits", lambda key, shape, dtype: jnp.zeros(shape, dtype))
    ids, log_q = SAMPLERS["frequency"].sample(jax.random.key(0), (500,))
    assert ids.min() >= 2 and np.isfinite(log_q).all() and len(set(ids.tolist())) > 5


def test_a_row_of_tiny_weight_keeps_its_log_q():
    count_V = np.full(1000, 1_000_000)
    count_V[500] = 1
    log_q = frequency(count_V).log_q(jnp.array([500, 501]))
    np.testing.assert_allclose(log_q[1] - log_q[0], np.log(1e6), atol=1e-3)


@pytest.mark.parametrize("bad", [[0.0, 0.0], [1.0, -1.0], [1.0, np.nan], [np.inf, 1.0]])
def test_weights_without_meaning_are_refused(bad):
    with pytest.raises(ValueError, match="Weights must"):
        weighted(np.array(bad))


def test_settings_without_meaning_are_refused():
    with pytest.raises(ValueError, match="no rows from 2 to 1"):
        Uniform(1)
    with pytest.raises(ValueError, match="no rows from -1 to 3"):
        Uniform(3, first=-1)
    assert Uniform(5, first=5).sample(jax.random.key(0), (2,))[0].tolist() == [5, 5]


def test_devices_share_the_draw_that_one_makes():
    sampler, key = SAMPLERS["frequency"], jax.random.key(3)
    whole = jax.jit(lambda sampler: sampler.sample(key, (16, 5)))(sampler)

    def on_device(sampler, _):
        return jax.tree.map(lambda a: local_part(a, "data"), sampler.sample(key, (16, 5)))

    parts = jax.pmap(on_device, "data", in_axes=(None, 0))(sampler, jnp.arange(8))
    for one, many in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(many.reshape(16, 5), one)
    with pytest.raises(ValueError, match="15 rows"):
        jax.vmap(lambda _: local_part(jnp.zeros(15), "data"), axis_name="data")(jnp.arange(8))
