"""The in-memory form, its folder on disk, what is held out, and next-item examples."""

import dataclasses
import errno
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jrec.data.click_examples import (
    count_items,
    example_ages,
    held_out_examples,
    history_of,
    leave_one_out,
    time_cut,
    training_examples,
)
from jrec.data.click_store import is_prepared, load_clicks, save_clicks
from jrec.data.clicks import (
    Bag,
    Categorical,
    Continuous,
    build_clicks,
    check_clicks,
    take,
    with_stand_ins,
)
from jrec.data.origin import Source
from jrec.data.ragged import Ragged
from jrec.data.vocabulary import Vocabulary
from jrec.errors import InputError
from tests.stores import array_file
from tests.test_bad_input import check_sentence

DAY = 86_400
SOURCE = Source("made-up", "a test", "")


def toy(events, users=None, timed=True):
    """Clicks from (user, item number, time) triples in any order; item number k has row k + 2."""
    user, item, time = np.array(events, np.int64).T
    users = users or int(user.max()) + 1
    items = int(item.max()) + 1
    lists = [[2 + (k % 3), 1][: k % 3] for k in range(items)]
    return build_clicks(
        "toy",
        SOURCE,
        user,
        item + 2,
        time if timed else None,
        np.arange(users) + 2,
        {
            "user": Vocabulary.of(np.arange(users) + 100),
            "item": Vocabulary.of(np.arange(items) + 500),
            "word": Vocabulary.in_order(np.array(["b", "c", "a"])),
        },
        {"home": Categorical((np.arange(users) % 4 + 1).astype(np.int32), "word")},
        {
            "words": with_stand_ins(Bag(Ragged.from_lists(lists), "word")),
            "price": with_stand_ins(
                Continuous(np.arange(items, dtype=np.float32), np.ones(items, bool))
            ),
        },
        {"watched": Continuous(time.astype(np.float32), item % 2 == 0)},
    )


EVENTS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 7), st.integers(0, 9)), min_size=1, max_size=60
)


def sequences(events, users):
    """Each user's (item row, time) in time order, ties in the given order: the oracle."""
    return [
        [
            (item + 2, time)
            for user, item, time in sorted(events, key=lambda event: event[2])
            if user == u
        ]
        for u in range(users)
    ]


@given(EVENTS)
def test_clicks_are_grouped_and_in_time_order(events):
    clicks = toy(events, users=6)
    for user, expected in enumerate(sequences(events, 6)):
        mine = slice(*clicks.offsets[user : user + 2])
        assert list(zip(clicks.item[mine], clicks.timestamp[mine], strict=True)) == expected
        # Event features moved along with their events.
        watched = clicks.event_features["watched"]
        assert watched.values[mine].tolist() == [time for _, time in expected]
        assert watched.known[mine].tolist() == [item % 2 == 0 for item, _ in expected]
        assert (clicks.user_of_event[mine] == user).all()
    rows = [item + 2 for _, item, _ in events]
    assert clicks.item_counts.tolist() == np.bincount(rows, minlength=max(rows) + 1).tolist()
    assert len(clicks) == len(events) and clicks.users == 6


@given(EVENTS)
def test_without_times_the_given_order_stays(events):
    clicks = toy(events, users=6, timed=False)
    for user in range(6):
        mine = slice(*clicks.offsets[user : user + 2])
        assert clicks.item[mine].tolist() == [i + 2 for u, i, _ in events if u == user]
        assert clicks.timestamp[mine].tolist() == list(range(len(clicks.item[mine])))
    assert not clicks.timed


@given(
    st.lists(st.lists(st.integers(0, 9), max_size=4), min_size=1, max_size=8),
    st.lists(st.integers(0, 7), max_size=9),
)
def test_take_of_a_bag_is_take_of_its_rows(rows, places):
    places = np.array([place % len(rows) for place in places], np.int64)
    taken = take(Bag(Ragged.from_lists(rows), "word"), places)
    assert [taken.rows[k].tolist() for k in range(len(taken))] == [rows[p] for p in places]


