"""Where a run's batches come from: a function of (seed, epoch, step)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from jrec.train.chunk import Gather, epoch_order
from jrec.train.devices import make_chunk_on, replicated, split_order
from jrec.train.step import Step


@dataclass(frozen=True)
class DeviceStream:
    """Columns that lie on the devices; the compiled loop gathers its batches out of them.

    Attributes:
        data: pytree of columns, see `jrec.train.devices.placed`.
        gather: (data, positions int32 [B], mask bool [B]) -> batch.
        count: examples. batch_size: B, of all devices together.
        key: of the epochs' orders.
        shuffle: (key, epoch, count, batch_size) -> the epoch's order, `epoch_order` or `mixed_order`.
    """

    data: Any
    gather: Gather
    count: int
    batch_size: int
    key: jax.Array
    shuffle: Callable[[jax.Array, int, int, int], jax.Array] = epoch_order

    @property
    def steps(self) -> int:
        """Steps an epoch; the last batch may be masked in part."""
        return math.ceil(self.count / self.batch_size)

    def order(self, epoch: int) -> jax.Array:
        """Returns the order of an epoch, from 0, on the devices."""
        whole = self.shuffle(self.key, epoch, self.count, self.batch_size)
        return split_order(whole, self.batch_size)

    def chunk(self, step: Step) -> Callable:
        """Returns the compiled loop over steps, see `jrec.train.chunk.many_steps`."""
        return make_chunk_on(step, self.gather, self.count, self.batch_size)

    def on_devices(self) -> Any:
        """Returns the columns as the compiled loop reads them."""
        return replicated(self.data)
