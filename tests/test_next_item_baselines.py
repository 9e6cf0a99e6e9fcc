"""Baselines of the next item against closed forms and plain loops."""

import numpy as np
import pytest

from jrec.baselines.content import content_vectors, score_content
from jrec.baselines.ease import fit_ease, score_ease
from jrec.baselines.interactions import interaction_matrix
from jrec.baselines.neighbours import fit_item_neighbours, score_item_neighbours
from jrec.baselines.popularity import fit_popularity, score_popularity
from jrec.baselines.user_neighbours import fit_user_neighbours, score_user_neighbours
from jrec.data.ragged import Ragged
from jrec.errors import InputError

N, M = 23, 13


def made_up(n=90, seed=0):
    """Pairs, some of which repeat; rows 0 and 1 and the last of both sides have none."""
    generator = np.random.default_rng(seed)
    user, item = generator.integers(2, N - 1, n), generator.integers(2, M - 1, n)
    return np.append(user, user[:7]), np.append(item, item[:7])


def table(user, item):
    dense = np.zeros((N, M))
    dense[user, item] = 1
    return dense


def test_interactions_count_once():
    user, item = made_up()
    np.testing.assert_array_equal(interaction_matrix(user, item, N, M).toarray(), table(user, item))


def histories(user, item):
    return interaction_matrix(user, item, N, M)


def test_popularity_counts_clicks():
    _, item = made_up()
    scores = score_popularity(fit_popularity(item, M), 2)
    np.testing.assert_array_equal(scores, np.tile(np.bincount(item, minlength=M), (2, 1)))


def test_ease_is_the_least_squares_solution_of_each_column():
    user, item = made_up()
    model = fit_ease(user, item, N, M, regularisation=2.5)
    X = table(user, item)
    for target in range(M):
        others = np.delete(np.arange(M), target)
        # Ridge regression of an item's column on all the others, by an augmented least-squares problem.
        design = np.vstack([X[:, others], np.sqrt(2.5) * np.eye(M - 1)])
        solution = np.linalg.lstsq(design, np.append(X[:, target], np.zeros(M - 1)), rcond=None)[0]
        np.testing.assert_allclose(model.weights[others, target], solution, atol=1e-6)
    assert (model.weights.diagonal() == 0).all() and model.weights.dtype == np.float32
    np.testing.assert_allclose(
        score_ease(model, histories(user, item)[3:5]), X[3:5] @ model.weights, atol=1e-6
    )


def test_ease_of_many_interactions_is_exact_to_float32():
    """Counts near a million beside a small regularisation: a float32 inverse loses these weights."""
    generator = np.random.default_rng(0)
    taste = generator.random((4000, 1)) < 0.5
    X = generator.random((4000, 20)) < np.where(taste, 0.9, 0.85)
    user, item = np.nonzero(X)
    model = fit_ease(user, item, 4000, 20, regularisation=0.01)
    inverse = np.linalg.inv(X.T.astype(np.float64) @ X + 0.01 * np.eye(20))
    expected = -inverse / np.diag(inverse)
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(model.weights, expected, rtol=1e-6, atol=1e-8)


def test_ease_needs_a_regularisation():
    with pytest.raises(InputError, match="above 0, but is 0"):
        fit_ease(*made_up(), N, M, regularisation=0)


def cosines(X, shrinkage):
    """From the definition, pair by pair."""
    found = np.zeros((len(X), len(X)))
    for a in range(len(X)):
        for b in range(len(X)):
            common = (X[a] * X[b]).sum()
            if a != b and common:
                found[a, b] = common / np.sqrt(X[a].sum() * X[b].sum())
                found[a, b] *= common / (common + shrinkage)
    return found


def keep_largest(similarity, neighbours):
    kept = np.zeros_like(similarity)
    for row, values in enumerate(similarity):
        nearest = np.argsort(-values, kind="stable")[:neighbours]
        kept[row, nearest] = values[nearest]
    return kept


@pytest.mark.parametrize("shrinkage", [0.0, 3.0])
def test_all_neighbours_are_those_of_a_loop(shrinkage, monkeypatch):
    monkeypatch.setattr("jrec.baselines.neighbours._BLOCK", 5)
    user, item = made_up()
    X, rows = table(user, item), np.array([2, 5, 0, N - 1, 7])
    by_item = fit_item_neighbours(user, item, N, M, 1000, shrinkage)
    expected = X[rows] @ cosines(X.T, shrinkage)
    history = histories(user, item)[rows]
    np.testing.assert_allclose(score_item_neighbours(by_item, history), expected, atol=1e-5)
    by_user = fit_user_neighbours(user, item, N, M, 1000, shrinkage)
    expected = cosines(X, shrinkage)[rows] @ X
    np.testing.assert_allclose(score_user_neighbours(by_user, history, rows), expected, atol=1e-5)
    assert expected.any()


