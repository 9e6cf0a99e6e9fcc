"""What reads a history from its oldest click on: the state at each position has seen no later one."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from jrec.models.layers import Dropout
from jrec.models.products import Compute, dot_general_in, product, products


def running_mean(values_BLE: jax.Array, count_BL: jax.Array) -> jax.Array:
    """Mean of all values up to each position: float [B, L, E] -> [B, L, E]; 0 where none counts yet.

    Args:
        count_BL: bool, what counts; or int, of how many each value is already the sum (0: left out).
    """
    counted_BL1 = (count_BL > 0)[..., None]
    total_BLE = jnp.cumsum(jnp.where(counted_BL1, values_BLE, 0), 1)
    number_BL1 = jnp.cumsum(count_BL.astype(values_BLE.dtype), 1)[..., None]
    return total_BLE / jnp.maximum(number_BL1, 1)


def running_max(values_BLE: jax.Array, mask_BL: jax.Array) -> jax.Array:
    """Maximum of the counted values up to each position, of each of E: float [B, L, E] -> [B, L, E].

    0 where none counts yet.
    """
    lowest = jnp.finfo(values_BLE.dtype).min
    best_BLE = jax.lax.cummax(jnp.where(mask_BL[..., None], values_BLE, lowest), 1)
    return jnp.where(best_BLE > lowest, best_BLE, 0)


def whole_mean(values_BLE: jax.Array, count_BL: jax.Array) -> jax.Array:
    """`running_mean` at the last position, without the others: float [B, E]."""
    total_BE = jnp.where((count_BL > 0)[..., None], values_BLE, 0).sum(1)
    return total_BE / jnp.maximum(count_BL.sum(1), 1)[:, None]


def whole_max(values_BLE: jax.Array, mask_BL: jax.Array) -> jax.Array:
    """`running_max` at the last position, without the others: float [B, E]."""
    lowest = jnp.finfo(values_BLE.dtype).min
    best_BE = jnp.where(mask_BL[..., None], values_BLE, lowest).max(1)
    return jnp.where(best_BE > lowest, best_BE, 0)


class Lstm(nn.Module):
    """An LSTM (Hochreiter and Schmidhuber 1997, with forget gates), outputs at every position.

    i, f, o = sigmoid, g = tanh of x W + h U + b;  c' = f c + i g;  h' = o tanh(c').
    """

    width: int
    compute: Compute = "float32"

    @nn.compact
    def __call__(self, inputs_BLE: jax.Array) -> jax.Array:
        """float [B, L, E] -> [B, L, H]."""
        size, width = inputs_BLE.shape[-1], self.width
        kernel_EG = self.param("kernel", nn.initializers.xavier_uniform(), (size, 4 * width))
        recurrent_HG = self.param("recurrent", nn.initializers.orthogonal(), (width, 4 * width))
        bias_G = self.param("bias", _forget_first, (4 * width,))
        # One product a position of both: a product over all positions ahead writes an array of 4 H numbers
        # for each, which costs more than it saves.
        kernel_JG = jnp.concatenate([kernel_EG, recurrent_HG])
        inputs_LBE = jnp.swapaxes(inputs_BLE, 0, 1)
        return jnp.swapaxes(_recur(inputs_LBE, kernel_JG, bias_G[None], self.compute), 0, 1)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _recur(
    inputs_LBE: jax.Array, kernel_JG: jax.Array, bias_1G: jax.Array, compute: Compute
) -> jax.Array:
    """The LSTM's outputs [L, B, H] from x, W above U (J = E + H) and b.

    Its gradient is written out: the derivative of a scan would compute gates again, and keep more.
    """
    return _recur_forward(inputs_LBE, kernel_JG, bias_1G, compute)[0]


def _recur_forward(inputs_LBE, kernel_JG, bias_1G, compute):
    # sigmoid(x) = (1 + tanh(x / 2)) / 2, so that one operation makes all gates: four that are joined keep
    # a CPU from computing in vectors.
    width = kernel_JG.shape[1] // 4
    scale_1G = jnp.repeat(jnp.array([0.5, 0.5, 0.5, 1.0], inputs_LBE.dtype), width)[None]

    def step(carry, input_BE):
        hidden_BH, cell_BH = before = carry
        joined_BJ = jnp.concatenate([input_BE, hidden_BH], -1)
        gates_BG = product(joined_BJ, kernel_JG, compute) + bias_1G
        gates_BG = jnp.tanh(gates_BG * scale_1G) * scale_1G + (1 - scale_1G)
        i, f, o, g = jnp.split(gates_BG, 4, -1)
        cell_BH = f * cell_BH + i * g
        squashed_BH = jnp.tanh(cell_BH)
        hidden_BH = o * squashed_BH
        return (hidden_BH, cell_BH), (hidden_BH, (*before, gates_BG, squashed_BH))

    zeros_BH = jnp.zeros((inputs_LBE.shape[1], width), inputs_LBE.dtype)
    _, (hidden_LBH, kept) = jax.lax.scan(step, (zeros_BH, zeros_BH), inputs_LBE)
    return hidden_LBH, (inputs_LBE, kernel_JG, kept)


def _recur_backward(compute, residuals, gradient_LBH):
    inputs_LBE, kernel_JG, kept = residuals
    size = inputs_LBE.shape[-1]

    def step(carry, given):
        # d_ are gradients: of what the position hands on, and of the parameters by all positions after it.
        d_hidden_BH, d_cell_BH, d_kernel_JG, d_bias_1G = carry
        d_out_BH, input_BE, (hidden_before_BH, cell_before_BH, gates_BG, squashed_BH) = given
        i, f, o, g = jnp.split(gates_BG, 4, -1)
        d_hidden_BH = d_hidden_BH + d_out_BH
        d_cell_BH = d_cell_BH + d_hidden_BH * o * (1 - squashed_BH**2)
        d_gates = (
            d_cell_BH * g * i * (1 - i),
            d_cell_BH * cell_before_BH * f * (1 - f),
            d_hidden_BH * squashed_BH * o * (1 - o),
            d_cell_BH * i * (1 - g**2),
        )
        d_gates_BG = jnp.concatenate(d_gates, -1)
        # A product a position keeps all positions' gradients out of memory; measured on a CPU alone.
        joined_BJ = jnp.concatenate([input_BE, hidden_before_BH], -1)
        d_kernel_JG = d_kernel_JG + product(joined_BJ.T, d_gates_BG, compute)
        d_bias_1G = d_bias_1G + d_gates_BG.sum(0, keepdims=True)
        d_joined_BJ = product(d_gates_BG, kernel_JG.T, compute)
        carry = (d_joined_BJ[:, size:], d_cell_BH * f, d_kernel_JG, d_bias_1G)
        return carry, d_joined_BJ[:, :size]

    zeros_BH = jnp.zeros_like(gradient_LBH[0])
    start = (zeros_BH, zeros_BH, jnp.zeros_like(kernel_JG), jnp.zeros_like(kernel_JG[:1]))
    given = (gradient_LBH, inputs_LBE, kept)
    (*_, d_kernel_JG, d_bias_1G), d_inputs_LBE = jax.lax.scan(step, start, given, reverse=True)
    return d_inputs_LBE, d_kernel_JG, d_bias_1G


_recur.defvjp(_recur_forward, _recur_backward)


def _forget_first(key: jax.Array, shape: tuple[int, ...], dtype: type = jnp.float32) -> jax.Array:
    """Zeros, but 1 for the forget gates, so that a new LSTM remembers (Jozefowicz et al. 2015)."""
    width = shape[0] // 4
    return jnp.zeros(shape, dtype).at[width : 2 * width].set(1)


class SelfAttention(nn.Module):
    """Causal self-attention blocks with normalisation before each part (SASRec, Kang and McAuley 2018).

    Order is told by a learned bias for each head and distance (Shaw et al. 2018, as T5 simplifies it),
    not by places counted from an end: so a history gives the same states wherever its window begins.

    Attributes:
        layers, heads: numbers. dropout: on attention weights and both parts' outputs.
        hidden: width of the second part, in widths of the input.
        axis_name: see `jrec.batch_axis`. compute: see `jrec.models.products`.
    """

    layers: int
    heads: int
    dropout: float = 0.0
    hidden: int = 4
    axis_name: str | None = None
    compute: Compute = "float32"

    @nn.compact
    def __call__(self, x_BLE: jax.Array, mask_BL: jax.Array, train: bool = False) -> jax.Array:
        """float [B, L, E], bool [B, L] -> [B, L, E]."""
        length, width = x_BLE.shape[1:]
        dot_general = dot_general_in(self.compute)
        place_L = jnp.arange(length)
        distance_LL = place_L[:, None] - place_L[None]
        sees_LL = distance_LL >= 0
        allowed = sees_LL[None, None] & mask_BL[:, None, None]
        # A position that may see nothing (padding) sees itself: its state means nothing, but is finite.
        allowed = allowed | (distance_LL == 0)[None, None]
        for k in range(self.layers):
            bias_HL = self.param(f"distance_{k}", nn.initializers.zeros, (self.heads, MAX_DISTANCE))
            bias_HLL = bias_HL[:, jnp.clip(distance_LL, 0, MAX_DISTANCE - 1)]
            y = nn.LayerNorm(name=f"norm_{k}_attention")(x_BLE)
            heads = (self.heads, width // self.heads)
            query, key, value = (
                nn.DenseGeneral(heads, dot_general=dot_general, name=f"{name}_{k}")(y)
                for name in ("query", "key", "value")
            )
            score = products(query.transpose(0, 2, 1, 3), key.transpose(0, 2, 3, 1), self.compute)
            score = score / heads[1] ** 0.5 + bias_HLL[None]
            weight = jax.nn.softmax(jnp.where(allowed, score, -jnp.inf), -1)
            weight = Dropout(self.dropout, self.axis_name)(weight, deterministic=not train)
            y = products(weight, value.transpose(0, 2, 1, 3), self.compute).transpose(0, 2, 1, 3)
            y = nn.DenseGeneral(width, axis=(-2, -1), dot_general=dot_general, name=f"join_{k}")(y)
            x_BLE = x_BLE + Dropout(self.dropout, self.axis_name)(y, deterministic=not train)
            y = nn.LayerNorm(name=f"norm_{k}_hidden")(x_BLE)
            y = jax.nn.gelu(
                nn.Dense(self.hidden * width, dot_general=dot_general, name=f"hidden_{k}")(y)
            )
            y = nn.Dense(width, dot_general=dot_general, name=f"back_{k}")(y)
            x_BLE = x_BLE + Dropout(self.dropout, self.axis_name)(y, deterministic=not train)
        return nn.LayerNorm(name="norm_out")(x_BLE)


MAX_DISTANCE = 256
"""Distances from here on share one bias."""
