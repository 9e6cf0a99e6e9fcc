"""A trained model of whole rating profiles as a folder, and its use: items for a user, old or new.

Nothing here imports the model code: the program, its arrays, the catalogue, the training ratings and the items
that users rated in the held-out parts are all in the folder.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jrec.data.rating_parts import RatingParts
from jrec.data.raw_ids import places_of
from jrec.data.tables import decimal_number
from jrec.data.vocabulary import Vocabulary
from jrec.errors import InputError
from jrec.files import replacing
from jrec.serving.export import best_first, check_count, load_arrays, load_export, save_export


@dataclass(frozen=True)
class ProfileModel:
    """A loaded export.

    Attributes:
        predict: (ratings float32 [b, M], known bool [b, M]) -> stars float32 [b, M].
        users, items: raw ids [N] and [M], sorted. titles: [M], empty where the data has none.
        rating_range: lowest and highest rating. offsets, item, rating: the training ratings by user.
        held_offsets, held_item: items by user that validation and test hold.
    """

    predict: Callable[[jax.Array, jax.Array], jax.Array]
    users: np.ndarray
    items: np.ndarray
    titles: np.ndarray
    rating_range: tuple[float, float]
    offsets: np.ndarray
    item: np.ndarray
    rating: np.ndarray
    held_offsets: np.ndarray
    held_item: np.ndarray


def export_profile_model(
    folder: Path,
    predict: Callable[[Any, jax.Array, jax.Array], jax.Array],
    arrays: Any,
    parts: RatingParts,
) -> None:
    """Writes a model and all that its use needs.

    Args:
        predict: (arrays, ratings float32 [b, M], known bool [b, M]) -> stars [b, M]; pure.
        arrays: nested dicts of arrays.
    """
    shape = (*jax.export.symbolic_shape("b"), len(parts.items))
    ratings, known = (jax.ShapeDtypeStruct(shape, dtype) for dtype in (jnp.float32, jnp.bool))
    save_export(folder, predict, arrays, ratings, known)
    held = (parts.valid, parts.test)
    user = np.concatenate(
        [np.repeat(np.arange(len(parts.users)), np.diff(h.offsets)) for h in held]
    )
    item = np.concatenate([h.item for h in held])
    titles = parts.titles or [""] * len(parts.items)
    with replacing(folder / "catalogue.npz") as temporary:
        np.savez(
            temporary,
            users=parts.users,
            items=parts.items,
            titles=np.array(titles, np.str_),
            rating_range=np.array(parts.rating_range),
            offsets=parts.train.offsets,
            item=parts.train.item,
            rating=parts.train.rating,
            held_offsets=parts.valid.offsets + parts.test.offsets,
            held_item=item[np.argsort(user, kind="stable")],
        )


def load_profile_model(folder: Path) -> ProfileModel:
    """Reads what `export_profile_model` wrote; raises InputError where it is missing or damaged."""
    predict = load_export(folder)
    arrays = load_arrays(folder / "catalogue.npz")
    names = {"users", "items", "titles", "rating_range", "offsets", "item", "rating"}
    if not names | {"held_offsets", "held_item"} <= arrays.keys():
        raise InputError(f"{folder / 'catalogue.npz'} is damaged or older; train again.")
    low, high = arrays.pop("rating_range").tolist()
    return ProfileModel(predict, rating_range=(low, high), **arrays)


def profile_of_user(
    model: ProfileModel, user: int | str
) -> tuple[dict[int | str, float], list[str]]:
    """The training ratings of a user, by raw item id, and a sentence if there are none."""
    places = _places(model, user, model.offsets)
    if places is None:
        return {}, [f"user {user} has no training ratings: ranked without any"]
    items = model.items[model.item[places]].tolist()
    return dict(zip(items, model.rating[places].astype(float).tolist(), strict=True)), []


def held_out_of_user(model: ProfileModel, user: int | str) -> list[int | str]:
    """Raw ids of the items that a user rated in validation and test; none for an unknown user."""
    places = _places(model, user, model.held_offsets)
    return [] if places is None else model.items[model.held_item[places]].tolist()


def _places(model: ProfileModel, user: int | str, offsets: np.ndarray) -> slice | None:
    row = int(places_of(Vocabulary(model.users), [user])[0])
    return slice(offsets[row], offsets[row + 1]) if row >= 0 else None


def read_profile(path: Path) -> dict[str, float]:
    """A new user's ratings: lines of `item rating`, separated by blanks, tabs or a comma.

    An item that holds blanks or commas needs a tab before its rating. A later line of the same item counts. Raises InputError that names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise InputError(
            f"{path} does not exist; give --ratings a file of item and rating."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); give a text file.") from error
    profile = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        fields = line.split("\t") if "\t" in line else line.replace(",", " ").split()
        stars = decimal_number(fields[1]) if len(fields) == 2 else float("nan")
        if not np.isfinite(stars):
            raise InputError(
                f"{path}, line {number}: {line[:60]!r} is not an item and a rating; write `item rating`."
            )
        profile.pop(fields[0].strip(), None)  # the order of lines stays that of the items
        profile[fields[0].strip()] = stars
    return profile


def rank_items(
    model: ProfileModel,
    profile: Mapping[int | str, float],
    count: int,
    include_seen: bool = False,
    also_seen: Sequence[int | str] = (),
) -> tuple[list[tuple[int | str, str, float]], list[str]]:
    """The items with the most predicted stars for a user with these ratings, best first; ties by id.

    Args:
        profile: raw item id -> stars; may be empty. count: how many.
        include_seen: also what the user has seen: the items of the profile and of `also_seen` (raw ids).

    Returns:
        (item id, title, stars) for each, and sentences where items of the profile are not known and where
        nothing is left.

    Raises InputError for a rating outside the range of the data, and for a count below 1.
    """
    check_count(count)
    low, high = model.rating_range
    ratings = np.zeros((1, len(model.items)), np.float32)
    known = np.zeros(ratings.shape, bool)
    missing: list[int | str] = []
    places = places_of(Vocabulary(model.items), list(profile))
    for (item, rating), row in zip(profile.items(), places.tolist(), strict=True):
        if not low <= rating <= high:
            raise InputError(
                f"item {item} is rated {rating:g}; ratings of this data lie between {low:g} and {high:g}."
            )
        if row < 0:
            missing.append(item)
            continue
        ratings[0, row], known[0, row] = rating, True
    stars = np.asarray(model.predict(jnp.asarray(ratings), jnp.asarray(known)))[0]
    if not include_seen:
        stars = np.where(known[0], -np.inf, stars)
        rows = places_of(Vocabulary(model.items), also_seen)
        stars[rows[rows >= 0]] = -np.inf
    best = best_first(stars, count)
    ids = model.items[best].tolist()
    ranked = [(i, str(model.titles[k]), float(stars[k])) for i, k in zip(ids, best, strict=True)]
    notes = []
    if missing:
        notes.append(
            f"{len(missing)} rated items are not in the training data and were left out ({missing[0]}, …)"
        )
    if not ranked:
        notes.append(
            f"the user has rated all {len(stars):,} items: nothing is left (--seen ranks them, too)"
        )
    return ranked, notes
