"""The LSTM of `jrec.models.lstm` with its gradient written out: whole steps 1.3 to 1.4 times as fast on a CPU."""

from functools import partial

import jax
import jax.numpy as jnp

from jrec.models.matmul import Compute, product, turned

FEW_GATES = 1 << 20
"""Gates of all positions (L B 4 H) up to which products that need not follow one another are taken at once."""


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def lstm_outputs(
    inputs_LBE: jax.Array, kernel_JG: jax.Array, bias_1G: jax.Array, compute: Compute
) -> jax.Array:
    """As `jrec.models.lstm.plain_lstm_outputs`.

    The derivative of a scan would compute gates again, and keep more.
    """
    return _outputs_forward(inputs_LBE, kernel_JG, bias_1G, compute)[0]


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def lstm_maximum(
    inputs_LBE: jax.Array,
    mask_LB: jax.Array,
    kernel_JG: jax.Array,
    bias_1G: jax.Array,
    compute: Compute,
) -> jax.Array:
    """As `jrec.models.lstm.plain_lstm_maximum`, without an array of all positions' gradients."""
    return _maximum_forward(inputs_LBE, mask_LB, kernel_JG, bias_1G, compute)[0]


def _few(inputs_LBE, kernel_JG):
    """Whether arrays of all positions' gates stay in a processor's caches.

    Then a position is left with the product of its state alone. Of more, one product of inputs and
    state together costs less than to write such arrays (BUILD_NOTES.md has a CPU's figures; elsewhere
    the two were not timed).
    """
    numbers = inputs_LBE.shape[0] * inputs_LBE.shape[1] * kernel_JG.shape[1]
    # A program that is written down has a batch of any size.
    return isinstance(numbers, int) and numbers <= FEW_GATES


def _gates(inputs_LBE, kernel_JG, bias_1G, compute):
    """What a position is given, [L, B, ...], and the function of it and the state before: its gates [B, G]."""
    size = inputs_LBE.shape[-1]

    def added(ahead_BG, hidden_BH):
        return ahead_BG + product(hidden_BH, kernel_JG[size:], compute) + bias_1G

    def joined(input_BE, hidden_BH):
        joined_BJ = jnp.concatenate([input_BE, hidden_BH], -1)
        return product(joined_BJ, kernel_JG, compute) + bias_1G

    if _few(inputs_LBE, kernel_JG):
        return product(inputs_LBE, kernel_JG[:size], compute), added
    return inputs_LBE, joined


def _next(cell_BH, gates_BG):
    """A position's states (hidden, cell) from its gates, and what their gradient needs."""
    parts = jnp.split(gates_BG, 4, -1)
    # Of one form, sigmoid(x) = (1 + tanh(x / 2)) / 2, and kept apart: the backward pass goes over
    # arrays that lie in one piece more than twice as fast as over columns of a wider one.
    i, f, o = (0.5 * jnp.tanh(0.5 * part) + 0.5 for part in parts[:3])
    g = jnp.tanh(parts[3])
    cell_BH = f * cell_BH + i * g
    return (o * jnp.tanh(cell_BH), cell_BH), (cell_BH, i, f, o, g)


