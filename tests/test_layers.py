import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jrec.models.layers import cosine
from jrec.models.sequence_convolution import SequenceConvolution, masked_max, masked_sum

V, D, F = 20, 4, 3
# Few shapes, so that few programs are compiled: always five titles of at most six words.
titles = st.lists(st.lists(st.integers(2, V - 1), max_size=6), min_size=5, max_size=5)
pooling = st.sampled_from(["sum", "max"])


def rectangle(lists, length, filler):
    """Padded ids whose padding holds `filler`, which must never matter."""
    ids = np.full((len(lists), length), filler, np.int32)
    mask = np.zeros((len(lists), length), bool)
    for k, row in enumerate(lists):
        ids[k, : len(row)], mask[k, : len(row)] = row, True
    return jnp.asarray(ids), jnp.asarray(mask)


def module(pool="sum", positions=None):
    return SequenceConvolution(V, D, F, window=3, pooling=pool, positions=positions)


@functools.cache
def forward(pool, positions=None):
    return jax.jit(module(pool, positions).apply)


@functools.cache
def gradient(pool, positions=None):
    return jax.jit(jax.grad(lambda p, *x: (module(pool, positions).apply(p, *x) ** 2).sum()))


PARAMS = jax.jit(module().init)(jax.random.key(0), *rectangle([[2, 3]], 4, 0))


def by_hand(lists, pool):
    """The same in plain NumPy, one window at a time."""
    p = jax.tree.map(np.asarray, PARAMS["params"])
    out = []
    for row in lists:
        zero = np.zeros(D)
        words = [zero, *(p["words"]["embedding"][w] for w in row), zero]
        hidden = [
            np.tanh(
                np.concatenate(words[k : k + 3]) @ p["filters"]["kernel"] + p["filters"]["bias"]
            )
            for k in range(len(row))
        ]
        out.append((np.sum if pool == "sum" else np.max)(hidden, 0) if row else np.zeros(F))
    return np.array(out)


@given(titles, pooling, st.sampled_from([6, 7, 15]), st.integers(0, V - 1))
def test_convolution_ignores_the_amount_and_the_content_of_padding(lists, pool, length, filler):
    result = forward(pool)(PARAMS, *rectangle(lists, length, filler))
    np.testing.assert_allclose(result, by_hand(lists, pool), atol=1e-6)


@given(titles, pooling, st.sampled_from([30, 41]))
def test_packed_convolution_is_the_padded_one(lists, pool, positions):
    inputs = rectangle(lists, 6, 0)
    np.testing.assert_allclose(
        forward(pool, positions)(PARAMS, *inputs), forward(pool)(PARAMS, *inputs), atol=1e-6
    )
    gradients = gradient(pool, positions)(PARAMS, *inputs), gradient(pool)(PARAMS, *inputs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *gradients)


@pytest.mark.parametrize("pool", ["sum", "max"])
def test_packed_convolution_is_exact_up_to_its_last_position(pool):
    inputs = rectangle([[2, 3, 4], [], [5], [6, 7], [8]], 6, 0)
    exact = forward(pool)(PARAMS, *inputs)
    np.testing.assert_allclose(forward(pool, 7)(PARAMS, *inputs), exact, atol=1e-6)


@given(titles, st.sampled_from([7, 11]))
def test_pools_count_masked_positions_alone(lists, length):
    ids, mask = rectangle(lists, length, 7)
    values = jax.random.normal(jax.random.key(1), (V, D))[ids]
    values = jnp.where(mask[..., None], values, jnp.nan)  # NaN would spread if it were looked at
    for k, row in enumerate(lists):
        kept = np.asarray(values[k, : len(row)])
        np.testing.assert_allclose(masked_sum(values, mask)[k], kept.sum(0), atol=1e-6)
        expected = kept.max(0) if row else np.zeros(D)
        np.testing.assert_allclose(masked_max(values, mask)[k], expected, atol=1e-6)


def test_cosine_is_clamped_and_has_finite_gradients():
    x = jnp.array([[3.0, 4.0], [0.0, 0.0], [1e-5, 0.0]])
    y = jnp.array([[4.0, 3.0], [1.0, 0.0], [1.0, 0.0]])
    # The third norm is below the clamp, sqrt(1e-8) = 1e-4: 1e-5 / 1e-4.
    np.testing.assert_allclose(cosine(x, y), [0.96, 0.0, 0.1], rtol=1e-5)
    assert jnp.isfinite(jax.grad(lambda x: cosine(x, y).sum())(x)).all()


@pytest.mark.parametrize("pool", ["sum", "max"])
def test_an_untouched_word_has_no_gradient(pool):
    inputs = rectangle([[2, 3], [5]], 4, 9)
    touched = gradient(pool)(PARAMS, *inputs)["params"]["words"]["embedding"]
    touched = np.flatnonzero(np.abs(touched).sum(1))
    assert touched.tolist() == [2, 3, 5]
