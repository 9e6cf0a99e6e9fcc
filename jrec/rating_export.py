"""A trained rating model as a folder, and its use: predict stars, rank films for a user.

Nothing here imports the model code: the program, its arrays and the catalogue are all in the folder.
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
from jrec.data.tables import is_whole_number
from jrec.data.vocabulary import FIRST, UNKNOWN, Vocabulary, places_of
from jrec.errors import InputError
from jrec.export import load_arrays, load_export, save_export
from jrec.files import replacing


@dataclass(frozen=True)
class RatingModel:
    """A loaded export.

    Attributes:
        predict: (user rows int32 [b], film rows int32 [b]) -> stars float32 [b].
        users, films: vocabularies of raw ids. titles: by film row. seen: film rows by user row,
            what the user rated in training.
    """

    predict: Callable[[jax.Array, jax.Array], jax.Array]
    users: Vocabulary
    films: Vocabulary
    titles: np.ndarray
    seen: Ragged


def export_rating_model(
    folder: Path,
    predict: Callable[[Any, jax.Array, jax.Array], jax.Array],
    arrays: Any,
    ratings: Ratings,
    train: np.ndarray,
) -> None:
    """Writes a rating model and all that its use needs.

    Args:
        predict: (arrays, user rows [b], film rows [b]) -> stars [b]; pure.
        arrays: nested dicts of arrays, parameters and feature tables.
        train: positions of the training ratings; what they hold counts as seen.
    """
    rows = jax.ShapeDtypeStruct(jax.export.symbolic_shape("b"), jnp.int32)
    save_export(folder, predict, arrays, rows, rows)
    order = train[np.lexsort((ratings.film[train], ratings.user[train]))]
    counts = np.bincount(ratings.user[order], minlength=ratings.vocabularies["user"].rows)
    with replacing(folder / "catalogue.npz") as temporary:
        np.savez_compressed(
            temporary,
            users=ratings.vocabularies["user"].values,
            films=ratings.vocabularies["film"].values,
            titles=np.array(ratings.titles, np.str_),
            seen=ratings.film[order],
            seen_offsets=np.concatenate([[0], np.cumsum(counts)]),
        )


def load_rating_model(folder: Path) -> RatingModel:
    """Reads what `export_rating_model` wrote; raises InputError where it is missing or damaged."""
    predict = load_export(folder)
    arrays = load_arrays(folder / "catalogue.npz")
    if not {"users", "films", "titles", "seen", "seen_offsets"} <= arrays.keys():
        raise InputError(f"{folder / 'catalogue.npz'} is damaged; train again.")
    return RatingModel(
        predict=predict,
        users=Vocabulary(arrays["users"]),
        films=Vocabulary(arrays["films"]),
        titles=arrays["titles"],
        seen=Ragged(arrays["seen"], arrays["seen_offsets"]),
    )


def predict_stars(model: RatingModel, user: int | str, film: int | str) -> tuple[float, list[str]]:
    """Stars for raw ids, and a sentence for each id that the model does not know."""
    rows, notes = [], []
    for name, identity, vocabulary in (("user", user, model.users), ("film", film, model.films)):
        row = row_of(vocabulary, name, identity)
        rows.append(jnp.array([row], jnp.int32))
        if row == UNKNOWN:
            notes.append(f"{name} {identity} is not in the data: predicted as an unknown {name}")
    return float(model.predict(*rows)[0]), notes


def row_of(vocabulary: Vocabulary, name: str, identity: int | str) -> int:
    """The row of a raw id, as a number or as text; 1 for an unknown one.

    Raises InputError where ids are numbers and this is none.
    """
    if np.issubdtype(vocabulary.values.dtype, np.integer) and not is_whole_number(str(identity)):
        raise InputError(
            f"--{name} is {str(identity)[:60]!r}, but ids of this data are whole numbers (below 2^63)."
        )
    return int(places_of(vocabulary, [identity])[0]) + FIRST


def rank_films(
    model: RatingModel, user: int | str, count: int, include_seen: bool = False
) -> tuple[list[tuple[int | str, str, float]], list[str]]:
    """The films with the most predicted stars for one user, best first; ties by film id.

    Args:
        user: raw id; an unknown one is ranked for as an unknown user.
        count: how many. include_seen: also films that the user rated in training.

    Returns:
        (film id, title, stars) for each, and a sentence if the user is unknown.
    """
    if count < 1:
        raise InputError(f"--count must be 1 or more, but is {count}.")
    row = row_of(model.users, "user", user)
    film = np.arange(FIRST, model.films.rows, dtype=np.int32)
    stars = np.asarray(model.predict(jnp.full(len(film), row, jnp.int32), jnp.asarray(film)))
    if not include_seen:
        stars = np.where(np.isin(film, model.seen[row]), -np.inf, stars)
    best = np.argsort(-stars, kind="stable")[:count]
    best = best[np.isfinite(stars[best])]
    notes = [] if row != UNKNOWN else [f"user {user} is not in the data: ranked as an unknown user"]
    ids = model.films.decode(film[best]).tolist()
    return [
        (i, str(model.titles[film[b]]), float(stars[b])) for i, b in zip(ids, best, strict=True)
    ], notes
