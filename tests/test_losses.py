import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jrec.losses.ratings import squared_error, weighted_squared_error

PREDICTION = jnp.array([[1.0, 2.0], [4.0, jnp.nan]])
TARGET = jnp.array([[3.0, 2.5], [3.0, jnp.inf]])


def test_squared_errors_of_what_the_mask_counts():
    mask = jnp.array([[True, True], [True, False]])
    (total, count), gradient = jax.value_and_grad(
        lambda p: squared_error(p, TARGET, mask), has_aux=True
    )(PREDICTION)
    assert (float(total), float(count)) == (5.25, 3.0)
    assert total.dtype == count.dtype == jnp.float32
    np.testing.assert_array_equal(gradient, [[-4, -1], [2, 0]])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_weighted_squared_errors(dtype):
    weight = jnp.array([[0.5, 2.0], [0.25, 0.0]])
    (total, count), gradient = jax.value_and_grad(
        lambda p: weighted_squared_error(p, TARGET.astype(dtype), weight), has_aux=True
    )(PREDICTION.astype(dtype))
    assert (float(total), float(count)) == (0.5 * 4 + 2 * 0.25 + 0.25, 2.75)
    assert total.dtype == count.dtype == jnp.float32
    np.testing.assert_array_equal(gradient.astype(jnp.float32), [[-2, -2], [0.5, 0]])
