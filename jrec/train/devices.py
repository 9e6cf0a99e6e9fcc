"""Steps and evaluation on many devices: a batch is split over them under `pmap`, parameters are on each.

One device takes the plain `jit` path. Over several processes (see `jrec.train.processes`) an array here is
its process's own view: replicated over its local devices, or their parts of what is spread over all.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jrec.errors import InputError
from jrec.train.chunk import Gather, make_chunk, many_steps
from jrec.train.spread import Spread, is_spread
from jrec.train.step import Step

AXIS = "devices"

Devices = tuple[jax.Device, ...]
"""Those of all processes, in the order in which they hold a batch's rows; none for the default one."""

_current: Devices = ()

_NONE = np.iinfo(np.int32).max  # a place without an example, whatever their number


def first_devices(count: int) -> Devices:
    """The first devices of a single process.

    Raises InputError where there are not as many.
    """
    there = jax.devices()
    if not 1 <= count <= len(there):
        hint = ""
        if there[0].platform == "cpu":
            hint = (
                f" (on a CPU, XLA_FLAGS=--xla_force_host_platform_device_count={count} makes some)"
            )
        raise InputError(f"--devices must be from 1 to {len(there)}, but is {count}{hint}.")
    return tuple(there[:count])


@contextmanager
def on_devices(devices: Devices) -> Iterator[None]:
    """Makes these the current devices, which all functions here take."""
    global _current
    before, _current = _current, devices
    try:
        yield
    finally:
        _current = before


def current_devices() -> Devices:
    """Returns the devices that a run trains on (see `on_devices`); none for the default one."""
    return _current


def device_axis() -> str | None:
    """Returns the name of the axis that batches are split over; None for one device."""
    return AXIS if len(_current) > 1 else None


