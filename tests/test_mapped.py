"""Data written by one process and mapped by others: every bit and every type comes back."""

import dataclasses
import mmap
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from jrec.data import mapped as module
from jrec.data.click_examples import leave_one_out, training_examples
from jrec.data.click_maker import make_clicks
from jrec.data.click_truth import ClickSize
from jrec.data.clicks import Bag, Categorical, Continuous
from jrec.data.impression_maker import ImpressionSize, make_impressions
from jrec.data.impressions import split_by_time
from jrec.data.mapped import read_mapped, write_mapped
from jrec.data.ragged import Ragged
from jrec.data.rating_parts import rating_parts
from jrec.data.sources import load_ratings
from jrec.data.splits import split_ratings
from jrec.data.vocabulary import Vocabulary
from jrec.errors import InputError


class Named(NamedTuple):
    number: int


def same(one, other):
    """Whether two values agree in all types and bits."""
    assert type(one) is type(other)
    if isinstance(one, np.ndarray | np.generic):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        assert one.tobytes() == other.tobytes()
    elif dataclasses.is_dataclass(one):
        same(vars(one), vars(other))
    elif isinstance(one, dict):
        same(list(one.items()), list(other.items()))
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            same(a, b)
    else:
        assert repr(one) == repr(other)  # of NaN, too


def ratings_and_parts(ml_1m):
    ratings = load_ratings("ml-1m", ml_1m)
    split = split_ratings(ratings)
    return ratings, split, rating_parts(ratings, split)


def clicks_and_examples():
    clicks = make_clicks(ClickSize(users=15, items=20, clicks=6, categories=4, groups=3), 0)[0]
    tags = Bag(Ragged.from_lists([[], [1], *([2, 3][: k % 3] for k in range(20))]), "tag")
    number = Continuous(np.float32([np.nan, -0.0, *range(20)]), np.arange(22) > 0)
    events = {"device": Categorical(np.arange(len(clicks), dtype=np.int32) % 4, "category")}
    clicks = dataclasses.replace(
        clicks,
        vocabularies=clicks.vocabularies | {"tag": Vocabulary.in_order(np.array(["b", "ä", "a"]))},
        item_features=clicks.item_features | {"tags": tags, "number": number},
        event_features=events,
    )
    split = leave_one_out(clicks)
    return clicks, split, training_examples(clicks, split, None)


def impressions_and_split():
    found = make_impressions(ImpressionSize(users=9, items=12, pages=3), 0)
    middle = int(np.median(found.timestamp))
    return dataclasses.replace(found, expected_watch_seconds=None), split_by_time(
        found, middle, middle
    )


def odd_values():
    return {
        "nothing": [None, [], (), {}, "", np.zeros((0, 3), np.float32), np.zeros(0, np.str_)],
        "floats": (float("nan"), -0.0, float("inf"), 0.1 + 0.2, 5e-324, np.float64(0.1)),
        "others": [True, 2**70, "ä\n\ud800", np.str_("x"), np.bool_(True), np.int64(-3)],
        3: {(1, "two"): np.float32(1.5)},
        "orders": (np.arange(6).reshape(2, 3).T, np.arange(9)[::2], np.array(7)),
    }


@pytest.mark.parametrize(
    "make", [ratings_and_parts, clicks_and_examples, impressions_and_split, odd_values]
)
def test_every_bit_and_type_comes_back_as_read_only_maps(make, ml_1m, tmp_path):
    value = make(ml_1m) if make is ratings_and_parts else make()
    write_mapped(value, tmp_path / "value")
    found = read_mapped(tmp_path / "value")
    same(value, found)
    assert not list(tmp_path.glob(".*"))
    arrays = list(arrays_of(found))
    assert len(arrays) > 3
    for array in arrays:
        base = array
        while isinstance(base, np.ndarray):
            base = base.base
        assert isinstance(base, mmap.mmap) and not array.flags.writeable


def arrays_of(value):
    if isinstance(value, np.ndarray):
        yield value
    elif dataclasses.is_dataclass(value) or isinstance(value, dict):
        for item in (value if isinstance(value, dict) else vars(value)).values():
            yield from arrays_of(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from arrays_of(item)


@pytest.mark.parametrize("value", [{1, 2}, np.array([None]), Path("x"), [object()], Named(1)])
def test_other_values_are_refused_and_leave_nothing(value, tmp_path):
    with pytest.raises((TypeError, ValueError)):
        write_mapped({"array": np.arange(3), "other": value}, tmp_path / "value")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("how", ["folder", "array", "cut", "form", "kind", "text"])
def test_a_damaged_folder_gives_one_sentence(how, ml_1m, tmp_path):
    folder = tmp_path / "value"
    write_mapped(ratings_and_parts(ml_1m), folder)
    array, form = folder / "0.npy", folder / "form.json"
    match how:
        case "folder":
            folder = tmp_path / "other"
        case "array":
            array.unlink()
        case "cut":
            array.write_bytes(array.read_bytes()[:-1])
        case "form":
            form.write_text(form.read_text()[:-1])
        case "kind":
            form.write_text(
                form.read_text().replace('"jrec.data.ratings", "Ratings"', '"pathlib", "Path"')
            )
        case "text":
            array.write_bytes(b"not an array")
    with pytest.raises(InputError, match="is missing or damaged") as fault:
        read_mapped(folder)
    assert str(folder) in str(fault.value) and "\n" not in str(fault.value)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_named_and_leaves_nothing(monkeypatch, tmp_path):
    real = Path.open

    def full(path, mode="r", *args, **kwargs):
        return real(Path("/dev/full") if mode == "w+b" else path, mode, *args, **kwargs)

    monkeypatch.setattr(module.Path, "open", full)
    with pytest.raises(OSError, match="No space left") as fault:
        write_mapped({"array": np.arange(3)}, tmp_path / "value")
    assert fault.value.filename == str(tmp_path / "value")
    monkeypatch.undo()
    assert not list(tmp_path.iterdir())
