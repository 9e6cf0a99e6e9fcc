"""bfloat16 rounds the factors of products and nothing else."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jrec.models.autoencoder import Autoencoder
from jrec.models.embedding_mlp import EmbeddingMlp
from jrec.models.lstm import Lstm
from jrec.models.matmul import dot_general_in, product, products
from jrec.models.sequences import SelfAttention

GENERATOR = np.random.default_rng(0)


def normal(*shape):
    return jnp.asarray(GENERATOR.normal(size=shape), jnp.float32)


def rounded(x):
    """float32 numbers that bfloat16 knows, as float64."""
    return np.asarray(x.astype(jnp.bfloat16).astype(jnp.float32), np.float64)


def test_a_product_and_its_gradients_are_those_of_rounded_factors():
    x, y, g = normal(6, 300), normal(300, 5), normal(6, 5)
    out, back = jax.vjp(lambda x, y: product(x, y, "bfloat16"), x, y)
    by_x, by_y = back(g)
    assert {out.dtype, by_x.dtype, by_y.dtype} == {jnp.dtype("float32")}
    np.testing.assert_allclose(out, rounded(x) @ rounded(y), atol=1e-4)  # float32 sums of 300
    np.testing.assert_allclose(by_x, rounded(g) @ rounded(y).T, atol=1e-5)
    np.testing.assert_allclose(by_y, rounded(x).T @ rounded(g), atol=1e-5)
    assert np.abs(out - x @ y).max() > 1e-3, "the factors are rounded"


@pytest.mark.parametrize("shape", [(1, 1, 1), (4, 9, 4), (4, 20, 9), (17, 1, 33), (64, 100, 32)])
def test_gradients_of_turned_factors(shape):
    """Also where a factor or a gradient is turned again outside, in every combination."""
    batch, size, width = shape
    x, y, g = normal(batch, size), normal(size, width), normal(batch, width)

    def gradients(x, y, g, x_turned, y_turned):
        x, y = (v.T if turned else v for v, turned in ((x, x_turned), (y, y_turned)))

        def loss(x, y):
            x, y = (v.T if turned else v for v, turned in ((x, x_turned), (y, y_turned)))
            return (product(x, y, "bfloat16") * g).sum()

        return jax.grad(loss, (0, 1))(x, y)

    expected = rounded(g) @ rounded(y).T, rounded(x).T @ rounded(g)
    for turned in ((False, False), (True, False), (False, True), (True, True)):
        found = jax.jit(gradients, static_argnums=(3, 4))(x, y, g, *turned)
        for ours, theirs, back in zip(found, expected, turned, strict=True):
            np.testing.assert_allclose(ours.T if back else ours, theirs, rtol=1e-5, atol=1e-5)


def test_gradients_of_numpy_arrays_outside_jit():
    x, y = np.ones((3, 4), np.float32), np.full((4, 2), 2, np.float32)

    def loss(x, y):
        return product(x, y, "bfloat16").sum()

    np.testing.assert_array_equal(jax.grad(loss)(jnp.asarray(x), y), np.full((3, 4), 4))
    np.testing.assert_array_equal(jax.grad(loss, 1)(x, jnp.asarray(y)), np.full((4, 2), 3))


def test_leading_axes_and_dense_layers():
    x, y = normal(2, 3, 4, 7), normal(2, 3, 7, 5)
    np.testing.assert_allclose(
        products(x, y, "bfloat16"), rounded(x) @ rounded(y), rtol=1e-5, atol=1e-6
    )
    layer = nn.DenseGeneral(6, axis=(-2, -1), dot_general=dot_general_in("bfloat16"))
    params = layer.init(jax.random.key(0), x)
    kernel = params["params"]["kernel"]
    expected = np.einsum("abcd,cdf->abf", rounded(x), rounded(kernel))
    np.testing.assert_allclose(layer.apply(params, x), expected, atol=1e-5)
    with pytest.raises(ValueError, match="dense layer"):
        dot_general_in("bfloat16")(x, x, (((0,), (0,)), ((), ())))


@pytest.mark.parametrize(
    ("build", "inputs"),
    [
        (lambda c: Lstm(8, c), (normal(4, 6, 5),)),
        pytest.param(
            lambda c: SelfAttention(1, 2, compute=c),
            (normal(4, 6, 8), jnp.ones((4, 6), bool)),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            lambda c: Autoencoder(20, (9, 4), compute=c),
            (normal(4, 20),),
            marks=pytest.mark.slow,
        ),
        (
            lambda c: EmbeddingMlp(9, 9, 8, (16, 8), compute=c),
            (jnp.arange(8), jnp.arange(8)[::-1]),
        ),
    ],
)
def test_networks_keep_float32_and_differ_a_little(build, inputs):
    params = jax.jit(build("float32").init)(jax.random.key(0), *inputs)
    results = {}
    for compute in ("float32", "bfloat16"):
        model = build(compute)

        def loss(params, model=model):
            out = model.apply(params, *inputs)
            assert out.dtype == jnp.float32
            return (out**2).sum()

        results[compute] = jax.jit(jax.value_and_grad(loss))(params)
    one, other = (jax.tree.leaves(results[c]) for c in ("float32", "bfloat16"))
    assert all(leaf.dtype == jnp.float32 for leaf in other)
    size = sum(float((a**2).sum()) for a in one[1:]) ** 0.5
    distance = (
        sum(float(((a - b) ** 2).sum()) for a, b in zip(one[1:], other[1:], strict=True)) ** 0.5
    )
    assert 1e-4 < distance / size < 0.05
    np.testing.assert_allclose(other[0], one[0], rtol=0.05)
