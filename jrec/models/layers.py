"""Pieces that several systems share."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jrec.embeddings.batch_axis import local_part, whole_rows


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
