"""The deep autoencoder of DeepRecommender: a user's ratings in, predictions for all items out."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import flax.linen as nn
import jax
import jax.numpy as jnp

from jrec.models.layers import Dropout
from jrec.models.matmul import Compute, product

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "elu": jax.nn.elu,
    "selu": jax.nn.selu,
    "lrelu": jax.nn.leaky_relu,
    "swish": jax.nn.swish,
    "none": lambda x: x,
}


class Autoencoder(nn.Module):
    """n, h1, ..., hk, dropout, h(k-1), ..., h1, n: Kuchaiev and Ginsburg 2017, section 2.

    `jrec.models.autoencoder_rated` computes the same of the items that a batch rates alone.

    Attributes:
        items: M, inputs and outputs.
        hidden: widths of the encoder's layers; the decoder mirrors them.
        activation: a name in `ACTIVATIONS`, after every layer.
        last_activation: whether also after the last (the source does so unless told not to; with
            `sigmoid` and `tanh`, which cannot reach a rating of 5, it must not).
        tied: the decoder's kernels are the encoder's, transposed ("constrained" in the source).
        dropout: share of the code that is dropped in training. input_noise: share of the inputs.
        axis_name: of the devices that batches are split over, see `jrec.embeddings.batch_axis`.
        compute: of all products, see `jrec.models.matmul`.

    Parameters: `encoder_i`, `decoder_i` of {"kernel", "bias"}, i from the items' side, so that
    `decoder_0` gives the predictions; its kernel is [M, h1], as the encoder's. Xavier-uniform
    kernels, zero biases.
    """

    items: int
    hidden: Sequence[int]
    activation: str = "selu"
    last_activation: bool = True
    tied: bool = False
    dropout: float = 0.0
    input_noise: float = 0.0
    axis_name: str | None = None
    compute: Compute = "float32"

    def setup(self) -> None:
        widths = (self.items, *self.hidden)
        self.encoder = [
            Layer((n_in, n_out), n_out, name=f"encoder_{i}")
            for i, (n_in, n_out) in enumerate(pairwise(widths))
        ]
        # Kernels are kept in the encoder's orientation: rows of items stay rows of memory.
        self.decoder = [
            Layer(None if self.tied else (n_out, n_in), n_out, name=f"decoder_{i}")
            for i, (n_out, n_in) in enumerate(pairwise(widths))
        ]
        self.drop = Dropout(self.dropout, self.axis_name)
        self.noise = Dropout(self.input_noise, self.axis_name)

    def __call__(self, ratings_BM: jax.Array, train: bool = False) -> jax.Array:
        """float [B, M], 0 where there is no rating -> predictions [B, M]."""
        return self.everything(self.last_hidden(ratings_BM, train))

    def last_hidden(self, ratings_BM: jax.Array, train: bool = False) -> jax.Array:
        """float [B, M], 0 where there is no rating -> the layer before the last [B, h1].

        In training the streams `dropout` and `noise` are drawn from (each if its share is above 0).
        """
        kernel_MH, bias_1H = self.encoder[0]()
        inputs_BM = self.noisy(ratings_BM, train)
        return self.middle(product(inputs_BM, kernel_MH, self.compute) + bias_1H, train)

    def last_hidden_of_list(
        self,
        item_P: jax.Array,
        row_P: jax.Array,
        rating_P: jax.Array,
        mask_P: jax.Array,
        batch_size: int,
        train: bool = False,
    ) -> jax.Array:
        """As `last_hidden`, from the ratings that there are, in whatever number P.

        Args:
            item_P: int32 [P], 0..M-1. row_P: int32 [P], 0..B-1, never falling: whose rating it is.
            rating_P: float [P]. mask_P: bool [P], which of them count. batch_size: B.
        """
        kernel_MH, bias_1H = self.encoder[0]()
        rating_P = self.noisy(jnp.where(mask_P, rating_P, 0), train)
        parts_PH = rating_P[:, None] * kernel_MH[item_P]
        sum_BH = jax.ops.segment_sum(parts_PH, row_P, batch_size, indices_are_sorted=True)
        return self.middle(sum_BH + bias_1H, train)

    def everything(self, last_BH: jax.Array) -> jax.Array:
        """The layer before the last [B, h1] -> predictions of all items [B, M]."""
        kernel_MH, bias_1M = self.decoder_layer(0)
        return self.last(product(last_BH, kernel_MH.T, self.compute) + bias_1M)

    def at(self, last_BH: jax.Array, row_P: jax.Array, item_P: jax.Array) -> jax.Array:
        """The layer before the last [B, h1] -> predictions at pairs of int32 [P] and [P] alone."""
        kernel_MH, bias_1M = self.decoder_layer(0)
        return self.last((last_BH[row_P] * kernel_MH[item_P]).sum(-1) + bias_1M[0, item_P])

    def middle(self, code: jax.Array, train: bool) -> jax.Array:
        """The first layer before its activation -> the layer before the last."""
        code = self._activate(code)
        for layer in self.encoder[1:]:
            kernel, bias = layer()
            code = self._activate(product(code, kernel, self.compute) + bias)
        key = self.make_rng("dropout") if train and self.dropout > 0 else None
        code = self.drop(code, deterministic=not train, rng=key)
        for i in reversed(range(1, len(self.decoder))):
            kernel, bias = self.decoder_layer(i)
            code = self._activate(product(code, kernel.T, self.compute) + bias)
        return code

    def noisy(self, inputs: jax.Array, train: bool) -> jax.Array:
        key = self.make_rng("noise") if train and self.input_noise > 0 else None
        return self.noise(inputs, deterministic=not train, rng=key)

    def decoder_layer(self, i: int) -> tuple[jax.Array, jax.Array]:
        kernel, bias = self.decoder[i]()
        return (self.encoder[i]()[0] if self.tied else kernel), bias

    def _activate(self, x: jax.Array) -> jax.Array:
        return ACTIVATIONS[self.activation](x)

    def last(self, x: jax.Array) -> jax.Array:
        return self._activate(x) if self.last_activation else x


class Layer(nn.Module):
    """A kernel (none where `shape` is None) and a bias, given when called: (kernel, bias [1, width])."""

    shape: tuple[int, int] | None
    width: int

    @nn.compact
    def __call__(self) -> tuple[jax.Array | None, jax.Array]:
        kernel = None
        if self.shape is not None:
            kernel = self.param("kernel", nn.initializers.xavier_uniform(), self.shape, jnp.float32)
        return kernel, self.param("bias", nn.initializers.zeros, (self.width,), jnp.float32)[None]
