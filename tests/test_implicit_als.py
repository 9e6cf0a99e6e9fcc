"""Implicit ALS against the normal equations and its own objective."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jrec.baselines.implicit_als import (
    fit_implicit_als,
    half_sweep,
    initial_vectors,
    pack_histories,
    score_implicit_als,
    weight_by_density,
)
from jrec.baselines.interactions import interaction_matrix
from jrec.errors import InputError

N, M, D = 19, 15, 4
WEIGHTS = (0.3, 0.05, 1.0)  # of the unobserved, regularisation, its exponent
sweep = jax.jit(half_sweep, static_argnums=7)


def made_up(seed=0, n=80):
    """Distinct pairs; rows 0 and 1 and the last of both sides have none; one item is everybody's."""
    generator = np.random.default_rng(seed)
    user, item = generator.integers(2, N - 1, n), generator.integers(2, M - 1, n)
    user, item = np.append(user, np.arange(2, N - 1)), np.append(item, np.full(N - 3, 5))
    return np.unique(np.stack([user, item]), axis=1)


def vectors(user, item, seed=0):
    """Random vectors, zero where there are no interactions."""
    generator = np.random.default_rng(seed)
    known = [np.bincount(rows, minlength=size) > 0 for rows, size in ((user, N), (item, M))]
    return [(generator.normal(size=(len(k), D)) * k[:, None]).astype(np.float32) for k in known]


def counts(rows, size):
    return np.bincount(rows, minlength=size).astype(np.float32)


def normal_equations(other, user, item, users, a, regularisation, exponent):
    """Each user's vector by a dense solve in float64."""
    other = other.astype(np.float64)
    others = len(np.unique(item))
    found = np.zeros((users, D))
    for u in np.unique(user):
        history = other[item[user == u]]
        ridge = regularisation * (len(history) + a * others) ** exponent
        matrix = history.T @ history + a * other.T @ other + ridge * np.eye(D)
        found[u] = np.linalg.solve(matrix, history.sum(0))
    return found


@pytest.mark.parametrize("weights", [WEIGHTS, (1.0, 0.2, 0.0), (0.0, 0.1, 0.5)])
@pytest.mark.parametrize("shape", [(32, 512), (3, 7)])
def test_a_half_sweep_solves_the_normal_equations(weights, shape):
    user, item = made_up()
    old, other = vectors(user, item)
    packed = pack_histories(user, item, N, M, *shape)
    found = sweep(old, other, packed, counts(item, M), *weights, 12)
    np.testing.assert_allclose(found, normal_equations(other, user, item, N, *weights), atol=2e-5)
    # And the items', given the users.
    packed = pack_histories(item, user, M, N, *shape)
    found = sweep(other, old, packed, counts(user, N), *weights, 12)
    np.testing.assert_allclose(found, normal_equations(old, item, user, M, *weights), atol=2e-5)


def objective(user_vectors, item_vectors, user, item, a, regularisation, exponent):
    scores = user_vectors.astype(np.float64) @ item_vectors.T.astype(np.float64)
    total = ((scores[user, item] - 1) ** 2).sum() + a * (scores**2).sum()
    for table, rows, others in ((user_vectors, user, item), (item_vectors, item, user)):
        count = np.bincount(rows, minlength=len(table)) + a * len(np.unique(others))
        total += regularisation * (count**exponent * (table.astype(np.float64) ** 2).sum(1)).sum()
    return total


@pytest.mark.parametrize("solver_steps", [1, 3])
def test_the_objective_falls_with_every_half_sweep(solver_steps):
    user, item = made_up()
    by_user, by_item = pack_histories(user, item, N, M), pack_histories(item, user, M, N)
    users, items = counts(user, N), counts(item, M)
    u, i = vectors(user, item)
    values = [objective(u, i, user, item, *WEIGHTS)]
    for _ in range(6):
        u = np.asarray(sweep(u, i, by_user, items, *WEIGHTS, solver_steps))
        values.append(objective(u, i, user, item, *WEIGHTS))
        i = np.asarray(sweep(i, u, by_item, users, *WEIGHTS, solver_steps))
        values.append(objective(u, i, user, item, *WEIGHTS))
    assert (np.diff(values) < 1e-6).all(), values
    assert values[-1] < 0.5 * values[0]


@pytest.mark.slow
def test_the_fit_ends_where_the_objective_is_flat():
    """Neither side's exact solution moves it: a stationary point of the documented objective."""
    user, item = made_up()
    a, regularisation, exponent = WEIGHTS
    model = fit_implicit_als(user, item, N, M, D, 300, a, regularisation, exponent)
    best_user = normal_equations(model.item, user, item, N, *WEIGHTS)
    best_item = normal_equations(model.user, item, user, M, *WEIGHTS)
    np.testing.assert_allclose(model.user @ model.item.T, best_user @ model.item.T, atol=2e-3)
    np.testing.assert_allclose(model.user @ model.item.T, model.user @ best_item.T, atol=2e-3)
    assert np.abs(model.item).max() > 0.1


