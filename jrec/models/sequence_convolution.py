"""Word vectors of a title convolved and pooled."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jrec.embeddings.table import Embed
from jrec.models.matmul import Compute, dot_general_in
from jrec.models.packed_convolution import packed_convolution


class SequenceConvolution(nn.Module):
    """Word embeddings, a convolution over them, tanh, and a pool: one vector a sequence.

    Beyond the ends of a sequence stand zeros and its length is kept (Paddle's `sequence_conv_pool`).
    What stands at a masked position never reaches the result, nor does the amount of padding.

    Attributes:
        rows: V, rows of the word table.
        width: D of the word vectors. filters: F. window: words a filter sees (odd).
        pooling: `sum` or `max` over the sequence.
        positions: None computes all B x L positions. A number P computes only the counted ones,
            laid one after the other, and is exact while the batch counts at most P of them in
            prefixes (the caller's to check): titles average 3 words but are padded to 15.
        word_init: of the word table. compute: of the convolution, see `jrec.models.matmul`.
    """

    rows: int
    width: int
    filters: int
    window: int = 3
    pooling: str = "sum"
    positions: int | None = None
    word_init: nn.initializers.Initializer = nn.initializers.xavier_uniform()
    compute: Compute = "float32"

    @nn.compact
    def __call__(self, ids_BL: jax.Array, mask_BL: jax.Array) -> jax.Array:
        """int32 [B, L], bool [B, L] (a prefix of each row) -> float [B, F]."""
        embed = Embed(self.rows, self.width, self.word_init, name="words")
        # A convolution over concatenated windows is one matrix product.
        filters = nn.Dense(
            self.filters,
            kernel_init=nn.initializers.xavier_uniform(),
            dot_general=dot_general_in(self.compute),
            name="filters",
        )
        layers = embed, filters, self.window, self.pooling
        if self.positions is None:
            return padded_convolution(*layers, ids_BL, mask_BL)
        return packed_convolution(*layers, self.positions, ids_BL, mask_BL)


def padded_convolution(
    embed: Embed,
    filters: nn.Dense,
    window: int,
    pooling: str,
    ids_BL: jax.Array,
    mask_BL: jax.Array,
) -> jax.Array:
    """Returns float [B, F]: all padded positions are convolved, those that count are pooled."""
    words_BLD = embed(ids_BL, mask_BL)
    length, before = ids_BL.shape[1], window // 2
    wide = jnp.pad(words_BLD, ((0, 0), (before, window - 1 - before), (0, 0)))
    windows = jnp.concatenate([wide[:, k : k + length] for k in range(window)], -1)
    hidden_BLF = jnp.tanh(filters(windows))
    pool = masked_sum if pooling == "sum" else masked_max
    return pool(hidden_BLF, mask_BL)


def masked_sum(values_BLD: jax.Array, mask_BL: jax.Array) -> jax.Array:
    """Sum over the positions that a mask counts: float [..., L, D], bool [..., L] -> [..., D]."""
    return jnp.where(mask_BL[..., None], values_BLD, 0).sum(-2)


def masked_max(values_BLD: jax.Array, mask_BL: jax.Array) -> jax.Array:
    """Maximum over the positions that a mask counts; 0 where it counts none (not -inf).

    Shapes: float [..., L, D], bool [..., L] -> [..., D].
    """
    lowest = jnp.finfo(values_BLD.dtype).min
    best = jnp.where(mask_BL[..., None], values_BLD, lowest).max(-2)
    return jnp.where(mask_BL.any(-1)[..., None], best, 0)
