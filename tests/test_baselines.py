import numpy as np

from jrec.baselines import fit_biases, fit_means


def made_up(n=400, users=12, films=9):
    generator = np.random.default_rng(0)
    user, film = generator.integers(2, users, n), generator.integers(2, films, n)
    stars = generator.integers(1, 6, n).astype(np.float32)
    return user, film, stars, users, films


def test_biases_are_the_ridge_solution():
    user, film, stars, users, films = made_up()
    fitted = fit_biases(user, film, stars, users, films, regularisation=3.0, sweeps=200)
    # The same minimum from the normal equations.
    design = np.zeros((len(stars), users + films))
    design[np.arange(len(stars)), user] = design[np.arange(len(stars)), users + film] = 1
    normal = design.T @ design + 3.0 * np.eye(users + films)
    solution = np.linalg.solve(normal, design.T @ (stars - stars.mean()))
    np.testing.assert_allclose(fitted.user, solution[:users], atol=1e-5)
    np.testing.assert_allclose(fitted.film, solution[users:], atol=1e-5)
    assert fitted.user[0] == fitted.film[1] == 0  # padding and unknown rows saw nothing


def test_means():
    user, _, stars, users, _ = made_up()
    mean, by_user = fit_means(user, stars, users)
    np.testing.assert_allclose(mean + by_user[5], stars[user == 5].mean(), rtol=1e-6)
    assert by_user[0] == 0
    none = fit_biases(user, user, stars, users, users, regularisation=None)
    np.testing.assert_allclose(none.predict(user, user), stars.mean(), rtol=1e-6)
