"""Rating baselines against closed forms and plain loops."""

import numpy as np
import pytest

from experiments.autoencoder.centring import fit_centre
from jrec.baselines import biases
from jrec.baselines.biases import fit_biases, fit_means
from jrec.baselines.content import content_vectors, fit_rating_content, predict_rating_content
from jrec.baselines.matrix_factorisation import (
    fit_matrix_factorisation,
    predict_matrix_factorisation,
)
from jrec.baselines.rating_neighbours import fit_rating_neighbours, predict_rating_neighbours
from jrec.data.quantiles import Quantiles
from jrec.data.ragged import Ragged
from jrec.data.rating_parts import RatingRows
from jrec.errors import InputError


def made_up(n=400, users=12, items=9):
    generator = np.random.default_rng(0)
    user, item = generator.integers(2, users, n), generator.integers(2, items, n)
    stars = generator.integers(1, 6, n).astype(np.float32)
    return user, item, stars, users, items


def sparse_ratings(users=14, items=11, n=60, seed=1):
    """Distinct pairs; rows 0 and 1 of both sides, and the last user and item, have no ratings."""
    generator = np.random.default_rng(seed)
    pairs = generator.choice((users - 3) * (items - 3), n, replace=False)
    user, item = pairs // (items - 3) + 2, pairs % (items - 3) + 2
    return user, item, generator.integers(1, 6, n).astype(np.float32), users, items


def all_pairs(users, items):
    return (grid.ravel() for grid in np.meshgrid(np.arange(users), np.arange(items), indexing="ij"))


@pytest.mark.parametrize("at_once", [biases._AT_ONCE, 7])
def test_biases_are_the_ridge_solution(at_once, monkeypatch):
    monkeypatch.setattr(biases, "_AT_ONCE", at_once)
    user, item, stars, users, items = made_up()
    fitted = fit_biases(user, item, stars, users, items, regularisation=3.0, sweeps=200)
    # The same minimum from the normal equations.
    design = np.zeros((len(stars), users + items))
    design[np.arange(len(stars)), user] = design[np.arange(len(stars)), users + item] = 1
    normal = design.T @ design + 3.0 * np.eye(users + items)
    solution = np.linalg.solve(normal, design.T @ (stars - stars.mean()))
    np.testing.assert_allclose(fitted.user, solution[:users], atol=1e-5)
    np.testing.assert_allclose(fitted.item, solution[users:], atol=1e-5)
    assert fitted.user[0] == fitted.item[1] == 0  # padding and unknown rows saw nothing


def test_means():
    user, _, stars, users, _ = made_up()
    mean, by_user = fit_means(user, stars, users)
    np.testing.assert_allclose(mean + by_user[5], stars[user == 5].mean(), rtol=1e-6)
    assert by_user[0] == 0
    none = fit_biases(user, user, stars, users, users, regularisation=None)
    np.testing.assert_allclose(none.predict(user, user), stars.mean(), rtol=1e-6)


def neighbours_by_loop(data, by, neighbours, shrinkage, norms):
    """Every prediction from the definition, one pair at a time."""
    user, item, stars, users, items = data
    biases = fit_biases(user, item, stars, users, items)
    table = np.full((users, items), np.nan)
    table[user, item] = stars - biases.predict(user, item)
    table = table if by == "item" else table.T  # neighbours are columns

    def similarity(a, b):
        both = ~np.isnan(table[:, a]) & ~np.isnan(table[:, b])
        over = both if norms == "common" else slice(None)
        lengths = [np.sqrt(np.nansum(table[over, c] ** 2)) for c in (a, b)]
        if both.sum() == 0 or min(lengths) < 1e-9:
            return 0.0
        cosine = (table[both, a] * table[both, b]).sum() / (lengths[0] * lengths[1])
        return cosine * both.sum() / (both.sum() + shrinkage)

    found = np.zeros(table.shape)
    for row in range(len(table)):
        known = np.flatnonzero(~np.isnan(table[row]))
        for column in range(table.shape[1]):
            nearest = sorted(((similarity(column, j), j) for j in known), reverse=True)[:neighbours]
            nearest = [(s, table[row, j]) for s, j in nearest if s > 0]
            if nearest:
                found[row, column] = sum(s * x for s, x in nearest) / sum(s for s, _ in nearest)
    found = found if by == "item" else found.T
    return biases.predict(*all_pairs(users, items)) + found.ravel()


@pytest.mark.parametrize("by", ["item", "user"])
@pytest.mark.parametrize("norms", ["all", "common"])
@pytest.mark.parametrize("neighbours", [2, 50])
def test_rating_neighbours_are_those_of_a_loop(by, norms, neighbours, monkeypatch):
    # Many blocks, some of one pair.
    monkeypatch.setattr("jrec.baselines.rating_neighbours._CELLS", 20)
    monkeypatch.setattr("jrec.baselines.rating_neighbours._BLOCK", 4)
    data = sparse_ratings()
    model = fit_rating_neighbours(*data, by=by, neighbours=neighbours, shrinkage=3.0, norms=norms)
    found = predict_rating_neighbours(model, *all_pairs(*data[3:]))
    expected = neighbours_by_loop(data, by, neighbours, 3.0, norms)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(found - model.biases.predict(*all_pairs(*data[3:]))) > 0.1