def test_the_stand_ins_are_padding_and_unknown():
    clicks = toy([(0, 0, 0), (0, 1, 1), (0, 2, 2)])
    words, price = clicks.item_features["words"], clicks.item_features["price"]
    assert words.rows[0].tolist() == [] and words.rows[1].tolist() == [1]
    assert [words.rows[k].tolist() for k in (2, 3, 4)] == [[], [3], [4, 1]]
    assert price.known.tolist() == [False, False, True, True, True]
    category = with_stand_ins(Categorical(np.array([5], np.int32), "word"))
    assert category.rows.tolist() == [0, 1, 5]


def test_unknown_values_are_counted_without_the_stand_ins():
    clicks = toy([(0, 0, 0), (4, 2, 2)])  # homes 1 2 3 4 1; item 2 has one unknown word
    assert clicks.unknown == {"user": 0, "word": 2 + 1}


MISFITS = {
    "column-length": ("user_features", {"home": Categorical(np.zeros(2, np.int32), "word")}),
    "row-too-large": ("user_features", {"home": Categorical(np.full(1, 9, np.int32), "word")}),
    "no-vocabulary": ("user_features", {"home": Categorical(np.zeros(1, np.int32), "town")}),
    "nan": ("user_features", {"age": Continuous(np.array([np.nan]), np.array([True]))}),
    "mask-length": ("user_features", {"age": Continuous(np.zeros(1), np.zeros(2, bool))}),
    "offsets-of-a-bag": (
        "user_features",
        {"words": Bag(Ragged(np.zeros(3, np.int32), np.array([0, 2])), "word")},
    ),
    "offsets": ("offsets", np.array([0, 2])),
    "falling-offsets": ("offsets", np.array([0, 4, 3])),
    "unknown-item": ("item", np.array([1, 2, 3], np.int32)),
    "item-too-large": ("item", np.array([2, 3, 99], np.int32)),
    "user-row": ("user_row", np.array([7], np.int32)),
    "times": ("timestamp", np.zeros(2, np.int64)),
    "counts": ("item_counts", np.zeros(2, np.int64)),
    "vocabularies": ("vocabularies", {}),
}


@pytest.mark.parametrize("case", MISFITS)
def test_what_does_not_fit_together_is_refused(case):
    clicks = toy([(0, 0, 0), (0, 1, 1), (0, 2, 2)])
    check_clicks(clicks)
    with pytest.raises(InputError, match="do not fit together") as fault:
        check_clicks(dataclasses.replace(clicks, **dict([MISFITS[case]])))
    check_sentence(str(fault.value), "a test")


def test_no_clicks_are_refused():
    with pytest.raises(InputError, match="holds no clicks"):
        empty = np.zeros(0, np.int64)
        build_clicks("toy", SOURCE, empty, empty, None, empty, {"item": Vocabulary.of([1])})


# Held out.


@given(EVENTS)
def test_leave_one_out_holds_the_last_two(events):
    clicks = toy(events, users=6)
    lengths = np.diff(clicks.offsets)
    if lengths.max() < 3:
        with pytest.raises(InputError, match="none can be held out"):
            leave_one_out(clicks)
        return
    split = leave_one_out(clicks)
    expected = {"train": [], "valid": [], "test": []}
    for first, length in zip(clicks.offsets, lengths, strict=False):
        mine = list(range(first, first + length))
        cut = length - 2 if length >= 3 else length
        expected["train"] += mine[:cut]
        expected["valid"] += mine[cut : cut + 1]
        expected["test"] += mine[cut + 1 :]
    assert {part: getattr(split, part).tolist() for part in expected} == expected


