"""Targets that the user has met before: counted, and treated as `--repeated-targets` says."""

import numpy as np
import pytest
from rich.console import Console

from experiments.baselines.__main__ import ranked
from experiments.baselines.held_out import held_out_ranks
from experiments.candidates.baselines import popularity_ranks, rank_metrics
from experiments.candidates.evaluation import never_listed, write_test
from jrec.data.click_examples import (
    count_items,
    held_out_examples,
    leave_one_out,
    repeated_targets,
    time_cut,
)
from jrec.data.clicks import build_clicks
from jrec.data.origin import Source
from jrec.data.show_clicks import show
from jrec.data.vocabulary import Vocabulary
from jrec.errors import InputError
from jrec.evaluate.per_user import means_by
from jrec.evaluate.ranking_metrics import NOT_LISTED, mean_metrics, ranking_metrics
from jrec.evaluate.repeated_targets import (
    REPEATED_TARGETS,
    RepeatedTargets,
    check_some_count,
    repeated_note,
    settle_repeated,
)
from jrec.evaluate.significance import read_per_user

RANK = np.array([[1], [3], [2]])
REPEATED = np.array([[True], [False], [False]])


def repeating_clicks():
    """Six users of six clicks on eight items; most clicks repeat an earlier one."""
    generator = np.random.default_rng(1)
    user = np.repeat(np.arange(6), 6)
    return build_clicks(
        "toy",
        Source("made", "toy", "", ""),
        user,
        generator.integers(2, 10, len(user)),
        np.arange(len(user)) % 6,
        np.arange(2, 8),
        {"user": Vocabulary.of(np.arange(6)), "item": Vocabulary.of(np.arange(8))},
    )


def test_the_choice_decides_what_a_repeat_counts_as():
    assert tuple(REPEATED_TARGETS) == RepeatedTargets.__args__
    hits = {}
    for choice in REPEATED_TARGETS:
        settled = settle_repeated(choice, RANK, np.ones((3, 1), bool), REPEATED)
        by_user = ranking_metrics(*settled, (2,))
        hits[choice] = by_user["hr@2"].tolist()
        if choice == "miss":
            assert all(value[0] == 0 for value in by_user.values())
        nothing = settle_repeated(choice, RANK, np.ones((3, 1), bool), REPEATED & False)
        assert ranking_metrics(*nothing, (2,))["hr@2"].tolist() == [1, 0, 1]
    np.testing.assert_equal(hits, {"miss": [0, 0, 1], "exclude": [np.nan, 0, 1], "rank": [1, 0, 1]})


def test_a_target_that_is_never_found_adds_nothing():
    found = ranking_metrics(np.array([[NOT_LISTED, 4]]), np.ones((1, 2), bool), (10,))
    assert found["mrr"][0] == 0.25 and found["recall@10"][0] == 0.5
    found = ranking_metrics(np.array([[NOT_LISTED]]), np.ones((1, 1), bool), (10,))
    assert {name: value[0] for name, value in found.items()} == dict.fromkeys(found, 0)


def test_repeated_targets_are_those_among_the_users_earlier_clicks():
    clicks = repeating_clicks()
    examples = held_out_examples(clicks, time_cut(clicks, 3, 4), "test")
    by_hand = [
        clicks.item[target] in clicks.item[clicks.offsets[user] : end]
        for user, end, target in zip(examples.user, examples.end, examples.target, strict=True)
    ]
    assert len(set(by_hand)) == 2
    assert repeated_targets(clicks, examples).tolist() == by_hand
    assert never_listed(clicks, examples, True).tolist() == by_hand
    assert not never_listed(clicks, examples, False).any()


def test_references_miss_repeats_too():
    clicks = repeating_clicks()
    split = leave_one_out(clicks)
    examples = held_out_examples(clicks, split, "test")
    repeated = repeated_targets(clicks, examples)
    ranks = popularity_ranks(clicks, count_items(clicks, split.train), examples, True)
    found = {c: rank_metrics(ranks, (10,), c, repeated)["hr@10"] for c in REPEATED_TARGETS}
    assert found == {"miss": (~repeated).mean(), "exclude": 1, "rank": 1}


def test_a_users_mean_is_over_the_clicks_that_count(tmp_path):
    nan = np.nan
    means = means_by(np.array([0, 0, 1, 2, 2]), np.array([1.0, nan, nan, 0.5, 1]), 3)
    np.testing.assert_array_equal(means, [1, nan, 0.75])
    clicks = repeating_clicks()
    examples = held_out_examples(clicks, leave_one_out(clicks), "test")
    write_test(tmp_path, examples, {"hr@10": np.where(np.arange(6) == 4, nan, 1.0)})
    users, metrics = read_per_user(tmp_path)
    assert users.tolist() == [*range(6)] and np.flatnonzero(np.isnan(metrics["hr@10"])) == [4]


def test_baselines_of_the_next_item_miss_repeats():
    clicks = repeating_clicks()
    examples = held_out_examples(clicks, leave_one_out(clicks), "test")
    repeated = repeated_targets(clicks, examples)
    assert 0 < repeated.sum() < len(repeated)

    def likes_targets(history, user):
        scores = np.zeros((len(user), clicks.vocabularies["item"].rows))
        scores[np.arange(len(user)), clicks.item[examples.target[: len(user)]]] = 1
        return scores

    ranks = held_out_ranks(likes_targets, clicks, examples)
    hits = {
        choice: mean_metrics(ranked(ranks, choice, repeated))["hr@10"]
        for choice in REPEATED_TARGETS
    }
    assert hits == {"miss": (~repeated).mean(), "exclude": 1, "rank": 1}


def test_the_number_is_told_with_what_it_counts_as():
    assert repeated_note("miss", 0, 80, "--no-remove-seen") == ""
    said = repeated_note("miss", 76, 80, "--no-remove-seen")
    assert "76 of 80 targets (95.0%)" in said and "count as misses" in said
    assert said.endswith("--no-remove-seen ranks them.")
    assert "--remove-seen" not in repeated_note("exclude", 8, 80, "--no-remove-seen")
    said = repeated_note("miss", 76, 80, "--no-remove-seen", removed=False)
    assert "76 of 80 targets (95.0%)" in said and said.endswith(
        "seen items are kept, so lists can hold them."
    )


def test_a_choice_that_leaves_nothing_is_refused():
    for choice in REPEATED_TARGETS:
        check_some_count(choice, 79, 80)
        check_some_count(choice, 0, 0)
    check_some_count("miss", 80, 80)
    with pytest.raises(InputError, match="All 80 targets"):
        check_some_count("exclude", 80, 80)


def test_a_data_sets_description_counts_repeats(capsys):
    clicks = repeating_clicks()
    show(clicks, Console(width=200))
    repeated = repeated_targets(clicks, held_out_examples(clicks, leave_one_out(clicks), "test"))
    assert f"had clicked before: {repeated.sum()} (" in capsys.readouterr().out
