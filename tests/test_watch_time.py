"""Metrics of rankers against loops over pairs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jrec.evaluate.watch_time import (
    calibration,
    group_losses,
    log_loss,
    watch_time_errors,
    weighted_user_loss,
)

ROWS = st.lists(
    st.tuples(st.integers(0, 4), st.booleans(), st.integers(0, 9), st.sampled_from([3, 5, 90])),
    min_size=1,
    max_size=30,
)


def by_pairs(rows):
    lost, total = {}, {}
    for score, clicked, watch, page in rows:
        lost.setdefault(page, 0.0), total.setdefault(page, 0.0)
        for other, other_clicked, _, other_page in rows:
            if clicked and not other_clicked and page == other_page:
                total[page] += watch
                lost[page] += watch * (1.0 if other > score else 0.5 if other == score else 0.0)
    return lost, total


@given(ROWS)
def test_the_weighted_loss_is_the_papers_sum_over_pairs(rows):
    score, clicked, watch, page = (np.array(column) for column in zip(*rows, strict=True))
    lost, total = by_pairs(rows)
    found = weighted_user_loss(score.astype(float), clicked, watch, page)
    if sum(total.values()) == 0:
        assert np.isnan(found)
    else:
        assert found == pytest.approx(sum(lost.values()) / sum(total.values()))
    ids, losses = group_losses(score.astype(float), clicked, watch, page)
    assert ids.tolist() == sorted(lost)
    expected = [lost[p] / total[p] if total[p] else np.nan for p in ids]
    np.testing.assert_allclose(losses, expected)


def test_the_weighted_loss_of_a_page_worked_out_on_paper():
    """A click of 30 s above one of two others, one of 10 s above both: 30 of 80 s are mispredicted."""
    score = np.array([2.0, 4.0, 3.0, 1.0])
    clicked = np.array([True, True, False, False])
    watch = np.array([30.0, 10.0, 99.0, 0.0])
    page = np.zeros(4, int)
    assert weighted_user_loss(score, clicked, watch, page) == pytest.approx(30 / 80)
    assert weighted_user_loss(-score, clicked, watch, page) == pytest.approx(50 / 80)
    assert weighted_user_loss(np.zeros(4), clicked, watch, page) == 0.5
    assert np.isnan(weighted_user_loss(score, clicked, watch, np.arange(4)))
    assert np.isnan(weighted_user_loss(score * np.nan, clicked, watch, page))


def test_log_loss_is_the_mean_of_minus_logs():
    found = log_loss(np.array([0.9, 0.2, 0.5]), np.array([True, False, True]))
    assert found == pytest.approx(-(np.log(0.9) + np.log(0.8) + np.log(0.5)) / 3)
    assert 15 < log_loss(np.array([1.0]), np.array([False])) < 17
    assert np.isnan(log_loss(np.zeros(0), np.zeros(0, bool)))


def test_calibration_bins_hold_equally_many_by_prediction():
    generator = np.random.default_rng(0)
    predicted = generator.permutation(np.arange(1.0, 101.0))
    found = calibration(predicted, 2 * predicted)
    assert found["count"].tolist() == [10] * 10
    np.testing.assert_allclose(found["predicted"], np.arange(5.5, 100, 10))
    np.testing.assert_allclose(found["actual"], 2 * found["predicted"])
    np.testing.assert_allclose(found["ratio"], 0.5)
    order = np.argsort(predicted)
    actual = generator.normal(size=100)
    bins = [part.mean() for part in np.array_split(actual[order], 10)]
    np.testing.assert_allclose(calibration(predicted, actual)["actual"], bins)


def test_calibration_with_equal_predictions_keeps_them_together():
    found = calibration(np.array([1.0] * 97 + [2.0] * 3), np.array([0.0] * 97 + [4.0] * 3))
    assert found["count"].tolist() == [97, 3]
    assert found["predicted"].tolist() == [1, 2] and found["actual"].tolist() == [0, 4]
    assert np.isnan(found["ratio"][0]) and found["ratio"][1] == 0.5
    # A value goes to the bin of its middle example.
    found = calibration(np.array([1.0] * 30 + [2.0] * 70), np.ones(100), bins=2)
    assert found["count"].tolist() == [30, 70]
    assert calibration(np.array([3.0, 1.0]), np.array([1, 0]))["count"].tolist() == [1, 1]


def test_watch_time_errors_by_hand():
    found = watch_time_errors(np.array([3.0, 5.0]), np.array([1.0, 6.0]))
    assert found == {
        "mae": 1.5,
        "rmse": pytest.approx(np.sqrt(2.5)),
        "bias": pytest.approx(1 / 7),
    }


def test_no_impressions_have_no_loss():
    none = np.zeros(0)
    assert np.isnan(weighted_user_loss(none, none.astype(bool), none, none.astype(int)))


def test_a_value_goes_to_the_bin_of_its_middle_example():
    """The middle of the first 80 of 100 is 40, in the lower half; the end of their second third is not."""
    found = calibration(np.array([1.0] * 80 + [2.0] * 20), np.ones(100), bins=2)
    assert found["count"].tolist() == [80, 20]
