"""Made-up logs: what is planted is what is drawn, and the best ranking is the best."""

import numpy as np
import pytest

from jrec.data.click_examples import leave_one_out
from jrec.data.click_maker import make_clicks
from jrec.data.click_optimum import planted_optimum
from jrec.data.click_truth import LAG, LINK_SHARE, ClickSize
from jrec.data.vocabulary import FIRST
from jrec.errors import InputError
from tests.test_bad_input import check_sentence

SMALL = ClickSize(users=4000, items=60, clicks=8, categories=5, groups=4, follow=0.3, drift=0.4)


def probabilities(truth, group, history):
    """P(next item | group, history), one user at a time, straight from the documented formula."""
    size = truth.size
    follow, drift = (size.follow, size.drift) if len(history) else (0.0, 0.0)
    mixed = (1 - drift) * truth.taste[group, truth.category]
    if len(history):
        mixed = mixed + drift * truth.transition[truth.category[history[-1]], truth.category]
    result = (1 - follow) * mixed * truth.share
    lags = LAG[: len(history)] / LAG[: len(history)].sum()
    for lag, back in enumerate(reversed(history[-len(LAG) :])):
        for link, share in zip(truth.links[back], LINK_SHARE, strict=True):
            result[link] += follow * lags[lag] * share
    result[list(history)] = 0
    return result / result.sum()


@pytest.fixture(scope="module")
def made():
    return make_clicks(SMALL, 3)


def histories(clicks):
    return [
        (clicks.item[a:b] - FIRST).tolist()
        for a, b in zip(clicks.offsets[:-1], clicks.offsets[1:], strict=True)
    ]


def test_a_seed_says_everything(made):
    again, _ = make_clicks(SMALL, 3)
    other, _ = make_clicks(SMALL, 4)
    clicks, _ = made
    assert np.array_equal(clicks.item, again.item)
    assert np.array_equal(clicks.timestamp, again.timestamp)
    assert len(other) != len(clicks) or not np.array_equal(clicks.item, other.item)


def test_nobody_clicks_twice_and_everybody_clicks_thrice(made):
    clicks, _ = made
    lengths = np.diff(clicks.offsets)
    assert lengths.min() == 3 and lengths.max() == SMALL.items // 4
    assert all(len(set(items)) == len(items) for items in histories(clicks))
    many, _ = make_clicks(ClickSize(items=1000), 3)  # where the catalogue cuts nobody off
    assert abs(np.diff(many.offsets).mean() - ClickSize.clicks) < 0.6
    rising = np.diff(clicks.timestamp) > 0
    assert rising[np.diff(clicks.user_of_event) == 0].all()


def test_the_truth_is_made_of_distributions(made):
    _, truth = made
    for rows in (truth.taste, truth.transition, *truth.profile.values(), truth.prior[None]):
        assert (rows > 0).all() and np.allclose(rows.sum(1), 1)
    assert np.allclose(np.bincount(truth.category, truth.share), 1)


@pytest.mark.parametrize("step", [0, 1, 4])
def test_clicks_are_drawn_from_the_documented_probabilities(made, step):
    """Summed over users, each item's clicks at a step against their expectation."""
    clicks, truth = made
    expected, variance, seen = (np.zeros(SMALL.items) for _ in range(3))
    for user, items in enumerate(histories(clicks)):
        if len(items) > step:
            chance = probabilities(truth, truth.group[user], items[:step])
            expected += chance
            variance += chance * (1 - chance)
            seen[items[step]] += 1
    deviation = (seen - expected) / np.sqrt(variance)
    # Of 60 normal deviations none is beyond 4, and their mean square is about 1.
    assert np.abs(deviation).max() < 4 and 0.5 < (deviation**2).mean() < 1.6


def test_links_from_each_of_the_last_clicks_are_followed_as_often_as_documented():
    clicks, truth = make_clicks(ClickSize(5000, 200, 5, 5, 3, follow=0.9, drift=0.2), 0)
    for step in (1, 2, 3, 4):
        for back in range(min(step, 3)):
            expected = variance = seen = 0.0
            for user, items in enumerate(histories(clicks)):
                if len(items) > step:
                    links = np.unique(truth.links[items[step - 1 - back]])
                    chance = probabilities(truth, truth.group[user], items[:step])[links].sum()
                    expected, variance = expected + chance, variance + chance * (1 - chance)
                    seen += items[step] in links
            assert abs(seen - expected) < 4 * np.sqrt(variance)


