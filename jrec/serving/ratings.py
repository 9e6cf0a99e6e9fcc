"""A trained rating model as a folder, and its use: predict stars, rank items for a user.

Nothing here imports the model code: the program, its arrays, the catalogue and all known ratings are in the
folder.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jrec.data.ragged import Ragged
from jrec.data.ratings import Ratings
from jrec.data.raw_ids import places_of
from jrec.data.splits import Split
from jrec.data.tables import is_whole_number
from jrec.data.user_labels import user_labels
from jrec.data.vocabulary import FIRST, UNKNOWN, Vocabulary
from jrec.errors import InputError
from jrec.files import replacing
from jrec.serving.export import best_first, check_count, load_arrays, load_export, save_export


@dataclass(frozen=True)
class RatingModel:
    """A loaded export.

    Attributes:
        predict: (user rows int32 [b], item rows int32 [b]) -> stars float32 [b].
        users, items: vocabularies of raw ids. titles: by item row. labels: by user row, what is known of
            the user, in words.
        seen: item rows by user row, rising: all that the data set knows the user to have rated.
        stars, part: float32 and int8 of each of these ratings; the part is a place in `PARTS`.
    """

    predict: Callable[[jax.Array, jax.Array], jax.Array]
    users: Vocabulary
    items: Vocabulary
    titles: np.ndarray
    labels: np.ndarray
    seen: Ragged
    stars: np.ndarray
    part: np.ndarray


PARTS = ("train", "valid", "test", "no part")
_NAMES = ("users", "items", "titles", "labels", "seen", "seen_offsets", "stars", "part")


def export_rating_model(
    folder: Path,
    predict: Callable[[Any, jax.Array, jax.Array], jax.Array],
    arrays: Any,
    ratings: Ratings,
    split: Split,
) -> None:
    """Writes a rating model and all that its use needs.

    Args:
        predict: (arrays, user rows [b], item rows [b]) -> stars [b]; pure.
        arrays: nested dicts of arrays, parameters and feature tables.
        split: of the ratings, all of which count as seen.
    """
    rows = jax.ShapeDtypeStruct(jax.export.symbolic_shape("b"), jnp.int32)
    save_export(folder, predict, arrays, rows, rows)
    known = np.flatnonzero((ratings.user >= FIRST) & (ratings.item >= FIRST))
    order = known[np.lexsort((ratings.item[known], ratings.user[known]))]
    users = ratings.vocabularies["user"]
    counts = np.bincount(ratings.user[order], minlength=users.rows)
    part = np.full(len(ratings), PARTS.index("no part"), np.int8)
    for name in ("train", "valid", "test"):
        part[getattr(split, name)] = PARTS.index(name)
    labels = ["", ""]
    labels += [", ".join(user_labels(ratings, k).values()) for k in range(FIRST, users.rows)]
    with replacing(folder / "catalogue.npz") as temporary:
        np.savez_compressed(
            temporary,
            users=users.values,
            items=ratings.vocabularies["item"].values,
            titles=np.array(ratings.titles, np.str_),
            labels=np.array(labels, np.str_),
            seen=ratings.item[order],
            seen_offsets=np.concatenate([[0], np.cumsum(counts)]),
            stars=ratings.rating[order],
            part=part[order],
        )


def load_rating_model(folder: Path) -> RatingModel:
    """Reads what `export_rating_model` wrote; raises InputError where it is missing or damaged."""
    predict = load_export(folder)
    arrays = load_arrays(folder / "catalogue.npz")
    if not set(_NAMES) <= arrays.keys():
        raise InputError(f"{folder / 'catalogue.npz'} is damaged or older; train again.")
    return RatingModel(
        predict=predict,
        users=Vocabulary(arrays["users"]),
        items=Vocabulary(arrays["items"]),
        titles=arrays["titles"],
        labels=arrays["labels"],
        seen=Ragged(arrays["seen"], arrays["seen_offsets"]),
        stars=arrays["stars"],
        part=arrays["part"],
    )


def predict_stars(model: RatingModel, user: int | str, item: int | str) -> tuple[float, list[str]]:
    """Stars for raw ids, and a sentence for each id that the model does not know."""
    rows, notes = [], []
    for name, identity, vocabulary in (("user", user, model.users), ("item", item, model.items)):
        row = row_of(vocabulary, name, identity)
        rows.append(jnp.array([row], jnp.int32))
        if row == UNKNOWN:
            notes.append(f"{name} {identity} is not in the data: predicted as an unknown {name}")
    return float(model.predict(*rows)[0]), notes


def known_rating(model: RatingModel, user: int | str, item: int | str) -> tuple[float, str] | None:
    """Returns the stars that the data set has of a pair of raw ids, and the part they stood in; None without any."""
    row, wanted = row_of(model.users, "user", user), row_of(model.items, "item", item)
    seen = model.seen[row]
    place = int(np.searchsorted(seen, wanted))
    if place == len(seen) or seen[place] != wanted:
        return None
    place += int(model.seen.offsets[row])
    return float(model.stars[place]), PARTS[model.part[place]]


def row_of(vocabulary: Vocabulary, name: str, identity: int | str) -> int:
    """The row of a raw id, as a number or as text; 1 for an unknown one.

    Raises InputError where ids are numbers and this is none.
    """
    if np.issubdtype(vocabulary.values.dtype, np.integer) and not is_whole_number(str(identity)):
        raise InputError(
            f"--{name} is {str(identity)[:60]!r}, but ids of this data are whole numbers (below 2^63)."
        )
    return int(places_of(vocabulary, [identity])[0]) + FIRST


def rank_items(
    model: RatingModel, user: int | str, count: int, include_seen: bool = False
) -> tuple[list[tuple[int | str, str, float]], list[str]]:
    """The items with the most predicted stars for one user, best first; ties by item id.

    Args:
        user: raw id; an unknown one is ranked for as an unknown user.
        count: how many. include_seen: also items that the user has rated.

    Returns:
        (item id, title, stars) for each, and a sentence if the user is unknown or nothing is left.
    """
    check_count(count)
    row = row_of(model.users, "user", user)
    item = np.arange(FIRST, model.items.rows, dtype=np.int32)
    stars = np.asarray(model.predict(jnp.asarray(np.full_like(item, row)), jnp.asarray(item)))
    if not include_seen:
        stars = np.where(np.isin(item, model.seen[row]), -np.inf, stars)
    best = best_first(stars, count)
    notes = [] if row != UNKNOWN else [f"user {user} is not in the data: ranked as an unknown user"]
    if len(best) == 0:
        notes.append(
            f"user {user} has rated all {len(item):,} items: nothing is left (--seen ranks them, too)"
        )
    ids = model.items.decode(item[best]).tolist()
    return [
        (i, str(model.titles[item[b]]), float(stars[b])) for i, b in zip(ids, best, strict=True)
    ], notes
