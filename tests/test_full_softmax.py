"""The full softmax by blocks of items, against the plain one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jrec.losses.full_softmax import full_softmax, plain_full_softmax

pytestmark = pytest.mark.bits
B, M, D = 6, 12, 4


ITEMS = jnp.asarray([2, 3, 4, 5, 6, 8, 9, 10, 11])  # not padding, not unknown, not row 7


def full_batch(seed, scale=1.0):
    generator = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(generator.normal(size=shape) * scale, jnp.float32)  # noqa: E731
    return (
        *(draw(B, D), draw(M, D), draw(M)),
        ITEMS[generator.integers(0, len(ITEMS), B)],
        jnp.arange(B) != seed % (B + 1),
        jnp.zeros(M, bool).at[ITEMS].set(True),
    )


@functools.cache
def full_with_gradient(block):
    loss = lambda *a: full_softmax(*a, block=block)  # noqa: E731
    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))


@functools.cache
def full_value(block):
    return jax.jit(functools.partial(full_softmax, block=block))


plain_with_gradient = jax.jit(
    jax.value_and_grad(plain_full_softmax, argnums=(0, 1, 2), has_aux=True)
)


@given(st.sampled_from([1, 5, 6, 11, 384]), st.integers(0, 1000))
def test_the_full_softmax_is_the_plain_one(block, seed):
    arguments = full_batch(seed)
    (total, _), gradient = plain_with_gradient(*arguments)
    (by_blocks, count), block_gradient = full_with_gradient(block)(*arguments)
    assert count == arguments[4].sum()
    np.testing.assert_allclose(full_value(block)(*arguments)[0], by_blocks, rtol=1e-6)
    np.testing.assert_allclose(by_blocks, total, rtol=1e-5, atol=1e-5)
    for one, two in zip(gradient, block_gradient, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)
    assert not np.asarray(block_gradient[1])[:2].any() and not block_gradient[2][:2].any()


@pytest.mark.parametrize("rubbish", [np.nan, np.inf])
def test_the_full_softmax_reads_nothing_that_is_masked(rubbish):
    users, table, bias, target, mask_B, mask_M = full_batch(1)
    clean, gradient = full_with_gradient(5)(users, table, bias, target, mask_B, mask_M)
    users = jnp.where(mask_B[:, None], users, rubbish)
    table = jnp.where(mask_M[:, None], table, rubbish)
    bias, target = jnp.where(mask_M, bias, rubbish), jnp.where(mask_B, target, 10**6)
    spoilt, gradient_again = full_with_gradient(5)(users, table, bias, target, mask_B, mask_M)
    np.testing.assert_array_equal(clean, spoilt)
    for one, two in zip(gradient, gradient_again, strict=True):
        np.testing.assert_array_equal(one, two)


def test_the_full_softmax_is_finite_at_extreme_logits():
    arguments = full_batch(2, 70.0)
    assert np.abs(arguments[0] @ arguments[1].T).max() > 1e4
    (total, _), gradient = full_with_gradient(5)(*arguments)
    (expected, _), expected_gradient = plain_with_gradient(*arguments)
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    for one, two in zip(gradient, expected_gradient, strict=True):
        assert np.isfinite(one).all()
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("target", [0, 7, M, -1])
def test_a_target_that_is_no_item_is_a_loud_mistake(target):
    users, table, bias, _, _, mask_M = full_batch(3)
    everyone = jnp.ones(B, bool)
    (total, _), _ = full_with_gradient(5)(users, table, bias, jnp.full(B, target), everyone, mask_M)
    assert not np.isfinite(total)


def test_the_full_softmax_takes_bfloat16():
    arguments = full_batch(4)
    low = tuple(a.astype(jnp.bfloat16) for a in arguments[:3])
    high = tuple(a.astype(jnp.float32) for a in low)
    rest = arguments[3:]
    (total, _), gradient = full_with_gradient(5)(*low, *rest)
    (exact, _), _ = full_with_gradient(5)(*high, *rest)
    assert total.dtype == jnp.float32 and {g.dtype for g in gradient} == {jnp.dtype("bfloat16")}
    np.testing.assert_allclose(total, exact, rtol=1e-6)


def test_the_full_softmax_never_holds_all_logits():
    users, items, block = 300, 4001, 64
    shapes = ((users, D), (items, D), (items,), (users,), (users,), (items,))
    types = ("float32",) * 3 + ("int32", "bool", "bool")
    arguments = [jax.ShapeDtypeStruct(*pair) for pair in zip(shapes, types, strict=True)]
    compiled = full_with_gradient(block).lower(*arguments).compile()
    memory = compiled.memory_analysis().temp_size_in_bytes
    assert memory < 4 * (3 * users * block + 3 * items * (D + 1))
    assert memory < users * items * 4 / 4
