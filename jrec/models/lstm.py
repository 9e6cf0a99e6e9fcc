"""An LSTM over histories; its plain form, which `jrec.models.lstm_fast` computes faster."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jrec.models.lstm_fast import lstm_maximum, lstm_outputs
from jrec.models.matmul import Compute, product


class Lstm(nn.Module):
    """An LSTM (Hochreiter and Schmidhuber 1997, with forget gates): its outputs, or their maximum.

    Positions come first, the order in which it reads: turning arrays of that length costs a CPU much.

    i, f, o = sigmoid, g = tanh of x W + h U + b;  c' = f c + i g;  h' = o tanh(c').
    """

    width: int
    compute: Compute = "float32"

    @nn.compact
    def __call__(self, inputs_LBE: jax.Array, mask_LB: jax.Array | None = None) -> jax.Array:
        """float [L, B, E] -> [L, B, H]; with a mask the maximum of what it counts, [B, H], 0 where nothing.

        Of positions that share a maximum the first one has its gradient.
        """
        size, width = inputs_LBE.shape[-1], self.width
        kernel_EG = self.param(
            "kernel", nn.initializers.xavier_uniform(), (size, 4 * width), jnp.float32
        )
        recurrent_HG = self.param(
            "recurrent", nn.initializers.orthogonal(), (width, 4 * width), jnp.float32
        )
        bias_G = self.param("bias", _forget_first, (4 * width,), jnp.float32)
        kernel_JG = jnp.concatenate([kernel_EG, recurrent_HG])
        if mask_LB is None:
            return lstm_outputs(inputs_LBE, kernel_JG, bias_G[None], self.compute)
        return lstm_maximum(inputs_LBE, mask_LB, kernel_JG, bias_G[None], self.compute)


def plain_lstm_outputs(
    inputs_LBE: jax.Array, kernel_JG: jax.Array, bias_1G: jax.Array, compute: Compute
) -> jax.Array:
    """Returns the outputs [L, B, H] from inputs x, kernels W above U (J = E + H, G = 4 H) and biases b."""

    def step(
        states: tuple[jax.Array, jax.Array], input_BE: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        hidden_BH, cell_BH = states
        gates_BG = product(jnp.concatenate([input_BE, hidden_BH], -1), kernel_JG, compute) + bias_1G
        i, f, o, g = jnp.split(gates_BG, 4, -1)
        cell_BH = jax.nn.sigmoid(f) * cell_BH + jax.nn.sigmoid(i) * jnp.tanh(g)
        hidden_BH = jax.nn.sigmoid(o) * jnp.tanh(cell_BH)
        return (hidden_BH, cell_BH), hidden_BH

    zeros_BH = jnp.zeros((inputs_LBE.shape[1], kernel_JG.shape[1] // 4), inputs_LBE.dtype)
    return jax.lax.scan(step, (zeros_BH, zeros_BH), inputs_LBE)[1]


def plain_lstm_maximum(
    inputs_LBE: jax.Array,
    mask_LB: jax.Array,
    kernel_JG: jax.Array,
    bias_1G: jax.Array,
    compute: Compute,
) -> jax.Array:
    """Returns the maximum [B, H] of the outputs at the positions that count, 0 where none does."""
    output_LBH = plain_lstm_outputs(inputs_LBE, kernel_JG, bias_1G, compute)
    best_BH = jnp.where(mask_LB[..., None], output_LBH, -jnp.inf).max(0)
    return jnp.where(mask_LB.any(0)[:, None], best_BH, 0)


def _forget_first(key: jax.Array, shape: tuple[int, ...], dtype: type = jnp.float32) -> jax.Array:
    """Zeros, but 1 for the forget gates, so that a new LSTM remembers (Jozefowicz et al. 2015)."""
    width = shape[0] // 4
    return jnp.zeros(shape, dtype).at[width : 2 * width].set(1)
