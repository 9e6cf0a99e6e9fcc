import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jrec.evaluate.auc import auc, group_auc, mean_group_auc
from jrec.evaluate.ranking_metrics import mean_metrics, ranking_metrics
from jrec.evaluate.recommended_items import coverage, exposure, gini, popularity_bias

# Ranks of seven users' targets, and what ranx 0.3.21 and, for ndcg, map and mrr, trec_eval (pytrec_eval
# 0.5.11) say of them; scikit-learn 1.9.1 for the AUCs below.
RANKS = [[10], [3, 2], [9, 11, 4, 3], [7, 9, 8, 12, 6], [2, 10], [1], [1, 2, 3, 5, 8, 13]]
GOLDEN = {
    "hr@3": [0, 1, 1, 0, 1, 1, 1],
    "hr@10": [1, 1, 1, 1, 1, 1, 1],
    "recall@3": [0, 1, 0.25, 0, 0.5, 1, 0.5],
    "recall@10": [1, 1, 0.75, 0.8, 1, 1, 0.8333333],
    "precision@3": [0, 0.6666667, 0.3333333, 0, 0.3333333, 0.3333333, 1],
    "precision@10": [0.1, 0.2, 0.3, 0.4, 0.2, 0.1, 0.5],
    "ndcg@3": [0, 0.6934264, 0.2346394, 0, 0.3868528, 1, 1],
    "ndcg@10": [0.2890648, 0.6934264, 0.4808337, 0.4429552, 0.5640921, 1, 0.8573475],
    "map@3": [0, 0.5833333, 0.0833333, 0, 0.25, 1, 0.5],
    "map@10": [0.1, 0.5833333, 0.2916667, 0.2543651, 0.35, 1, 0.7375],
    "mrr@3": [0, 0.5, 0.3333333, 0, 0.5, 1, 1],
    "mrr@10": [0.1, 0.5, 0.3333333, 0.1666667, 0.5, 1, 1],
    "mrr": [0.1, 0.5, 0.3333333, 0.1666667, 0.5, 1, 1],
}


def padded(rows, width=None):
    width = width or max(map(len, rows))
    values, mask = np.zeros((len(rows), width), int), np.zeros((len(rows), width), bool)
    for row, part in enumerate(rows):
        values[row, : len(part)], mask[row, : len(part)] = part, True
    return values, mask


def test_metrics_are_those_of_other_libraries():
    found = ranking_metrics(*padded(RANKS), ks=(3, 10))
    assert found.keys() == GOLDEN.keys()
    for name, values in GOLDEN.items():
        assert np.allclose(found[name], values, atol=1e-7), name


def by_definition(ranks, k):
    """From a list of relevances, place by place."""
    relevant = [place in ranks for place in range(1, k + 1)]
    gains = [hit / math.log2(place + 1) for place, hit in enumerate(relevant, 1)]
    best = [1 / math.log2(place + 1) for place in range(1, min(len(ranks), k) + 1)]
    precisions = [sum(relevant[:place]) / place for place in range(1, k + 1)]
    return {
        "hr": float(any(relevant)),
        "recall": sum(relevant) / len(ranks),
        "precision": sum(relevant) / k,
        "ndcg": sum(gains) / sum(best),
        "map": sum(p for p, hit in zip(precisions, relevant, strict=True) if hit) / len(ranks),
        "mrr": 1 / (relevant.index(True) + 1) if any(relevant) else 0.0,
    }


sets_of_ranks = st.lists(st.integers(1, 30), min_size=1, max_size=9, unique=True)


@given(st.lists(sets_of_ranks, min_size=1, max_size=5), st.integers(1, 40))
def test_metrics_are_their_definitions(rows, k):
    found = ranking_metrics(*padded(rows, 9), ks=(k,))
    for row, ranks in enumerate(rows):
        for name, value in by_definition(ranks, k).items():
            assert found[f"{name}@{k}"][row] == pytest.approx(value)
        assert found["mrr"][row] == 1 / min(ranks)


@given(st.lists(st.integers(0, 4), min_size=2, max_size=12), st.data())
def test_no_metric_is_above_one_under_pessimistic_ties(scores, data):
    """Few distinct scores of all items; any of the items are targets."""
    targets = data.draw(st.sets(st.integers(0, len(scores) - 1), min_size=1))
    scores = np.array(scores)
    ranks = [sum(scores >= scores[t]) for t in targets]
    for name, value in ranking_metrics(*padded([ranks]), ks=(1, 3, 5, 12)).items():
        assert 0 <= value[0] <= 1 + 1e-12, name


def test_what_does_not_count_changes_nothing():
    ranks, mask = padded(RANKS)
    shuffled = np.random.default_rng(0).permutation(ranks.shape[1])
    garbage = np.where(mask, ranks, -7)
    one, two = (
        ranking_metrics(ranks, mask),
        ranking_metrics(garbage[:, shuffled], mask[:, shuffled]),
    )
    for name in one:
        assert np.allclose(one[name], two[name])


def test_users_without_a_target_are_left_out_of_means():
    found = ranking_metrics(np.array([[1, 2], [0, 0], [0, 4]]), np.array([[1, 1], [0, 0], [0, 1]]))
    assert all(np.isnan(value[1]) for value in found.values())
    means = mean_metrics(found)
    assert means["hr@10"] == 1 and means["mrr"] == (1 + 1 / 4) / 2
    nobody = ranking_metrics(np.zeros((2, 1), int), np.zeros((2, 1), bool))
    assert math.isnan(mean_metrics(nobody)["ndcg@10"])
    assert math.isnan(mean_metrics(ranking_metrics(np.zeros((0, 3)), np.zeros((0, 3))))["mrr"])


