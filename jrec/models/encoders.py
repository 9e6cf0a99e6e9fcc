"""Encoders of a click history by name; to add one, write its functions and add a line to `ENCODERS`."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jrec.models.lstm import Lstm
from jrec.models.sequences import SelfAttention, running_max, running_mean, whole_mean

Batch = Mapping[str, Any]


class Encoder(NamedTuple):
    """How a history is read. `network` is the `CandidateNetwork` that has the encoder.

    Attributes:
        build: network -> the module that has the encoder's parameters; None without any.
        states: (network, module, batch, train, last) -> states [B, L, H], or, `last`, those after the
            whole history [B, H]. A batch has `item` int32 [B, L] and `mask` bool [B, L], a prefix.
        width: network -> H.
    """

    build: Callable[[Any], nn.Module | None]
    states: Callable[[Any, Any, Batch, bool, bool], jax.Array]
    width: Callable[[Any], int]


def _no_module(network: Any) -> None:
    return None


def _items(network: Any, batch: Batch, train: bool, scale: float = 1.0) -> jax.Array:
    """Returns the history's item vectors [B, L, E], with dropout."""
    items_BLE = network.items(batch["item"], batch["mask"])
    if scale != 1:
        items_BLE = items_BLE * scale
    return network.drop(items_BLE, deterministic=not train)


def _mean(network: Any, module: None, batch: Batch, train: bool, last: bool) -> jax.Array:
    return (whole_mean if last else running_mean)(_items(network, batch, train), batch["mask"])


def _build_attention(network: Any) -> SelfAttention:
    return SelfAttention(
        network.layers,
        network.heads,
        network.dropout,
        axis_name=network.axis_name,
        compute=network.compute,
        name="attention",
    )


def _attention(
    network: Any, module: SelfAttention, batch: Batch, train: bool, last: bool
) -> jax.Array:
    # Tables start small; a sum of parts wants unit size.
    items_BLE = _items(network, batch, train, network.item_width**0.5)
    states_BLH = module(items_BLE, batch["mask"], train)
    return _last_of(states_BLH, batch["mask"]) if last else states_BLH


def _build_lstm(network: Any) -> Lstm:
    return Lstm(network.state_width, network.compute, name="lstm")


def _items_by_step(network: Any, batch: Batch, train: bool) -> jax.Array:
    """Returns item vectors [L, B, E], looked up in the order that an LSTM reads: nothing is transposed."""
    items_LBE = network.items(batch["item"].T, batch["mask"].T)
    if train and network.dropout:  # drawn as for the other encoders
        items_BLE = jnp.swapaxes(items_LBE, 0, 1)
        items_LBE = jnp.swapaxes(network.drop(items_BLE, deterministic=False), 0, 1)
    return items_LBE


def _lstm(network: Any, module: Lstm, batch: Batch, train: bool, last: bool) -> jax.Array:
    states_BLH = jnp.swapaxes(module(_items_by_step(network, batch, train)), 0, 1)
    return _last_of(states_BLH, batch["mask"]) if last else states_BLH


def _lstm_max(network: Any, module: Lstm, batch: Batch, train: bool, last: bool) -> jax.Array:
    items_LBE = _items_by_step(network, batch, train)
    if last:
        return module(items_LBE, batch["mask"].T)
    return running_max(jnp.swapaxes(module(items_LBE), 0, 1), batch["mask"])


def _last_of(states_BLH: jax.Array, mask_BL: jax.Array) -> jax.Array:
    """[B, H] of the last position that counts, the first one where none does."""
    last_B = jnp.maximum(mask_BL.sum(1) - 1, 0)
    return jnp.take_along_axis(states_BLH, last_B[:, None, None], 1)[:, 0]


ENCODERS = {
    # The maximum over time of an LSTM's outputs (source).
    "lstm-max": Encoder(_build_lstm, _lstm_max, lambda network: network.state_width),
    # The mean of the item vectors (paper).
    "mean": Encoder(_no_module, _mean, lambda network: network.item_width),
    # An LSTM's last output.
    "lstm": Encoder(_build_lstm, _lstm, lambda network: network.state_width),
    # Causal self-attention (SASRec).
    "attention": Encoder(_build_attention, _attention, lambda network: network.item_width),
}
EncoderName = Literal[tuple(ENCODERS)]  # type: ignore[valid-type]
