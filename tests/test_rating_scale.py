"""Ratings on other scales: the same relative errors in any unit, and stars untouched to the bit."""

import csv
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.autoencoder import __main__ as autoencoder
from experiments.baselines.ratings import RatingSettings, fit_rating_baseline
from experiments.embedding_mlp import __main__ as embedding_mlp
from experiments.fusion import __main__ as fusion
from experiments.rating_system import (
    System,
    in_standard_unit,
    in_user_unit,
    with_standard_unit,
)
from jrec.data.origin import Source
from jrec.data.own_csv import CsvRatings
from jrec.data.rating_scale import STARS, RatingScale, scale_of_range, scale_of_ratings
from jrec.data.ratings_csv import read_ratings_csv
from jrec.data.synthetic import SyntheticSize, synthetic_ratings
from jrec.errors import InputError
from jrec.serving.profiles import load_profile_model, rank_items
from jrec.serving.ratings import load_rating_model, predict_stars
from jrec.train.checkpoints import Checkpoints
from jrec.train.flags import RunFlags
from jrec.train.loop import Plan, fit
from jrec.train.step import TrainState
from tests.conftest import FakeStream, slow_but

OWN = Source("file", "mine.csv", "")


def test_training_ratings_come_to_the_level_and_spread_of_stars():
    rating = np.random.default_rng(0).gamma(2, 3000, 500).astype(np.float32)
    scale = scale_of_ratings(rating)
    standard = scale.standard(rating.astype(np.float64))
    assert standard.mean() == pytest.approx(3.5) and standard.std() == pytest.approx(1)
    assert scale.user(standard) == pytest.approx(rating, rel=1e-5)
    assert scale_of_range(-10, 30).standard(np.array([-10.0, 30.0])).tolist() == [1, 5]


@pytest.mark.parametrize("value", [0, 0.1, 1e6 + 0.3])
def test_constant_ratings_do_not_divide_by_zero(value):
    rating = np.full(1000, value, np.float32)
    scale = scale_of_ratings(rating)
    assert scale.unit == 1 and scale.standard(rating) == pytest.approx(3.5, abs=1e-6 * value)


def test_stars_stay_as_they_are_to_the_bit():
    ratings = synthetic_ratings(SyntheticSize(20, 30, 200), 0)
    kept, scale = with_standard_unit(ratings, lambda: pytest.fail("fitted"))
    assert kept.rating is ratings.rating and kept.rating_range == (1, 5) and scale == STARS
    assert scale.user(ratings.rating) is ratings.rating
    stars = np.array([1, 5], np.uint8)
    assert in_standard_unit(ratings.source, stars, lambda: pytest.fail("fitted"))[0] is stars
    own, scale = in_standard_unit(OWN, stars, lambda: scale_of_ratings(stars))
    assert own.tolist() == [2.5, 4.5] and own.dtype == np.float32
    assert scale == RatingScale(3 - 3.5 * 2, 2)


def test_predictions_and_costs_are_in_the_users_unit():
    def predict(arrays, user, item):
        return jnp.array([0.0, 3.0, 5.0])

    system = System(None, None, None, None, predict)
    assert in_user_unit(system, STARS, (1, 5)) is system
    scale = RatingScale(10, 2)
    assert in_user_unit(system, scale, None).predict(None, None, None).tolist() == [10, 16, 20]
    assert in_user_unit(system, scale, (11, 19)).predict(None, None, None).tolist() == [11, 16, 19]


def test_losses_are_reported_in_the_users_unit(tmp_path):
    def chunk(state, data, order, first, steps):
        sums = {"loss_sum": jnp.float32(3), "count": jnp.float32(2)}
        return state._replace(step=state.step + steps), sums, jnp.int32(-1)

    last, best = (Checkpoints(tmp_path / name, keep=1) for name in ("last", "best"))
    state = TrainState(jnp.int32(0), jax.random.key(0), {"w": jnp.ones(2)}, ())
    plan = Plan(state, None, FakeStream(1, chunk), lambda s: {"rmse": 7.0}, cost_scale=4.0)
    reports = list(fit(plan, RunFlags(epochs=1), last, best, state))
    assert [report.loss for report in reports] == [6, 6] and reports[1].metrics == {"rmse": 7}


