"""Matrix factorisation of implicit feedback by alternating least squares, in JAX.

The sum over all pairs that were not met costs one product of the item vectors with themselves. What
remains, a system a user and then a system an item, is solved for many rows at once by a step or two of
preconditioned conjugate gradients from the last sweep's solution: they need products of the rows'
histories with vectors only, never a matrix a row.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from jrec.baselines.interactions import interaction_matrix
from jrec.errors import InputError
from jrec.finite import check_finite

_WEIGHT_OF_DENSITY = 25
_ROWS = 512  # of histories that are folded in at one time, at least
_FOLD_STEPS = 32  # of conjugate gradients


@dataclass(frozen=True)
class ImplicitALS:
    """The score is w . u + b with b = 0.

    Attributes:
        user: float32 [users, D], of the training interactions. item: float32 [items, D]. Rows without
            interactions are zero.
        unobserved_weight, regularisation, exponent: what they were fitted with, see `fit_implicit_als`.
    """

    user: np.ndarray
    item: np.ndarray
    unobserved_weight: float
    regularisation: float
    exponent: float


class Histories(NamedTuple):
    """One side's histories in pieces of one length, in blocks of one size: one shape, one compilation.

    A row's history is cut into pieces of L; a block holds P pieces and all pieces of each of its at
    most R rows. So a short history costs little padding and a long one needs no rectangle of its own.

    Attributes:
        ids: int32 [blocks, P, L], rows of the other side; its number of rows where nothing stands.
        slot: int32 [blocks, P], which of the block's rows a piece belongs to; R for none.
        row: int32 [blocks, R], the table row; its number of rows for none.
        count: float32 [blocks, R], the length of the history.
    """

    ids: jax.Array
    slot: jax.Array
    row: jax.Array
    count: jax.Array


def pack_histories(
    row: np.ndarray,
    other: np.ndarray,
    rows: int,
    others: int,
    piece_length: int = 32,
    pieces: int = 512,
    slots: int | None = None,
) -> Histories:
    """Packs the pairs of one side; the other's come from exchanging the first two pairs of arguments.

    Args:
        row, other: int [n], pairs, none twice. rows, others: table rows of each side.
        piece_length: L. pieces: P, raised to the longest history's number of pieces.
        slots: R; None for so many that a block's slots and pieces run out at about the same time.
    """
    order = np.argsort(row, kind="stable")
    row, other = np.asarray(row)[order], np.asarray(other)[order]
    count = np.bincount(row, minlength=rows)
    needed = -(-count // piece_length)
    P = max(pieces, int(needed.max(initial=1)))
    R = slots or min(-(-5 * P * int((needed > 0).sum()) // (4 * max(int(needed.sum()), 1))) or 1, P)
    block_of, slot_of, first_piece = (np.zeros(rows, np.int64) for _ in range(3))
    block = slot = piece = 0
    for r in np.flatnonzero(needed):
        if slot == R or piece + needed[r] > P:
            block, slot, piece = block + 1, 0, 0
        block_of[r], slot_of[r], first_piece[r] = block, slot, piece
        slot, piece = slot + 1, piece + needed[r]
    ids = np.full((block + 1, P, piece_length), others, np.int32)
    piece_slot = np.full((block + 1, P), R, np.int32)
    table_row = np.full((block + 1, R), rows, np.int32)
    counts = np.zeros((block + 1, R), np.float32)
    place = np.arange(len(row)) - (np.cumsum(count) - count)[row]
    piece_of = first_piece[row] + place // piece_length
    ids[block_of[row], piece_of, place % piece_length] = other
    piece_slot[block_of[row], piece_of] = slot_of[row]
    known = np.flatnonzero(count)
    table_row[block_of[known], slot_of[known]] = known
    counts[block_of[known], slot_of[known]] = count[known]
    return Histories(*map(jnp.asarray, (ids, piece_slot, table_row, counts)))


def half_sweep(
    old_VD: jax.Array,
    other_WD: jax.Array,
    histories: Histories,
    other_count_W: jax.Array,
    unobserved_weight: float | jax.Array,
    regularisation: float | jax.Array,
    exponent: float | jax.Array,
    solver_steps: int,
) -> jax.Array:
    """One side's vectors float32 [V, D], given the other's: near the minimum over this side.

    For each row with history S: (sum_S h h' + a H'H + r I) w = sum_S h, r = regularisation *
    (|S| + a * others)^exponent. Rows without history become zero, which is their minimum.

    All is done in the basis of H'H's eigenvectors, where its product is one with its eigenvalues. The
    preconditioner is the diagonal that remains with |S| times the mean of h^2 over all interactions in the
    place of the sum over S: on MovieLens-1M one step with it goes further than three without.

    Args:
        old_VD: where the solver starts. other_WD: float32 [W, D], H; rows without history must be zero.
        other_count_W: float32 [W], lengths of the other side's histories; `others` are not 0.
        unobserved_weight: a. solver_steps: the objective falls with each, and D of them would be exact
            but for rounding.
    """
    with jax.default_matmul_precision("highest"):  # else a GPU may round the systems to 10 bits
        everywhere_D, basis_DD = jnp.linalg.eigh(other_WD.T @ other_WD)
        everywhere_D = unobserved_weight * jnp.maximum(everywhere_D, 0)
        other_WD = other_WD @ basis_DD
        mean_D = other_count_W @ other_WD**2 / jnp.maximum(other_count_W.sum(), 1)
        others = (other_count_W > 0).sum()
        zero = jnp.zeros((1, other_WD.shape[1]), jnp.float32)
        tables = jnp.concatenate([old_VD @ basis_DD, zero]), jnp.concatenate([other_WD, zero])

        def solve_block(new_VD: jax.Array, block: Histories) -> tuple[jax.Array, None]:
            weight_R = regularisation * (block.count + unobserved_weight * others) ** exponent
            known_RD = everywhere_D[None] + weight_R[:, None]
            guess_RD = known_RD + block.count[:, None] * mean_D[None]
            guess_RD = jnp.maximum(guess_RD, 1e-30)  # slots without a row may have 0
            w_RD = _solve(*tables, block, known_RD, guess_RD, solver_steps)
            return new_VD.at[block.row].set(w_RD, mode="drop"), None

        new_VD, _ = jax.lax.scan(solve_block, jnp.zeros_like(old_VD), histories)
        return new_VD @ basis_DD.T


def _solve(
    old_VD: jax.Array,
    other_WD: jax.Array,
    block: Histories,
    known_RD: jax.Array,
    guess_RD: jax.Array,
    steps: int,
) -> jax.Array:
    """(sum_S h h' + diag(known)) w = sum_S h for each row of one block: float32 [R, D].

    Args:
        old_VD, other_WD: both with a row of zeros at their end, which padding reads.
        guess_RD: a guess at the whole diagonal, to precondition with.
    """
    R, D = known_RD.shape
    history_PLD = other_WD[block.ids]

    def from_history(weight_PL: jax.Array) -> jax.Array:
        piece_PD = jnp.einsum("pl,pld->pd", weight_PL, history_PLD)
        return jnp.zeros((R + 1, D), jnp.float32).at[block.slot].add(piece_PD)[:R]

    def with_history(vector_RD: jax.Array) -> jax.Array:
        piece_PD = jnp.concatenate([vector_RD, jnp.zeros((1, D), jnp.float32)])[block.slot]
        return jnp.einsum("pld,pd->pl", history_PLD, piece_PD)

    def step(_: jax.Array, carry: tuple) -> tuple:
        w_RD, residual_RD, direction_RD, product_R1 = carry
        image_RD = from_history(with_history(direction_RD)) + known_RD * direction_RD
        curvature_R1 = (direction_RD * image_RD).sum(1, keepdims=True)
        size_R1 = _quotient(product_R1, curvature_R1)
        w_RD = w_RD + size_R1 * direction_RD
        residual_RD = residual_RD - size_R1 * image_RD
        scaled_RD = residual_RD / guess_RD
        new_R1 = (residual_RD * scaled_RD).sum(1, keepdims=True)
        direction_RD = scaled_RD + _quotient(new_R1, product_R1) * direction_RD
        return w_RD, residual_RD, direction_RD, new_R1

    start_RD = old_VD[block.row]
    residual_RD = from_history(1 - with_history(start_RD)) - known_RD * start_RD
    scaled_RD = residual_RD / guess_RD
    product_R1 = (residual_RD * scaled_RD).sum(1, keepdims=True)
    carry = (start_RD, residual_RD, scaled_RD, product_R1)
    return jax.lax.fori_loop(0, steps, step, carry)[0]


def _quotient(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """0 where a row is solved exactly already, and both are 0."""
    return jnp.where(denominator > 0, numerator / jnp.where(denominator > 0, denominator, 1), 0)


@partial(jax.jit, static_argnames=("sweeps", "solver_steps"), donate_argnums=(0, 1))
def _alternate(
    user_ND: jax.Array,
    item_MD: jax.Array,
    by_user: Histories,
    by_item: Histories,
    weights: tuple[jax.Array, jax.Array, jax.Array],
    sweeps: int,
    solver_steps: int,
) -> tuple[jax.Array, jax.Array]:
    user_count_N, item_count_M = (
        jnp.zeros(len(table), jnp.float32).at[side.row].add(side.count, mode="drop")
        for table, side in ((user_ND, by_user), (item_MD, by_item))
    )

    def sweep(_: jax.Array, vectors: tuple) -> tuple:
        user_ND, item_MD = vectors
        user_ND = half_sweep(user_ND, item_MD, by_user, item_count_M, *weights, solver_steps)
        return user_ND, half_sweep(item_MD, user_ND, by_item, user_count_N, *weights, solver_steps)

    return jax.lax.fori_loop(0, sweeps, sweep, (user_ND, item_MD))


def initial_vectors(
    user: np.ndarray, item: np.ndarray, users: int, items: int, width: int, seed: int
) -> tuple[jax.Array, jax.Array]:
    """User and item vectors float32 [users, D] and [items, D] before the first sweep.

    Normal with standard deviation 0.1 / sqrt(D); zero without interactions, because such a row must not
    count as unobserved.
    """
    user_key, item_key = jax.random.split(jax.random.key(seed))

    def draw(key: jax.Array, row: np.ndarray, rows: int) -> jax.Array:
        known = jnp.asarray(np.bincount(row, minlength=rows) > 0)
        return (
            0.1 / width**0.5 * jax.random.normal(key, (rows, width), jnp.float32) * known[:, None]
        )

    return draw(user_key, user, users), draw(item_key, item, items)


def fit_implicit_als(
    user: np.ndarray,
    item: np.ndarray,
    users: int,
    items: int,
    width: int = 128,
    sweeps: int = 10,
    unobserved_weight: float | None = None,
    regularisation: float = 0.003,
    exponent: float = 1.0,
    solver_steps: int = 2,
    seed: int = 0,
) -> ImplicitALS:
    """Minimises, over all user rows u and item rows i that have interactions S,

    sum_S (w_u . h_i - 1)^2 + a sum_{u,i} (w_u . h_i)^2
    + regularisation * (sum_u (|S_u| + a |I|)^e |w_u|^2 + sum_i (|S_i| + a |U|)^e |h_i|^2).

    Sources: Hu, Koren and Volinsky (2008), "Collaborative filtering for implicit feedback datasets";
    the scaling of the regularisation by frequency, and the initial scale 0.1 / sqrt(D): Rendle, Krichene,
    Zhang and Koren (2022), "Revisiting the performance of iALS on item recommendation benchmarks",
    equation 5; conjugate gradients: Takacs, Pilaszy and Tikk (2011). The objective of the first with
    confidence c = 1 + 1/a on what was met and ridge r has the same minimum up to a factor: exponent 0 and
    regularisation r a / (1 + a).

    Args:
        user, item: int rows [n]; a pair that repeats counts once. users, items: table rows.
        width: D. sweeps: each solves users, then items.
        unobserved_weight: a; None for `weight_by_density`.
        exponent: e; 1 scales the regularisation by frequency, 0 leaves it the same for all rows.
        solver_steps: of conjugate gradients in each half sweep.
        seed: of the initial vectors.

    Raises InputError for sizes and weights that make no sense, or whose vectors are not finite.
    """
    if min(width, sweeps, solver_steps) < 1:
        raise InputError("The width, sweeps and solver steps of implicit ALS must be 1 or more.")
    once = interaction_matrix(user, item, users, items)
    user, item = np.repeat(np.arange(users), np.diff(once.indptr)), once.indices
    if unobserved_weight is None:
        unobserved_weight = weight_by_density(user, item)
    if not (0 <= unobserved_weight < np.inf and 0 < regularisation < np.inf):
        raise InputError(
            f"Implicit ALS needs a regularisation above 0 and an unobserved weight of 0 or more, but "
            f"they are {regularisation} and {unobserved_weight}."
        )
    vectors = initial_vectors(user, item, users, items, width, seed)
    by_user = pack_histories(user, item, users, items)
    by_item = pack_histories(item, user, items, users)
    weights = tuple(map(jnp.float32, (unobserved_weight, regularisation, exponent)))
    found = _alternate(*vectors, by_user, by_item, weights, sweeps, solver_steps)
    settings = {"unobserved_weight": unobserved_weight, "regularisation": regularisation}
    settings |= {"exponent": exponent}
    given = ", ".join(f"{name.replace('_', '-')} {value:g}" for name, value in settings.items())
    remedy = f"change --implicit-als.exponent, regularisation or unobserved-weight ({given})"
    check_finite("The vectors of implicit ALS are", remedy, *map(np.asarray, found))
    return ImplicitALS(*map(np.asarray, found), **settings)


def weight_by_density(user: np.ndarray, item: np.ndarray) -> float:
    """Returns the default weight of a pair that was not met: 25 times the density, at most 1.

    The density is the share of pairs that were met, among users and items that have any. Of sparse data
    the sum over all other pairs would outweigh what was met, and all vectors would be near zero.

    Args:
        user, item: int rows [n], pairs, none twice.
    """
    pairs = max(len(np.unique(user)) * len(np.unique(item)), 1)
    return min(1.0, _WEIGHT_OF_DENSITY * len(user) / pairs)


def score_implicit_als(model: ImplicitALS, history_BM: sparse.csr_array) -> np.ndarray:
    """float32 [B, items] for binary histories [B, items], whether or not they are those of training.

    A user's vector is the solution of the user's half sweep (see `half_sweep`) for that history, from
    zero on and to float32's rounding; zero without any.

    Raises InputError where a vector is not finite.
    """
    B, M = history_BM.shape
    row = np.repeat(np.arange(B), np.diff(history_BM.indptr))
    # Few shapes, few compilations: rows and blocks are filled up with some that hold nothing.
    rows = max(B, _ROWS)
    packed = pack_histories(row, history_BM.indices, rows, M, pieces=_ROWS, slots=_ROWS)
    missing = (1 << (len(packed.ids) - 1).bit_length()) - len(packed.ids)
    filled = Histories(
        *(
            jnp.pad(part, [(0, missing)] + [(0, 0)] * (part.ndim - 1), constant_values=nothing)
            for part, nothing in zip(packed, (M, _ROWS, rows, 0), strict=True)
        )
    )
    weights = (model.unobserved_weight, model.regularisation, model.exponent)
    user_BD = np.asarray(_fold_in(model.item, filled, tuple(map(jnp.float32, weights)), rows))[:B]
    remedy = f"raise --implicit-als.regularisation, which is {model.regularisation:g}"
    check_finite("The users' vectors of implicit ALS are", remedy, user_BD)
    return user_BD @ model.item.T


@partial(jax.jit, static_argnames="rows")
def _fold_in(
    item_MD: jax.Array, histories: Histories, weights: tuple[jax.Array, ...], rows: int
) -> jax.Array:
    """float32 [rows, D], the vectors of users with these histories."""
    start = jnp.zeros((rows, item_MD.shape[1]), jnp.float32)
    known_M = item_MD.any(1).astype(jnp.float32)
    return half_sweep(start, item_MD, histories, known_M, *weights, _FOLD_STEPS)
