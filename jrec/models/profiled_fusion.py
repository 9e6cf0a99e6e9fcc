"""A stronger fusion model: the item tower also reads who gave the item which rating.

It joins the item autoencoder (Sedhain et al. 2015, "AutoRec: Autoencoders Meet Collaborative
Filtering", equations 1 and 2) with the features of the fusion model, as two towers:

    item  = sigmoid(profile . W + genres and title)       user = id + attributes, linear
    stars = mean + user bias + item bias + <user, item>

Part of each profile is hidden in training and predicted from the rest, so that the model does there
what it must do later: known ratings in, unknown ratings out.
"""

from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jrec.models.layers import Dropout
from jrec.models.matmul import Compute, dot_general_in, product
from jrec.models.sequence_convolution import SequenceConvolution, masked_sum

_small = nn.initializers.normal(0.02)


class Towers(NamedTuple):
    """Vectors and biases of B items and all N users; N counts padding and unknown rows."""

    item_BD: jax.Array
    item_bias_B: jax.Array
    user_ND: jax.Array
    user_bias_N: jax.Array


class ProfiledFusion(nn.Module):
    """The two towers of a block of items and all users.

    Attributes:
        table_rows: rows V of each table, as in `jrec.models.fusion.Fusion`.
        width: D of both towers.
        side_width: of genre and word vectors; user attributes have half of it.
        dropout: share of the item code that training drops.
        side_scale: factor of the features' part beside ids and profiles.
        axis_name: of the devices that blocks are split over, see `jrec.embeddings.batch_axis`.
        compute: of all products, see `jrec.models.matmul`.
    """

    table_rows: Mapping[str, int]
    width: int = 256
    side_width: int = 32
    dropout: float = 0.3
    side_scale: float = 0.3
    axis_name: str | None = None
    compute: Compute = "float32"

    @nn.compact
    def __call__(
        self,
        user: Mapping[str, jax.Array],
        item: Mapping[str, jax.Array],
        profile_BN: jax.Array,
        train: bool,
    ) -> Towers:
        """Computes both towers.

        Args:
            user: int32 [N] for each attribute, of all users by row.
            item: `item` int32 [B]; `genres`, `title` int32 [B, L] with `…_mask` bool [B, L].
            profile_BN: what the item towers read, see `profile_of`.
            train: whether to drop (needs the `dropout` stream).
        """
        user_rows, item_rows = self.table_rows["user"], self.table_rows["item"]
        user_ND = self.param("user_table", _small, (user_rows, self.width), jnp.float32)
        if user:
            attributes = [
                nn.Embed(self.table_rows[name], self.side_width // 2, name=f"{name}_table")(rows)
                for name, rows in sorted(user.items())
            ]
            side = self._side("user_side")(jnp.concatenate(attributes, -1))
            user_ND = user_ND + self.side_scale * side

        genres = nn.Embed(
            self.table_rows["genres"], self.side_width, embedding_init=_small, name="genres_table"
        )
        title = SequenceConvolution(
            self.table_rows["title"],
            self.side_width,
            self.side_width,
            word_init=nn.initializers.normal(self.side_width**-0.5),
            compute=self.compute,
            name="title",
        )
        parts = [
            masked_sum(genres(item["genres"]), item["genres_mask"]),
            title(item["title"], item["title_mask"]),
        ]
        side = self._side("item_side")(jnp.concatenate(parts, -1))
        weight_ND = self.param(
            "profile", nn.initializers.normal(0.01), (user_rows, self.width), jnp.float32
        )
        item_BD = nn.sigmoid(product(profile_BN, weight_ND, self.compute) + self.side_scale * side)

        item_bias_M = self.param("item_bias", nn.initializers.zeros, (item_rows,), jnp.float32)
        return Towers(
            Dropout(self.dropout, self.axis_name)(item_BD, deterministic=not train),
            item_bias_M[item["item"]],
            user_ND,
            self.param("user_bias", nn.initializers.zeros, (user_rows,), jnp.float32),
        )

    def _side(self, name: str) -> nn.Dense:
        return nn.Dense(self.width, dot_general=dot_general_in(self.compute), name=name)


def block_scores(towers: Towers, compute: Compute = "float32") -> jax.Array:
    """Stars less the mean rating, float32 [B, N], of all users for a block of items."""
    match_BN = product(towers.item_BD, towers.user_ND.T, compute)
    return match_BN + towers.item_bias_B[:, None] + towers.user_bias_N[None, :]


def profile_of(
    stars_BN: jax.Array, shown_BN: jax.Array, mean: jax.Array, item_bias_B: jax.Array
) -> jax.Array:
    """An item tower's reading of known ratings: stars less mean and item bias where shown, else 0."""
    return jnp.where(shown_BN, stars_BN - mean - item_bias_B[:, None], 0.0)
