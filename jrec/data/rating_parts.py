"""Ratings by user for train, valid and test: in memory, or memory-mapped from a folder."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jrec.data.origin import Source
from jrec.data.ratings import Ratings
from jrec.data.splits import Split
from jrec.data.store import read_store, write_store
from jrec.data.vocabulary import FIRST
from jrec.errors import InputError
from jrec.files import new_folder

PARTS = ("train", "valid", "test")
_DESCRIPTION, _FORM = "parts.json", "jrec rating parts 2"
_SECONDS_A_DAY = 86_400


@dataclass(frozen=True)
class RatingRows:
    """Ratings user after user: user `u` has the places `offsets[u]` to `offsets[u + 1]`.

    Attributes:
        offsets: int64 [N + 1], from 0 to n, never falling.
        item: [n], rows 0..M-1; uint16 where they fit, else int32.
        rating: [n]; uint8 where all ratings are whole, else float32.
    """

    offsets: np.ndarray
    item: np.ndarray
    rating: np.ndarray

    def __len__(self) -> int:
        return len(self.rating)


@dataclass(frozen=True)
class RatingParts:
    """One split of one data set; the N users and M items are those that training has.

    Attributes:
        users, items: raw ids [N] and [M], sorted.
        titles: title by item row; None where the data set has none.
        rating_range: lowest and highest rating value of the data set.
        train, valid, test: N users each (a user may have no held-out ratings); within a user in
            time order, equal times in file order.
        dropped: ratings left out because training lacks their user or their item (`valid user`,
            `valid item`, `test user`, `test item`; a rating that lacks both counts under user), or
            because they are of a user or movie that no users or movies file has (`unknown`).
        time_ranges: first and last day (`YYYY-MM-DD`, UTC) of each part that has ratings.
    """

    name: str
    source: Source
    users: np.ndarray
    items: np.ndarray
    titles: list[str] | None
    rating_range: tuple[float, float]
    train: RatingRows
    valid: RatingRows
    test: RatingRows
    dropped: dict[str, int]
    time_ranges: dict[str, tuple[str, str]]


def rating_parts(ratings: Ratings, split: Split) -> RatingParts:
    """A split of any data set as ratings by user. Raises InputError where train is empty."""
    known = (ratings.user >= FIRST) & (ratings.item >= FIRST)
    users, movies = (ratings.vocabularies[key].values for key in ("user", "item"))
    parts, days = {}, {}
    for part in PARTS:
        places = getattr(split, part)
        places = places[known[places]]
        user = ratings.user[places] - FIRST
        order = np.lexsort((ratings.timestamp[places], user))  # stable: ties keep file order
        places = places[order]
        offsets = _offsets(np.bincount(user, minlength=len(users)))
        parts[part] = RatingRows(offsets, ratings.item[places] - FIRST, ratings.rating[places])
        days[part] = ratings.timestamp[places] // _SECONDS_A_DAY
    kept = sum(known[getattr(split, part)].sum() for part in PARTS)
    unknown = sum(len(getattr(split, part)) for part in PARTS) - kept
    return keep_trained(
        ratings.name,
        ratings.source,
        users,
        movies,
        ratings.titles[FIRST:],
        ratings.rating_range,
        parts,
        days,
        int(unknown),
    )


def keep_trained(
    name: str,
    source: Source,
    users: np.ndarray,
    movies: np.ndarray,
    titles: list[str] | None,
    rating_range: tuple[float, float],
    parts: dict[str, RatingRows],
    days: dict[str, np.ndarray],
    unknown: int = 0,
) -> RatingParts:
    """Leaves out what training has not seen and numbers the rest anew.

    Args:
        users, movies: raw ids, sorted; the rows that `parts` is written in.
        titles: by movie row.
        parts: `train`, `valid` and `test` over all of `users` and `movies`, in their final order.
        days: days since 1970-01-01 of each part's ratings.
        unknown: ratings left out before.

    Raises InputError where train is empty.
    """
    train = parts["train"]
    if len(train) == 0:
        raise InputError(f"The training part of {name} is empty; use another split or more data.")
    counts = np.diff(train.offsets)
    user_kept = counts > 0
    movie_kept = present_rows(train.item, len(movies))
    item_type = np.uint16 if movie_kept.sum() <= 2**16 else np.int32
    item_of_movie = (np.cumsum(movie_kept) - 1).clip(0).astype(item_type)
    low, high = rating_range
    whole = low >= 0 and high <= 255 and all(_are_whole(rows.rating) for rows in parts.values())
    rating_type = np.uint8 if whole else np.float32
    dropped, rows, time_ranges = {}, {}, {}
    for part in PARTS:
        given, day = parts[part], days[part]
        offsets, movie, rating = given.offsets, given.item, given.rating
        if part != "train":
            user = np.repeat(np.arange(len(users)), np.diff(offsets))
            has_user, has_movie = user_kept[user], movie_kept[movie]
            kept = has_user & has_movie
            dropped[f"{part} user"] = int((~has_user).sum())
            dropped[f"{part} item"] = int((has_user & ~has_movie).sum())
            offsets = _offsets(np.bincount(user[kept], minlength=len(users)))
            movie, rating, day = movie[kept], rating[kept], day[kept]
        # A user that goes has no ratings left, so the ends of those that stay are still right.
        offsets = np.concatenate([[0], offsets[1:][user_kept]]).astype(np.int64)
        rating = rating.astype(rating_type, copy=False)
        rows[part] = RatingRows(offsets, _renumber(item_of_movie, movie), rating)
        if len(day):
            time_ranges[part] = (_iso(day.min()), _iso(day.max()))
    return RatingParts(
        name=name,
        source=source,
        users=users[user_kept],
        items=movies[movie_kept],
        titles=None if titles is None else [titles[row] for row in np.flatnonzero(movie_kept)],
        rating_range=(float(low), float(high)),
        dropped=dropped | {"unknown": unknown},
        time_ranges=time_ranges,
        **rows,
    )


def save_rating_parts(folder: Path, parts: RatingParts) -> None:
    """Writes a folder (see `jrec.data.store`) with the description `parts.json`, all or nothing.

    Raises InputError where the folder exists and holds anything.
    """
    with new_folder(folder) as temporary:
        write_store(parts, temporary, _DESCRIPTION, _FORM)


def load_rating_parts(folder: Path, check: bool = True) -> RatingParts:
    """What `save_rating_parts` wrote, its arrays memory-mapped and read-only.

    Args:
        check: read every file once to compare its checksum.

    Raises InputError where the folder is missing, of another kind, cut short or changed.
    """
    if not (folder / _DESCRIPTION).is_file():
        raise InputError(
            f"{folder} holds no ratings by part (it lacks {_DESCRIPTION}); give a folder that "
            f"python -m jrec.data.netflix wrote, such as OUT/3m."
        )
    remedy = "write the folder anew"
    return read_store(folder, _DESCRIPTION, _FORM, RatingParts, remedy, mapped=True, check=check)


def _offsets(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


_CHUNK = 1 << 20  # NumPy makes any index int64 first: of a hundred million that is 0.8 GB


def present_rows(rows: np.ndarray, count: int) -> np.ndarray:
    """bool [count]: which of the rows 0..count-1 occur in an integer array."""
    found = np.zeros(count, bool)
    for start in range(0, len(rows), _CHUNK):
        found[rows[start : start + _CHUNK]] = True
    return found


def _renumber(table: np.ndarray, rows: np.ndarray) -> np.ndarray:
    out = np.empty(len(rows), table.dtype)
    for start in range(0, len(rows), _CHUNK):
        out[start : start + _CHUNK] = table[rows[start : start + _CHUNK]]
    return out


def _are_whole(rating: np.ndarray) -> bool:
    return np.issubdtype(rating.dtype, np.integer) or bool((rating == np.rint(rating)).all())


def _iso(day: int) -> str:
    return str(np.datetime64(int(day), "D"))
