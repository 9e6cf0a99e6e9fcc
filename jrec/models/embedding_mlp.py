"""The embedding MLP of the TensorFlow 2 recommender notebook: two vectors side by side, then ReLU layers."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from jrec.embeddings.table import Embed
from jrec.models.matmul import Compute, dot_general_in, product

# Keras' own initial values: Embedding draws from -0.05 to 0.05, Dense is Glorot's.
_GLOROT = nn.initializers.glorot_uniform()


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def relu_to_number(
    x_BD: jax.Array, kernel_DH: jax.Array, output_H: jax.Array, compute: Compute = "float32"
) -> jax.Array:
    """relu(x @ kernel) @ output, float [B], and its gradient in three matrix products.

    Where a unit is on, it is linear. With m [B, H] = 1 where x @ kernel is above 0, and
    g = m @ (kernel * output)^T [B, D], the result is the sum of x * g over D, g is also its gradient
    with respect to x, and s = x^T @ m (weighted by what comes back) gives both others: s * output,
    and the sum of s * kernel over D. So neither the activations nor their gradient, each B x H, is
    ever stored, only m; a plain ReLU layer followed by one unit takes five products of these sizes or
    passes over them.

    Args:
        x_BD: float [B, D]; a column of ones makes the kernel's last row the bias.
        kernel_DH: float [D, H]. output_H: float [H]. compute: see `jrec.models.matmul`.
    """
    return _forward(x_BD, kernel_DH, output_H, compute)[0]


def _forward(x_BD: jax.Array, kernel_DH: jax.Array, output_H: jax.Array, compute: Compute) -> tuple:
    on_BH = (product(x_BD, kernel_DH, compute) > 0).astype(x_BD.dtype)
    slope_BD = product(on_BH, (kernel_DH * output_H[None]).T, compute)
    return (x_BD * slope_BD).sum(1), (x_BD, kernel_DH, output_H, on_BH, slope_BD)


def _backward(compute: Compute, kept: tuple, weight_B: jax.Array) -> tuple:
    x_BD, kernel_DH, output_H, on_BH, slope_BD = kept
    sum_DH = product((x_BD * weight_B[:, None]).T, on_BH, compute)
    return weight_B[:, None] * slope_BD, sum_DH * output_H[None], (sum_DH * kernel_DH).sum(0)


relu_to_number.defvjp(_forward, _backward)


class ReluToNumber(nn.Module):
    """Dense(features), ReLU, Dense(1): float [B, D] -> [B], as `relu_to_number` computes it."""

    features: int
    output_init: nn.initializers.Initializer = _GLOROT
    compute: Compute = "float32"

    @nn.compact
    def __call__(self, x_BD: jax.Array) -> jax.Array:
        kernel_DH = self.param("kernel", _GLOROT, (x_BD.shape[1], self.features), jnp.float32)
        bias_H = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        output_H1 = self.param("output_kernel", self.output_init, (self.features, 1), jnp.float32)
        output_bias_1 = self.param("output_bias", nn.initializers.zeros, (1,), jnp.float32)
        ones_B1 = jnp.ones_like(x_BD[:, :1])
        wide_BE = jnp.concatenate([x_BD, ones_B1], 1)
        wide_EH = jnp.concatenate([kernel_DH, bias_H[None]])
        return relu_to_number(wide_BE, wide_EH, output_H1[:, 0], self.compute) + output_bias_1


class EmbeddingMlp(nn.Module):
    """A number for each (user, item) pair: their vectors, concatenated, through ReLU layers.

    Source: the notebook's network (K = 10, one layer of 1024), with Keras' initial values. With
    `factors` a matrix factorisation with biases, on vectors of its own, is added, and the layers
    start at zero beside it (He et al., 2017, "Neural collaborative filtering", section 3.4, with a
    sum in place of their last layer).

    Attributes:
        users, items: table rows.
        width: K, of a vector.
        hidden: widths of the ReLU layers, one or more.
        factors: width of the factorisation's vectors; 0: there is none.
        compute: of the layers' products, see `jrec.models.matmul`.
    """

    users: int
    items: int
    width: int = 10
    hidden: tuple[int, ...] = (1024,)
    factors: int = 0
    compute: Compute = "float32"

    @nn.compact
    def __call__(self, user_B: jax.Array, item_B: jax.Array) -> jax.Array:
        """int32 rows [B] and [B] -> float32 [B], to which the mean rating is to be added."""
        # Tables of both, items behind users: one lookup, and the vectors already stand side by side.
        ids_B2 = jnp.stack([user_B, self.users + item_B], 1)
        rows, batch = self.users + self.items, user_B.shape[0]
        vectors_B2K = Embed(rows, self.width, _keras_table, name="vectors")(ids_B2)
        x_BD = vectors_B2K.reshape(batch, 2 * self.width)
        for number, features in enumerate(self.hidden[:-1]):
            dense = nn.Dense(
                features,
                kernel_init=_GLOROT,
                dot_general=dot_general_in(self.compute),
                name=f"hidden_{number}",
            )
            x_BD = nn.relu(dense(x_BD))
        output_init = nn.initializers.zeros if self.factors else _GLOROT
        name = f"hidden_{len(self.hidden) - 1}"
        result_B = ReluToNumber(self.hidden[-1], output_init, self.compute, name=name)(x_BD)
        if not self.factors:
            return result_B
        factor_init = nn.initializers.normal(0.05)
        factors_B2F = Embed(rows, self.factors, factor_init, name="factors")(ids_B2)
        biases_B21 = Embed(rows, 1, nn.initializers.zeros, name="biases")(ids_B2)
        return result_B + factors_B2F.prod(1).sum(-1) + biases_B21.sum((1, 2))


def _keras_table(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
    return jax.random.uniform(key, shape, dtype, -0.05, 0.05)
