"""All of the Netflix ratings in memory, day after day, and the date splits cut out of them."""

import dataclasses
import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from jrec.data.date_splits import NETFLIX_WINDOWS, goes_to_test
from jrec.data.netflix_files import RawFiles, TitleText, read_raw
from jrec.data.netflix_lines import LARGEST_ID, Columns, FilmRun, Lines, parse_lines, parse_titles
from jrec.data.rating_parts import PARTS, RatingParts, RatingRows, keep_trained
from jrec.data.ratings import Source
from jrec.errors import InputError

_BLOCK = 1 << 20  # bytes parsed at a time: the columns of a block stay in the processor's cache


@dataclass(frozen=True)
class DayTable:
    """n ratings, day after day; within a day by film, within a film in file order.

    Attributes:
        users, films: raw ids, sorted.
        titles: by film row; None without a titles file.
        user: int32 [n], rows of `users`.
        film_stars: int32 [n], 8 times the row of `films`, plus the rating.
        offsets: int64 [D + 1], where each day begins.
        first_day: the first of the D days, in days since 1970-01-01.
    """

    source: Source
    users: np.ndarray
    films: np.ndarray
    titles: list[str] | None
    user: np.ndarray
    film_stars: np.ndarray
    offsets: np.ndarray
    first_day: int

    def noted(self, note: str) -> "DayTable":
        """The same with a note on its source."""
        return dataclasses.replace(self, source=dataclasses.replace(self.source, note=note))


def read_table(raw: RawFiles, advance: Callable[[int], Any]) -> DayTable:
    """Reads everything.

    Args:
        advance: is called with the number of bytes read, from time to time.

    Raises InputError as `read_raw` and `parse_lines` do, and where a movie comes twice, a user rates a
    movie twice, or there are no ratings.
    """
    digest = hashlib.sha256()
    title_texts: list[TitleText] = []
    blocks = list(_parsed(_blocks(read_raw(raw, advance, digest), title_texts)))
    if sum(len(block.user) for block in blocks) == 0:
        raise InputError(f"{raw.path} holds no ratings; check that it is the whole data set.")
    titles = parse_titles(title_texts[0].place, title_texts[0].content) if title_texts else None
    users = _users(blocks)
    films, film_offsets, user_stars, day = _by_film(blocks, users)
    first_day, last_day = int(day.min()), int(day.max())
    day -= first_day
    # A stable counting sort: rows of films, columns of days, turned over.
    shape = (len(films), last_day - first_day + 1)
    by_day = csr_array((user_stars, day, film_offsets), shape=shape).tocsc()
    del user_stars, day
    film_stars, user_stars = by_day.indices, by_day.data
    film_stars <<= 3
    film_stars |= user_stars & 7
    user_stars >>= 3
    note = "" if raw.kind == "archive" else "the sum of its ratings files, one after the other"
    return DayTable(
        source=Source(raw.kind, str(raw.path), f"sha256:{digest.hexdigest()}", note),
        users=users,
        films=films,
        titles=None if titles is None else [titles.get(k, f"film {k}") for k in films.tolist()],
        user=user_stars,
        film_stars=film_stars,
        offsets=by_day.indptr.astype(np.int64),
        first_day=first_day,
    )


def window_split(table: DayTable, name: str, seed: int) -> RatingParts:
    """One of `NETFLIX_WINDOWS` as ratings by user; the same as `split_ratings` gives.

    Raises InputError where the window has nothing to train on.
    """
    first, last, held_first, held_last = NETFLIX_WINDOWS[name].days()
    train = _days(table, first, last)
    held = _days(table, held_first, held_last)
    to_test = goes_to_test(int(held[-1] - held[0]), seed)
    rows, days = {}, {}
    for part, bounds, kept in zip(
        PARTS, (train, held, held), (None, ~to_test, to_test), strict=True
    ):
        begin = int(bounds[0])
        user, film_stars = (
            column[begin : int(bounds[-1])] for column in (table.user, table.film_stars)
        )
        offsets = bounds - begin
        if kept is not None:
            user, film_stars = user[kept], film_stars[kept]
            offsets = np.concatenate([[0], np.cumsum(kept)])[offsets]
        shape = (len(offsets) - 1, len(table.users))
        by_user = csr_array((film_stars, user, offsets), shape=shape).tocsc()
        film, stars = by_user.data >> 3, (by_user.data & 7).astype(np.uint8)
        rows[part] = RatingRows(by_user.indptr.astype(np.int64), film, stars)
        days[part] = by_user.indices
        days[part] += max(first if part == "train" else held_first, table.first_day)
        del by_user
    return keep_trained(
        name, table.source, table.users, table.films, table.titles, (1.0, 5.0), rows, days
    )


