"""Pieces that several systems share."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jrec.embeddings.batch_axis import local_part, whole_rows
from jrec.embeddings.table import Embed
from jrec.models.matmul import Compute, dot_general_in


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


def cosine(x_BD: jax.Array, y_BD: jax.Array, smallest: float = 1e-8) -> jax.Array:
    """Cosine of two vectors, each squared norm clamped to at least `smallest`.

    Shapes: float [..., D] twice -> [...]. Paddle's `cos_sim` clamps so; the gradient of a zero vector
    stays finite.
    """
    dot = (x_BD * y_BD).sum(-1)
    square_x = jnp.maximum((x_BD**2).sum(-1), smallest)
    square_y = jnp.maximum((y_BD**2).sum(-1), smallest)
    return dot * jax.lax.rsqrt(square_x) * jax.lax.rsqrt(square_y)


class Dropout(nn.Module):
    """`nn.Dropout`, drawn for the whole batch: N devices drop what one does.

    Attributes:
        rate: share that is dropped. axis_name: see `jrec.embeddings.batch_axis`.
    """

    rate: float
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, values: jax.Array, deterministic: bool, rng: jax.Array | None = None
    ) -> jax.Array:
        """float [B, ...]; the key is `rng`, else of the stream `dropout`."""
        if deterministic or self.rate == 0:
            return values
        key = self.make_rng("dropout") if rng is None else rng
        shape = (whole_rows(len(values), self.axis_name), *values.shape[1:])
        kept = jax.random.bernoulli(key, 1 - self.rate, shape)
        return jnp.where(local_part(kept, self.axis_name), values / (1 - self.rate), 0)


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
        form = self._padded if self.positions is None else self._packed
        return form(embed, filters, ids_BL, mask_BL)

    def _padded(
        self, embed: Embed, filters: nn.Dense, ids_BL: jax.Array, mask_BL: jax.Array
    ) -> jax.Array:
        words_BLD = embed(ids_BL, mask_BL)
        length, before = ids_BL.shape[1], self.window // 2
        wide = jnp.pad(words_BLD, ((0, 0), (before, self.window - 1 - before), (0, 0)))
        windows = jnp.concatenate([wide[:, k : k + length] for k in range(self.window)], -1)
        hidden_BLF = jnp.tanh(filters(windows))
        pool = masked_sum if self.pooling == "sum" else masked_max
        return pool(hidden_BLF, mask_BL)

    def _packed(
        self, embed: Embed, filters: nn.Dense, ids_BL: jax.Array, mask_BL: jax.Array
    ) -> jax.Array:
        batch, length = ids_BL.shape
        count_B = mask_BL.sum(1)
        end_B = jnp.cumsum(count_B)
        slot_P = jnp.arange(self.positions, dtype=jnp.int32)
        row_P = jnp.searchsorted(end_B, slot_P, side="right")  # B beyond the last counted position
        inside_P = jnp.minimum(row_P, batch - 1)
        place_P = slot_P - (end_B - count_B)[inside_P]
        counted_P = row_P < batch
        ids_P = ids_BL[inside_P, jnp.minimum(place_P, length - 1)]
        words_PD = embed(ids_P, counted_P)
        before = self.window // 2
        wide = jnp.pad(words_PD, ((before, self.window - 1 - before), (0, 0)))
        taps = []
        for k in range(self.window):
            neighbour_P = place_P + k - before
            within_P = (neighbour_P >= 0) & (neighbour_P < count_B[inside_P])
            taps.append(jnp.where(within_P[:, None], wide[k : k + self.positions], 0))
        hidden_PF = jnp.tanh(filters(jnp.concatenate(taps, -1)))
        if self.pooling == "sum":
            hidden_PF = jnp.where(counted_P[:, None], hidden_PF, 0)
            return jax.ops.segment_sum(hidden_PF, row_P, batch, indices_are_sorted=True)
        best_BF = jax.ops.segment_max(hidden_PF, row_P, batch, indices_are_sorted=True)
        return jnp.where(count_B[:, None] > 0, best_BF, 0)
