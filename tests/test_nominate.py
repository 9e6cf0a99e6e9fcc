"""Candidates of several sources against loops, and their features against those of the training log."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments.ranking.settings import Data
from experiments.two_stages.lists import DAY, Log
from experiments.two_stages.settings import first_stage_clicks
from experiments.two_stages.system import feature_arrays, history_keys
from jrec.data.clicks import Bag
from jrec.data.impression_history import history_features, watched_before
from jrec.data.impression_maker import ImpressionSize, make_impressions
from jrec.data.ragged import Ragged
from jrec.data.vocabulary import FIRST
from jrec.retrieval.exact import item_table
from jrec.retrieval.nominate import Nominated, nominate
from jrec.serving.candidate_features import history_names, history_numbers, source_numbers
from jrec.serving.two_stages import StageSizes, last_clicks

M, D, B = 40, 4, 5
SIZE = ImpressionSize(users=40, items=40, pages=8, slots=4)


def drawn():
    g = np.random.default_rng(0)
    weights, biases = g.standard_normal((M, D)), g.standard_normal(M)
    hottest = np.array([7, 3, 11, -1], np.int32)
    similar = g.integers(-1, M, (M, 3)).astype(np.int32)
    seen = g.integers(0, M, (B, 6)).astype(np.int32)
    seen_mask = np.arange(6) < np.array([6, 3, 0, 1, 5])[:, None]
    return weights, biases, hottest, similar, seen, seen_mask, g.standard_normal((B, D))


def test_sources_are_joined_as_a_loop_joins_them():
    weights, biases, hottest, similar, seen, seen_mask, users = drawn()
    last, last_mask = seen[:, :2], seen_mask[:, :2]
    found = jax.jit(nominate, static_argnames="count")(
        item_table(weights, biases),
        jnp.asarray(users, jnp.float32),
        *map(jnp.asarray, (hottest, similar, seen, seen_mask, last, last_mask)),
        count=6,
    )
    named_twice = 0
    for b in range(B):
        left_out = set(seen[b, seen_mask[b]].tolist())
        scores = weights @ users[b] + biases
        order = [i for i in np.argsort(-scores).tolist() if i not in left_out][:6]
        alike = [
            similar[last[b, r], j] if last_mask[b, r] else -1 for j in range(3) for r in range(2)
        ]
        expected: dict[int, list[int]] = {}
        for source, items in enumerate((order, hottest.tolist(), alike)):
            for place, item in enumerate(items, start=1):
                if item >= 0 and item not in left_out:
                    places = expected.setdefault(int(item), [0, 0, 0])
                    places[source] = places[source] or place
        kept = np.asarray(found.mask[b])
        rows = np.asarray(found.rows[b])[kept].tolist()
        assert rows == sorted(expected)
        for row, places, score in zip(
            rows, np.asarray(found.places[b])[kept], np.asarray(found.scores[b])[kept], strict=True
        ):
            assert places.tolist() == expected[row]
            np.testing.assert_allclose(score, scores[row], rtol=1e-4, atol=1e-5)
            named_twice += (places > 0).sum() > 1
        assert (np.asarray(found.rows[b])[~kept] == 0).all()
        assert np.isneginf(np.asarray(found.scores[b])[~kept]).all()
    assert named_twice > 3


def test_source_numbers_fall_along_a_list():
    places = jnp.array([[[1, 0, 2], [4, 3, 0], [0, 0, 0]]])
    scores = jnp.array([[5.0, 4.0, -jnp.inf]])
    mask = jnp.array([[True, True, False]])
    values, known = source_numbers(Nominated(jnp.zeros((1, 3)), places, scores, mask), (4, 3, 2))
    np.testing.assert_allclose(values[0, 0], [1, 0, 0.5, 1])
    np.testing.assert_allclose(values[0, 1], [0.25, 1 / 3, 0, 0.5], rtol=1e-6)
    np.testing.assert_array_equal(known[0], [[1, 0, 1, 1], [1, 1, 0, 1], [0, 0, 0, 0]])


def toy_log():
    found = make_impressions(SIZE, 0)
    tags = Bag(
        Ragged.from_lists([[], [1], *([2, 3 + k % 2][: 1 + k % 2] for k in range(40))]), "category"
    )
    found = dataclasses.replace(found, item_features=found.item_features | {"tag": tags})
    return found, Log.of(found, first_stage_clicks(Data(), found), 12)


def test_serving_features_are_the_training_logs():
    """The last impression of each user, taken as a candidate at its own moment."""
    found, log = toy_log()
    keys = history_keys(found)
    assert keys == ("author", "category", "tag")
    columns = history_features(found, {key: found.item_features[key] for key in keys})
    watched = watched_before(found, 6)
    arrays = feature_arrays(found, np.arange(len(found)), False)[0]
    last = np.flatnonzero(found.page != np.append(found.page[1:], -1))[7::8]
    assert len(last) == SIZE.users
    sizes = StageSizes(events=64, watched=6)
    idle = 0
    for row in last:
        user, moment = found.user[row : row + 1], int(found.timestamp[row])
        request = log.request(user, moment, sizes)
        rows = jnp.asarray(found.item[row]).reshape(1, 1)
        values, known = history_numbers(arrays["item"], keys, rows, request.events)
        for k, name in enumerate(history_names(keys)):
            column = columns[name]
            assert known[0, 0, k] == column.known[row], name
            assert values[0, 0, k] == column.values[row], name
            idle += name.endswith("idle_seconds") and bool(column.known[row])
        bag, mask = last_clicks(request, 6)
        mine = np.asarray(bag[0])[np.asarray(mask[0])][::-1]
        assert sorted(mine.tolist()) == sorted(watched.rows[row].tolist())
    assert idle > 40


def test_a_request_and_its_labels_hold_nothing_of_later_days():
    found, log = toy_log()
    begin = int(found.timestamp.min()) // DAY * DAY
    moment = begin + 5 * DAY
    users = log.users_of(moment)
    sizes = StageSizes(events=16)
    before = found.timestamp < moment
    cut = dataclasses.replace(
        found,
        **{
            name: getattr(found, name)[before]
            for name in ("user", "item", "timestamp", "page", "clicked", "completed")
        },
        watch_seconds=found.watch_seconds[before],
        history_only=found.history_only[before],
    )
    shorter = Log.of(cut, first_stage_clicks(Data(), cut), 12)
    for mine, theirs in zip(
        jax.tree.leaves(log.request(users, moment, sizes)),
        jax.tree.leaves(shorter.request(users, moment, sizes)),
        strict=True,
    ):
        np.testing.assert_array_equal(mine, theirs)
    for mine, theirs in zip(
        log.recent(moment, 3, sizes), shorter.recent(moment, 3, sizes), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)
    items = np.tile(np.arange(SIZE.items), (len(users), 1))
    clicked, completed, watch, targets = log.labels(users, moment, items, items >= 0)
    on_day = (found.timestamp >= moment) & (found.timestamp < moment + DAY)
    for q, user in enumerate(users):
        own = np.flatnonzero(on_day & (found.user == user))
        expected = np.zeros((3, SIZE.items))
        for row in own:
            item = found.item[row] - FIRST
            expected[0, item] = max(expected[0, item], found.clicked[row])
            expected[1, item] = max(expected[1, item], found.completed[row])
            expected[2, item] = max(expected[2, item], found.watch_seconds[row])
        np.testing.assert_array_equal(clicked[q], expected[0])
        np.testing.assert_array_equal(completed[q], expected[1])
        np.testing.assert_array_equal(watch[q], expected[2].astype(np.float32))
        assert targets[q].tolist() == np.flatnonzero(expected[1]).tolist()
    assert targets.values.size > 10
