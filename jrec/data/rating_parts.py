"""Ratings by user for train, valid and test: in memory, or memory-mapped from a folder."""

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from jrec.data.ratings import Ratings, Source
from jrec.data.splits import Split
from jrec.data.vocabulary import FIRST
from jrec.errors import InputError
from jrec.files import check_seal, new_folder, read_json, sealed, write_json

PARTS = ("train", "valid", "test")
_FORMAT = "jrec rating parts 1"
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
    """Writes `.npy` files and `parts.json`, all or nothing.

    Raises InputError where the folder exists and holds anything.
    """
    arrays = {"users": parts.users, "items": parts.items}
    for part in PARTS:
        rows = getattr(parts, part)
        for field in dataclasses.fields(rows):
            arrays[f"{part}_{field.name}"] = getattr(rows, field.name)
    with new_folder(folder) as temporary:
        files = {}
        for name, array in arrays.items():
            with (temporary / f"{name}.npy").open("wb") as file:
                writer = _Hashed(file)
                np.save(writer, array, allow_pickle=False)
                files[name] = {"bytes": file.tell(), "sha256": writer.digest.hexdigest()}
        described = {
            "format": _FORMAT,
            "name": parts.name,
            "source": dataclasses.asdict(parts.source),
            "rating_range": parts.rating_range,
            "dropped": parts.dropped,
            "time_ranges": parts.time_ranges,
            "files": files,
            "titles": parts.titles,
        }
        write_json(temporary / "parts.json", sealed(described))


def load_rating_parts(folder: Path, check: bool = True) -> RatingParts:
    """What `save_rating_parts` wrote, its arrays memory-mapped and read-only.

    Args:
        check: read every file once to compare its checksum.

    Raises InputError where the folder is missing, of another kind, cut short or changed.
    """
    described = _read_description(folder)
    arrays = {}
    try:
        for name, written in described["files"].items():
            arrays[name] = _load_array(folder / f"{name}.npy", written, check)
        rows = {
            part: RatingRows(
                *(arrays[f"{part}_{field.name}"] for field in dataclasses.fields(RatingRows))
            )
            for part in PARTS
        }
        parts = RatingParts(
            name=described["name"],
            source=Source(**described["source"]),
            users=arrays["users"],
            items=arrays["items"],
            titles=described["titles"],
            rating_range=tuple(described["rating_range"]),
            dropped=described["dropped"],
            time_ranges={key: tuple(days) for key, days in described["time_ranges"].items()},
            **rows,
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(
            f"{folder / 'parts.json'} lacks {error} or has it in a wrong form; write the folder anew."
        ) from error
    check_seal(folder / "parts.json", described)
    return parts


class _Hashed:
    """Writes to a file and hashes what it writes; `np.save` then keeps the system's own error."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.digest = file, hashlib.sha256()

    def write(self, block: bytes) -> int:
        self.digest.update(block)
        return self.file.write(block)


def _read_description(folder: Path) -> dict:
    path = folder / "parts.json"
    if not path.is_file():
        raise InputError(
            f"{folder} holds no ratings by part (it lacks parts.json); give a folder that "
            f"python -m jrec.data.netflix wrote, such as OUT/3m."
        )
    described = read_json(path)
    if not isinstance(described, dict) or described.get("format") != _FORMAT:
        raise InputError(f"{path} does not say {_FORMAT!r}; write the folder anew.")
    return described


def _load_array(path: Path, written: dict, check: bool) -> np.ndarray:
    if not path.is_file():
        raise InputError(f"{path} is missing; write the folder anew.")
    size = path.stat().st_size
    if size != written["bytes"]:
        raise InputError(
            f"{path} has {size} bytes but was written with {written['bytes']}; write the folder anew."
        )
    if check:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != written["sha256"]:
            raise InputError(f"{path} has changed since it was written; write the folder anew.")
    return np.load(path, mmap_mode="r", allow_pickle=False)


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
