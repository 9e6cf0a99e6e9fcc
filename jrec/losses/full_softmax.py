"""Softmax cross-entropy over the whole item table: plain, and a block of items at a time."""

import functools

import jax
import jax.numpy as jnp

from jrec.embeddings.by_id import gather_rows


def plain_full_softmax(
    users_BD: jax.Array,
    table_MD: jax.Array,
    bias_M: jax.Array,
    target_B: jax.Array,
    mask_B: jax.Array,
    mask_M: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """As `full_softmax`, with all logits [B, M] in memory; what is masked must be finite."""
    logits_BM = jnp.where(mask_M[None], users_BD @ table_MD.T + bias_M[None], -jnp.inf)
    log_p_BM = jax.nn.log_softmax(logits_BM, axis=1)
    loss_B = -jnp.take_along_axis(log_p_BM, target_B[:, None], 1)[:, 0]
    return jnp.where(mask_B, loss_B, 0).sum(), mask_B.sum().astype(jnp.float32)


def full_softmax(
    users_BD: jax.Array,
    table_MD: jax.Array,
    bias_M: jax.Array,
    target_B: jax.Array,
    mask_B: jax.Array,
    mask_M: jax.Array,
    block: int = 384,
) -> tuple[jax.Array, jax.Array]:
    """-log(exp(s_t) / sum over items i of exp(s_i)) with s_i = u . w_i + b_i, summed, and the count.

    Exact, and no array is larger than B x block but the table's gradient: the forward pass keeps
    log-sum-exps alone [B], the backward pass computes each block's logits again. The gradient is of
    whole tables, so leave such a table out of a row step's `tables`.

    Args:
        users_BD: float. table_MD: float, the items' vectors. bias_M: float. float32 inside.
        target_B: integers, the row of each example's item. Of an example that counts it must be one
            that `mask_M` counts: else the loss is not finite.
        mask_B: bool, the examples that count. mask_M: bool, the items (not padding, not unknown).
        block: items at a time. A few hundred keep to a processor's cache (and no power of two, which
            takes up to twice as long: the matrix's rows then fall on the same lines); a GPU wants thousands.

    Returns:
        float32 scalars (sum, count), as `jrec.losses.ratings.squared_error`.
    """
    users = jnp.where(mask_B[:, None], users_BD, 0).astype(jnp.float32)
    target = jnp.where(mask_B, target_B, -1)
    block = min(block, len(table_MD))
    loss_B = _losses(block, users, table_MD, bias_M, target, mask_M)
    return jnp.where(mask_B, loss_B, 0).sum(), mask_B.sum().astype(jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _losses(
    block: int,
    users_BD: jax.Array,
    table_MD: jax.Array,
    bias_M: jax.Array,
    target_B: jax.Array,
    mask_M: jax.Array,
) -> jax.Array:
    return _forward(block, users_BD, table_MD, bias_M, target_B, mask_M)[0]


def _forward(block, users_BD, table_MD, bias_M, target_B, mask_M):
    def add_block(total_B, number):
        logits, *_ = _block(block, number, users_BD, table_MD, bias_M, mask_M)
        return jnp.logaddexp(total_B, jax.nn.logsumexp(logits, axis=1)), None

    nothing = jnp.full(len(users_BD), -jnp.inf, jnp.float32)
    total_B, _ = jax.lax.scan(
        add_block, nothing, jnp.arange(-(-len(table_MD) // block), dtype=jnp.int32)
    )
    rows = gather_rows(table_MD, target_B).astype(jnp.float32)
    true_B = (users_BD * rows).sum(1) + gather_rows(bias_M, target_B).astype(jnp.float32)
    counted = mask_M.at[target_B].get(mode="fill", fill_value=False, wrap_negative_indices=False)
    loss_B = total_B - jnp.where(counted, true_B, -jnp.inf)
    return loss_B, (users_BD, table_MD, bias_M, target_B, mask_M, total_B)


def _backward(block, residuals, gradient_B):
    users_BD, table_MD, bias_M, target_B, mask_M, total_B = residuals

    def add_block(gradients, number):
        users_gradient, table_gradient, bias_gradient = gradients
        logits, rows, start, new = _block(block, number, users_BD, table_MD, bias_M, mask_M)
        is_target = ((target_B - start)[:, None] == jnp.arange(block, dtype=jnp.int32)[None]) & new[
            None
        ]
        error = (jnp.exp(logits - total_B[:, None]) - is_target) * gradient_B[:, None]
        users_gradient = users_gradient + error @ rows
        table_gradient = _add_rows(table_gradient, start, error.T @ users_BD)
        bias_gradient = _add_rows(bias_gradient, start, error.sum(0))
        return (users_gradient, table_gradient, bias_gradient), None

    zeros = tuple(jnp.zeros(a.shape, jnp.float32) for a in (users_BD, table_MD, bias_M))
    gradients, _ = jax.lax.scan(
        add_block, zeros, jnp.arange(-(-len(table_MD) // block), dtype=jnp.int32)
    )
    users, table, bias = gradients
    return users, table.astype(table_MD.dtype), bias.astype(bias_M.dtype), None, None


_losses.defvjp(_forward, _backward)


def _block(block, number, users_BD, table_MD, bias_M, mask_M):
    """A block's logits [B, block], its rows, its first row, and which of its rows are new.

    The last block overlaps the one before, so that all have one size without a padded table.
    """
    start = jnp.minimum(number * block, len(table_MD) - block)
    rows, bias, mask = (
        jax.lax.dynamic_slice_in_dim(a, start, block) for a in (table_MD, bias_M, mask_M)
    )
    new = mask & (start + jnp.arange(block, dtype=jnp.int32) >= number * block)
    rows = jnp.where(new[:, None], rows, 0).astype(jnp.float32)
    bias = jnp.where(new, bias.astype(jnp.float32), -jnp.inf)
    return users_BD @ rows.T + bias[None], rows, start, new


def _add_rows(table, start, rows):
    old = jax.lax.dynamic_slice_in_dim(table, start, len(rows))
    return jax.lax.dynamic_update_slice_in_dim(table, old + rows, start, 0)
