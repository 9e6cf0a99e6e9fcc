"""Ratings on the device, and batches of them gathered inside the jitted chunk."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jrec.data.ragged import pad
from jrec.data.ratings import Ratings
from jrec.train.devices import Devices, placed, replicated
from jrec.train.spread import rows_at


def feature_tables(ratings: Ratings) -> dict[str, dict[str, np.ndarray]]:
    """What is known of each user and film, by table row, padded.

    Returns:
        `user`: int32 [users' rows] for each attribute. `film`: for `genres` and `title` int32
        [films' rows, L], with `…_mask` bool of that shape; L is the longest there is.
    """
    film = {}
    for name, ragged in ratings.film_features.items():
        film[name], film[f"{name}_mask"] = pad(ragged)
    return {"user": dict(ratings.user_features), "film": film}


def device_ratings(
    ratings: Ratings,
    positions: np.ndarray,
    tables: dict[str, dict[str, Any]],
    devices: Devices = (),
) -> dict[str, Any]:
    """The ratings at int positions [n] on the devices (see `placed`), for `gather_ratings`.

    Returns:
        `user`, `film` int32 [n], `rating` float32 [n], and `tables` (shared, not copied, where they
        are on the device already).
    """

    def rows_of(rows: slice) -> dict[str, np.ndarray]:
        chosen = positions[rows]
        return {name: getattr(ratings, name)[chosen] for name in ("user", "film", "rating")}

    tables = replicated(jax.tree.map(jnp.asarray, tables), devices)
    return placed(rows_of, len(positions), devices) | {"tables": tables}


def features(
    tables: dict[str, dict[str, jax.Array]], user_B: jax.Array, film_B: jax.Array
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """The two towers' inputs for int32 rows [B] and [B]: each table's entries of these rows."""
    user = {"user": user_B} | {name: table[user_B] for name, table in tables["user"].items()}
    film = {"film": film_B} | {name: table[film_B] for name, table in tables["film"].items()}
    return user, film


def gather_ratings(data: dict[str, Any], positions: jax.Array, mask: jax.Array) -> dict[str, Any]:
    """A batch: `user` and `film` features, `rating` float32 [B], `mask` bool [B].

    Args:
        data: from `device_ratings`. positions: int32 [B], valid everywhere. mask: bool [B], what to
        count.
    """
    found = rows_at({name: data[name] for name in ("user", "film", "rating")}, positions)
    user, film = features(data["tables"], found["user"], found["film"])
    return {"user": user, "film": film, "rating": found["rating"], "mask": mask}