def rows_each(batch_size: int) -> int:
    """Returns the rows of a batch that a device holds; the last ones may be filled up."""
    return -(-batch_size // max(len(_current), 1))


def replicated(tree: Any) -> Any:
    """Returns the tree on each of this process's devices; what is spread stays so."""
    devices = _current
    if len(devices) <= 1:
        return tree
    leaves, structure = jax.tree.flatten(tree, is_leaf=is_spread)
    wholes = iter(jax.device_put([x for x in leaves if not is_spread(x)], _local(devices)))
    return structure.unflatten([x if is_spread(x) else next(wholes) for x in leaves])


def several_processes() -> bool:
    """Whether training data is spread over the devices."""
    return jax.process_count() > 1


def placed(rows_of: Callable[[slice], Any], count: int) -> Any:
    """Long columns on the devices: whole on each of a single process's, spread over those of several.

    Args:
        rows_of: rows -> those rows of each column, a pytree of host arrays. It is asked for this process's
            rows alone; where it has fewer, they are filled up with zeros.
        count: rows of the columns.
    """
    devices = _current
    if len(devices) > 1 and several_processes():
        return spread(rows_of, count, devices)
    whole = _filled_up(rows_of(slice(0, count)), count)
    return replicated(whole) if len(devices) > 1 else jax.tree.map(jnp.asarray, whole)


def spread(rows_of: Callable[[slice], Any], count: int, devices: Devices) -> Any:
    """The columns of `placed`, each a `Spread` over the devices of all processes."""
    rows = max(-(-count // len(devices)), 1)
    parts = [
        _filled_up(rows_of(slice(min(rows * k, count), min(rows * (k + 1), count))), rows)
        for k in _mine(devices)
    ]

    def on_devices(*parts: np.ndarray) -> Spread:
        return Spread(jax.device_put(np.stack(parts), _local(devices, AXIS)), count, AXIS)

    return jax.tree.map(on_devices, *parts)


def _filled_up(columns: Any, rows: int) -> Any:
    def fill(column: np.ndarray) -> np.ndarray:
        if len(column) == rows:
            return column
        shape = (rows - len(column), *column.shape[1:])
        return np.concatenate([column, np.zeros(shape, column.dtype)])

    return jax.tree.map(fill, columns)


def first_batch(gather: Gather, data: Any) -> Any:
    """The batch of the first example alone, on the host: what a network's `init` looks at."""
    positions, mask = np.zeros(1, np.int32), np.ones(1, bool)
    return jax.device_get(alike(gather)(data, positions, mask))


def alike(function: Callable) -> Callable:
    """A function of arrays, jitted; on many devices each computes all of it, as what is spread needs them all.

    Its results are on one device.
    """
    devices = _current
    if len(devices) <= 1:
        return jax.jit(function)
    mapped = _mapped(lambda arguments, _: function(*arguments), (None, 0), devices)
    each = _to_local(np.zeros(len(devices)), devices)  # pmap wants something that is split
    return lambda *arguments: on_one(mapped(replicated(arguments), each))


def on_one(tree: Any) -> Any:
    """What is replicated, on the first device alone."""
    return jax.tree.map(lambda leaf: leaf.addressable_shards[0].data, tree)


def whole_sharding(devices: Devices) -> jax.sharding.Sharding:
    """Where checkpoints put parameters: on all devices of all processes."""
    if len(devices) <= 1:
        return jax.sharding.SingleDeviceSharding((devices or jax.local_devices())[0])
    return NamedSharding(Mesh(np.array(devices), (AXIS,)), PartitionSpec())


def split_order(order: jax.Array, batch_size: int) -> jax.Array:
    """An epoch's order [steps * B] as each local device's part of every batch, [devices, steps * rows].

    Batches that the devices do not divide are filled up with places of no example.
    """
    devices = _current
    if len(devices) <= 1:
        return order
    rows, many = rows_each(batch_size), len(devices)
    order_SB = np.asarray(order).reshape(-1, batch_size)
    filled = np.pad(order_SB, ((0, 0), (0, rows * many - batch_size)), constant_values=_NONE)
    parts = filled.reshape(-1, many, rows).swapaxes(0, 1).reshape(many, -1)
    return _to_local(parts, devices)


def make_chunk_on(step: Step, gather: Gather, count: int, batch_size: int) -> Callable:
    """As `jrec.train.chunk.make_chunk`; on many devices the order is that of `split_order`.

    Args:
        step: made with `device_axis()`. batch_size: of the whole batch.
    """
    devices = _current
    if len(devices) <= 1:
        return make_chunk(step, gather, count, batch_size)
    steps = many_steps(step, gather, count, rows_each(batch_size))
    return _mapped(steps, (None, None, 0, None, None), devices, donate_argnums=0)


def _mapped(body: Callable, in_axes: tuple, devices: Devices, **options: Any) -> Callable:
    """`jax.pmap` with results on every device; of arguments without an axis, what is spread is split."""
    compiled = {}

    def axes(argument: Any) -> Any:
        return jax.tree.map(
            lambda leaf: 0 if is_spread(leaf) else None, argument, is_leaf=is_spread
        )

    def run(*arguments: Any) -> Any:
        form = jax.tree.structure(arguments)
        if form not in compiled:
            given = zip(in_axes, arguments, strict=True)
            split = tuple(axes(value) if axis is None else axis for axis, value in given)
            compiled[form] = jax.pmap(
                body, AXIS, in_axes=split, out_axes=None, devices=devices, **options
            )
        return compiled[form](*arguments)

    return run


def over_devices(of_batches: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """A function of many batches, jitted, with the batches shared out over the devices.

    Args:
        of_batches: (arguments, leaves [n, ...]) -> leaves [n, ...], each batch by itself.

    Returns:
        The same function; its results are on every device. No batch is computed otherwise than alone, so
        the numbers do not depend on the devices.
    """
    devices = _current
    if len(devices) <= 1:
        return jax.jit(of_batches)

    def share(arguments: Any, batches: Any) -> Any:
        return jax.lax.all_gather(of_batches(arguments, batches), AXIS, tiled=True)

    mapped = _mapped(share, (None, 0), devices)

    def run(arguments: Any, batches: Any) -> Any:
        count = len(jax.tree.leaves(batches)[0])
        many = len(devices)

        def parts(leaf: Any) -> jax.Array:
            rows = np.minimum(np.arange(count + -count % many), count - 1).reshape(many, -1)
            mine = np.asarray(leaf)[rows[_mine(devices)]]  # a process reads no others
            return jax.device_put(mine, _local(devices, AXIS))

        found = mapped(replicated(arguments), jax.tree.map(parts, batches))
        return found if count % many == 0 else jax.tree.map(lambda leaf: leaf[:count], found)

    return run


def as_global(tree: Any, devices: Devices) -> Any:
    """A process's view of replicated arrays as arrays of all processes, which Orbax saves."""
    return _rewrapped(tree, whole_sharding(devices))


def as_local(tree: Any, devices: Devices) -> Any:
    """Returns arrays of all processes as this one's view of them."""
    return tree if len(devices) <= 1 else _rewrapped(tree, _local(devices))


def _rewrapped(tree: Any, sharding: jax.sharding.Sharding) -> Any:
    if jax.process_count() == 1:
        return tree

    def wrap(leaf: jax.Array) -> jax.Array:
        parts = [shard.data for shard in leaf.addressable_shards]
        return jax.make_array_from_single_device_arrays(leaf.shape, sharding, parts)

    return jax.tree.map(wrap, tree)


def _mine(devices: Devices) -> list[int]:
    """Places of this process's devices."""
    return [k for k, device in enumerate(devices) if device.process_index == jax.process_index()]


def _local(devices: Devices, *split: str) -> NamedSharding:
    mesh = Mesh(np.array([devices[k] for k in _mine(devices)]), (AXIS,))
    return NamedSharding(mesh, PartitionSpec(*split))


def _to_local(parts: np.ndarray, devices: Devices) -> jax.Array:
    """Of [devices, ...] on the host, this process's parts on its devices."""
    return jax.device_put(parts[_mine(devices)], _local(devices, AXIS))
