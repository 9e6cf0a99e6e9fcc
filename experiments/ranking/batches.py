"""Impressions on the device: batches for a ranking network, gathered inside the jitted chunk."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jrec.data.clicks import Bag, Categorical, Column, Continuous, take
from jrec.data.impressions import Impressions
from jrec.data.quantiles import normalise
from jrec.data.ragged import pad
from jrec.train.devices import over_devices, placed, replicated
from jrec.train.spread import rows_at

Data = dict[str, Any]


def impression_columns(
    impressions: Impressions,
    extra: dict[str, Column],
    train: np.ndarray,
    weight: np.ndarray,
    user_id: bool = True,
) -> tuple[dict[str, Any], list[tuple[str, str, bool]], list[str]]:
    """All features of the impressions on the host, and what they are.

    Args:
        extra: more columns of n rows (see `history_features`, `watched_before`).
        train: int [n_train], positions; continuous features are normalised by their quantiles among
            these.
        weight: float32 [n], what a click weighs in the loss: its watch time.
        user_id: whether the user and the item themselves are features.

    Returns:
        (columns for `device_impressions`; name, vocabulary and whether it is a bag of each feature of ids;
        the names of the continuous ones).
    """
    own = {
        "user": {"user": Categorical(impressions.user_row, "user")} if user_id else {},
        "item": {"item": Categorical(np.arange(impressions.vocabularies["item"].rows), "item")},
        "row": {},
    }
    given = {
        "user": impressions.user_features,
        "item": impressions.item_features,
        "row": impressions.context_features | extra,
    }
    places = {"user": impressions.user, "item": impressions.item, "row": slice(None)}
    ids: dict[str, Any] = {of: {} for of in given}
    columns, numbers = [], {}
    for of in given:
        for name, column in (own[of] | given[of]).items():
            if isinstance(column, Continuous):
                flat = column if of == "row" else take(column, places[of])
                numbers[name] = normalise(flat, train)[0]
                continue
            bag = isinstance(column, Bag)
            columns.append((name, column.vocabulary, bag))
            ids[of][name] = pad(column.rows) if bag else np.asarray(column.rows, np.int32)
    shape = (len(impressions), 0)
    values = [column.values for column in numbers.values()]
    known = [column.known for column in numbers.values()]
    long = {
        "row": ids.pop("row"),
        "user": impressions.user,
        "item": impressions.item,
        "numbers": np.stack(values, 1) if numbers else np.zeros(shape, np.float32),
        "known": np.stack(known, 1) if numbers else np.zeros(shape, bool),
        "clicked": impressions.clicked,
        "completed": impressions.completed,
        "weight": np.asarray(weight, np.float32),
    }
    return {"long": long, "ids": ids, "train": train}, columns, list(numbers)


def device_impressions(columns: dict[str, Any]) -> Data:
    """The columns of `impression_columns` on the devices (see `placed`), for `gather_impressions`."""
    long, train = columns["long"], columns["train"]
    data = placed(lambda rows: rows_at(long, rows), len(long["item"]))
    tables = replicated(jax.tree.map(jnp.asarray, columns["ids"]))
    data["ids"] = tables | {"row": data.pop("row")}
    data["rows"] = placed(lambda rows: np.asarray(train[rows], np.int32), len(train))
    return data


def gather_impressions(data: Data, positions: jax.Array, mask: jax.Array) -> Data:
    """A batch: `ids` by name (bags with their masks), `numbers`, `known`, `clicked`, `completed`, `weight` and `mask` [B].

    Args:
        positions: int32 [B], places in `data["rows"]`. mask: bool [B], which of them count.
    """
    names = ("numbers", "known", "clicked", "completed", "weight")
    own = {name: data[name] for name in ("user", "item", *names)} | {"ids": data["ids"]["row"]}
    own = rows_at(own, data["rows"][positions])
    ids = own["ids"]
    for of in ("user", "item"):
        ids |= rows_at(data["ids"][of], own[of])
    return {"ids": ids, "mask": mask} | {name: own[name] for name in names}


def make_predict(
    predict: Callable[[Any, Data], dict[str, jax.Array]],
    batch_size: int = 4096,
) -> Callable[[Any, Data, Sequence[int]], dict[str, np.ndarray]]:
    """A function (params, data, rows) -> {head: float32 [rows]}: `predict` for chosen impressions.

    Args:
        predict: (params, batch) -> {head: float32 [B]}.
        batch_size: B; the last batch is filled up.
    """

    def of_batches(arguments: tuple[Any, Data], starts: jax.Array) -> dict[str, jax.Array]:
        params, data = arguments
        count = len(data["rows"])

        def one(start: jax.Array) -> dict[str, jax.Array]:
            positions = start + jnp.arange(batch_size, dtype=jnp.int32)
            mask = positions < count
            return predict(params, gather_impressions(data, jnp.where(mask, positions, 0), mask))

        return jax.lax.map(one, starts)

    shared = over_devices(of_batches)

    def of_rows(params: Any, data: Data, rows: Sequence[int]) -> dict[str, np.ndarray]:
        data = data | {"rows": jnp.asarray(rows, jnp.int32)}
        found = shared((params, data), np.arange(0, len(rows), batch_size))
        return {name: np.asarray(values).reshape(-1)[: len(rows)] for name, values in found.items()}

    return of_rows