def test_the_best_ranking_is_that_of_the_formula(made):
    """Ranks by P(item | group, history), and Bayes' rule over groups, one user at a time."""
    clicks, truth = made
    few = 60
    found = planted_optimum(clicks, truth, (1, 5, 20), users=few, seed=1)
    users = np.sort(np.random.default_rng(1).choice(SMALL.users, few, replace=False))
    totals = {"from_history": np.zeros(3), "knowing_taste": np.zeros(3)}
    hits = {"from_history": np.zeros(3), "knowing_taste": np.zeros(3)}
    for user in users:
        items = histories(clicks)[user]
        log = np.log(truth.prior)
        for key in ("city", "phone"):
            log = log + np.log(truth.profile[key][:, clicks.user_features[key].rows[user] - FIRST])
        by_group = []
        for group in range(SMALL.groups):
            for step in range(len(items) - 1):
                chance = probabilities(truth, group, items[:step])
                log[group] += np.log(chance[items[step]])
            by_group.append(probabilities(truth, group, items[:-1]))
        posterior = np.exp(log - log.max()) / np.exp(log - log.max()).sum()
        for name, chance in (
            ("from_history", posterior @ by_group),
            ("knowing_taste", by_group[truth.group[user]]),
        ):
            best = np.argsort(-chance, kind="stable")
            rank = best.tolist().index(items[-1])
            totals[name] += [chance[best[:k]].sum() for k in (1, 5, 20)]
            hits[name] += [rank < k for k in (1, 5, 20)]
    for name in totals:
        for place, k in enumerate((1, 5, 20)):
            assert found[name][f"expected_hr@{k}"] == pytest.approx(totals[name][place] / few)
            assert found[name][f"hr@{k}"] == pytest.approx(hits[name][place] / few)


def test_the_optimum_is_kept_and_beats_popularity(made):
    found = planted_optimum(*made, (5, 20))
    best, taste, popular = (found[name] for name in ("from_history", "knowing_taste", "popularity"))
    for k, times in ((5, 1.3), (20, 1.15)):
        # 4,000 users: a standard error of 0.008.
        assert abs(best[f"hr@{k}"] - best[f"expected_hr@{k}"]) < 0.03
        assert abs(taste[f"hr@{k}"] - taste[f"expected_hr@{k}"]) < 0.03
        assert taste[f"expected_hr@{k}"] > best[f"expected_hr@{k}"] > times * popular[f"hr@{k}"]
        assert best[f"hr@{k}"] > best[f"ndcg@{k}"] > popular[f"ndcg@{k}"]
    assert found["evaluated"]["users"] == SMALL.users


def test_popularity_counts_the_training_part_and_leaves_out_what_was_seen(made):
    clicks, _ = made
    found = planted_optimum(*made, (1, 10))["popularity"]
    split = leave_one_out(clicks)
    counts = np.bincount(clicks.item[split.train] - FIRST, minlength=SMALL.items).astype(float)
    hits = np.zeros(2)
    for items in histories(clicks):
        scores = counts.copy()
        scores[items[:-1]] = -1
        rank = np.argsort(-scores, kind="stable").tolist().index(items[-1])
        hits += [rank < 1, rank < 10]
    assert [found["hr@1"], found["hr@10"]] == pytest.approx((hits / SMALL.users).tolist())


def test_taste_shows_weakly_in_the_profile(made):
    clicks, truth = made
    city = clicks.user_features["city"].rows - FIRST
    province = clicks.user_features["province"].rows - FIRST
    assert (province == city // 4).all()
    for group in range(SMALL.groups):
        mine = city[truth.group == group]
        expected = truth.profile["city"][group] * len(mine)
        deviation = (np.bincount(mine, minlength=120) - expected) / np.sqrt(expected)
        assert 0.6 < (deviation**2).mean() < 1.5
    assert 1.02 < truth.profile["city"].max() * 120 < 30


def test_play_times_have_the_true_mean(made):
    clicks, truth = made
    user, item = clicks.user_of_event, clicks.item - FIRST
    mean = truth.mean_play_seconds(user, item)
    played = clicks.event_features["play_seconds"].values
    share = mean / truth.duration[item]
    assert share.min() >= 0.15 and share.max() <= 0.85 and share.std() > 0.1
    # Gamma of shape 2: the standard deviation is the mean over the square root of 2.
    for low, high in ((0, 40), (40, 90), (90, 1e9)):
        part = (mean >= low) & (mean < high)
        error = played[part].sum() - mean[part].sum()
        assert abs(error) < 4 * np.sqrt((mean[part] ** 2 / 2).sum())


def test_a_large_catalogue_is_ranked_in_blocks(made, monkeypatch):
    whole = planted_optimum(*made, (5,), users=300)
    monkeypatch.setattr("jrec.data.click_optimum._SCORES_AT_ONCE", 60 * 7)
    assert planted_optimum(*made, (5,), users=300)["from_history"] == pytest.approx(
        whole["from_history"]
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"users": 0},
        {"items": 0},
        {"items": 11},
        {"items": 15, "categories": 16},
        {"clicks": 2.5},
        {"clicks": float("nan")},
        {"follow": 1.0},
        {"follow": -0.1},
        {"drift": 1.5},
        {"groups": 0},
        {"users": 2**31},
    ],
)
def test_sizes_without_sense_are_refused(wrong):
    with pytest.raises(InputError) as fault:
        make_clicks(ClickSize(**wrong), 0)
    check_sentence(str(fault.value))


def test_a_seed_below_zero_is_refused():
    with pytest.raises(InputError, match="--seed"):
        make_clicks(ClickSize(), -1)


def test_the_smallest_catalogue_ends():
    clicks, truth = make_clicks(ClickSize(50, 12, 4, 1, 1, 0.9, 0.0), 0)
    assert np.diff(clicks.offsets).max() <= 3
    assert planted_optimum(clicks, truth)["from_history"]["hr@50"] == 1