def test_what_has_no_ratings_is_predicted_by_the_biases():
    user, item, stars, users, items = sparse_ratings()
    vectors = content_vectors([Ragged.from_lists([[2 + i % 3] for i in range(items)])], [1.0])
    for model, predict in [
        (
            fit_rating_neighbours(user, item, stars, users, items, by="item"),
            predict_rating_neighbours,
        ),
        (
            fit_rating_neighbours(user, item, stars, users, items, by="user"),
            predict_rating_neighbours,
        ),
        (fit_rating_content(user, item, stars, users, items, vectors), predict_rating_content),
    ]:
        silent, some = np.full(3, users - 1), np.array([0, 4, items - 1])
        np.testing.assert_allclose(predict(model, silent, some), model.biases.predict(silent, some))


def test_neighbours_by_too_many_rows_are_refused():
    one = np.array([2])
    with pytest.raises(InputError, match="60,000 x 60,000 similarities, too large"):
        fit_rating_neighbours(one, one, np.ones(1), 60_000, 5, by="user")
    fit_rating_neighbours(one, one, np.ones(1), 60_000, 5, by="item")


GROUPS = [
    Ragged.from_lists([[], [], [2, 3], [3], [2, 4], [4], [], [2, 3, 4], [3, 4], [2], []]),
    Ragged.from_lists([[], [], [7], [7, 8], [2], [8, 9], [9, 9], [5], [6, 7], [], []]),
]


def test_content_vectors_are_tf_idf_by_group():
    vectors = content_vectors(GROUPS, [1.0, 0.5]).toarray()
    parts = []
    for group, weight in zip(GROUPS, [1.0, 0.5], strict=True):
        table = np.zeros((len(group), group.values.max() + 1))
        for row in range(len(group)):
            table[row, group[row]] = 1  # a word that repeats counts once
        table *= np.log((1 + len(group)) / (1 + table.sum(0)))
        lengths = np.linalg.norm(table, axis=1, keepdims=True)
        parts.append(weight * table / np.where(lengths > 0, lengths, 1))
    table = np.hstack(parts)
    lengths = np.linalg.norm(table, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors, table / np.where(lengths > 0, lengths, 1), atol=1e-6)
    assert vectors.dtype == np.float32


def test_rating_content_is_the_weighted_mean_residual(monkeypatch):
    monkeypatch.setattr("jrec.baselines.content._BLOCK", 17)
    user, item, stars, users, items = data = sparse_ratings()
    vectors = content_vectors(GROUPS, [1.0, 1.0])
    model = fit_rating_content(*data, vectors, damping=2.0)
    similarity = (vectors @ vectors.T).toarray()
    residual = stars - model.biases.predict(user, item)
    for u, i in [(5, 3), (2, 9), (7, 0), (users - 1, 4)]:
        weight = similarity[i, item[user == u]]
        expected = (weight * residual[user == u]).sum() / (weight.sum() + 2.0)
        found = predict_rating_content(model, np.array([u]), np.array([i]))[0]
        expected += model.biases.predict(np.array([u]), np.array([i]))[0]
        np.testing.assert_allclose(found, expected, atol=1e-5)
    everything = tuple(all_pairs(users, items))
    some = predict_rating_content(model, everything[0][20:23], everything[1][20:23])
    np.testing.assert_allclose(predict_rating_content(model, *everything)[20:23], some)


def test_matrix_factorisation_takes_the_step_of_its_equation():
    """One epoch of one full batch against the gradient written out in NumPy."""
    data = sparse_ratings()
    user, item, stars = data[:3]
    settings = {"width": 3, "batch_size": 64, "regularisation": 0.1}
    start = fit_matrix_factorisation(*data, epochs=1, learning_rate=1e-12, **settings)
    model = fit_matrix_factorisation(*data, epochs=1, learning_rate=0.1, **settings)
    mean = stars.mean()
    p, q = start.user[user], start.item[item]
    error = stars - mean - (p * q).sum(1)  # the biases start at 0

    def moved(table, rows, step):
        table = table.astype(np.float64).copy()
        np.add.at(table, rows, 0.1 * step)
        return table

    np.testing.assert_allclose(
        model.user, moved(start.user, user, error[:, None] * q - 0.1 * p), atol=1e-6
    )
    np.testing.assert_allclose(
        model.item, moved(start.item, item, error[:, None] * p - 0.1 * q), atol=1e-6
    )
    np.testing.assert_allclose(model.user_bias, moved(start.user_bias, user, error), atol=1e-6)
    np.testing.assert_allclose(model.item_bias, moved(start.item_bias, item, error), atol=1e-6)
    unseen = predict_matrix_factorisation(model, np.array([0, data[3] - 1]), np.array([1, 4]))
    np.testing.assert_allclose(unseen, mean + model.item_bias[[1, 4]], rtol=1e-6)
    assert start.user[user].std() > 0.01 and model.item_bias[4] != 0


