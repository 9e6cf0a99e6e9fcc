"""The MovieLens layouts: 100K, 1M, 10M, the later CSV releases, and RecBole's copy of 100K."""

import csv
import re
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from jrec.data.origin import Source
from jrec.data.rating_lines import RatingColumns, read_ratings
from jrec.data.ratings import Items, Ratings, Users, build
from jrec.data.tables import Files, whole_number
from jrec.errors import InputError

# Which file tells each layout from the others, and how that file writes a rating.
LAYOUTS: dict[str, tuple[str, RatingColumns]] = {
    "100k": ("u.data", RatingColumns("\t", None, 1, 5)),
    "recbole": (
        "ml-100k.inter",
        RatingColumns("\t", "user_id:token\titem_id:token\trating:float\ttimestamp:float", 1, 5),
    ),
    "1m": ("ratings.dat", RatingColumns("::", None, 1, 5)),
    "10m": ("ratings.dat", RatingColumns("::", None, 0.5, 5)),
    "csv": ("ratings.csv", RatingColumns(",", "userId,movieId,rating,timestamp", 0.5, 5)),
}

DATASET_LAYOUTS: dict[str, tuple[str, ...]] = {
    "ml-100k": ("100k", "recbole"),
    "ml-1m": ("1m",),
    "ml-10m": ("10m",),
    "ml-20m": ("csv",),
    "ml-25m": ("csv",),
    "ml-latest": ("csv",),
    "ml-latest-small": ("csv",),
}

# 100K writes occupations as words; 1M numbers them. Words without a counterpart there become 0.
OCCUPATIONS = {
    "administrator": 3,
    "artist": 2,
    "doctor": 6,
    "educator": 1,
    "engineer": 17,
    "entertainment": 0,
    "executive": 7,
    "healthcare": 6,
    "homemaker": 9,
    "lawyer": 11,
    "librarian": 0,
    "marketing": 14,
    "none": 19,
    "other": 0,
    "programmer": 12,
    "retired": 13,
    "salesman": 14,
    "scientist": 15,
    "student": 4,
    "technician": 17,
    "writer": 20,
}
_SCHOOL_PUPIL = 10  # 1M's "K-12 student": what a 100K student under 18 is
_AGE_GROUPS = (1, 18, 25, 35, 45, 50, 56)
_NO_GENRE = {"unknown", "(no genres listed)", ""}


def read_movielens(name: str, files: Files, source: Source) -> Ratings:
    """A MovieLens data set from its folder or archive.

    Args:
        name: a key of `DATASET_LAYOUTS`.
        files: the folder or archive.
        source: what the run says of where the data came from.

    Raises InputError, with file and line, for a wrong layout, a missing file or a bad line.
    """
    layout = detect_layout(files)
    if layout not in DATASET_LAYOUTS[name]:
        fitting = [key for key, layouts in DATASET_LAYOUTS.items() if layout in layouts]
        raise InputError(
            f"{files.path} holds the layout of {' or '.join(fitting)}, not of {name}; "
            f"set --dataset to match."
        )
    file_name, columns = LAYOUTS[layout]
    users, films = _READERS[layout](files)
    return build(
        name,
        source,
        read_ratings(files, file_name, columns),
        users,
        films,
        (columns.low, columns.high),
    )


def detect_layout(files: Files) -> str:
    """The layout of a folder or archive; raises InputError where it is none of them."""
    for layout, (file_name, _) in LAYOUTS.items():
        # 1M and 10M share a file name; only 1M has a users file.
        if file_name in files.members and (layout != "1m" or "users.dat" in files.members):
            return layout
    wanted = ", ".join(sorted({file_name for file_name, _ in LAYOUTS.values()}))
    raise InputError(f"{files.path} holds no MovieLens data: none of {wanted} is in it.")


def age_group(years: int) -> int:
    """The youngest age of the 1M group that an age in years falls in."""
    return max((start for start in _AGE_GROUPS if start <= years), default=_AGE_GROUPS[0])


def occupation_number(word: str, years: int) -> int | None:
    """The 1M number of a 100K occupation word; None for a word that is not in the list."""
    if word == "student" and years < 18:
        return _SCHOOL_PUPIL
    return OCCUPATIONS.get(word)


def _read_100k(files: Files) -> tuple[Users, Items]:
    users = _users(
        files, "u.user", _fields(files, "u.user", "latin-1", "|", 5), _attributes_in_words
    )
    genres = []
    for where, (genre, number) in _fields(files, "u.genre", "latin-1", "|", 2):
        if (place := whole_number(number, where, "genre number")) != len(genres):
            raise InputError(
                f"{where}: genre number is {place} but should be {len(genres)}; number the genres from 0 on."
            )
        genres.append(genre)

    def films() -> Iterator[_Film]:
        for where, fields in _fields(files, "u.item", "latin-1", "|", 5 + len(genres)):
            if not set(fields[5:]) <= {"0", "1"}:
                raise InputError(f"{where}: genre flags must be 0 or 1.")
            flagged = [genre for genre, flag in zip(genres, fields[5:], strict=True) if flag == "1"]
            yield where, fields[0], fields[1], flagged

    return users, _films(files, "u.item", films())


