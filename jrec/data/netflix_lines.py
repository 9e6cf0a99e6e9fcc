"""Lines of the Netflix Prize form to typed columns: eight bytes at a time, no loop over lines.

A file is `MOVIE:`, then lines `USER,RATING,YYYY-MM-DD`. Everything after the user has a fixed place
before the end of the line, so three overlapping 8-byte words hold a whole line, and arithmetic on
64-bit integers checks and reads their digits side by side. Only if a check fails is the text read
a second time, line by line, to name the first bad one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from jrec.data.tables import BYTE_ORDER_MARK
from jrec.errors import InputError


@dataclass(frozen=True)
class Lines:
    """Whole lines of one file, each ended by a newline.

    Attributes:
        place: how messages name the file.
        movie: the movie that the file's name says; None for a file of many movies.
        first: number of the first line; above 1 where these lines go on a file begun before.
    """

    place: str
    movie: int | None
    first: int
    content: bytes


@dataclass(frozen=True)
class MovieRun:
    """Ratings of one movie that stand together; `movie` is None where they go on from before."""

    movie: int | None
    place: str
    line: int
    count: int


@dataclass(frozen=True)
class Columns:
    """n ratings in file order: user int32 [n], rating uint8 [n], day int16 [n] since 1970-01-01."""

    runs: list[MovieRun]
    user: np.ndarray
    rating: np.ndarray
    day: np.ndarray


_DIGITS = 7  # of a user or movie number; a file's name has as many
LARGEST_ID = 10**_DIGITS - 1
_FIRST_DAY, _END_DAY = np.datetime64("1970-01-01"), np.datetime64("2050-01-01")
_PAD = 24  # a word may reach back this far from the first newline


def _word(text: bytes) -> np.uint64:
    return np.uint64(int.from_bytes(text, "little"))


_HIGH, _SIX = _word(b"\xf0" * 8), _word(b"\x06" * 8)
_DATE, _DATE_CHECK = _word(b"00-00-00"), _word(b"\xf0\xf0\xff\xf0\xf0\xff\xf0\xf0")
_STARS, _STARS_CHECK = _word(b",0,2000-"), _word(b"\xff\x00\xff\x00\x00\x00\x00\x00")
_19 = ord("1") ^ ord("2") | (ord("9") ^ ord("0")) << 8  # what the pattern's 20 makes of 19
_EIGHT, _PAIRS, _FOURS = _word(b"0" * 8), _word(b"\xff\0" * 4), _word(b"\xff\xff\0\0" * 2)
_THREE = _word(b"\x7f\0\0\x7f\0\0\x7f\0")


def _day_table() -> np.ndarray:
    """int16 by century, year, month and day, seven bits each: the day, -1 where there is none."""
    days = np.arange(_FIRST_DAY, _END_DAY)
    years, months = days.astype("M8[Y]"), days.astype("M8[M]")
    year = years.astype(int) + 1970
    month, day = (months - years).astype(int) + 1, (days - months).astype(int) + 1
    table = np.full(1 << 22, -1, np.int16)
    table[(year < 2000) << 21 | (year % 100) << 14 | month << 7 | day] = days.astype(int)
    return table


_DAYS = _day_table()


def parse_lines(pieces: Sequence[Lines]) -> Columns:
    """The ratings of some files, or parts of them.

    Raises InputError with file, line and reason: a movie line that is missing, comes twice or does
    not fit the file's name; a field too few; a user outside 1..9999999; a rating other than 1 to
    5; no calendar day of 1970 to 2049.
    """
    data = b"".join([bytes(_PAD), *(piece.content for piece in pieces)])
    buffer = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(buffer == ord("\n"))
    starts = np.concatenate([[_PAD], ends[:-1] + 1])
    headers = np.flatnonzero(buffer[ends - 1] == ord(":"))
    runs = _movie_runs(data, pieces, starts, ends, headers)
    starts, ends = (np.delete(places, headers) for places in (starts, ends))
    columns = None if runs is None else _read_fields(data, starts, ends)
    if columns is None:
        raise InputError(_first_fault(pieces))
    return Columns(runs, *columns)


def _read_fields(
    data: bytes, starts: np.ndarray, ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    # Every place of the buffer as the start of a word; only those that are picked are read.
    words = np.ndarray(len(data) - 7, "<u8", data, 0, (1,))
    date = words[ends - 8] ^ _DATE
    stars = words[ends - 13] ^ _STARS
    user = words[ends - 21] ^ _EIGHT
    width = ends - starts - len(",R,YYYY-MM-DD")
    before_user = ((8 - width) << 3).astype(np.uint64)  # bits of the line before; cleared
    user = (user >> before_user) << before_user
    # A byte is a digit if its high half is 0, and still is when 6 is added.
    fault = (date & _DATE_CHECK) | ((date + _SIX) & _HIGH)
    fault |= (user | (user + _SIX)) & _HIGH
    fault |= stars & _STARS_CHECK
    century = (stars >> np.uint64(24)) & np.uint64(0xFFFF)
    old = century == _19
    rating = (stars >> np.uint64(8)).astype(np.uint8)
    # Neighbouring digits become pairs, then fours, then the number.
    user = (user * np.uint64(10) + (user >> np.uint64(8))) & _PAIRS
    user = (user * np.uint64(100) + (user >> np.uint64(16))) & _FOURS
    user = ((user * np.uint64(10000) + (user >> np.uint64(32))) & np.uint64(2**32 - 1)).astype(
        np.int32
    )
    date = (date * np.uint64(10) + (date >> np.uint64(8))) & _THREE
    place = (date << np.uint64(14)) | (date >> np.uint64(17)) | (date >> np.uint64(48))
    place = (place & np.uint64(2**21 - 1)).astype(np.intp) | (old.astype(np.intp) << 21)
    day = _DAYS[place]
    good = (fault == 0) & (width >= 1) & (width <= _DIGITS) & (old | (century == 0))
    good &= (day >= 0) & (rating >= 1) & (rating <= 5) & (user >= 1)
    return (user, rating, day) if good.all() else None


def _movie_runs(
    data: bytes,
    pieces: Sequence[Lines],
    starts: np.ndarray,
    ends: np.ndarray,
    headers: np.ndarray,
) -> list[MovieRun] | None:
    """Which ratings are of which movie; None where a movie line is missing, wrong or bad."""
    runs = []
    offset, lines_before = _PAD, 0
    next_header = 0
    for piece in pieces:
        offset += len(piece.content)
        lines_end = int(np.searchsorted(ends, offset))
        stop = int(np.searchsorted(headers, lines_end))
        places = headers[next_header:stop].tolist()
        if piece.first == 1 and places[:1] != [lines_before]:
            return None
        if piece.movie is not None and len(places) > (piece.first == 1):
            return None
        if piece.first > 1 and places[:1] != [lines_before]:
            count = (places[0] if places else lines_end) - lines_before
            runs.append(MovieRun(None, piece.place, piece.first, count))
        for place, following in pairwise([*places, lines_end]):
            text = data[starts[place] : ends[place] - 1]
            if not _is_number(text) or piece.movie not in (None, int(text)):
                return None
            line = piece.first + place - lines_before + 1
            runs.append(MovieRun(int(text), piece.place, line, following - place - 1))
        lines_before, next_header = lines_end, stop
    return runs


def parse_titles(place: str, content: bytes) -> dict[int, str]:
    """Titles by movie number, with the year in brackets where it is known.

    Lines are `MOVIE,YEAR,TITLE` in latin-1; a title may hold commas, a year may be `NULL`.
    Raises InputError with file, line and reason.
    """
    titles: dict[int, str] = {}
    content = content.removeprefix(BYTE_ORDER_MARK)
    for number, line in enumerate(content.split(b"\n"), start=1):
        text = line.decode("latin-1").strip()
        movie, comma, rest = text.partition(",")
        year, second_comma, title = rest.partition(",")
        if not text:
            continue
        if not (comma and second_comma and title.strip() and _is_number(movie.encode("latin-1"))):
            raise InputError(
                f"{place}, line {number}: the line is {text[:60]!r}; write 'movie,year,title'."
            )
        if int(movie) in titles:
            raise InputError(
                f"{place}, line {number}: movie {movie} comes twice; keep one of the lines."
            )
        titles[int(movie)] = f"{title.strip()} ({year})" if year.isdecimal() else title.strip()
    return titles


def _is_number(text: bytes) -> bool:
    return text.isdigit() and len(text) <= _DIGITS and int(text) > 0


def _first_fault(pieces: Sequence[Lines]) -> str:
    for piece in pieces:
        lines = piece.content.split(b"\n")[:-1]
        for number, line in enumerate(lines, start=piece.first):
            fault = _fault(line, number, piece.movie)
            if fault:
                return f"{piece.place}, line {number}: {fault}"
    return f"{pieces[0].place} could not be read; fetch the data set again."


def _fault(line: bytes, number: int, movie: int | None) -> str | None:
    text = repr(line[:60].decode("latin-1"))
    if number == 1 and not line.endswith(b":"):
        return f"the first line is {text} but should be the movie's number and a colon."
    if line.endswith(b":"):
        if not _is_number(line[:-1]):
            return f"the movie is {text}; it should be a number from 1 to 9999999 and a colon."
        if movie is not None and number > 1:
            return f"a second movie line {text}; a file mv_…txt holds one movie, so cut it there."
        if movie not in (None, int(line[:-1])):
            return f"the movie is {text} but the file's name says {movie}; correct one of them."
        return None
    fields = line.split(b",")
    if len(fields) != 3:
        return f"{len(fields)} fields where there should be 3; write 'user,rating,YYYY-MM-DD'."
    user, rating, date = fields
    shown = [repr(field[:60].decode("latin-1")) for field in fields]
    if not _is_number(user):
        return f"user is {shown[0]}; it should be a whole number from 1 to 9999999."
    if rating not in (b"1", b"2", b"3", b"4", b"5"):
        return f"rating is {shown[1]}; it should be 1, 2, 3, 4 or 5."
    if not _is_date(date):
        return f"date is {shown[2]}; it should be a day YYYY-MM-DD of 1970 to 2049."
    return None


def _is_date(text: bytes) -> bool:
    digits = text[:4] + text[5:7] + text[8:]
    if len(text) != 10 or text[4:5] + text[7:8] != b"--" or not digits.isdigit():
        return False
    try:
        day = np.datetime64(text.decode(), "D")
    except ValueError:
        return False
    return bool(_FIRST_DAY <= day < _END_DAY)