@given(EVENTS, st.integers(0, 9), st.integers(0, 9))
def test_time_cut_puts_equal_times_on_one_side(events, one, two):
    clicks = toy(events, users=6)
    valid_from, test_from = sorted((one, two))
    train = clicks.timestamp < valid_from
    test = clicks.timestamp >= test_from
    if not train.any() or not test.any():
        with pytest.raises(InputError, match="leaves train"):
            time_cut(clicks, valid_from, test_from)
        return
    split = time_cut(clicks, valid_from, test_from)
    assert split.train.tolist() == np.flatnonzero(train).tolist()
    assert split.test.tolist() == np.flatnonzero(test).tolist()
    assert split.valid.tolist() == np.flatnonzero(~train & ~test).tolist()


@given(EVENTS)
def test_the_ends_say_what_the_positions_say(events):
    clicks = toy([*events, (0, 0, 0), (0, 0, 9), (0, 1, 9)], users=6)
    for split in (leave_one_out(clicks), time_cut(clicks, 5, 7)):
        runs = [
            np.concatenate([np.arange(a, b) for a, b in zip(begin, end, strict=True)])
            for begin, end in (
                (clicks.offsets[:-1], split.train_end),
                (split.train_end, split.valid_end),
                (split.valid_end, clicks.offsets[1:]),
            )
        ]
        for run, part in zip(runs, (split.train, split.valid, split.test), strict=True):
            assert run.tolist() == part.tolist()


def test_cuts_that_make_no_sense_are_refused():
    clicks = toy([(0, 0, 0), (0, 1, 5), (0, 2, 9)])
    with pytest.raises(InputError, match="must begin before the test"):
        time_cut(clicks, 6, 5)
    with pytest.raises(InputError, match="no times to cut at"):
        time_cut(toy([(0, 0, 0), (0, 1, 5)], timed=False), 1, 1)


# Examples.


def window_of(items, window):
    """The source's rule: an unknown click before the first, then the last `window` of all."""
    full = [1, *items]
    return full if window is None else full[-window:]


@given(EVENTS, st.sampled_from([1, 2, 3, 20, None]))
def test_training_examples_match_the_sources_loop(events, window):
    clicks = toy([*events, (0, 0, 0), (0, 0, 9), (0, 1, 9)], users=6)
    split = leave_one_out(clicks)
    examples = training_examples(clicks, split, window)
    expected = []
    for user in range(6):
        items = clicks.item[clicks.offsets[user] : split.train_end[user]].tolist()
        for t in range(len(items)):
            expected.append((user, window_of(items[:t], window), items[t]))
    assert [
        (examples.user[k], history_of(clicks, examples, k).tolist(), clicks.item[target])
        for k, target in enumerate(examples.target)
    ] == expected


@given(EVENTS, st.sampled_from(["loo", "cut"]))
def test_held_out_histories_are_all_that_came_before(events, rule):
    clicks = toy([*events, (0, 0, 0), (0, 0, 9), (0, 1, 9)], users=6)
    split = leave_one_out(clicks) if rule == "loo" else time_cut(clicks, 4, 7)
    for part in ("valid", "test"):
        positions = getattr(split, part)
        examples = held_out_examples(clicks, split, part)
        assert examples.target.tolist() == positions.tolist()
        for k, position in enumerate(positions):
            user = clicks.user_of_event[position]
            before = clicks.item[clicks.offsets[user] : position].tolist()
            assert history_of(clicks, examples, k).tolist() == [1, *before]
            assert examples.user[k] == user and examples.age[k] == 0
    with pytest.raises(InputError, match="valid or test"):
        held_out_examples(clicks, split, "train")