def _zeros(inputs_LBE, kernel_JG):
    return jnp.zeros((inputs_LBE.shape[1], kernel_JG.shape[1] // 4), inputs_LBE.dtype)


def _outputs_forward(inputs_LBE, kernel_JG, bias_1G, compute):
    given_LB, gates = _gates(inputs_LBE, kernel_JG, bias_1G, compute)

    def step(states, given_B):
        hidden_BH, cell_BH = states
        states, kept = _next(cell_BH, gates(given_B, hidden_BH))
        return states, (states[0], kept)

    zeros_BH = _zeros(inputs_LBE, kernel_JG)
    _, (hidden_LBH, kept) = jax.lax.scan(step, (zeros_BH, zeros_BH), given_LB)
    return hidden_LBH, (inputs_LBE, kernel_JG, kept)


def _outputs_backward(compute, residuals, gradient_LBH):
    return _gradients(compute, residuals, lambda t: gradient_LBH[t])


def _maximum_forward(inputs_LBE, mask_LB, kernel_JG, bias_1G, compute):
    given_LB, gates = _gates(inputs_LBE, kernel_JG, bias_1G, compute)

    def step(carry, given):
        (hidden_BH, cell_BH), best_BH, place_BH = carry
        t, given_B, mask_B = given
        states, kept = _next(cell_BH, gates(given_B, hidden_BH))
        # A NaN, which all later positions share, goes on: a run must see it.
        better_BH = ~(states[0] <= best_BH) & mask_B[:, None]
        best_BH = jnp.where(better_BH, states[0], best_BH)
        return (states, best_BH, jnp.where(better_BH, t, place_BH)), kept

    zeros_BH = _zeros(inputs_LBE, kernel_JG)
    nothing_BH = jnp.full_like(zeros_BH, -jnp.inf), jnp.full(zeros_BH.shape, -1, jnp.int32)
    given = (jnp.arange(len(mask_LB), dtype=jnp.int32), given_LB, mask_LB)
    (_, best_BH, place_BH), kept = jax.lax.scan(step, ((zeros_BH, zeros_BH), *nothing_BH), given)
    residuals = (inputs_LBE, kernel_JG, kept), place_BH
    return jnp.where(place_BH >= 0, best_BH, 0), residuals


def _maximum_backward(compute, residuals, gradient_BH):
    residuals, place_BH = residuals
    d_inputs, d_kernel, d_bias = _gradients(
        compute, residuals, lambda t: jnp.where(place_BH == t, gradient_BH, 0)
    )
    return d_inputs, None, d_kernel, d_bias


def _gradients(compute, residuals, gradient_at):
    """Of inputs, kernels and biases, from `gradient_at(t)` [B, H] of the output at each position."""
    inputs_LBE, kernel_JG, (cell_LBH, i_LBH, f_LBH, o_LBH, g_LBH) = residuals
    length, _, size = inputs_LBE.shape
    few = _few(inputs_LBE, kernel_JG)

    def to_cell(d_hidden_BH, o_BH, tanh_BH):
        return d_hidden_BH * o_BH * (1 - tanh_BH**2)

    def of_parameters(inputs, hidden, d_gates):
        """Of kernels [J, G] and biases [1, G], by [..., E], [..., H] and [..., G]."""
        joined, d_gates_NG = jnp.concatenate([inputs, hidden], -1), _flat(d_gates)
        by_kernel_JG = product(turned(_flat(joined)), d_gates_NG, compute)
        return by_kernel_JG, d_gates_NG.sum(0, keepdims=True)

    def step(carry, t):
        # d_ are gradients: of the position's states, whole, and of the parameters by all positions after
        # it. What the position before is owed is added here, so that a step's first operations, which
        # all read it, find it computed. Its output is found again from its cell: cheaper than kept.
        hidden_BH, d_hidden_BH, d_cell_BH, d_parameters = carry
        i, f, o, g = i_LBH[t], f_LBH[t], o_LBH[t], g_LBH[t]
        before = jnp.maximum(t - 1, 0)
        tanh_before_BH = jnp.tanh(cell_LBH[before])
        hidden_before_BH = jnp.where(t > 0, o_LBH[before] * tanh_before_BH, 0)
        cell_before_BH = jnp.where(t > 0, cell_LBH[before], 0)
        d_gates = (
            d_cell_BH * g * i * (1 - i),
            d_cell_BH * cell_before_BH * f * (1 - f),
            d_hidden_BH * hidden_BH * (1 - o),
            d_cell_BH * i * (1 - g**2),
        )
        d_gates_BG = jnp.concatenate(d_gates, -1)
        if few:
            d_before_BH = product(d_gates_BG, kernel_JG[size:].T, compute)
            for_later = hidden_before_BH, d_gates_BG
        else:
            more = of_parameters(inputs_LBE[t], hidden_before_BH, d_gates_BG)
            d_parameters = jax.tree.map(jnp.add, d_parameters, more)
            d_joined_BJ = product(d_gates_BG, kernel_JG.T, compute)
            d_before_BH, for_later = d_joined_BJ[:, size:], d_joined_BJ[:, :size]
        d_hidden_BH = d_before_BH + gradient_at(before)
        d_cell_BH = d_cell_BH * f + to_cell(d_hidden_BH, o_LBH[before], tanh_before_BH)
        return (hidden_before_BH, d_hidden_BH, d_cell_BH, d_parameters), for_later

    tanh_BH, d_hidden_BH = jnp.tanh(cell_LBH[-1]), gradient_at(length - 1)
    start = (o_LBH[-1] * tanh_BH, d_hidden_BH, to_cell(d_hidden_BH, o_LBH[-1], tanh_BH))
    start += (None if few else (jnp.zeros_like(kernel_JG), jnp.zeros_like(kernel_JG[:1])),)
    end, for_later = jax.lax.scan(step, start, jnp.arange(length, dtype=jnp.int32), reverse=True)
    if not few:
        return for_later, *end[-1]
    hidden_before_LBH, d_gates_LBG = for_later
    d_inputs_LBE = product(d_gates_LBG, kernel_JG[:size].T, compute)
    return d_inputs_LBE, *of_parameters(inputs_LBE, hidden_before_LBH, d_gates_LBG)


def _flat(values):
    """[..., C] as [N, C]."""
    return values.reshape(-1, values.shape[-1])


lstm_outputs.defvjp(_outputs_forward, _outputs_backward)
lstm_maximum.defvjp(_maximum_forward, _maximum_backward)