@pytest.mark.parametrize(("rank", "k"), [(0, 10), (1, 0)])
def test_ranks_and_cut_offs_begin_at_one(rank, k):
    with pytest.raises(ValueError, match="begin at 1"):
        ranking_metrics(np.array([[rank]]), np.array([[True]]), (10, k))


# Coverage, popularity and concentration.
LISTS, LISTED = padded([[2, 3, 4], [2, 3], [2], []], 3)
RECOMMENDABLE = np.array([0, 0, 1, 1, 1, 1], bool)


def test_coverage_counts_recommendable_items():
    shown = exposure(LISTS, LISTED, 6)
    assert shown.tolist() == [0, 0, 3, 2, 1, 0]
    assert coverage(shown, RECOMMENDABLE) == 3 / 4
    assert math.isnan(coverage(shown, np.zeros(6, bool)))


@given(st.lists(st.integers(0, 50), min_size=1, max_size=30).filter(any))
def test_gini_is_half_the_relative_mean_difference(x):
    x = np.array(x)
    expected = np.abs(x[:, None] - x[None]).mean() / (2 * x.mean())
    assert gini(x, np.ones(len(x), bool)) == pytest.approx(expected)


def test_gini_of_even_single_and_no_exposure():
    everyone = np.ones(5, bool)
    assert gini(np.full(5, 3), everyone) == pytest.approx(0)
    assert gini(np.array([0, 0, 9, 0, 0]), everyone) == pytest.approx(1 - 1 / 5)
    assert math.isnan(gini(np.zeros(5, int), everyone))
    assert math.isnan(gini(np.ones(5, int), ~everyone))
    assert gini(np.array([7, 3, 3]), np.array([False, True, True])) == pytest.approx(0)


def test_popularity_of_lists():
    count = np.array([1000, 1000, 9, 3, 0, 1])
    found = popularity_bias(LISTS, LISTED, count)
    assert np.allclose(found["popularity"][:3], [4, 6, 9])
    logs = np.log([10, 4, 1])
    assert np.allclose(found["log_popularity"][:3], [logs.mean(), logs[:2].mean(), logs[0]])
    assert np.isnan(found["popularity"][3]) and np.isnan(found["log_popularity"][3])
    one_item = popularity_bias(np.array([[0, 99]]), np.array([[True, False]]), np.array([5]))
    assert one_item["popularity"].tolist() == [5]


# AUC.
SCORE = np.array([4, 1, 0, 1, 2, 4, 2, 0, 1, 3, 4, 3, 4, 0, 4, 0, 2, 1, 1, 3, 1, 2, 1, 0.0])
LABEL = np.array([1, 0, 1, 1, 1, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1])
GROUP = np.array([3, 1, 3, 3, 0, 1, 2, 2, 2, 0, 1, 0, 3, 0, 1, 3, 2, 2, 1, 3, 2, 2, 1, 1])


def test_auc_is_that_of_scikit_learn():
    assert auc(SCORE, LABEL) == pytest.approx(0.45185185185185184)
    ids, area, size = group_auc(SCORE, LABEL, GROUP)
    assert ids.tolist() == [0, 1, 2, 3] and size.tolist() == [4, 7, 7, 6]
    assert np.allclose(area, [1, 0.25, 0.25, 0.5])
    assert mean_group_auc(SCORE, LABEL, GROUP) == pytest.approx((4 + 7 / 4 + 7 / 4 + 3) / 24)


examples = st.lists(
    st.tuples(st.integers(-3, 3), st.booleans(), st.integers(5, 8)), min_size=1, max_size=40
)


@given(examples)
def test_auc_counts_pairs(rows):
    score, label, group = (np.array(column) for column in zip(*rows, strict=True))

    def pairs(chosen):
        high, low = score[chosen & label][:, None], score[chosen & ~label][None]
        return ((high > low) + (high == low) / 2).mean() if high.size and low.size else math.nan

    everyone = np.ones(len(rows), bool)
    assert auc(score, label) == pytest.approx(pairs(everyone), nan_ok=True)
    ids, area, size = group_auc(score, label, group)
    assert ids.tolist() == sorted(set(group.tolist()))
    expected = np.array([pairs(group == g) for g in ids])
    assert np.allclose(area, expected, equal_nan=True)
    has = ~np.isnan(expected)
    mean = (expected * size)[has].sum() / size[has].sum() if has.any() else math.nan
    assert mean_group_auc(score, label, group) == pytest.approx(mean, nan_ok=True)


def test_auc_of_nothing_and_of_nan():
    assert math.isnan(auc(np.zeros(0), np.zeros(0))) and math.isnan(auc(np.ones(3), np.ones(3)))
    score = np.array([1, np.nan, 2, 3])
    label, group = np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])
    assert math.isnan(auc(score, label)) and math.isnan(mean_group_auc(score, label, group))
    assert np.array_equal(group_auc(score, label, group)[1], [np.nan, 1], equal_nan=True)
    assert math.isnan(mean_group_auc(np.zeros(0), np.zeros(0), np.zeros(0)))
