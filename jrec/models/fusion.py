"""The fusion rating model of the Paddle book: a user tower, an item tower, five times their cosine.

Source: "Recommender System" chapter of the Paddle book (fusion model on MovieLens-1M).
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from jrec.embeddings.table import Embed
from jrec.models.layers import cosine
from jrec.models.matmul import Compute, dot_general_in
from jrec.models.sequence_convolution import SequenceConvolution

_xavier = nn.initializers.xavier_uniform()


class Fusion(nn.Module):
    """Scores (user, item) pairs on the source's scale, `2 * stars - 5`, from -5 to 5.

    Every width is a field; the defaults are the source's. Which attributes there are is read from
    `table_rows`, so data sets without gender or age run unchanged.

    Attributes:
        table_rows: rows V of each table: `user`, `item`, `genres`, `title`, and any user attribute.
        id_width: D of the user and item id tables and of the layers behind them.
        attribute_width: the same for user attributes.
        genre_width, title_width: D of genre and title word vectors.
        title_filters, title_window: of the convolution over title words.
        title_pooling: `sum` (the source's program) or `max` (its text).
        title_positions: see `SequenceConvolution.positions`; None computes all padded positions.
        tower_width: of both towers' last layer (tanh).
        compute: of all layers' products, see `jrec.models.matmul`.
    """

    table_rows: Mapping[str, int]
    id_width: int = 32
    attribute_width: int = 16
    genre_width: int = 32
    title_width: int = 32
    title_filters: int = 32
    title_window: int = 3
    title_pooling: str = "sum"
    title_positions: int | None = None
    tower_width: int = 200
    compute: Compute = "float32"

    @nn.compact
    def __call__(self, user: Mapping[str, jax.Array], item: Mapping[str, jax.Array]) -> jax.Array:
        """Scores a batch.

        Args:
            user: int32 [B] table rows: `user` and each attribute.
            item: `item` int32 [B]; `genres`, `title` int32 [B, L] with `genres_mask`, `title_mask`
                bool [B, L].

        Returns:
            float32 [B]: 5 * cosine of the towers.
        """
        return 5 * cosine(self.user_tower(user), self.item_tower(item))

    def _dense(self, width: int, name: str) -> nn.Dense:
        dot_general = dot_general_in(self.compute)
        return nn.Dense(width, kernel_init=_xavier, dot_general=dot_general, name=name)

    def _attribute(self, name: str, width: int, rows_B: jax.Array) -> jax.Array:
        embed = Embed(self.table_rows[name], width, _xavier, name=f"{name}_table")
        return self._dense(width, f"{name}_layer")(embed(rows_B))

    def user_tower(self, user: Mapping[str, jax.Array]) -> jax.Array:
        """float32 [B, tower_width] from the user's id and attributes."""
        parts = [self._attribute("user", self.id_width, user["user"])]
        for name in sorted(set(user) - {"user"}):
            parts.append(self._attribute(name, self.attribute_width, user[name]))
        tower = self._dense(self.tower_width, "user_tower")
        return nn.tanh(tower(jnp.concatenate(parts, -1)))

    def item_tower(self, item: Mapping[str, jax.Array]) -> jax.Array:
        """float32 [B, tower_width] from the item's id, summed genres and convolved title."""
        tower = self._dense(self.tower_width, "item_tower")
        return nn.tanh(tower(jnp.concatenate(self.item_parts(item), -1)))

    def item_parts(self, item: Mapping[str, jax.Array]) -> list[jax.Array]:
        """float32 [B, width] each, what the item tower joins; a fork adds to it."""
        genres = Embed(
            self.table_rows["genres"], self.genre_width, _xavier, "sum", name="genres_table"
        )
        title = SequenceConvolution(
            self.table_rows["title"],
            self.title_width,
            self.title_filters,
            self.title_window,
            self.title_pooling,
            self.title_positions,
            compute=self.compute,
            name="title",
        )
        return [
            self._attribute("item", self.id_width, item["item"]),
            genres(item["genres"], item["genres_mask"]),
            title(item["title"], item["title_mask"]),
        ]
