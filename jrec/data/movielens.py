"""The MovieLens layouts: 100K, 1M, 10M, the later CSV releases, and RecBole's copy of 100K."""

import csv
import re

import numpy as np

from jrec.data.origin import Source
from jrec.data.ratings import Items, Ratings, Users, build
from jrec.data.tables import Files, RatingColumns, read_ratings, whole_number
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
    users = _UserRows(files, "u.user")
    for number, line in files.lines("u.user", "latin-1"):
        fields = _split(files, "u.user", number, line, "|", 5)
        users.add_from_words(number, fields[0], fields[1], fields[2], fields[3])
    genre_of = {}
    for number, line in files.lines("u.genre", "latin-1"):
        fields = _split(files, "u.genre", number, line, "|", 2)
        place = whole_number(
            fields[1], lambda n=number: _where(files, "u.genre", n), "genre number"
        )
        if place != len(genre_of):
            raise InputError(
                f"{_where(files, 'u.genre', number)}: genre number is {place} but should be "
                f"{len(genre_of)}; number the genres from 0 on."
            )
        genre_of[place] = fields[0]
    films = _FilmRows(files, "u.item")
    for number, line in files.lines("u.item", "latin-1"):
        fields = _split(files, "u.item", number, line, "|", 5 + len(genre_of))
        if not set(fields[5:]) <= {"0", "1"}:
            raise InputError(f"{_where(files, 'u.item', number)}: genre flags must be 0 or 1.")
        flags = [genre_of[k] for k, flag in enumerate(fields[5:]) if flag == "1"]
        films.add(number, fields[0], fields[1], flags)
    return users.done(), films.done()


def _read_recbole(files: Files) -> tuple[Users, Items]:
    users = _UserRows(files, "ml-100k.user")
    for number, line in files.lines("ml-100k.user", "utf-8"):
        fields = _split(files, "ml-100k.user", number, line, "\t", 5)
        if number == 1 and not fields[0].startswith("user_id:"):
            raise InputError(f"{_where(files, 'ml-100k.user', 1)}: the header is missing.")
        if number > 1:
            users.add_from_words(number, fields[0], fields[1], fields[2], fields[3])
    films = _FilmRows(files, "ml-100k.item")
    for number, line in files.lines("ml-100k.item", "utf-8"):
        film, title, year, genres = _split(files, "ml-100k.item", number, line, "\t", 4)
        if number == 1 and not film.startswith("item_id:"):
            raise InputError(f"{_where(files, 'ml-100k.item', 1)}: the header is missing.")
        if number > 1:
            # The copy keeps the year in a column of its own; the official title ends with it.
            films.add(
                number, film, f"{title} ({year})" if year.isdecimal() else title, genres.split(" ")
            )
    return users.done(), films.done()


def _read_1m(files: Files) -> tuple[Users, Items]:
    users = _UserRows(files, "users.dat")
    for number, line in files.lines("users.dat", "latin-1"):
        user, gender, age, occupation, _ = _split(files, "users.dat", number, line, "::", 5)
        users.add(number, user, age, gender, occupation)
    return users.done(), _read_dat_films(files, "latin-1")


def _read_10m(files: Files) -> tuple[None, Items]:
    return None, _read_dat_films(files, "utf-8")


def _read_dat_films(files: Files, encoding: str) -> Items:
    films = _FilmRows(files, "movies.dat")
    for number, line in files.lines("movies.dat", encoding):
        film, title, genres = _split(files, "movies.dat", number, line, "::", 3)
        films.add(number, film, title, genres.split("|"))
    return films.done()


def _read_csv(files: Files) -> tuple[None, Items]:
    films = _FilmRows(files, "movies.csv")
    for number, line in files.lines("movies.csv", "utf-8"):
        try:
            fields = next(csv.reader([line]))
        except csv.Error as error:
            raise InputError(
                f"{_where(files, 'movies.csv', number)}: {error}; is a quote missing?"
            ) from error
        if number == 1:
            if fields != ["movieId", "title", "genres"]:
                raise InputError(
                    f"{_where(files, 'movies.csv', 1)}: the header should be movieId,title,genres."
                )
            continue
        if len(fields) != 3:
            raise InputError(
                f"{_where(files, 'movies.csv', number)}: {len(fields)} fields where there should "
                f"be 3; quote a title that holds a comma."
            )
        films.add(number, fields[0], fields[1], fields[2].split("|"))
    return None, films.done()


