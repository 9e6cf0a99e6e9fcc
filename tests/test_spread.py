"""Columns spread over devices: indexed as if they were whole, each process reading its own rows alone."""

import dataclasses
from itertools import compress
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.autoencoder.batches import device_rows, rating_rectangle
from experiments.candidates.batches import (
    device_clicks,
    segment_data,
    training_segments,
    window_data,
)
from experiments.candidates.evaluation import evaluation_data
from experiments.embedding_mlp.source import training_pairs
from experiments.ranking.batches import device_impressions, impression_columns
from jrec.data.click_examples import held_out_examples, leave_one_out, training_examples
from jrec.data.click_maker import make_clicks
from jrec.data.click_truth import ClickSize
from jrec.data.impression_maker import ImpressionSize, make_impressions
from jrec.data.mapped import read_mapped, write_mapped
from jrec.data.rating_parts import RatingRows
from jrec.data.synthetic import SyntheticSize, synthetic_ratings
from jrec.train import devices as module
from jrec.train.devices import first_batch, first_devices, over_devices, replicated, spread
from jrec.train.rating_batches import device_ratings
from jrec.train.spread import is_spread, rows_at
from tests.conftest import slow_but


def columns_of(count):
    """Columns of every kind, with all bits that they may have."""
    generator = np.random.default_rng(count)
    numbers = generator.choice(np.float32([np.nan, -0.0, np.inf, 1e-42, 3.5]), (count, 2))
    columns = {"numbers": numbers, "number": numbers[:, 0], "flag": numbers[:, 1] == 3.5}
    columns["nothing"] = numbers[:, :0]
    for kind in (np.int32, np.uint8, np.uint16):
        low, high = np.iinfo(kind).min, np.iinfo(kind).max
        columns[kind.__name__] = generator.integers(low, high, count, kind, endpoint=True)
    return columns | {"next": generator.integers(0, count, count, np.int32)}


def spread_all(columns, devices):
    count = len(jax.tree.leaves(columns)[0])
    return spread(lambda rows: rows_at(columns, rows), count, devices)