def _read_recbole(files: Files) -> tuple[Users, Items]:
    def rows(name: str, count: int, header: str) -> Iterator[tuple[str, list[str]]]:
        lines = _fields(files, name, "utf-8", "\t", count)
        for where, fields in lines:
            if not fields[0].startswith(header):
                raise InputError(f"{where}: the header is missing.")
            break
        yield from lines

    def films() -> Iterator[_Film]:
        for where, (film, title, year, genres) in rows("ml-100k.item", 4, "item_id:"):
            # The copy keeps the year in a column of its own; the official title ends with it.
            whole = f"{title} ({year})" if year.isdecimal() else title
            yield where, film, whole, genres.split(" ")

    users = rows("ml-100k.user", 5, "user_id:")
    return (
        _users(files, "ml-100k.user", users, _attributes_in_words),
        _films(files, "ml-100k.item", films()),
    )


def _read_1m(files: Files) -> tuple[Users, Items]:
    def users() -> Iterator[tuple[str, list[str]]]:
        for where, (user, gender, age, *others) in _fields(files, "users.dat", "latin-1", "::", 5):
            yield where, [user, age, gender, *others]

    return _users(files, "users.dat", users(), _attributes), _dat_films(files, "latin-1")


def _read_10m(files: Files) -> tuple[None, Items]:
    return None, _dat_films(files, "utf-8")


def _dat_films(files: Files, encoding: str) -> Items:
    lines = _fields(files, "movies.dat", encoding, "::", 3)
    films = ((where, film, title, genres.split("|")) for where, (film, title, genres) in lines)
    return _films(files, "movies.dat", films)


def _read_csv(files: Files) -> tuple[None, Items]:
    def films() -> Iterator[_Film]:
        for number, line in files.lines("movies.csv", "utf-8"):
            where = f"{files.place('movies.csv')}, line {number}"
            try:
                fields = next(csv.reader([line]))
            except csv.Error as error:
                raise InputError(f"{where}: {error}; is a quote missing?") from error
            if number == 1:
                if fields != ["movieId", "title", "genres"]:
                    raise InputError(f"{where}: the header should be movieId,title,genres.")
                continue
            if len(fields) != 3:
                raise InputError(
                    f"{where}: {len(fields)} fields where there should be 3; quote a title that holds a "
                    f"comma."
                )
            yield where, fields[0], fields[1], fields[2].split("|")

    return None, _films(files, "movies.csv", films())


_READERS = {
    "100k": _read_100k,
    "recbole": _read_recbole,
    "1m": _read_1m,
    "10m": _read_10m,
    "csv": _read_csv,
}

_Film = tuple[str, str, str, list[str]]
"""Where the line stands, id, title, genres."""


def _fields(
    files: Files, name: str, encoding: str, separator: str, count: int
) -> Iterator[tuple[str, list[str]]]:
    """Yields where a line stands, as messages name it, and its fields; refuses another number of them."""
    place = files.place(name)
    for number, line in files.lines(name, encoding):
        fields = line.split(separator)
        if len(fields) != count:
            raise InputError(
                f"{place}, line {number}: {len(fields)} fields between {separator!r} where there "
                f"should be {count}; mend the line or fetch the data set again."
            )
        yield f"{place}, line {number}", fields


def _attributes(where: str, age: str, occupation: str) -> tuple[int, int]:
    years = whole_number(age, where, "age")
    if years not in _AGE_GROUPS:
        raise InputError(f"{where}: age is {years}; it should be one of {_AGE_GROUPS}.")
    job = whole_number(occupation, where, "occupation")
    if job > 20:
        raise InputError(f"{where}: occupation is {job}; it should be from 0 to 20.")
    return years, job


def _attributes_in_words(where: str, age: str, occupation: str) -> tuple[int, int]:
    years = whole_number(age, where, "age")
    job = occupation_number(occupation, years)
    if job is None:
        raise InputError(
            f"{where}: occupation is {occupation!r}; it should be one of {', '.join(OCCUPATIONS)}."
        )
    return age_group(years), job


def _users(
    files: Files,
    name: str,
    lines: Iterable[tuple[str, list[str]]],
    attributes: Callable[[str, str, str], tuple[int, int]],
) -> Users:
    """Users of lines of id, age, gender, occupation; refuses bad fields and ids that come twice."""
    rows: dict[int, tuple[int, int, int]] = {}
    for where, (user, age, gender, occupation, _) in lines:
        group, job = attributes(where, age, occupation)
        if gender not in ("M", "F"):
            raise InputError(f"{where}: gender is {gender!r}; it should be M or F.")
        identity = whole_number(user, where, "user id")
        if identity in rows:
            raise InputError(f"{where}: user {identity} comes twice; keep one of the lines.")
        rows[identity] = int(gender == "F"), group, job
    _refuse_empty(files, name, rows)
    columns = np.array(list(rows.values()), np.int64).T
    named = dict(zip(("gender", "age", "occupation"), columns, strict=True))
    return Users(np.array(list(rows), np.int64), named)


def _films(files: Files, name: str, lines: Iterable[_Film]) -> Items:
    """Films of lines; refuses bad ids, ids that come twice and empty titles."""
    rows: dict[int, tuple[str, list[str]]] = {}
    for where, film, title, genres in lines:
        identity = whole_number(film, where, "film id")
        if identity in rows:
            raise InputError(f"{where}: film {identity} comes twice; keep one of the lines.")
        if not title.strip():
            raise InputError(f"{where}: the film has no title; write one.")
        kept = sorted(genre for genre in genres if genre not in _NO_GENRE)
        rows[identity] = re.sub(r"\s+", " ", title).strip(), kept
    _refuse_empty(files, name, rows)
    titles, genres_of = zip(*rows.values(), strict=True)
    return Items(np.array(list(rows), np.int64), list(titles), list(genres_of))


def _refuse_empty(files: Files, name: str, rows: dict) -> None:
    if not rows:
        raise InputError(f"{files.place(name)} is empty; fetch the data set again.")
