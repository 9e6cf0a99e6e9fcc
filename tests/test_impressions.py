"""Impressions: history features against a slow rewrite, no look into the future, what is planted."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jrec.data.clicks import Bag, Categorical, Continuous, build_clicks
from jrec.data.impression_history import history_features, watched_before
from jrec.data.impression_maker import ImpressionSize, make_impressions
from jrec.data.impressions import Impressions, split_by_time
from jrec.data.kuairand import china_midnight
from jrec.data.kuairand_impressions import impressions_of_clicks, read_kuairand_impressions
from jrec.data.origin import Source
from jrec.data.quantiles import Quantiles, normalise
from jrec.data.ragged import Ragged
from jrec.data.vocabulary import Vocabulary
from jrec.errors import InputError

KUAIRAND = Path("/work/shared/data/KuaiRand-Pure.zip")
USERS, ITEMS = 3, 5
# Of item rows 0 and 1 (padding, unknown) and five items; the fourth's author is unknown.
AUTHOR = Categorical(np.array([0, 1, 2, 2, 3, 1, 3], np.int32), "author")
TAGS = Bag(Ragged.from_lists([[], [1], [2, 3], [3], [], [2, 4], [4]]), "tag")
ROWS = st.lists(
    st.tuples(
        st.integers(0, USERS - 1), st.integers(1, ITEMS + 1), st.integers(0, 6), st.booleans()
    ),
    max_size=25,
)


def impressions_of(rows):
    """Impressions of (user, item row, time, clicked) tuples."""
    user, item, time, clicked = np.array(rows, np.int64).reshape(-1, 4).T
    return Impressions(
        name="toy",
        source=Source("synthetic", "toy", ""),
        user=user.astype(np.int32),
        item=item.astype(np.int32),
        timestamp=time,
        page=user,
        clicked=clicked > 0,
        completed=np.zeros(len(user), bool),
        watch_seconds=np.zeros(len(user), np.float32),
        history_only=np.zeros(len(user), bool),
        user_row=np.arange(2, USERS + 2, dtype=np.int32),
        vocabularies={"item": Vocabulary(np.arange(ITEMS))},
    )


def features_of(rows):
    found = impressions_of(rows)
    columns = history_features(found, {"author": AUTHOR, "tag": TAGS})
    return columns, watched_before(found, 2)


def values_of(key, item):
    if key is None:
        return [item] if item >= 2 else []
    rows = key.rows[item]
    return [v for v in (rows.tolist() if isinstance(key, Bag) else [int(rows)]) if v >= 2]


@given(ROWS)
def test_history_features_are_those_of_a_loop(rows):
    columns, watched = features_of(rows)
    for name, key in {"item": None, "author": AUTHOR, "tag": TAGS}.items():
        for n, (user, item, time, _) in enumerate(rows):
            mine, shown, last = values_of(key, item), 0, None
            for user_, item_, time_, clicked_ in rows:
                if user_ == user and time_ < time:
                    common = sum(v in values_of(key, item_) for v in mine)
                    shown += common
                    if common and clicked_:
                        last = time_ if last is None else max(last, time_)
            assert columns[f"{name}_shown"].values[n] == shown
            idle = columns[f"{name}_idle_seconds"]
            assert idle.known[n] == (last is not None)
            assert idle.values[n] == (0 if last is None else time - last)
    for n, (user, _, time, _) in enumerate(rows):
        before = [r for r in rows if r[0] == user and r[2] < time and r[3]]
        before = [r[1] for r in sorted(before, key=lambda r: r[2])][-2:]
        assert watched.rows[n].tolist() == before


@given(ROWS, ROWS, st.randoms(use_true_random=False))
def test_later_rows_change_no_earlier_feature(rows, later, random):
    """Nor do rows of the same moment, wherever they stand."""
    newest = max((row[2] for row in rows), default=0)
    later = [(user, item, newest + time, clicked) for user, item, time, clicked in later]
    places = sorted(random.sample(range(len(rows) + len(later)), len(rows)))
    mixed, old, new = [], iter(rows), iter(later)
    for place in range(len(rows) + len(later)):
        mixed.append(next(old) if place in places else next(new))
    alone, alone_watched = features_of(rows)
    among, among_watched = features_of(mixed)
    for name, column in alone.items():
        np.testing.assert_array_equal(column.values, among[name].values[places])
        np.testing.assert_array_equal(column.known, among[name].known[places])
    for n, place in enumerate(places):
        assert alone_watched.rows[n].tolist() == among_watched.rows[place].tolist()


@given(st.lists(st.integers(-3, 3) | st.floats(-3, 3, width=32), min_size=1, max_size=60))
def test_quantiles_rise_and_stay_inside(values):
    quantiles = Quantiles.fit(np.array(values, np.float32), 10)
    found = quantiles(np.sort(np.array([*values, -9, 9], np.float32)))
    assert (np.diff(found) >= 0).all() and found[0] >= 0 and found[-1] <= 1
    assert found.dtype == np.float32


def test_quantiles_make_training_values_uniform_and_halve_ties():
    drawn = np.random.default_rng(0).lognormal(3, 2, 20_000).astype(np.float32)
    counts = np.histogram(Quantiles.fit(drawn)(drawn), 10, (0, 1))[0]
    assert abs(counts - 2000).max() < 40
    many_zeros = Quantiles.fit(np.array([0] * 80 + list(range(1, 21)), np.float32))
    assert many_zeros(np.array([0.0])) == pytest.approx(0.4, abs=0.01)
    assert many_zeros(np.array([20.0])) == pytest.approx(0.995, abs=0.002)
    assert Quantiles.fit(np.full(7, 3.0))(np.array([1.0, 3.0, 9.0])).tolist() == [0.5] * 3


def test_quantiles_see_known_training_rows_alone():
    values = np.array([1, 2, 3, 900, 1000], np.float32)
    column = Continuous(values, np.array([True, True, True, False, True]))
    found, quantiles = normalise(column, np.array([0, 1, 2, 3]))
    assert quantiles.knots.max() == 3
    assert found.values[3] == 0 and not found.known[3]
    assert found.values[4] == np.float32(quantiles.levels[-1])


SIZE = ImpressionSize(users=400, items=60, pages=12, slots=4)


def test_the_maker_plants_what_it_says():
    found = make_impressions(dataclasses.replace(SIZE, users=3000), 0)
    n = len(found)
    assert n == 3000 * 12 * 4
    # Watch times scatter around what is planted, in every tenth of it.
    for part in np.array_split(np.argsort(found.expected_watch_seconds), 10):
        noise = found.watch_seconds[part].std() / np.sqrt(len(part))
        gap = found.watch_seconds[part].mean() - found.expected_watch_seconds[part].mean()
        assert abs(gap) < 4 * noise
    assert (found.watch_seconds[~found.clicked] == 0).all()
    assert (found.watch_seconds[found.clicked] > 0).all()
    assert (found.completed <= found.clicked).all() and found.completed.any()
    # A page holds no item twice and is of one user and moment.
    by_page = found.page * 1000 + found.item
    assert len(np.unique(by_page)) == n
    assert len(np.unique(np.stack([found.page, found.user, found.timestamp]), axis=1).T) == 36_000


def test_history_tells_of_clicks_in_the_planted_log():
    found = make_impressions(dataclasses.replace(SIZE, users=3000), 0)
    columns = history_features(
        found, {name: found.item_features[name] for name in ("author", "category")}
    )
    seen = columns["item_shown"].values
    assert found.clicked[seen >= 2].mean() < 0.8 * found.clicked[seen == 0].mean()
    idle = columns["category_idle_seconds"]
    recent = idle.known & (idle.values < 86_400)
    assert found.clicked[recent].mean() > 1.2 * found.clicked[~recent].mean()


def test_the_maker_is_a_function_of_its_seed():
    one, again, other = (make_impressions(SIZE, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.watch_seconds, again.watch_seconds)
    assert (one.item != other.item).any()


@pytest.mark.parametrize("bad", [{"users": 0}, {"items": 7}, {"click_rate": 1.0}])
def test_sizes_without_sense_are_refused(bad):
    with pytest.raises(InputError):
        make_impressions(dataclasses.replace(SIZE, **bad), 0)


def test_the_split_cuts_in_time_and_leaves_history_out():
    found = make_impressions(SIZE, 0)
    found = dataclasses.replace(found, history_only=found.user == 0)
    a, b, c = np.quantile(found.timestamp, [0.6, 0.8, 0.9]).astype(np.int64)
    split = split_by_time(found, a, b, c)
    assert found.timestamp[split.train].max() < a <= found.timestamp[split.valid].min()
    assert found.timestamp[split.valid].max() < b <= found.timestamp[split.test].min()
    assert found.timestamp[split.test].max() < c
    expected = ((found.timestamp < c) & (found.user > 0)).sum()
    assert sum(map(len, (split.train, split.valid, split.test))) == expected
    for moments in ((b, a), (0, 0), (2**40, 2**40)):
        with pytest.raises(InputError):
            split_by_time(found, *moments)


def test_kuairand_rows_become_impressions():
    """User 0: one earlier video, then three shown in two tabs on two days of China; user 1: one."""
    midnight, n = 1_651_334_400, 5
    real = np.array([False, True, True, True, True])

    def numbers(*values):
        return Continuous(np.array(values, np.float32), real)

    clicks = build_clicks(
        name="kuairand-pure",
        source=Source("file", "toy", ""),
        user=np.array([0, 0, 0, 0, 1]),
        item=np.array([2, 3, 4, 2, 2]),
        timestamp=midnight + np.array([-9000, -1, 0, 5, 5]),
        user_row=np.array([2, 3]),
        vocabularies={k: Vocabulary(np.arange(3)) for k in ("user", "item", "tab", "hour")},
        event_features={
            "play_seconds": numbers(0, 9, 8, 7, 6),
            "duration_seconds": numbers(0, 9, 9, 9, 9),
            "is_click": numbers(0, 1, 0, 1, 0),
            "long_view": numbers(0, 1, 0, 0, 1),
            "tab": Categorical(np.array([1, 2, 2, 2, 2], np.int32), "tab"),
            "hour": Categorical(np.full(n, 2, np.int32), "hour"),
        },
    )
    found = impressions_of_clicks(clicks)
    assert found.history_only.tolist() == [True, False, False, False, False]
    assert found.clicked.tolist() == [True, True, False, True, False]
    assert found.completed.tolist() == [False, True, False, False, True]
    assert found.watch_seconds.tolist() == [0, 9, 8, 7, 6]
    _, day, *same_day = found.page.tolist()
    assert same_day[0] == same_day[1] and len({day, same_day[0], same_day[2]}) == 3
    columns = history_features(found, {})
    assert columns["item_shown"].values.tolist() == [0, 0, 0, 1, 0]
    assert columns["item_idle_seconds"].values.tolist() == [0, 0, 0, 9005, 0]
    assert split_by_time(found, midnight, midnight).train.tolist() == [1]


@pytest.mark.slow
@pytest.mark.skipif(not KUAIRAND.exists(), reason=f"{KUAIRAND} is not there")
def test_kuairand_pure_itself():
    found = read_kuairand_impressions(KUAIRAND, earlier=False)
    split = split_by_time(found, *map(china_midnight, ("2022-05-01", "2022-05-01")))
    assert len(split.train) + len(split.test) == len(found) == 228_329
    assert 0.2 < found.clicked.mean() < 0.6 and found.watch_seconds.min() >= 0
    columns = history_features(found, {k: found.item_features[k] for k in ("author_id", "tag")})
    shown = columns["author_id_shown"].values
    assert (shown >= columns["item_shown"].values)[found.item >= 2].mean() > 0.99