def test_of_equal_neighbours_the_lower_rows_are_kept():
    user = np.repeat(np.arange(4), 6)
    item = np.tile([0, 1, 2, 3, 4, 5], 4)  # all items are met by all four
    model = fit_item_neighbours(user, item, 4, 7, neighbours=2, shrinkage=0.0)
    kept = [list(np.flatnonzero(row)) for row in model.similarity.toarray()]
    assert kept == [[1, 2], [0, 2], [0, 1], [0, 1], [0, 1], [0, 1], []]


def test_the_nearest_neighbours_are_kept():
    """Popularities that make all similarities differ, so that no tie decides."""
    generator = np.random.default_rng(3)
    X = generator.random((300, 12)) < np.linspace(0.1, 0.9, 12)
    user, item = np.nonzero(X)
    similarity = keep_largest(cosines(X.T.astype(float), 1.0), 3)
    model = fit_item_neighbours(user, item, 300, 12, neighbours=3, shrinkage=1.0)
    np.testing.assert_allclose(model.similarity.toarray(), similarity, atol=1e-6)
    # By user, the roles exchanged: 12 users of 300 items.
    model = fit_user_neighbours(item, user, 12, 300, neighbours=3, shrinkage=1.0)
    found = score_user_neighbours(model, model.history, np.arange(12))
    np.testing.assert_allclose(found, similarity @ X.T, atol=1e-5)


def test_content_adds_cosines():
    user, item = made_up()
    words = Ragged.from_lists([[], [], *[[2 + i % 4, 2 + i % 3] for i in range(M - 2)]])
    vectors = content_vectors([words], [1.0])
    scores = score_content(vectors, histories(user, item)[[4, N - 1]])
    dense = vectors.toarray()
    np.testing.assert_allclose(scores[0], table(user, item)[4] @ dense @ dense.T, atol=1e-5)
    assert not scores[1].any()


def test_scores_do_not_depend_on_who_is_asked_with():
    user, item = made_up()
    history, some = histories(user, item), np.array([9, 2])
    for fit, score in [
        (fit_item_neighbours, lambda model, users: score_item_neighbours(model, history[users])),
        (
            fit_user_neighbours,
            lambda model, users: score_user_neighbours(model, history[users], users),
        ),
        (fit_ease, lambda model, users: score_ease(model, history[users])),
    ]:
        model = fit(user, item, N, M)
        everybody = score(model, np.arange(N))
        assert everybody.shape == (N, M) and np.isfinite(everybody).all()
        np.testing.assert_allclose(score(model, some), everybody[some], atol=1e-6)


def test_a_longer_history_than_trainings_is_read():
    """User 4 meets item 11 after training: the scores are of both, the fit is not."""
    user, item = made_up()
    longer = histories(np.append(user, 4), np.append(item, 11))[[4]]
    model = fit_user_neighbours(user, item, N, M, 1000, 0.0)
    X, row = table(user, item), longer.toarray()[0]
    common = X @ row
    cosine = common / np.sqrt(np.maximum(X.sum(1) * row.sum(), 1))
    cosine[4] = 0  # the user's own training row is no neighbour
    found = score_user_neighbours(model, longer, np.array([4]))
    np.testing.assert_allclose(found[0], cosine @ X, atol=1e-5)
    weights = fit_ease(user, item, N, M, 2.0)
    expected = row @ weights.weights
    np.testing.assert_allclose(score_ease(weights, longer)[0], expected, atol=1e-6)


def test_fits_that_are_not_finite_name_the_setting():
    with pytest.raises(
        InputError, match=r"EASE's weights are not finite; raise --ease\.regularisation"
    ):
        fit_ease(*made_up(), N, M, regularisation=5e-324)
    for fit in (fit_item_neighbours, fit_user_neighbours):
        with pytest.raises(InputError, match=r"neighbours\.shrinkage must be 0 or more, but is -2"):
            fit(*made_up(), N, M, shrinkage=-2.0)
    with pytest.raises(InputError, match="must be 0 or more, but are"):
        content_vectors([Ragged.from_lists([[1], [2]])], [1e300])
