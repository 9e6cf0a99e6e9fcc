"""Clicks on the device, and next-item examples of them gathered inside the jitted chunk."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jrec.data.click_examples import ClickSplit, Examples, example_ages
from jrec.data.clicks import Bag, Categorical, Clicks, Column, Continuous
from jrec.data.ragged import pad
from jrec.data.vocabulary import PADDING, UNKNOWN
from jrec.train.chunk import Gather
from jrec.train.devices import placed, replicated
from jrec.train.spread import rows_at

Data = dict[str, Any]


def device_clicks(clicks: Clicks, user_columns: list[str], item_columns: list[str]) -> Data:
    """Items (see `placed`), users' and items' columns on the devices.

    Returns:
        `item` int32 [n]; `user_features`, `item_features`: by name, categorical int32 [rows], bag
        (ids [rows, F], mask), continuous (values, known). `user` among the user columns is the user
        itself.

    Raises ValueError for numbers outside [0, 1]; see `jrec.data.quantiles.normalised`.
    """
    users = {"user": Categorical(clicks.user_row, "user")} | clicks.user_features
    tables = {
        "user_features": {name: _arrays(users[name]) for name in user_columns},
        "item_features": {name: _arrays(clicks.item_features[name]) for name in item_columns},
    }
    item = placed(lambda rows: clicks.item[rows], len(clicks))
    return {"item": item} | replicated(jax.tree.map(jnp.asarray, tables))


def _arrays(column: Column) -> Any:
    if isinstance(column, Categorical):
        return column.rows
    if isinstance(column, Bag):
        return pad(column.rows)
    assert isinstance(column, Continuous)
    if len(column) and not (column.values.min() >= 0 and column.values.max() <= 1):
        raise ValueError(
            f"Numbers from {column.values.min():g} to {column.values.max():g} are not in [0, 1]; give the "
            "clicks to jrec.data.quantiles.normalised first."
        )
    return column.values, column.known


def window_data(data: Data, examples: Examples) -> Data:
    """The examples on the devices (see `placed`) beside the clicks, for `make_window_gather`."""
    columns = {
        "user": examples.user,
        "start": examples.start,
        "end": examples.end,
        "target": examples.target,
        "leads": examples.starts_with_unknown,
        "age": examples.age,
    }
    return data | {"examples": placed(lambda rows: rows_at(columns, rows), len(examples))}


def training_segments(
    clicks: Clicks, split: ClickSplit, length: int, whole: bool
) -> dict[str, Any]:
    """Runs of training clicks on the host, for `segment_data`: every click is a target once.

    Args:
        length: L, targets a run has at most; a user's last run ends with the last training click.
        whole: all runs of each user; else the last alone (as SASRec trains).

    Returns:
        `segments`, of each run `user`, `start` and `end` int64; of each click `age` float32, see
        `example_ages`, and `begins` bool, whether it is its user's first.
    """
    user, start, end = [], [], []
    first, last = clicks.offsets[:-1], split.train_end
    while (last > first).any():
        now = np.flatnonzero(last > first)
        begin = np.maximum(first[now], last[now] - length)
        user.append(now)
        start.append(begin)
        end.append(last[now])
        last = last.copy()
        last[now] = begin if whole else first[now]
    order = np.argsort(np.concatenate(user), kind="stable")
    columns = {"user": user, "start": start, "end": end}
    segments = {name: np.concatenate(values)[order] for name, values in columns.items()}
    begins = np.zeros(len(clicks), bool)
    begins[clicks.offsets[:-1][np.diff(clicks.offsets) > 0]] = True
    return {"segments": segments, "age": example_ages(clicks, split), "begins": begins}


def segment_data(data: Data, columns: dict[str, Any]) -> Data:
    """`training_segments` on the devices (see `placed`) beside the clicks, for `make_segment_gather`."""
    segments, clicks = columns["segments"], {name: columns[name] for name in ("age", "begins")}
    runs = placed(lambda rows: rows_at(segments, rows), len(segments["user"]))
    of_clicks = placed(lambda rows: rows_at(clicks, rows), len(clicks["age"]))
    return data | {"segments": runs} | of_clicks


def make_window_gather(length: int) -> Gather:
    """Batches of one example a row: the history padded to L positions, the oldest first, and its target.

    The batch: `item`, `mask` [B, L]; `target` int32 [B], an item row; `counted` bool [B]; `age` float32
    [B]; `user` int32 [B]; the features.
    """

    def gather(data: Data, positions: jax.Array, mask: jax.Array) -> Data:
        examples = rows_at(data["examples"], positions)
        lead_B = examples["leads"].astype(jnp.int32)
        # A history longer than the rectangle keeps its end.
        start_B = jnp.maximum(examples["start"] - lead_B, examples["end"] - length)
        place_BL = start_B[:, None] + jnp.arange(length, dtype=jnp.int32)[None]
        inside_BL = place_BL < examples["end"][:, None]
        is_lead_BL = place_BL < examples["start"][:, None]
        item_BL = data["item"][jnp.clip(place_BL, 0, len(data["item"]) - 1)]
        item_BL = jnp.where(is_lead_BL, UNKNOWN, jnp.where(inside_BL, item_BL, PADDING))
        return _features(data, examples["user"], item_BL) | {
            "item": item_BL,
            "mask": inside_BL,
            "target": data["item"][examples["target"]],
            "counted": mask,
            "age": examples["age"],
            "user": examples["user"],
        }

    return gather


def make_segment_gather(length: int) -> Gather:
    """Batches of one run of clicks a row, each click the target of the position before it.

    The batch: `item`, `mask` [B, L]; `target` int32 [B, L]; `counted` bool [B, L]; `age` float32
    [B, L]; `user` int32 [B]; the features.
    """

    def gather(data: Data, positions: jax.Array, mask: jax.Array) -> Data:
        segments = rows_at(data["segments"], positions)
        place_BL = segments["start"][:, None] + jnp.arange(length, dtype=jnp.int32)[None]
        inside_BL = place_BL < segments["end"][:, None]
        target_BL = jnp.clip(place_BL, 0, len(data["item"]) - 1)
        found = rows_at({name: data[name] for name in ("item", "age", "begins")}, target_BL)
        # The click before the target; before a user's first stands the unknown click.
        item_BL = data["item"][jnp.maximum(target_BL - 1, 0)]
        item_BL = jnp.where(found["begins"], UNKNOWN, item_BL)
        item_BL = jnp.where(inside_BL, item_BL, PADDING)
        return _features(data, segments["user"], item_BL) | {
            "item": item_BL,
            "mask": inside_BL,
            "target": jnp.where(inside_BL, found["item"], PADDING),
            "counted": inside_BL & mask[:, None],
            "age": found["age"],
            "user": segments["user"],
        }

    return gather


def _features(data: Data, user_B: jax.Array, item_BL: jax.Array) -> Data:
    return {
        "user_features": rows_at(data["user_features"], user_B),
        "item_features": rows_at(data["item_features"], item_BL),
    }