def _days(table: DayTable, first: int, last: int) -> np.ndarray:
    """Where each day of a window begins, and the last one ends; at least one day."""
    count = len(table.offsets) - 1
    begin = min(max(first - table.first_day, 0), count)
    end = min(max(last + 1 - table.first_day, begin), count)
    bounds = table.offsets[begin : end + 1]
    return bounds if len(bounds) > 1 else np.repeat(bounds, 2)


def _blocks(pieces: Iterable[Lines | TitleText], titles: list[TitleText]) -> Iterator[list[Lines]]:
    """Pieces in groups of about `_BLOCK` bytes; titles are put aside."""
    block: list[Lines] = []
    size = 0
    for piece in pieces:
        if isinstance(piece, TitleText):
            titles.append(piece)
            continue
        block.append(piece)
        size += len(piece.content)
        if size >= _BLOCK:
            yield block
            block, size = [], 0
    if block:
        yield block


def _parsed(blocks: Iterable[list[Lines]]) -> Iterator[Columns]:
    """Parses in two threads while this one reads and unpacks: NumPy and zlib run side by side."""
    with ThreadPoolExecutor(2) as pool:
        waiting = deque()
        for block in blocks:
            waiting.append(pool.submit(parse_lines, block))
            if len(waiting) > 6:
                yield waiting.popleft().result()
        for future in waiting:
            yield future.result()


def _users(blocks: list[Columns]) -> np.ndarray:
    present = np.zeros(LARGEST_ID + 1, bool)
    for block in blocks:
        present[block.user] = True
    return np.flatnonzero(present)


def _by_film(
    blocks: list[Columns], users: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Raw film ids, sorted; offsets by film; 8 x user row + stars, and the day, int32 by rating."""
    row_of_user = np.zeros(int(users[-1]) + 1, np.int32)
    row_of_user[users] = np.arange(len(users), dtype=np.int32)
    packed = [(row_of_user[block.user] << 3) | block.rating for block in blocks]
    runs_of = _runs_of_films(blocks)
    films = sorted(runs_of)
    counts = [sum(run.count for run, _, _ in runs_of[film]) for film in films]
    offsets = np.concatenate([[0], np.cumsum(counts)])
    user_stars, day = np.empty(offsets[-1], np.int32), np.empty(offsets[-1], np.int32)
    last_seen = np.zeros(len(users), np.int32)
    for film, begin, count in zip(films, offsets.tolist(), counts, strict=False):
        place = begin
        for run, block, start in runs_of[film]:
            stop = start + run.count
            user_stars[place : place + run.count] = packed[block][start:stop]
            day[place : place + run.count] = blocks[block].day[start:stop]
            place += run.count
        rows, order = user_stars[begin:place] >> 3, np.arange(count, dtype=np.int32)
        last_seen[rows] = order
        if (last_seen[rows] != order).any():
            first = int(np.flatnonzero(last_seen[rows] != order)[0])
            _refuse_repeat(
                runs_of[film], film, int(users[rows[first]]), int(last_seen[rows[first]])
            )
    return np.array(films, np.int64), offsets, user_stars, day


_Placed = tuple[FilmRun, int, int]  # with its block and its first rating there


def _runs_of_films(blocks: list[Columns]) -> dict[int, list[_Placed]]:
    runs_of: dict[int, list[_Placed]] = {}
    film = 0
    for number, block in enumerate(blocks):
        start = 0
        for run in block.runs:
            if run.film is not None:
                film = run.film
                if film in runs_of:
                    raise InputError(
                        f"{run.place}, line {run.line - 1}: movie {film} comes a second time; it "
                        f"stands in {runs_of[film][0][0].place} too, so keep one of them."
                    )
                runs_of[film] = []
            runs_of[film].append((run, number, start))
            start += run.count
    return runs_of


def _refuse_repeat(runs: list[_Placed], film: int, user: int, place: int) -> None:
    for run, _, _ in runs:
        if place < run.count:
            raise InputError(
                f"{run.place}, line {run.line + place}: user {user} rates movie {film} a second time; "
                f"keep one of the lines."
            )
        place -= run.count