def same_bits(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize(
    ("count", "many"), slow_but((13, 4), [(1, 4), (13, 4), (16, 4), (61, 8), (9, 8)])
)
def test_indexing_is_that_of_the_whole_column(count, many):
    columns, devices = columns_of(count), first_devices(many)
    generator = np.random.default_rng(0)
    # Each device asks for its own, among them the first and the last row of all.
    place_P = generator.integers(0, count, (many, 7), np.int32)
    place_P[:, :2] = 0, count - 1
    place_BL = generator.integers(0, count, (many, 2, 3), np.int32)

    def of_places(columns, places):
        return [rows_at(columns, columns["next"][some]) for some in places] + [
            rows_at(columns, some) for some in places
        ]

    data = spread_all(columns, devices)
    assert all(len(column) == count for column in data.values())
    with module.on_devices(devices):
        found = over_devices(of_places)(data, (place_P, place_BL))
    same_bits(found, of_places(columns, (place_P, place_BL)))


def test_each_device_holds_its_rows_alone():
    column, devices = np.arange(1, 62, dtype=np.int32), first_devices(8)
    part = spread_all([column], devices)[0].part
    filled = np.append(column, [0, 0, 0]).reshape(8, 8)
    for shard, device, rows in zip(part.addressable_shards, devices, filled, strict=True):
        assert shard.device == device
        np.testing.assert_array_equal(shard.data, rows[None])


def test_what_is_whole_stays_beside_what_is_spread():
    devices = first_devices(4)
    column = np.arange(5, dtype=np.int32)
    data = {"long": spread_all([column], devices), "table": (jnp.arange(5), jnp.ones((5, 2)))}
    with module.on_devices(devices):
        placed = replicated(data)
    assert placed["long"][0] is data["long"][0]
    assert all(len(leaf.sharding.device_set) == 4 for leaf in placed["table"])
    with module.on_devices(devices):
        found = first_batch(lambda data, places, mask: (rows_at(data, places), mask), placed)
    whole = {"long": [column], "table": (np.arange(5, dtype=np.int32), np.ones((5, 2), np.float32))}
    same_bits(found, (rows_at(whole, np.zeros(1, int)), np.ones(1, bool)))


def test_devices_that_need_different_numbers_of_turns_take_as_many():
    lengths = np.array([23, 0, 1, 6])  # of 4 at a time: 6 turns, none, 1 and 2
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    item = np.concatenate([np.arange(n) for n in lengths]).astype(np.uint16)
    rows = RatingRows(offsets, item, np.arange(1, 31, dtype=np.uint8))

    def rectangles(data, users):
        def one(user):
            return rating_rectangle(data, user[None], jnp.ones(1, bool), 25, slots=4)

        return jax.lax.map(one, users)

    users, devices = np.arange(4, dtype=np.int32), first_devices(4)
    whole = device_rows(rows)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(jax, "process_count", lambda: 2)
        with module.on_devices(devices):
            data = device_rows(rows)
    assert is_spread(data["item"]) and is_spread(data["rating"])
    with module.on_devices(devices):
        found = over_devices(rectangles)(data, users)
    same_bits(found, jax.jit(rectangles)(whole, users))


class Noted:
    """An array on the host that knows which of its rows were read."""

    def __init__(self, array):
        self.array, self.read = array, np.zeros(len(array), bool)
        self.shape, self.dtype = array.shape, array.dtype

    def __len__(self):
        return len(self.array)

    def __getitem__(self, rows):
        self.read[rows] = True
        return self.array[rows]


@pytest.fixture
def second(monkeypatch):
    """The second of two processes, as far as its data goes: four devices, of which it has the last two."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(module, "_mine", lambda devices: [2, 3])
    with module.on_devices(first_devices(4)):
        yield


def later_half(count):
    """bool [count]: the rows of the last two of four devices."""
    return np.arange(count) >= 2 * -(-count // 4)


def noted(whole, *names):
    return dataclasses.replace(whole, **{name: Noted(getattr(whole, name)) for name in names})


@pytest.mark.parametrize("chosen_by", [device_ratings, training_pairs])
def test_a_process_reads_its_share_of_the_ratings(chosen_by, second):
    ratings = noted(
        synthetic_ratings(SyntheticSize(users=20, items=15, ratings=101), 0),
        *("user", "item", "rating"),
    )
    positions = np.random.default_rng(0).permutation(len(ratings.user))[:70]
    data = chosen_by(ratings, positions, {} if chosen_by is device_ratings else 3.0)
    share = np.isin(np.arange(len(ratings.user)), positions[later_half(70)])
    for name in ("user", "item", "rating"):
        np.testing.assert_array_equal(getattr(ratings, name).read, share)
    assert data["user"].part.shape == (2, 18)


def test_a_process_reads_its_share_of_impressions(second):
    found = make_impressions(ImpressionSize(users=9, items=12, pages=3), 0)
    found = noted(found, "clicked", "completed")
    train = np.arange(0, len(found), 2)
    columns = impression_columns(found, {}, train, found.watch_seconds)[0]
    data = device_impressions(columns)
    np.testing.assert_array_equal(found.clicked.read, later_half(len(found)))
    np.testing.assert_array_equal(found.completed.read, later_half(len(found)))
    assert data["rows"].count == len(train) and is_spread(data["numbers"])
    assert not any(map(is_spread, jax.tree.leaves(data["ids"]["item"], is_leaf=is_spread)))


def test_a_process_reads_its_share_of_clicks_and_examples(second):
    clicks = make_clicks(ClickSize(users=15, items=20, clicks=6, categories=4, groups=3), 0)[0]
    split = leave_one_out(clicks)
    names = ("user", "start", "end", "target", "age")
    examples = noted(training_examples(clicks, split, 8), *names)
    clicks = noted(clicks, "item")
    data = device_clicks(clicks, [], [])
    windows = window_data(data, examples)["examples"]
    runs = segment_data(data, training_segments(clicks, split, 4, True))
    np.testing.assert_array_equal(clicks.item.read, later_half(len(clicks)))
    for name in names:
        np.testing.assert_array_equal(getattr(examples, name).read, later_half(len(examples)))
    for columns in (windows, runs["segments"], [runs["item"], runs["age"], runs["begins"]]):
        assert all(map(is_spread, jax.tree.leaves(columns, is_leaf=is_spread)))


def test_a_process_reads_its_share_of_what_is_held_out(second):
    clicks = make_clicks(ClickSize(users=15, items=20, clicks=6, categories=4, groups=3), 0)[0]
    held = held_out_examples(clicks, leave_one_out(clicks), "test")
    data = device_clicks(clicks, [], [])
    clicks, held = noted(clicks, "item"), noted(held, "start", "target", "age")
    ready = evaluation_data(data, clicks, held, True)
    later = later_half(len(held))
    places = [np.arange(clicks.offsets[u], end) for u, end in zip(held.user, held.end, strict=True)]
    seen = np.isin(np.arange(len(clicks)), np.concatenate(list(compress(places, later))))
    np.testing.assert_array_equal(clicks.item.read, seen)
    for name in ("start", "target", "age"):
        np.testing.assert_array_equal(getattr(held, name).read, later)
    columns = ready["examples"], [ready[name] for name in ("user", "seen", "seen_mask")]
    assert all(map(is_spread, jax.tree.leaves(columns, is_leaf=is_spread)))


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="asks Linux what is in memory")
def test_of_a_memory_mapped_file_only_the_share_comes_into_memory(second, tmp_path):
    count = 1 << 22
    np.save(tmp_path / "item.npy", np.zeros(count, np.uint16))
    np.save(tmp_path / "rating.npy", np.ones(count, np.uint8))
    item, rating = (np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("item", "rating"))
    data = device_rows(RatingRows(np.array([0, count]), item, rating))
    resident = 1024 * sum(map(int, resident_parts(tmp_path)))
    assert data["item"].part.nbytes + data["rating"].part.nbytes == 3 * (count // 2 + 2)
    assert 3 * count // 2 - 1e6 < resident < 3 * count // 2 + 1e6


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="asks Linux what is in memory")
def test_of_mapped_data_only_the_share_comes_into_memory(second, tmp_path):
    count = 1 << 20
    ratings = synthetic_ratings(SyntheticSize(users=20, items=15, ratings=101), 0)
    long = {"user": np.int32, "item": np.int32, "rating": np.float32, "timestamp": np.int64}
    ratings = dataclasses.replace(
        ratings, **{name: np.ones(count, kind) for name, kind in long.items()}
    )
    write_mapped((ratings, np.arange(count)), tmp_path / "ratings")
    ratings, train = read_mapped(tmp_path / "ratings")
    data = device_ratings(ratings, train, {})
    resident = 1024 * sum(map(int, resident_parts(tmp_path)))
    # The places and three columns of four; the times are not asked for.
    assert sum(data[name].part.nbytes for name in ("user", "item", "rating")) == 12 * count // 2
    assert 20 * count // 2 - 1e6 < resident < 20 * count // 2 + 1e6


def resident_parts(folder):
    """Kilobytes in memory of each mapping of a file of the folder."""
    ours = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split()[0]
        if not first.endswith(":"):
            ours = str(folder) in line
        elif ours and first == "Rss:":
            yield line.split()[1]