@given(EVENTS, st.integers(0, 1000))
def test_nothing_of_the_future_reaches_a_training_example(events, seed):
    clicks = toy([*events, (0, 0, 0), (0, 0, 9), (0, 1, 9)], users=6)
    for split in (leave_one_out(clicks), time_cut(clicks, 4, 7)):
        examples = training_examples(clicks, split, 4)
        assert (examples.end == examples.target).all()
        assert (examples.start >= clicks.offsets[examples.user]).all()
        assert (examples.target < split.train_end[examples.user]).all()
        for k, target in enumerate(examples.target):
            history = slice(examples.start[k], examples.end[k])
            assert (clicks.timestamp[history] <= clicks.timestamp[target]).all()
        # Whatever is held out may be anything else.
        other = clicks.item.copy()
        held_out = np.concatenate([split.valid, split.test])
        other[held_out] = np.random.default_rng(seed).integers(2, 4, len(held_out))
        changed = dataclasses.replace(clicks, item=other)
        again = training_examples(changed, split, 4)
        for k in range(len(examples)):
            assert np.array_equal(history_of(clicks, examples, k), history_of(changed, again, k))


@given(EVENTS, st.integers(1, 4), st.integers(0, 3))
def test_the_cap_draws_without_repeats(events, cap, seed):
    clicks = toy([*events, (0, 0, 0), (0, 0, 9), (0, 1, 9)], users=6)
    split = leave_one_out(clicks)
    every = training_examples(clicks, split)
    some = training_examples(clicks, split, cap=cap, seed=seed)
    assert (np.diff(some.target) > 0).all() and np.isin(some.target, every.target).all()
    of_user = np.bincount(every.user, minlength=6)
    assert np.bincount(some.user, minlength=6).tolist() == np.minimum(of_user, cap).tolist()
    again = training_examples(clicks, split, cap=cap, seed=seed)
    assert np.array_equal(some.target, again.target)


def test_the_cap_draws_every_example_equally_often():
    clicks = toy([(0, 0, t) for t in range(12)])
    split = leave_one_out(clicks)
    counts = np.zeros(12)
    for seed in range(600):
        counts[training_examples(clicks, split, cap=3, seed=seed).target] += 1
    assert counts[10:].sum() == 0
    # 180 each in the mean, standard deviation 11.
    assert abs(counts[:10] - 180).max() < 50


def test_example_age_is_the_share_of_later_training_clicks():
    days = [0, 1, 3, 8, 10]
    clicks = toy([(0, k, day * DAY) for k, day in enumerate(days)])
    examples = training_examples(clicks, leave_one_out(clicks))
    assert examples.age.tolist() == pytest.approx([2 / 3, 1 / 3, 0])
    assert examples.age.dtype == np.float32
    # The unit of time is nothing to it, and held-out clicks are later than none.
    same = toy([(0, k, k) for k in range(5)])
    ages = example_ages(same, leave_one_out(same))
    assert ages.tolist() == pytest.approx([2 / 3, 1 / 3, 0, 0, 0])
    untimed = toy([(0, k, day) for k, day in enumerate(days)], timed=False)
    assert training_examples(untimed, leave_one_out(untimed)).age.tolist() == [0, 0, 0]


@pytest.mark.parametrize("settings", [{"window": 0}, {"cap": 0}])
def test_windows_and_caps_below_one_are_refused(settings):
    clicks = toy([(0, k, k) for k in range(4)])
    with pytest.raises(InputError, match="or more, but is 0"):
        training_examples(clicks, leave_one_out(clicks), **settings)


def test_counts_of_the_training_part_leave_out_what_is_held_out():
    clicks = toy([(0, 0, 0), (0, 1, 1), (0, 1, 2), (0, 2, 3)])
    assert count_items(clicks, leave_one_out(clicks).train).tolist() == [0, 0, 1, 1, 0]
    assert clicks.item_counts.tolist() == [0, 0, 1, 2, 1]


# The folder.


