import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jrec.data.splits import split_ratings
from jrec.data.synthetic import SyntheticSize, synthetic_ratings
from jrec.errors import InputError

RATINGS = synthetic_ratings(SyntheticSize(users=40, items=60, ratings=1500), seed=3)
NAMES = ("random", "user-time", "global-time", "leave-one-out")


@given(st.sampled_from(NAMES), st.integers(0, 5), st.floats(0.05, 0.5), st.floats(0, 0.5))
def test_parts_share_nothing_and_are_repeatable(name, seed, test, valid):
    first = split_ratings(RATINGS, name, seed, test, valid)
    again = split_ratings(RATINGS, name, seed, test, valid)
    parts = [first.train, first.valid, first.test]
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(RATINGS)))
    for field in dataclasses.fields(first):
        assert np.array_equal(getattr(first, field.name), getattr(again, field.name))


def test_random_follows_the_sources_rule():
    draws = np.random.RandomState(7).random_sample(len(RATINGS)) < 0.1
    split = split_ratings(RATINGS, "random", seed=7, valid_fraction=0)
    assert np.array_equal(split.test, np.flatnonzero(draws)) and len(split.valid) == 0


def test_test_part_does_not_depend_on_the_validation_fraction():
    one = split_ratings(RATINGS, "random", valid_fraction=0.0)
    two = split_ratings(RATINGS, "random", valid_fraction=0.3)
    assert np.array_equal(one.test, two.test)


@pytest.mark.parametrize("name", ["user-time", "leave-one-out"])
def test_no_user_trains_on_what_comes_after_a_held_out_rating(name):
    split = split_ratings(RATINGS, name)
    for user in np.unique(RATINGS.user):
        train, valid, test = (
            RATINGS.timestamp[part[RATINGS.user[part] == user]]
            for part in (split.train, split.valid, split.test)
        )
        latest = train.max(initial=0)
        assert (valid >= latest).all() and (test >= max(latest, valid.max(initial=0))).all()


def test_global_time_puts_equal_times_on_one_side():
    coarse = dataclasses.replace(RATINGS, timestamp=RATINGS.timestamp // 50)
    split = split_ratings(coarse, "global-time")
    train, valid, test = (coarse.timestamp[p] for p in (split.train, split.valid, split.test))
    assert train.max() < valid.min() and valid.max() < test.min()


def test_leave_one_out_holds_the_last_and_the_one_before():
    split = split_ratings(RATINGS, "leave-one-out")
    for user in np.unique(RATINGS.user):
        mine = np.flatnonzero(RATINGS.user == user)
        order = mine[np.argsort(RATINGS.timestamp[mine], kind="stable")]
        assert order[-1] in split.test and order[-2] in split.valid


@pytest.mark.parametrize("fractions", [(0.0, 0.1), (1.0, 0.1), (0.1, 1.0), (0.1, -0.1)])
def test_fractions_out_of_range_are_refused(fractions):
    with pytest.raises(InputError, match="between 0 and 1"):
        split_ratings(RATINGS, "random", 0, *fractions)


def test_an_empty_part_is_refused():
    with pytest.raises(InputError, match="leaves train"):
        split_ratings(RATINGS, "random", test_fraction=1e-9)
