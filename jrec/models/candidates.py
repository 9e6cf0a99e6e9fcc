"""Candidate generation: a user's clicks and features in, a vector whose products score all items out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jrec.embeddings.table import Embed
from jrec.models.encoders import ENCODERS, EncoderName
from jrec.models.layers import Dropout
from jrec.models.matmul import Compute, dot_general_in
from jrec.models.sequences import running_mean, whole_mean


@dataclass(frozen=True)
class FeatureColumn:
    """One column that the network reads, as the data describes it.

    Attributes:
        name: of the column. of: `user`, or `item` (of the items in the history).
        kind: `categorical`, `bag` or `continuous`.
        vocabulary: of the first two; columns of one vocabulary share their table.
    """

    name: str
    of: Literal["user", "item"]
    kind: Literal["categorical", "bag", "continuous"]
    vocabulary: str = ""


class CandidateNetwork(nn.Module):
    """History encoder, features, ReLU tower: Covington et al. 2016, section 3; Paddle's youtube_recall.

    One network trains in two forms. Every position of a history gives a user vector that has read the
    history up to there: in the prefix form all of them are trained in one pass, in the window form
    the last one alone.

    Attributes:
        item_rows: V of the item vocabulary. table_rows, table_widths: of the other vocabularies.
        columns: the features. example_age: whether a batch's `age` is read.
        encoder: of the history, see `jrec.models.encoders`.
        item_width: of item vectors. state_width: of an LSTM. layers, heads: of attention.
        tower: widths of ReLU layers; none: the encoder's state, beside which stand no features.
        tied: score with the vectors that are read (then the user vector has their width).
        dropout: in attention and on item vectors. table_scale: standard deviation of new tables.
        axis_name: of the devices that batches are split over, see `jrec.embeddings.batch_axis`.
        compute: of the network's products (not of item scores), see `jrec.models.matmul`.
    """

    item_rows: int
    table_rows: Mapping[str, int]
    table_widths: Mapping[str, int]
    columns: Sequence[FeatureColumn] = ()
    example_age: bool = False
    encoder: EncoderName = "lstm-max"
    item_width: int = 64
    state_width: int = 64
    layers: int = 2
    heads: int = 2
    tower: Sequence[int] = (256, 31)
    tied: bool = False
    dropout: float = 0.0
    table_scale: float = 0.001
    axis_name: str | None = None
    compute: Compute = "float32"

    def setup(self) -> None:
        init = nn.initializers.normal(self.table_scale)
        self.items = Embed(self.item_rows, self.item_width, init, name="item_table")
        used = sorted({column.vocabulary for column in self.columns} - {""})
        self.tables = {
            name: Embed(self.table_rows[name], self.table_widths[name], init, name=f"{name}_table")
            for name in used
            if name != "item"
        }
        self.history = ENCODERS[self.encoder].build(self)
        self.tower_layers = [
            nn.Dense(width, dot_general=dot_general_in(self.compute), name=f"tower_{k}")
            for k, width in enumerate(self.tower)
        ]
        self.drop = Dropout(self.dropout, self.axis_name)
        if not self.tied:
            self.output = Embed(self.item_rows, self.vector_width, init, name="output_table")
        self.bias = Embed(self.item_rows, 1, nn.initializers.zeros, name="bias_table")

    @property
    def vector_width(self) -> int:
        """D of user and output vectors."""
        return self.tower[-1] if self.tower else ENCODERS[self.encoder].width(self)

    def all_vectors(self, batch: Mapping[str, Any], train: bool = False) -> jax.Array:
        """User vectors after every position, float [B, L, D]; what stands at masked ones means nothing.

        Args:
            batch: `item` int32 [B, L] and `mask` bool [B, L], a prefix of each row, the oldest click
                first; `user_features` and `item_features`, by name: categorical int32 [B] or [B, L],
                bag (ids [B, (L,) F], mask), continuous (values, known); `age` float [B, L]. Numbers
                and ages lie in [0, 1].
        """
        states_BLH = self._states(batch, train)
        length = states_BLH.shape[1]
        parts = [states_BLH, *self._history_features(batch)]
        for part_BE in self._user_features(batch):
            shape = (len(part_BE), length, part_BE.shape[-1])
            parts.append(jnp.broadcast_to(part_BE[:, None], shape))
        if self.example_age:
            parts.append(_age_parts(batch["age"]))
        return self._tower(jnp.concatenate(parts, -1))

    def last_vectors(self, batch: Mapping[str, Any], train: bool = False) -> jax.Array:
        """User vectors after the whole history, float [B, D]; `age` is float [B] here."""
        parts = [self._states(batch, train, last=True)]
        parts += self._history_features(batch, last=True)
        parts += self._user_features(batch)
        if self.example_age:
            parts.append(_age_parts(batch["age"]))
        return self._tower(jnp.concatenate(parts, -1))

    def outputs(self, ids: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Output vectors float [..., D] and biases [...] of item rows int32 [...]."""
        table = self.items if self.tied else self.output
        return table(ids), self.bias(ids)[..., 0]

    def __call__(self, batch: Mapping[str, Any]) -> tuple[jax.Array, jax.Array]:
        """All that has parameters, once: for `init`."""
        return self.last_vectors(batch), self.outputs(batch["item"])[0]

    def _states(self, batch: Mapping[str, Any], train: bool, last: bool = False) -> jax.Array:
        """The encoder's states [B, L, H], or those after the whole history, [B, H]."""
        return ENCODERS[self.encoder].states(self, self.history, batch, train, last)

    def _history_features(self, batch: Mapping[str, Any], last: bool = False) -> list[jax.Array]:
        """Means over the values of all items read so far [B, L, E], or of the whole history [B, E]."""
        parts, mean = [], whole_mean if last else running_mean
        for column in self.columns:
            if column.of == "user":
                continue
            feature = batch["item_features"][column.name]
            if column.kind == "continuous":
                values_BL, known_BL = feature
                parts.append(mean(values_BL[..., None], known_BL & batch["mask"]))
                continue
            ids, mask = feature if column.kind == "bag" else (feature[..., None], None)
            counted = jnp.broadcast_to(batch["mask"][..., None], ids.shape)
            counted = counted if mask is None else counted & mask
            table = self._table(column.vocabulary)
            if last:
                flat = (ids.shape[0], -1)  # a program written down has a batch of any size
                parts.append(table(ids.reshape(flat), counted.reshape(flat), pooling="mean"))
            else:
                sums_BLE = table(ids, counted, pooling="sum")
                parts.append(running_mean(sums_BLE, counted.sum(2)))
        return parts

    def _user_features(self, batch: Mapping[str, Any]) -> list[jax.Array]:
        parts = []
        for column in self.columns:
            if column.of == "item":
                continue
            feature = batch["user_features"][column.name]
            if column.kind == "continuous":
                values_B, known_B = feature
                parts.append(jnp.stack([jnp.where(known_B, values_B, 0), known_B], -1))
            elif column.kind == "bag":
                ids_BF, mask_BF = feature
                parts.append(self._table(column.vocabulary)(ids_BF, mask_BF, pooling="mean"))
            else:
                parts.append(self._table(column.vocabulary)(feature))
        return parts

    def _table(self, vocabulary: str) -> Embed:
        return self.items if vocabulary == "item" else self.tables[vocabulary]

    def _tower(self, values: jax.Array) -> jax.Array:
        for layer in self.tower_layers:
            values = jax.nn.relu(layer(values))
        return values


def _age_parts(age: jax.Array) -> jax.Array:
    """Example age, its square and its root, as the paper's continuous features: [...] -> [..., 3]."""
    return jnp.stack([age, age**2, jnp.sqrt(age)], -1)
