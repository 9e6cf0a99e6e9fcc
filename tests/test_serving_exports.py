"""Exports of tiny rating models: what counts as seen, what is known of a pair, and how many programs serve."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.autoencoder import __main__ as autoencoder
from experiments.fusion import __main__ as fusion
from jrec.data.own_csv import CsvRatings
from jrec.data.rating_parts import rating_parts
from jrec.data.ratings_csv import read_ratings_csv
from jrec.data.sources import load_ratings
from jrec.data.splits import Split, split_ratings
from jrec.serving.profiles import (
    export_profile_model,
    held_out_of_user,
    load_profile_model,
    profile_of_user,
    rank_items,
    read_profile,
)
from jrec.serving.ratings import (
    export_rating_model,
    known_rating,
    load_rating_model,
    predict_stars,
)
from jrec.serving.ratings import (
    rank_items as rank_rated,
)

LINES = [f"full,p{k},{1 + k % 5}" for k in range(8)]
LINES += [f"u{u},p{(u + k) % 8},{1 + (u * k) % 5}" for u in range(1, 9) for k in range(5)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Ratings of eight items, all of which the user `full` has rated, and their parts."""
    path = tmp_path_factory.mktemp("data") / "r.csv"
    path.write_text("user,item,rating\n" + "\n".join(LINES) + "\n")
    ratings = read_ratings_csv(path, CsvRatings())
    return ratings, split_ratings(ratings, "leave-one-out")


def export_ratings(folder, ratings, split):
    bias = {"bias": jnp.arange(float(ratings.vocabularies["item"].rows))}

    def predict(arrays, user, item):
        return arrays["bias"][item] + 0.0 * user

    export_rating_model(folder, predict, bias, ratings, split)
    return load_rating_model(folder)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A run directory with an export of a rating model alone."""
    folder = tmp_path_factory.mktemp("ratings")
    export_ratings(folder / "export", *data)
    return folder


@pytest.fixture(scope="module")
def profiles(data, tmp_path_factory):
    """A run directory with an export of a profile model alone."""
    folder = tmp_path_factory.mktemp("profiles")
    bias = {"bias": jnp.arange(8.0)}

    def predict(arrays, ratings, known):
        return arrays["bias"][None] + 0.0 * ratings

    export_profile_model(folder / "export", predict, bias, rating_parts(*data))
    return folder


def test_all_that_the_data_set_knows_is_seen(data, run, capsys):
    ratings, _ = data
    model = load_rating_model(run / "export")
    for user in ("u1", "u5"):
        row = ratings.vocabularies["user"].encode([user])[0]
        rated = ratings.vocabularies["item"].decode(ratings.item[ratings.user == row]).tolist()
        ranked, notes = rank_rated(model, user, 8)
        assert {item for item, _, _ in ranked} == {f"p{k}" for k in range(8)} - set(rated)
        assert len(ranked) == 3 and not notes
        assert len(rank_rated(model, user, 8, include_seen=True)[0]) == 8
    assert len(rank_rated(model, "nobody", 8)[0]) == 8
    fusion.main(["recommend", "--run-dir", str(run), "--user", "full"])
    said = capsys.readouterr().out
    assert "user full has rated all 8 items: nothing is left" in said and said.count("\n") == 1


def test_the_actual_rating_of_a_pair_and_its_part(data, run, capsys):
    ratings, split = data
    model = load_rating_model(run / "export")
    for part in ("train", "valid", "test"):
        for k in getattr(split, part)[:5]:
            user = ratings.vocabularies["user"].decode(ratings.user[k])
            item = ratings.vocabularies["item"].decode(ratings.item[k])
            assert known_rating(model, user, item) == (ratings.rating[k], part)
    for pair in (("u1", "p0"), ("nobody", "p0"), ("u1", "p99")):
        assert known_rating(model, *pair) is None
    fusion.main(["predict", "--run-dir", str(run), "--user", "full", "--item", "p7"])
    assert "actual: 3 stars (test)" in capsys.readouterr().out
    fusion.main(["predict", "--run-dir", str(run), "--user", "u1", "--item", "p0"])
    assert "actual: the data set has no rating of this pair" in capsys.readouterr().out


def test_a_prediction_says_who_the_user_is(ml_1m, tmp_path, capsys):
    with (ml_1m / "ratings.dat").open("a") as file:
        file.write("888::1::4::1\n")  # of a user whom the users file lacks
    ratings = load_ratings("ml-1m", ml_1m)
    everything = Split(np.arange(len(ratings)), *[np.zeros(0, np.int64)] * 2)
    model = export_ratings(tmp_path / "export", ratings, everything)
    fusion.main(["predict", "--run-dir", str(tmp_path), "--user", "7", "--item", "1"])
    assert "user 7: F, under 18, executive/managerial\n" in capsys.readouterr().out
    # What some unknown users rated is not what this one did.
    assert len(rank_rated(model, "777", 100)[0]) == 9
    assert known_rating(model, "888", "1") is None


def test_a_profile_has_held_out_items_seen_too(data, profiles, capsys):
    ratings, _ = data
    model = load_profile_model(profiles / "export")
    parts = rating_parts(*data)
    for user in parts.users.tolist():
        row = ratings.vocabularies["user"].encode([user])[0]
        rated = ratings.vocabularies["item"].decode(ratings.item[ratings.user == row]).tolist()
        profile, _ = profile_of_user(model, user)
        held = held_out_of_user(model, user)
        assert len(held) == 2 and sorted([*profile, *held]) == sorted(rated)
        ranked, _ = rank_items(model, profile, 8, also_seen=held)
        assert {item for item, _, _ in ranked} == {f"p{k}" for k in range(8)} - set(rated)
    assert held_out_of_user(model, "nobody") == []
    autoencoder.main(["recommend", "--run-dir", str(profiles), "--user", "full"])
    said = capsys.readouterr().out
    assert "has rated all 8 items: nothing is left" in said and said.count("\n") == 1


def test_a_mark_at_the_start_of_a_profile_is_no_part_of_the_item(profiles, tmp_path):
    path = tmp_path / "profile.txt"
    path.write_bytes(b"\xef\xbb\xbfp1 5\np2 3\n")
    profile = read_profile(path)
    assert profile == {"p1": 5, "p2": 3}
    ranked, notes = rank_items(load_profile_model(profiles / "export"), profile, 8)
    assert not notes and "p1" not in [item for item, _, _ in ranked]


def test_requests_of_any_kind_share_a_program(run, profiles, caplog):
    rating, profile = load_rating_model(run / "export"), load_profile_model(profiles / "export")

    def ask(k):
        predict_stars(rating, f"u{k % 9}", f"p{k % 10}")
        rank_rated(rating, f"u{k % 9}", k + 1)
        rank_items(profile, {f"p{j}": 3.0 for j in range(k % 9)}, k + 1)

    ask(0)
    with caplog.at_level(logging.WARNING), jax.log_compiles():
        for k in range(40):
            ask(k)
    assert not [line for line in caplog.messages if "ompil" in line]
