"""Trains one large table, spread over virtual devices of this machine, and measures the memory that it takes.

    XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m experiments.benchmarks.sharded_table

Each example reads 8 rows; their sum goes through a linear layer; the target is the sum of numbers planted on
the ids, which a table of any width can learn. Row-wise Adagrad. Prints losses, seconds a step and the peak.
"""

import time
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from experiments.benchmarks.turns import peak_gib, setting
from jrec.embeddings import optimizers as row_optimizers
from jrec.embeddings.sharded import init_sharded, look_up, route, update_sharded
from jrec.errors import run_command

AXIS = "rows"


@dataclass
class Sharded:
    """What to train."""

    rows: int = 50_000_000
    """Of the table."""
    width: int = 64
    """Of its vectors."""
    batch_size: int = 4096
    """Examples a step, over all devices."""
    ids: int = 8
    """Rows that an example reads."""
    steps: int = 100
    """Steps, after one that compiles."""
    hot: float = 1.2
    """Exponent of the ids' Zipf distribution: a few rows are read often, most never."""


def draw(settings: Sharded, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids int32 [B, ids] and targets float32 [B] of a step; frequent ids lie all over the table."""
    generator = np.random.default_rng(step)
    shape = (settings.batch_size, settings.ids)
    rank = generator.zipf(settings.hot, shape) % settings.rows
    ids = (rank.astype(np.uint64) * 2_654_435_761 % settings.rows).astype(np.int32)
    planted = (rank * 7919 % 1000) / 1000 - 0.5
    return ids, planted.sum(1).astype(np.float32)


def main(settings: Sharded) -> None:
    print(setting())
    devices = np.array(jax.devices())
    mesh = Mesh(devices, (AXIS,))
    rule = row_optimizers.rowwise_adagrad(0.1)
    split, whole = PartitionSpec(AXIS), PartitionSpec()

    def init(key: jax.Array, shape: tuple[int, int]) -> jax.Array:
        return jax.random.uniform(key, shape, jnp.float32, -0.05, 0.05)

    def step(table, state, weight_D, ids_BF, target_B, number):
        way = route(ids_BF.reshape(-1), settings.rows, AXIS)
        rows_ND = look_up(table, way, AXIS)

        def loss(rows_ND, weight_D):
            rows_BFD = rows_ND.reshape(*ids_BF.shape, -1)
            return ((rows_BFD.sum(1) @ weight_D - target_B) ** 2).sum() / settings.batch_size

        own, (rows_gradient, gradient_D) = jax.value_and_grad(loss, (0, 1))(rows_ND, weight_D)
        total, gradient_D = jax.lax.psum((own, gradient_D), AXIS)
        table, state = update_sharded(rule, table, state, way, rows_gradient, number, AXIS)
        return table, state, weight_D - 0.01 * gradient_D, total

    over = jax.shard_map(
        step,
        mesh=mesh,
        in_specs=(split, split, whole, split, split, whole),
        out_specs=(split, split, whole, whole),
        check_vma=False,
    )
    train = jax.jit(over, donate_argnums=(0, 1, 2))
    started = time.perf_counter()
    table, state = init_sharded(mesh, settings.rows, settings.width, init, rule, jax.random.key(0))
    jax.block_until_ready((table, state))
    size = table.nbytes + sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    print(
        f"{settings.rows:,} x {settings.width} over {len(devices)} devices: {table.nbytes / 1e9:.2f} GB of "
        f"table, {size / 1e9:.2f} GB with its state, made in {time.perf_counter() - started:.0f} s; "
        f"peak {peak_gib():.2f} GiB",
        flush=True,
    )
    weight_D = jax.device_put(np.full(settings.width, 0.2, np.float32), NamedSharding(mesh, whole))
    losses = []
    for number in range(settings.steps + 1):
        if number == 1:
            jax.block_until_ready(table)
            started = time.perf_counter()
        batch = jax.device_put(draw(settings, number), NamedSharding(mesh, split))
        table, state, weight_D, total = train(table, state, weight_D, *batch, jnp.int32(number))
        losses.append(total)
    losses = [float(value) for value in losses]
    seconds = (time.perf_counter() - started) / settings.steps
    tenth = max(len(losses) // 10, 1)
    print(
        f"loss {np.mean(losses[:tenth]):.4f} at first, {np.mean(losses[-tenth:]):.4f} at last; "
        f"{seconds * 1e3:.0f} ms a step of {settings.batch_size:,} x {settings.ids} ids; peak {peak_gib():.2f} GiB"
    )


if __name__ == "__main__":
    run_command(lambda: main(tyro.cli(Sharded, description=__doc__)))
