"""Ratings by user: the splits against loops, what is dropped, and the folder they are kept in."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from jrec.data.date_splits import NETFLIX_WINDOWS, DateWindow
from jrec.data.parts_table import count_ratings, parts_table
from jrec.data.rating_parts import (
    PARTS,
    RatingRows,
    keep_trained,
    load_rating_parts,
    rating_parts,
    save_rating_parts,
)
from jrec.data.ratings import Items, Source, build
from jrec.data.splits import Split, split_by_dates, split_ratings
from jrec.data.synthetic import SyntheticSize, synthetic_ratings
from jrec.errors import InputError

SOURCE = Source("synthetic", "a test", "")


def spread(seed, first="1999-11-01", last="2006-01-31", count=900):
    """Ratings of 30 users and 40 movies, some of whom come only once, at moments between two days."""
    generator = np.random.default_rng(seed)
    pairs = generator.choice(30 * 40, count, replace=False)
    start, stop = (np.datetime64(day, "s").astype(int) for day in (first, last))
    times = np.sort(generator.integers(start, stop, count))[generator.permutation(count)]
    columns = {
        "user": (pairs // 40) ** 2 + 5,
        "item": (pairs % 40) * 3 + 7,
        "rating": generator.integers(1, 11, count).astype(np.float32) / 2,
        "timestamp": times // 1000 * 1000,  # some are equal
    }
    movies = Items(np.arange(40) * 3 + 7, [f"Movie {k}" for k in range(40)], [[]] * 40)
    return build("spread", SOURCE, columns, None, movies, (0.5, 5.0))


def rows_of(parts, part):
    """[(raw user, raw item, rating)] of a part, in its order."""
    rows = getattr(parts, part)
    user = np.repeat(np.arange(len(parts.users)), np.diff(rows.offsets))
    columns = (parts.users[user], parts.items[rows.item], rows.rating)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def expected(ratings, split):
    """The same by a loop over single ratings."""
    user_of, movie_of = (ratings.vocabularies[key].values for key in ("user", "item"))
    ids = [
        (int(user_of[u - 2]), int(movie_of[f - 2]), float(r), int(t))
        for u, f, r, t in zip(
            ratings.user, ratings.item, ratings.rating, ratings.timestamp, strict=True
        )
    ]
    lists = {part: [ids[place] for place in getattr(split, part)] for part in PARTS}
    users, items = ({row[k] for row in lists["train"]} for k in (0, 1))
    dropped = {"unknown": 0}
    for part in PARTS:
        rows = sorted(lists[part], key=lambda row: (row[0], row[3]))  # stable
        if part != "train":
            dropped[f"{part} user"] = sum(row[0] not in users for row in rows)
            dropped[f"{part} item"] = sum(row[0] in users and row[1] not in items for row in rows)
        lists[part] = [row[:3] for row in rows if row[0] in users and row[1] in items]
    return lists, sorted(users), sorted(items), dropped


@pytest.mark.parametrize("name", ["random", "global-time", "user-70-30", "netflix-1y"])
@given(seed=st.integers(0, 3))
def test_parts_of_any_split_equal_a_loop(name, seed):
    ratings = spread(seed, *(("2004-05-01", "2005-07-31") if name == "netflix-1y" else ()))
    split = split_ratings(ratings, name, seed)
    few = dataclasses.replace(split, train=split.train[:40])  # so that much is dropped
    for each in (split, few):
        parts = rating_parts(ratings, each)
        lists, users, items, dropped = expected(ratings, each)
        assert parts.users.tolist() == users and parts.items.tolist() == items
        assert {part: rows_of(parts, part) for part in PARTS} == lists
        assert parts.dropped == dropped
        assert parts.titles == [f"Movie {(item - 7) // 3}" for item in items]
        assert len({len(getattr(parts, part).offsets) for part in PARTS} | {len(users) + 1}) == 1
    assert dropped["test item"] and dropped["valid item"]


def test_types_are_the_smallest_that_hold_the_values():
    half = rating_parts(spread(0), split_ratings(spread(0), "random"))
    assert half.train.rating.dtype == np.float32 and half.train.item.dtype == np.uint16
    rows = dataclasses.replace(spread(0), rating=np.arange(900, dtype=np.float32) // 899 / 2 + 1)
    places = np.arange(900)
    last = rating_parts(rows, Split(places[:800], places[800:850], places[850:]))
    assert {getattr(last, part).rating.dtype for part in PARTS} == {np.dtype(np.float32)}
    whole = synthetic_ratings(SyntheticSize(20, 20, 200), 0)
    whole = rating_parts(whole, split_ratings(whole, "random"))
    assert whole.train.rating.dtype == np.uint8 and whole.train.offsets.dtype == np.int64
    for movies, wanted in ((2**16, np.uint16), (2**16 + 1, np.int32)):
        rows = RatingRows(np.array([0, movies]), np.arange(movies), np.ones(movies, np.uint8))
        parts = dict.fromkeys(PARTS, rows)
        days = dict.fromkeys(PARTS, np.zeros(movies, int))
        ids = np.arange(movies)
        made = keep_trained("x", SOURCE, ids[:1], ids, None, (1, 5), parts, days)
        assert made.test.item.dtype == wanted and made.test.item.tolist() == ids.tolist()


def test_ratings_of_unknown_users_and_movies_are_counted_not_kept():
    ratings = spread(1)
    user, movie = ratings.user.copy(), ratings.item.copy()
    user[[0, 1]] = 1
    movie[[1, 2]] = 1
    ratings = dataclasses.replace(ratings, user=user, movie=movie)
    places = np.arange(len(ratings))
    parts = rating_parts(ratings, Split(places[:500], places[500:600], places[600:]))
    assert parts.dropped["unknown"] == 3 and len(parts.train) == 497


def test_an_empty_training_part_is_refused():
    none = np.empty(0, int)
    with pytest.raises(InputError, match="training part of spread is empty"):
        rating_parts(spread(0), Split(none, none, np.arange(5)))


@given(st.integers(0, 9), st.sampled_from([*NETFLIX_WINDOWS, "own"]))
def test_date_windows_equal_a_loop(seed, name):
    own = DateWindow(("2001-01-01", "2003-12-31"), ("2004-01-01", "2005-12-31"))
    window = NETFLIX_WINDOWS.get(name, own)
    ratings = spread(seed, "2004-05-20", "2006-01-10")
    if name == "own":
        ratings = spread(seed)
        split = split_by_dates(ratings, window, seed)
    else:
        split = split_ratings(ratings, name, seed)
    part_of, held = {}, []
    for place, time in enumerate(ratings.timestamp.tolist()):
        day = str(np.datetime64(time, "s"))[:10]
        if window.train[0] <= day <= window.train[1]:
            part_of[place] = "train"
        elif window.held_out[0] <= day <= window.held_out[1]:
            held.append((time, place))
    coins = np.random.default_rng(seed).random(len(held))
    for (_, place), coin in zip(sorted(held), coins, strict=True):
        part_of[place] = "valid" if coin < 0.5 else "test"
    for part in PARTS:
        assert getattr(split, part).tolist() == [k for k, v in sorted(part_of.items()) if v == part]
    assert 0.3 < len(split.test) / len(held) < 0.7


def test_first_and_last_second_of_a_window_are_inside():
    ratings = spread(0, count=6)
    days = ["2005-08-31T23:59:59", "2005-09-01", "2005-11-30T23:59:59", "2005-12-01"]
    days += ["2005-12-31T23:59:59", "2006-01-01"]
    times = np.array(days, "M8[s]").astype(np.int64)
    for seed in range(20):
        try:
            split = split_ratings(dataclasses.replace(ratings, timestamp=times), "netflix-3m", seed)
        except InputError:  # both coins say valid
            continue
        assert split.train.tolist() == [1, 2]
        assert sorted([*split.valid, *split.test]) == [3, 4]


def test_windows_with_the_same_month_hold_out_the_same():
    ratings = spread(2, "2005-01-01", "2005-12-31")
    three, full = (split_ratings(ratings, f"netflix-{name}", 5) for name in ("3m", "full"))
    assert np.array_equal(three.valid, full.valid) and np.array_equal(three.test, full.test)


@given(st.integers(0, 9))
def test_user_70_30_equals_a_loop(seed):
    ratings = spread(seed, count=200)
    split = split_ratings(ratings, "user-70-30", seed)
    wanted = {part: [] for part in PARTS}
    coins = np.random.default_rng(seed).random(ratings.user.max() + 1)
    for user in np.unique(ratings.user).tolist():
        mine = np.flatnonzero(ratings.user == user).tolist()
        mine.sort(key=lambda place: ratings.timestamp[place])
        cut = int(0.7 * len(mine))
        if len(mine) > 1:
            wanted["train"] += mine[:cut]
            wanted["valid" if coins[user] < 0.5 else "test"] += mine[cut:]
    for part in PARTS:
        assert getattr(split, part).tolist() == sorted(wanted[part])
    assert split.valid.size and split.test.size


def test_user_70_30_rounds_in_floating_point_as_the_original():
    count = 90  # 0.7 * 90 is 62.99999999999999 there
    columns = {
        "user": np.repeat([1, 2, 3, 4, 5, 6], count),
        "item": np.tile(np.arange(count), 6),
        "rating": np.ones(6 * count, np.float32),
        "timestamp": np.arange(6 * count),
    }
    movies = Items(np.arange(count), ["x"] * count, [[]] * count)
    split = split_ratings(build("x", SOURCE, columns, None, movies, (1, 5)), "user-70-30", 1)
    assert len(split.train) == 6 * 62


def test_splits_by_seed_differ():
    ratings = spread(0, "2005-06-01", "2005-12-31")
    for name in ("user-70-30", "netflix-6m"):
        tests = [split_ratings(ratings, name, seed).test.tolist() for seed in (0, 0, 1)]
        assert tests[0] == tests[1] != tests[2]


def test_a_window_without_ratings_is_refused():
    with pytest.raises(InputError, match=r"netflix-3m split of [0-9]+ ratings leaves train 0"):
        split_ratings(synthetic_ratings(SyntheticSize(40, 60, 1500), 3), "netflix-3m")


@pytest.fixture
def saved(tmp_path):
    ratings = spread(0)
    parts = rating_parts(ratings, split_ratings(ratings, "user-70-30"))
    save_rating_parts(tmp_path / "parts", parts)
    return tmp_path / "parts", parts


def test_what_is_saved_is_loaded_memory_mapped(saved):
    folder, parts = saved
    again = load_rating_parts(folder)
    for field in dataclasses.fields(parts):
        if field.name not in (*PARTS, "users", "items"):
            assert getattr(again, field.name) == getattr(parts, field.name)
    for part in PARTS:
        assert rows_of(again, part) == rows_of(parts, part)
        for field in dataclasses.fields(RatingRows):
            array = getattr(getattr(again, part), field.name)
            assert isinstance(array, np.memmap) and not array.flags.writeable
            assert array.dtype == getattr(getattr(parts, part), field.name).dtype


def test_a_part_without_ratings_survives(tmp_path):
    ratings = spread(0)
    split = split_ratings(ratings, "random", valid_fraction=0.0)
    save_rating_parts(tmp_path / "parts", rating_parts(ratings, split))
    parts = load_rating_parts(tmp_path / "parts")
    assert len(parts.valid) == 0 and not np.any(parts.valid.offsets)
    assert "valid" not in parts.time_ranges and parts.dropped["valid user"] == 0


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


DAMAGE = {
    "cut": ("train_item.npy", cut, "bytes but was written with"),
    "flipped": ("train_rating.npy", flip, "has changed since it was written"),
    "missing": ("test_offsets.npy", lambda path: path.unlink(), "is missing"),
    "no-description": ("parts.json", lambda path: path.unlink(), "lacks parts.json"),
    "cut-description": ("parts.json", cut, "is not JSON"),
    "foreign": ("parts.json", lambda path: path.write_text("[1]"), "does not say"),
    "other-format": ("parts.json", lambda path: edit(path, format="x 2"), "does not say"),
    "no-files": ("parts.json", lambda path: edit(path, files={}), "wrong form"),
    "no-source": ("parts.json", lambda path: edit(path, source=None), "wrong form"),
    "odd-files": ("parts.json", lambda path: edit(path, files=[]), "wrong form"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_folder_is_refused(case, saved):
    folder, _ = saved
    name, damage, said = DAMAGE[case]
    if name == "parts.json" and case == "cut-description":
        (folder / name).write_bytes((folder / name).read_bytes()[:-10])
    else:
        damage(folder / name)
    with pytest.raises(InputError, match=said) as fault:
        load_rating_parts(folder)
    assert str(folder) in str(fault.value) and "\n" not in str(fault.value)


def test_a_process_that_need_not_compare_the_sums_reads_no_file_for_them(saved):
    folder, parts = saved
    flip(folder / "train_rating.npy")
    found = load_rating_parts(folder, check=False)
    assert (found.train.rating[:-1] == parts.train.rating[:-1]).all()
    assert found.train.rating[-1] != parts.train.rating[-1]
    cut(folder / "train_item.npy")
    with pytest.raises(InputError, match="bytes but was written with"):
        load_rating_parts(folder, check=False)


def test_an_existing_folder_is_refused_and_kept(saved):
    folder, parts = saved
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(InputError, match="exists already"):
        save_rating_parts(folder, parts)
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_failed_write_leaves_nothing(saved, tmp_path, monkeypatch):
    _, parts = saved
    before = sorted(tmp_path.rglob("*"))

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="No space"):
        save_rating_parts(tmp_path / "new" / "deep" / "parts", parts)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_table_counts_each_part_and_both_held_out():
    ratings = spread(0)
    parts = rating_parts(ratings, split_ratings(ratings, "random", test_fraction=0.5))
    console = Console(width=100)
    with console.capture() as capture:
        console.print(parts_table([parts]))
    lines = [[cell.strip() for cell in row.split("│")] for row in capture.get().splitlines()]
    cells = {row[1]: row[2] for row in lines if len(row) == 4}
    held = {*rows_of(parts, "valid"), *rows_of(parts, "test")}
    assert cells["ratings held out"] == f"{len(held)}"
    assert cells["users held out"] == f"{len({row[0] for row in held})}"
    assert cells["items held out"] == f"{len({row[1] for row in held})}"
    assert cells["ratings train"] == f"{len(parts.train)}"
    assert count_ratings(parts, ["train"]) == (len(parts.train), 30, 40)
    days = ratings.timestamp[split_ratings(ratings, "random", test_fraction=0.5).train] // 86400
    assert cells["from train"] == str(np.datetime64(int(days.min()), "D"))
    assert cells["to train"] == str(np.datetime64(int(days.max()), "D"))
