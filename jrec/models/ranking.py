"""Ranking: features of a user, an item and their history in, an expected watch time out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jrec.embeddings.table import Embed
from jrec.models.layers import Dropout
from jrec.models.matmul import Compute, dot_general_in

HeadName = Literal["watch", "click", "completion"]


@dataclass(frozen=True)
class IdColumn:
    """One feature of ids.

    Attributes:
        name: of the feature. vocabulary: features of one vocabulary share their table.
        bag: any number of ids, whose vectors are averaged; else one.
    """

    name: str
    vocabulary: str
    bag: bool = False


class RankingNetwork(nn.Module):
    """Embeddings and continuous features, a ReLU tower, one logit a head: Covington et al. 2016, 4.

    Attributes:
        table_rows, table_widths: by vocabulary.
        ids: the features of ids. numbers: how many continuous features there are.
        powers: give each continuous feature x as x, x^2 and sqrt(x); else x alone.
        tower: widths of the ReLU layers that all heads share; none: logistic regression.
        heads: `watch`, whose exp is the expected watch time when trained by
            `jrec.losses.watch_time.weighted_logistic`; `click` and `completion`, log-odds.
        dropout: after each layer. table_scale: standard deviation of new tables.
        axis_name: of the devices that batches are split over, see `jrec.embeddings.batch_axis`.
        compute: of the layers' products, see `jrec.models.matmul`.
    """

    table_rows: Mapping[str, int]
    table_widths: Mapping[str, int]
    ids: Sequence[IdColumn] = ()
    numbers: int = 0
    powers: bool = True
    tower: Sequence[int] = (1024, 512, 256)
    heads: Sequence[HeadName] = ("watch",)
    dropout: float = 0.0
    table_scale: float = 0.01
    axis_name: str | None = None
    compute: Compute = "float32"

    @nn.compact
    def __call__(self, batch: Mapping[str, Any], train: bool = False) -> dict[str, jax.Array]:
        """A logit float32 [B] for each head.

        Args:
            batch: `ids`, by name: int32 [B], or (int32 [B, L], mask bool [B, L]) for a bag; `numbers`
                float32 [B, F] in [0, 1], `known` bool [B, F]: unknown numbers read as zeros and
                are told apart from known ones.
            train: with dropout, whose key is `dropout`.

        Raises ValueError for numbers of another width than `numbers`, or no features or heads.
        """
        if not self.heads or not (self.ids or self.numbers):
            raise ValueError("A ranking network needs a head and a feature.")
        init = nn.initializers.normal(self.table_scale)
        tables = {
            name: Embed(self.table_rows[name], self.table_widths[name], init, name=f"{name}_table")
            for name in sorted({column.vocabulary for column in self.ids})
        }
        parts = []
        for column in self.ids:
            table, value = tables[column.vocabulary], batch["ids"][column.name]
            if column.bag:
                ids_BL, mask_BL = value
                count_B1 = jnp.maximum(mask_BL.sum(-1, keepdims=True), 1)
                parts.append(table(ids_BL, mask_BL).sum(1) / count_B1)
            else:
                parts.append(table(value))
        if self.numbers:
            parts.append(self._number_parts(batch["numbers"], batch["known"]))
        hidden = jnp.concatenate(parts, -1)
        for k, width in enumerate(self.tower):
            he, dot_general = nn.initializers.he_normal(), dot_general_in(self.compute)
            dense = nn.Dense(width, kernel_init=he, dot_general=dot_general, name=f"tower_{k}")
            hidden = jax.nn.relu(dense(hidden))
            hidden = Dropout(self.dropout, self.axis_name)(hidden, deterministic=not train)
        return {name: nn.Dense(1, name=f"{name}_head")(hidden)[:, 0] for name in self.heads}

    def _number_parts(self, numbers_BF: jax.Array, known_BF: jax.Array) -> jax.Array:
        if numbers_BF.shape[-1] != self.numbers:
            raise ValueError(f"There are {numbers_BF.shape[-1]} numbers, not {self.numbers}.")
        x_BF = jnp.where(known_BF, numbers_BF, 0)
        parts = [x_BF, known_BF.astype(jnp.float32)]
        if self.powers:
            # The root's slope is infinite at 0, where a gradient with respect to x would be NaN.
            root_BF = jnp.where(x_BF > 0, jnp.sqrt(jnp.where(x_BF > 0, x_BF, 1)), 0)
            parts += [x_BF**2, root_BF]
        return jnp.concatenate(parts, -1)