def test_rows_without_interactions_are_zero_and_change_nothing():
    user, item = made_up()
    settings = {"width": D, "sweeps": 3, "unobserved_weight": 1.0}
    small = fit_implicit_als(user, item, N, M, **settings)
    assert not small.user[[0, 1, N - 1]].any() and not small.item[[0, 1, M - 1]].any()
    assert small.user[2:-1].any(1).all() and small.item[5].any()
    # Not even at the start, where they would count as unobserved items of everybody.
    start = initial_vectors(user, item, N, M, D, 0)
    for table, rows in zip(start, (user, item), strict=True):
        np.testing.assert_array_equal(np.asarray(table).any(1), np.isin(range(len(table)), rows))
    assert not score_implicit_als(small, interaction_matrix(user, item, N, M)[[N - 1]]).any()
    twice = fit_implicit_als(np.tile(user, 2), np.tile(item, 2), N, M, **settings)
    np.testing.assert_array_equal(small.user, twice.user)


def test_table_rows_that_nothing_uses_do_not_move_the_others():
    user, item = made_up()
    old, other = vectors(user, item)
    found = sweep(old, other, pack_histories(user, item, N, M), counts(item, M), *WEIGHTS, 3)
    wider = [np.concatenate([table, np.zeros((6, D), np.float32)]) for table in (old, other)]
    packed = pack_histories(user, item, N + 6, M + 6)
    more = sweep(*wider, packed, counts(item, M + 6), *WEIGHTS, 3)
    np.testing.assert_allclose(more[:N], found, atol=1e-6)
    assert not np.asarray(more[N:]).any()


@given(
    seed=st.integers(0, 1000),
    n=st.integers(1, 60),
    piece_length=st.integers(1, 9),
    pieces=st.integers(1, 12),
)
def test_packing_keeps_every_pair_once(seed, n, piece_length, pieces):
    user, item = made_up(seed, n)
    packed = jax.tree.map(np.asarray, pack_histories(user, item, N, M, piece_length, pieces))
    slots = packed.row.shape[1]
    found = []
    for block in range(len(packed.ids)):
        for piece, slot in zip(packed.ids[block], packed.slot[block], strict=True):
            if slot == slots:
                assert (piece == M).all()
            found += [(packed.row[block, slot], i) for i in piece if i < M] if slot < slots else []
    assert sorted(found) == sorted(zip(user, item, strict=True))
    rows, counts = packed.row[packed.row < N], packed.count[packed.row < N]
    assert len(set(rows)) == len(rows)
    np.testing.assert_array_equal(counts, np.bincount(user, minlength=N)[rows])
    assert (packed.count[packed.row == N] == 0).all()


@pytest.mark.parametrize("shape", [(1, 1), (4, 5), (64, 3)])
def test_the_padding_changes_nothing(shape):
    user, item = made_up()
    old, other = vectors(user, item)
    items = counts(item, M)
    expected = sweep(old, other, pack_histories(user, item, N, M), items, *WEIGHTS, 3)
    found = sweep(old, other, pack_histories(user, item, N, M, *shape), items, *WEIGHTS, 3)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_one_compilation_serves_all_sweeps_and_solved_rows_stay():
    traces = []

    @jax.jit
    def counted(old, other, packed):
        traces.append(1)
        return half_sweep(old, other, packed, items, *WEIGHTS, 30)

    user, item = made_up()
    items = counts(item, M)
    old, other = map(jnp.asarray, vectors(user, item))
    packed = pack_histories(user, item, N, M)
    once = counted(old, other, packed)
    twice = counted(once, other, packed)
    assert len(traces) == 1
    np.testing.assert_allclose(twice, once, atol=1e-6)  # no 0 / 0 where nothing is left to solve


def test_a_history_is_folded_in_by_the_half_sweeps_own_equations():
    """Also one that training has not seen, and where training's own vectors are still on their way."""
    user, item = made_up()
    a, regularisation, exponent = WEIGHTS
    model = fit_implicit_als(user, item, N, M, D, 2, a, regularisation, exponent)
    user, item = np.append(user, [3, N - 1]), np.append(item, [M - 3, 5])
    history = interaction_matrix(user, item, N, M)
    user, item = np.repeat(np.arange(N), np.diff(history.indptr)), history.indices
    assert model.item.any(1).sum() == len(np.unique(item))  # so that the others are the same
    expected = normal_equations(model.item, user, item, N, *WEIGHTS) @ model.item.T
    np.testing.assert_allclose(score_implicit_als(model, history), expected, atol=1e-5)


def test_training_histories_fold_in_to_trainings_vectors():
    user, item = made_up()
    model = fit_implicit_als(user, item, N, M, D, 300, *WEIGHTS)
    found = score_implicit_als(model, interaction_matrix(user, item, N, M))
    np.testing.assert_allclose(found, model.user @ model.item.T, atol=2e-3)


def test_the_weight_of_what_was_not_met_follows_the_density():
    user = np.repeat(np.arange(100), 2)
    item = np.arange(200) % 150
    assert weight_by_density(user, item) == pytest.approx(25 * 200 / (100 * 150))
    assert weight_by_density(*made_up()) == 1
    model = fit_implicit_als(user, item, 120, 160, D, 1)
    assert model.unobserved_weight == weight_by_density(user, item)


def test_vectors_that_are_not_finite_name_the_settings():
    with pytest.raises(InputError, match=r"ALS are not finite; change --implicit-als\.exponent"):
        fit_implicit_als(*made_up(), N, M, D, 2, exponent=40.0)


def test_settings_that_make_no_sense_are_refused():
    user, item = made_up()
    for settings in ({"width": 0}, {"regularisation": 0.0}, {"unobserved_weight": -1.0}):
        with pytest.raises(InputError):
            fit_implicit_als(user, item, N, M, **settings)
