"""A train step that updates embedding tables by the rows read: `(state, batch) -> (state, metrics)`."""

from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jrec.embeddings.batch_axis import gathered, summed
from jrec.embeddings.optimizers import RowOptimizer
from jrec.embeddings.table import Lookup, RowReads
from jrec.embeddings.updates import init_table, update_table
from jrec.train.step import Batch, Metrics, Parameters, Step, TrainState

Tables = dict[str, jax.Array]


def embedding_tables(params: Parameters) -> tuple[str, ...]:
    """Names of all leaves called `embedding`: their paths, as `params.title.words.embedding`."""
    return tuple(n for n in _named_leaves(params) if n.split(".")[-1] == "embedding")


def init_row_state(
    params: Parameters,
    optimizer: optax.GradientTransformation,
    row_optimizer: RowOptimizer,
    key: jax.Array,
    tables: Collection[str] | None = None,
) -> TrainState:
    """The state before the first step of `make_row_step`, whose arguments these are.

    Its `opt_state` is {"rest": Optax's, for all but the tables, "tables": {name: the table's}}.
    """
    chosen, rest = _take_tables(params, tables)
    opt_state = {
        "rest": optimizer.init(rest),
        "tables": {name: init_table(row_optimizer, table) for name, table in chosen.items()},
    }
    return TrainState(jnp.zeros((), jnp.int32), key, params, opt_state)


def make_row_step(
    loss: Callable[..., tuple[jax.Array, jax.Array]],
    optimizer: optax.GradientTransformation,
    row_optimizer: RowOptimizer,
    axis_name: str | None = None,
    tables: Collection[str] | None = None,
) -> Step:
    """As `jrec.train.step.make_step`, but only the rows of the tables that a batch reads are touched.

    The loss is traced twice, the first time for the shapes of what it reads. Donate the state, and keep
    such a step out of `lax.cond` (`choose_step`) where tables are large: XLA copies what a branch
    writes in, and the cost grows with the table again.

    Args:
        loss: as for `make_step`, (params, batch, key) -> (sum, count), with one more argument,
            `apply`, that it calls for each `model.apply(variables, ...)` as
            `apply(model, variables, ...)`. With `nn.Module.apply` as its default, the same loss
            serves `make_step`.
        optimizer: of all parameters but the tables.
        row_optimizer: of the tables' rows.
        axis_name: as for `make_step`; ids and row gradients are gathered over it, tables are not.
        tables: names (see `embedding_tables`, and by default what it returns) of tables that are
            read through `jrec.embeddings.table.Embed` alone. The others are optimized with the rest.

    Returns:
        A pure function; its metrics are `loss_sum` and `count` of the whole batch. It raises
        ValueError where the loss has a gradient with respect to a table that `Embed` did not read.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(state.key, state.step)
        chosen, rest = _take_tables(state.params, tables)

        def read_loss(
            rest: Parameters, shifts: list[dict[Lookup, jax.Array]] | None, alarm: jax.Array
        ) -> tuple[jax.Array, tuple]:
            watched = {name: _watch(table, alarm) for name, table in chosen.items()}
            reads = RowReads(watched, shifts)
            loss_sum, count = loss(_put_tables(watched, rest), batch, key, apply=reads.apply)
            return loss_sum, (count, reads.read, reads.shifts)

        alarm = jnp.zeros((), jnp.float32)
        shapes = jax.eval_shape(lambda: read_loss(rest, None, alarm)[1][2])
        shifts = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
        (loss_sum, (count, read, _)), (gradient, row_gradient, _) = jax.value_and_grad(
            read_loss, argnums=(0, 1, 2), has_aux=True
        )(rest, shifts, alarm)
        loss_sum, count, gradient = summed((loss_sum, count, gradient), axis_name)

        def mean(gradient: Any) -> Any:
            return jax.tree.map(lambda g: g / jnp.maximum(count, 1), gradient)

        updates, rest_state = optimizer.update(mean(gradient), state.opt_state["rest"], rest)
        rest = optax.apply_updates(rest, updates)
        new_tables, table_state = dict(chosen), dict(state.opt_state["tables"])
        for name, table in chosen.items():
            found = _joined(name, read, mean(row_gradient))
            if found is None:
                continue
            ids_N, rows_ND, gradient_ND = found
            ids_N, gradient_ND = gathered((ids_N, gradient_ND), axis_name)
            new_tables[name], table_state[name] = update_table(
                row_optimizer,
                table,
                table_state[name],
                ids_N,
                gradient_ND,
                state.step,
                # Of several devices each reads its own copy again: less than to send rows.
                rows_ND if axis_name is None else None,
            )
        opt_state = {"rest": rest_state, "tables": table_state}
        state = TrainState(state.step + 1, state.key, _put_tables(new_tables, rest), opt_state)
        return state, {"loss_sum": loss_sum, "count": count}

    return step


def _joined(
    name: str,
    read: list[dict[Lookup, tuple[jax.Array, jax.Array]]],
    gradient: list[dict[Lookup, jax.Array]],
) -> tuple[jax.Array, jax.Array, jax.Array] | None:
    """Ids [N], rows and row gradients [N, D] of all lookups of one table, one after the other; None of none."""
    lookups = [(n, key) for n, call in enumerate(gradient) for key in call if key[0] == name]
    if not lookups:
        return None

    def joined(found: list[jax.Array]) -> jax.Array:
        return jnp.concatenate([values.reshape(-1, values.shape[-1]) for values in found])

    ids_N = jnp.concatenate([read[n][key][0].reshape(-1) for n, key in lookups])
    rows_ND = joined([read[n][key][1] for n, key in lookups])
    return ids_N, rows_ND, joined([gradient[n][key] for n, key in lookups])


@jax.custom_vjp
def _watch(table: jax.Array, alarm: jax.Array) -> jax.Array:
    """The table; differentiating it is a mistake that would else lose a gradient without a word."""
    return table


def _watch_forward(table: jax.Array, alarm: jax.Array) -> tuple[jax.Array, None]:
    return table, None


def _watch_backward(_: None, gradient: jax.Array) -> Any:
    raise ValueError(
        f"The loss has a gradient with respect to a whole table {gradient.shape} that is updated by "
        "rows: read it through jrec.embeddings.table.Embed and the loss's `apply`, or leave it out of "
        "`tables`."
    )


_watch.defvjp(_watch_forward, _watch_backward)


def _named_leaves(params: Parameters) -> Tables:
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _take_tables(params: Parameters, tables: Collection[str] | None) -> tuple[Tables, Parameters]:
    """The tables by name, and the parameters with None in their places."""
    leaves = _named_leaves(params)
    names = embedding_tables(params) if tables is None else tables
    if unknown := sorted(set(names) - set(leaves)):
        raise ValueError(f"{unknown} are no parameters; these are tables: {sorted(leaves)}.")
    rest = [None if name in names else leaf for name, leaf in leaves.items()]
    return {n: leaves[n] for n in names}, jax.tree.unflatten(jax.tree.structure(params), rest)


def _put_tables(tables: Tables, rest: Parameters) -> Parameters:
    """The parameters again."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(rest, is_leaf=lambda x: x is None)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves]
    return jax.tree.unflatten(
        structure, [tables.get(name, leaf) for name, (_, leaf) in zip(names, leaves, strict=True)]
    )