def test_matrix_factorisation_reaches_the_ridge_solution_of_its_biases():
    """With vectors pressed to zero, what is left is biases whose regularisation counts ratings."""
    user, item, stars, users, items = sparse_ratings(n=80)
    model = fit_matrix_factorisation(
        user, item, stars, users, items, width=2, epochs=400, batch_size=16,
        learning_rate=0.05, regularisation=2.0,
    )  # fmt: skip
    design = np.zeros((len(stars), users + items))
    design[np.arange(len(stars)), user] = design[np.arange(len(stars)), users + item] = 1
    normal = design.T @ design + 2.0 * np.diag(np.maximum(design.sum(0), 1))
    solution = np.linalg.solve(normal, design.T @ (stars - stars.mean()))
    np.testing.assert_allclose(model.user_bias, solution[:users], atol=0.01)
    np.testing.assert_allclose(model.item_bias, solution[users:], atol=0.01)


def test_matrix_factorisation_finds_planted_factors():
    generator = np.random.default_rng(0)
    users, items, n = 60, 50, 2500
    pairs = generator.choice(users * items, n, replace=False)
    user, item = pairs // items, pairs % items
    p, q = generator.normal(size=(users, 2)), generator.normal(size=(items, 2))
    stars = (3 + (p[user] * q[item]).sum(1)).astype(np.float32)
    held = np.arange(n) < 300
    model = fit_matrix_factorisation(
        user[~held], item[~held], stars[~held], users, items, width=2, epochs=100, batch_size=32,
        learning_rate=0.05, regularisation=0.001,
    )  # fmt: skip
    error = predict_matrix_factorisation(model, user[held], item[held]) - stars[held]
    assert np.sqrt((error**2).mean()) < 0.15 * stars.std()


def test_matrix_factorisation_names_what_is_wrong():
    data = sparse_ratings()
    with pytest.raises(InputError, match="diverged in epoch 1; take a lower learning rate"):
        fit_matrix_factorisation(*data, width=2, epochs=30, batch_size=4, learning_rate=1e9)
    with pytest.raises(InputError, match="above 0"):
        fit_matrix_factorisation(*data, width=0)


def broken(place):
    """Ratings of which one is none."""
    user, item, stars, users, items = sparse_ratings()
    stars[place] = np.nan
    return user, item, stars, users, items


@pytest.mark.parametrize(
    ("fit", "sentence"),
    [
        (lambda r: fit_means(r[0], r[2], r[3]), "The mean rating is not finite; check the ratings"),
        (lambda r: fit_biases(*r), "The mean rating is not finite; check the ratings"),
        (lambda r: fit_rating_neighbours(*r), "The mean rating is not finite"),
        (lambda r: fit_matrix_factorisation(*r, 2, 1), "diverged in epoch 1; take a lower"),
        (lambda r: fit_centre(rows_of(r), r[4]), "The mean rating is not finite"),
    ],
)
def test_fits_to_what_is_no_rating_say_so(fit, sentence):
    with pytest.raises(InputError, match=sentence):
        fit(broken(3))


def rows_of(ratings):
    user, item, stars, users, _ = ratings
    order = np.argsort(user, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(user, minlength=users))])
    return RatingRows(offsets, item[order], stars[order])


def test_fits_whose_numbers_overflow_name_the_setting():
    user, item, stars, users, items = sparse_ratings()
    huge = stars.astype(np.float64) * 1e300
    with pytest.raises(InputError, match=r"Similarities by item .*--item-neighbours\.shrinkage"):
        fit_rating_neighbours(user, item, stars * np.float32(1e25), users, items)
    with pytest.raises(InputError, match="The items' biases are not finite"):
        fit_centre(rows_of((user, item, huge, users, items)), items)
    with pytest.raises(InputError, match=r"biases are not finite; .*--biases\.regularisation"):
        fit_biases(user, item, stars, users, items, np.nan)
    with pytest.raises(InputError, match="There are no training ratings"):
        fit_biases(user[:0], item[:0], stars[:0], users, items)
    with pytest.raises(InputError, match=r"factorisation .*--matrix-factorisation\.learning-rate"):
        fit_matrix_factorisation(user, item, stars, users, items, 2, 1, 64, 3e38)


def test_quantiles_of_what_is_no_number_are_refused():
    with pytest.raises(
        InputError, match="Values of a feature are not finite; mark them as unknown"
    ):
        Quantiles.fit(np.array([1.0, np.nan]))
