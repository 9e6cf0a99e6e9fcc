"""Ratings on the device, and batches of them gathered inside the jitted chunk."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jrec.data.ragged import pad
from jrec.data.ratings import Ratings
from jrec.train.devices import placed, replicated
from jrec.train.spread import rows_at


def feature_tables(ratings: Ratings) -> dict[str, dict[str, np.ndarray]]:
    """What is known of each user and item, by table row, padded.

    Returns:
        `user`: int32 [users' rows] for each attribute. `item`: for `genres` and `title` int32
        [items' rows, L], with `…_mask` bool of that shape; L is the longest there is.
    """
    item = {}
    for name, ragged in ratings.item_features.items():
        item[name], item[f"{name}_mask"] = pad(ragged)
    return {"user": dict(ratings.user_features), "item": item}


def device_ratings(
    ratings: Ratings,
    positions: np.ndarray,
    tables: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """The ratings at int positions [n] on the devices (see `placed`), for `gather_ratings`.

    Returns:
        `user`, `item` int32 [n], `rating` float32 [n], and `tables` (shared, not copied, where they
        are on the device already).
    """

    def rows_of(rows: slice) -> dict[str, np.ndarray]:
        chosen = positions[rows]
        return {name: getattr(ratings, name)[chosen] for name in ("user", "item", "rating")}

    tables = replicated(jax.tree.map(jnp.asarray, tables))
    return placed(rows_of, len(positions)) | {"tables": tables}


def features(
    tables: dict[str, dict[str, jax.Array]], user_B: jax.Array, item_B: jax.Array
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """The two towers' inputs for int32 rows [B] and [B]: each table's entries of these rows."""
    user = {"user": user_B} | {name: table[user_B] for name, table in tables["user"].items()}
    item = {"item": item_B} | {name: table[item_B] for name, table in tables["item"].items()}
    return user, item


def gather_ratings(data: dict[str, Any], positions: jax.Array, mask: jax.Array) -> dict[str, Any]:
    """A batch: `user` and `item` features, `rating` float32 [B], `mask` bool [B].

    Args:
        data: from `device_ratings`. positions: int32 [B], valid everywhere. mask: bool [B], what to
        count.
    """
    found = rows_at({name: data[name] for name in ("user", "item", "rating")}, positions)
    user, item = features(data["tables"], found["user"], found["item"])
    return {"user": user, "item": item, "rating": found["rating"], "mask": mask}