_READERS = {
    "100k": _read_100k,
    "recbole": _read_recbole,
    "1m": _read_1m,
    "10m": _read_10m,
    "csv": _read_csv,
}


class _UserRows:
    """Collects users line by line, refusing bad fields and ids that come twice."""

    def __init__(self, files: Files, name: str) -> None:
        self.files, self.name = files, name
        self.rows: dict[int, tuple[int, int, int]] = {}

    def add(self, number: int, user: str, age: str, gender: str, occupation: str) -> None:
        def where() -> str:
            return _where(self.files, self.name, number)

        years = whole_number(age, where, "age")
        if years not in _AGE_GROUPS:
            raise InputError(f"{where()}: age is {years}; it should be one of {_AGE_GROUPS}.")
        job = whole_number(occupation, where, "occupation")
        if job > 20:
            raise InputError(f"{where()}: occupation is {job}; it should be from 0 to 20.")
        self._keep(where(), user, gender, years, job)

    def add_from_words(
        self, number: int, user: str, age: str, gender: str, occupation: str
    ) -> None:
        def where() -> str:
            return _where(self.files, self.name, number)

        years = whole_number(age, where, "age")
        job = occupation_number(occupation, years)
        if job is None:
            raise InputError(
                f"{where()}: occupation is {occupation!r}; it should be one of "
                f"{', '.join(OCCUPATIONS)}."
            )
        self._keep(where(), user, gender, age_group(years), job)

    def _keep(self, where: str, user: str, gender: str, age: int, occupation: int) -> None:
        if gender not in ("M", "F"):
            raise InputError(f"{where}: gender is {gender!r}; it should be M or F.")
        identity = whole_number(user, lambda: where, "user id")
        if identity in self.rows:
            raise InputError(f"{where}: user {identity} comes twice; keep one of the lines.")
        self.rows[identity] = (int(gender == "F"), age, occupation)

    def done(self) -> Users:
        if not self.rows:
            raise InputError(f"{self.files.place(self.name)} is empty; fetch the data set again.")
        columns = np.array(list(self.rows.values()), np.int64).T
        attributes = dict(zip(("gender", "age", "occupation"), columns, strict=True))
        return Users(np.array(list(self.rows), np.int64), attributes)


class _FilmRows:
    """Collects films line by line, refusing bad ids and ids that come twice."""

    def __init__(self, files: Files, name: str) -> None:
        self.files, self.name = files, name
        self.rows: dict[int, tuple[str, list[str]]] = {}

    def add(self, number: int, film: str, title: str, genres: list[str]) -> None:
        def where() -> str:
            return _where(self.files, self.name, number)

        identity = whole_number(film, where, "film id")
        if identity in self.rows:
            raise InputError(f"{where()}: film {identity} comes twice; keep one of the lines.")
        if not title.strip():
            raise InputError(f"{where()}: the film has no title; write one.")
        kept = sorted(genre for genre in genres if genre not in _NO_GENRE)
        self.rows[identity] = (re.sub(r"\s+", " ", title).strip(), kept)

    def done(self) -> Items:
        if not self.rows:
            raise InputError(f"{self.files.place(self.name)} is empty; fetch the data set again.")
        titles, genres = zip(*self.rows.values(), strict=True)
        return Items(np.array(list(self.rows), np.int64), list(titles), list(genres))


def _where(files: Files, name: str, number: int) -> str:
    return f"{files.place(name)}, line {number}"


def _split(
    files: Files, name: str, number: int, line: str, separator: str, count: int
) -> list[str]:
    fields = line.split(separator)
    if len(fields) != count:
        raise InputError(
            f"{_where(files, name, number)}: {len(fields)} fields between {separator!r} where there "
            f"should be {count}; mend the line or fetch the data set again."
        )
    return fields