def same(one, other):
    """Whether two data sets hold the same, arrays compared by type and value."""
    if dataclasses.is_dataclass(one):
        return type(one) is type(other) and all(
            same(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(one)
        )
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    return one == other


CLICKS = toy([(0, 0, 0), (0, 1, 1), (2, 2, 2), (2, 4, 3)])


def test_a_folder_gives_back_what_was_saved(tmp_path):
    folder = tmp_path / "new" / "prepared"
    save_clicks(CLICKS, folder)
    assert is_prepared(folder) and same(load_clicks(folder), CLICKS)
    words = load_clicks(folder).vocabularies["word"]
    assert words.encode(np.array(["a", "b", "c", "d"])).tolist() == [4, 2, 3, 1]
    # A second time it is replaced as a whole.
    stale = folder / "stale.npy"
    stale.write_bytes(b"")
    save_clicks(dataclasses.replace(CLICKS, name="again"), folder)
    assert load_clicks(folder).name == "again" and not stale.exists()
    assert [path.name for path in folder.parent.iterdir()] == ["prepared"]


@pytest.mark.parametrize("before", ["nothing", "a-prepared-folder"])
def test_a_full_disk_leaves_what_was_there(before, tmp_path, monkeypatch):
    folder = tmp_path / "prepared"
    if before != "nothing":
        save_clicks(CLICKS, folder)
    written = []

    def full(file, values, **kwargs):
        written.append(values)
        if len(written) == 4:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError) as fault:
        save_clicks(dataclasses.replace(CLICKS, name="other"), folder)
    assert fault.value.filename == str(folder)
    monkeypatch.undo()
    assert len(list(tmp_path.iterdir())) == (before != "nothing")
    assert before == "nothing" or load_clicks(folder).name == "toy"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_has_a_number(monkeypatch, tmp_path):
    """NumPy's own writing of a real file would raise an OSError without one."""
    real = Path.open

    def full(path, mode="r", *args, **kwargs):
        return real(Path("/dev/full") if mode == "w+b" else path, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OSError) as fault:
        save_clicks(CLICKS, tmp_path / "prepared")
    assert fault.value.errno == errno.ENOSPC


def damage(folder, how):
    item, offsets, rows = (
        array_file(folder, "clicks.json", name) for name in ("item", "offsets", "user_row")
    )
    manifest = json.loads((folder / "clicks.json").read_text())
    if how == "array-cut":
        item.write_bytes(item.read_bytes()[:-4])
    elif how == "array-missing":
        offsets.unlink()
    elif how == "array-empty":
        rows.write_bytes(b"")
    elif how == "array-of-objects":
        np.save(item, np.array([None]), allow_pickle=True)
    elif how == "array-of-another-log":
        np.save(item, np.full(4, 99, np.int32))
    elif how == "manifest-missing":
        (folder / "clicks.json").unlink()
    elif how == "manifest-cut":
        (folder / "clicks.json").write_text('{"form": 1,')
    elif how == "manifest-key":
        del manifest["files"]
        (folder / "clicks.json").write_text(json.dumps(manifest))
    elif how == "manifest-version":
        (folder / "clicks.json").write_text(json.dumps({**manifest, "form": 99}))
    elif how == "manifest-list":
        (folder / "clicks.json").write_text("[]")


@pytest.mark.parametrize(
    "how",
    [
        *("array-cut", "array-missing", "array-empty", "array-of-objects", "array-of-another-log"),
        *("manifest-missing", "manifest-cut", "manifest-key", "manifest-version", "manifest-list"),
    ],
)
def test_a_damaged_folder_is_one_sentence(how, tmp_path):
    folder = tmp_path / "prepared"
    save_clicks(CLICKS, folder)
    damage(folder, how)
    with pytest.raises(InputError) as fault:
        load_clicks(folder)
    check_sentence(str(fault.value), str(folder))


def test_other_folders_are_never_replaced(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="no prepared click") as fault:
        save_clicks(CLICKS, tmp_path)
    check_sentence(str(fault.value), str(tmp_path))
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(InputError, match="no prepared click"):
        save_clicks(CLICKS, file)
    with pytest.raises(InputError, match="lacks"):
        load_clicks(tmp_path / "nowhere")