# name -> rating out of a number from 0 to 1
UNITS = {"stars": lambda r: 1 + 4 * r, "hundred": lambda r: 100 * r}
UNITS |= {"ten-thousand": lambda r: 10_000 * r, "negative": lambda r: 3 * r - 2}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The same 600 ratings of 30 users for 40 items on four scales."""
    generator = np.random.default_rng(1)
    folder = tmp_path_factory.mktemp("units")
    pairs = generator.permutation(30 * 40)[:600]
    taste, quality = generator.normal(0, 1, 30), generator.normal(0, 1, 40)
    raw = taste[pairs // 40] + quality[pairs % 40] + generator.normal(0, 0.3, 600)
    rating = np.round((raw - raw.min()) / (raw.max() - raw.min()), 4)
    for name, unit in UNITS.items():
        with (folder / f"{name}.csv").open("w", newline="") as file:
            rows = zip(pairs // 40, pairs % 40, unit(rating), strict=True)
            csv.writer(file).writerows([("user", "item", "rating"), *rows])
    return folder


def run(files, tmp_path, name, experiment, *flags):
    """The results of a run."""
    folder = tmp_path / name
    own = ["--dataset", "csv", "--data-dir", str(files / f"{name}.csv"), "--run-dir", str(folder)]
    experiment.main(["train", *own, *flags])
    return json.loads((folder / "results.json").read_text())


SMALL = ["--improved.width", "4", "--improved.heads", "1"]
EXPERIMENTS = {
    "embedding-mlp": (embedding_mlp, ["--epochs", "3", "--batch-size", "64", "--clip"]),
    "embedding-mlp-improved": (
        embedding_mlp,
        ["--preset", "improved", *SMALL, "--improved.factors", "4", "--epochs", "2"],
    ),
    "fusion": (fusion, ["--epochs", "2", "--learning-rate", "0.05"]),
    "fusion-improved": (fusion, ["--preset", "improved", *SMALL, "--epochs", "2"]),
    "autoencoder": (autoencoder, ["--hidden", "8", "--epochs", "2"]),
    "autoencoder-centred": (autoencoder, ["--hidden", "8", "--epochs", "2", "--centre"]),
}


def predictions(module, export, unit):
    """Of an exported model: ratings of eight items for one user."""
    if module is autoencoder:
        profile = {"3": unit(0.9), "4": unit(0.75)}
        ranked, _ = rank_items(load_profile_model(export), profile, 40, include_seen=True)
        found = {item: rating for item, _, rating in ranked}
        return np.array([found[str(k)] for k in range(8)])
    model = load_rating_model(export)
    return np.array([predict_stars(model, "3", str(k))[0] for k in range(8)])


@pytest.mark.parametrize("experiment", slow_but("embedding-mlp", EXPERIMENTS))
def test_the_unit_does_not_change_a_run(experiment, files, tmp_path):
    module, flags = EXPERIMENTS[experiment]
    share, cost, predicted = {}, {}, {}
    for name in ("stars", "negative" if experiment == "autoencoder" else "ten-thousand"):
        found = run(files, tmp_path, name, module, *flags)
        size = UNITS[name](1) - UNITS[name](0)
        share[name] = found["test_rmse"] / found["baselines"]["global mean"]["rmse"]
        line = (tmp_path / name / "metrics.jsonl").read_text().splitlines()[0]
        cost[name] = json.loads(line)["train_cost"] / size**2
        rated = predictions(module, tmp_path / name / "export", UNITS[name])
        predicted[name] = (rated - UNITS[name](0)) / size
        if "--clip" in flags or "improved" in flags:
            assert UNITS[name](0) <= rated.min() and rated.max() <= UNITS[name](1)
    one, other = share
    assert share[one] == pytest.approx(share[other], rel=1e-2)
    assert cost[one] == pytest.approx(cost[other], rel=1e-2)
    assert predicted[one] == pytest.approx(predicted[other], abs=1e-2)


def test_every_unit_trains_on_the_same_numbers(files):
    standard = {}
    for name in UNITS:
        ratings = read_ratings_csv(files / f"{name}.csv", CsvRatings())
        kept, scale = with_standard_unit(
            ratings, lambda r=ratings: scale_of_ratings(r.rating[:400])
        )
        assert kept.rating.dtype == np.float32
        assert kept.rating_range == pytest.approx((kept.rating.min(), kept.rating.max()), abs=1e-5)
        assert scale.user(kept.rating) == pytest.approx(ratings.rating, rel=1e-4, abs=1e-6)
        standard[name] = kept.rating
    for values in standard.values():
        np.testing.assert_allclose(values, standard["stars"], atol=1e-5)


@pytest.mark.parametrize(
    "method", ["biases", "user-neighbours", "item-neighbours", "matrix-factorisation"]
)
def test_baselines_have_the_same_relative_error_in_any_unit(method, files):
    settings = RatingSettings()
    settings.matrix_factorisation.width, settings.matrix_factorisation.epochs = 4, 3
    predicted = {}
    # The exact methods on every scale, the trained one on two.
    names = ("stars", "ten-thousand") if method == "matrix-factorisation" else tuple(UNITS)
    for name in names:
        ratings = read_ratings_csv(files / f"{name}.csv", CsvRatings())
        train, test = np.arange(500), np.arange(500, 600)
        _, predict = fit_rating_baseline(method, settings, ratings, train, 0)
        predicted[name] = predict(ratings.user[test], ratings.item[test])
    share = (predicted["stars"] - 1) / 4
    assert np.std(share) > 0.05
    for name in names:
        unit = UNITS[name]
        size = unit(1) - unit(0)
        np.testing.assert_allclose((predicted[name] - unit(0)) / size, share, atol=1e-4)


def test_a_run_above_the_global_mean_says_so(files, tmp_path, capsys):
    flags = ["--hidden", "8", "--epochs", "1", "--learning-rate", "1e-9"]
    found = run(files, tmp_path, "hundred", autoencoder, *flags)
    rmse, mean = found["test_rmse"], found["baselines"]["global mean"]["rmse"]
    sentence = f"autoencoder has test RMSE {rmse:.4f}, not below the global mean's {mean:.4f}."
    assert rmse > mean and found["warnings"] == [sentence]
    assert f"warning: {sentence}" in capsys.readouterr().out
    assert f"Warning: {sentence}" in (tmp_path / "hundred" / "report.md").read_text()


def test_ratings_that_the_last_activation_cannot_give_are_refused(tmp_path):
    lines = [
        f"u{user},i{item},{0 if (user, item) == (0, 0) else 100}"
        for user in range(12)
        for item in range(12)
    ]
    (tmp_path / "ratings.csv").write_text("\n".join(["user,item,rating", *lines]) + "\n")
    flags = ["--dataset", "csv", "--data-dir", str(tmp_path / "ratings.csv"), "--epochs", "1"]
    flags += ["--split", "random", "--test-fraction", "0.01", "--run-dir", str(tmp_path / "run")]
    with pytest.raises(InputError, match=r"Ratings below .* out of reach of selu .* --centre"):
        autoencoder.main(["train", *flags])
    assert not (tmp_path / "run").exists()
