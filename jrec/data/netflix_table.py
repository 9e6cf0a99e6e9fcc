"""All of the Netflix ratings in memory, user after user, and the date splits cut out of them."""

import dataclasses
import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from jrec.data.netflix_files import RawFiles, TitleText, read_raw
from jrec.data.netflix_lines import LARGEST_ID, Columns, Lines, MovieRun, parse_lines, parse_titles
from jrec.data.origin import Source
from jrec.data.rating_parts import RatingParts, RatingRows, keep_trained
from jrec.data.splits import NETFLIX_WINDOWS, goes_to_test
from jrec.errors import InputError

_BLOCK = 1 << 20  # bytes parsed at a time: the columns of a block stay in the processor's cache


@dataclass(frozen=True)
class UserTable:
    """n ratings by user; within a user by day, within a day by movie.

    Attributes:
        users, movies: raw ids [N] and [M], sorted.
        titles: by movie row; None without a titles file.
        offsets: int64 [N + 1], where each user begins.
        day: int32 [n], since `first_day`, which counts from 1970-01-01.
        packed: int32 [n], 16 times the row of `movies`, plus 8 where a coin says test, plus stars.
    """

    source: Source
    users: np.ndarray
    movies: np.ndarray
    titles: list[str] | None
    offsets: np.ndarray
    day: np.ndarray
    packed: np.ndarray
    first_day: int

    def noted(self, note: str) -> "UserTable":
        """The same with a note on its source."""
        return dataclasses.replace(self, source=dataclasses.replace(self.source, note=note))


def read_table(raw: RawFiles, seed: int, advance: Callable[[int], Any]) -> UserTable:
    """Reads everything, and throws the coin of each rating that a window of the paper holds out.

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
    movies, offsets, user_stars, day = _by_movie(blocks, users)
    del blocks
    first_day = int(day.min())
    day -= first_day
    # Day by day first, then user by user: both sorts are stable, so a user's ratings are in order.
    offsets, packed, user = _turn(offsets, day, user_stars, int(day.max()) + 1)
    del user_stars, day
    packed <<= 4
    packed |= user & 7
    user >>= 3
    for first, last in {window.days()[2:] for window in NETFLIX_WINDOWS.values()}:
        begin, end = (offsets[_inside(k - first_day, offsets)] for k in (first, last + 1))
        packed[begin:end] |= goes_to_test(int(end - begin), seed).astype(np.int32) << 3
    offsets, day, packed = _turn(offsets, user, packed, len(users))
    note = "" if raw.kind == "archive" else "the sum of its ratings files, one after the other"
    return UserTable(
        source=Source(raw.kind, str(raw.path), f"sha256:{digest.hexdigest()}", note),
        users=users,
        movies=movies,
        titles=None if titles is None else [titles.get(k, f"movie {k}") for k in movies.tolist()],
        offsets=offsets.astype(np.int64),
        day=day,
        packed=packed,
        first_day=first_day,
    )


def window_split(table: UserTable, name: str) -> RatingParts:
    """One of `NETFLIX_WINDOWS` as ratings by user; the same as `split_ratings` gives.

    Raises InputError where the window has nothing to train on.
    """
    first, last, held_first, held_last = (
        day - table.first_day for day in NETFLIX_WINDOWS[name].days()
    )
    held = (table.day >= held_first) & (table.day <= held_last)
    to_test = (table.packed & 8).astype(bool)
    kept = {
        "train": (table.day >= first) & (table.day <= last),
        "valid": held & ~to_test,
        "test": held & to_test,
    }
    rows, days = {}, {}
    for part, mask in kept.items():
        packed = table.packed[mask]
        stars = (packed & 7).astype(np.uint8)
        packed >>= 4
        # Every user has a rating in the table, so no two offsets are equal, as reduceat needs.
        counts = np.add.reduceat(mask, table.offsets[:-1], dtype=np.int32)
        rows[part] = RatingRows(np.concatenate([[0], np.cumsum(counts)]), packed, stars)
        days[part] = table.day[mask]
        days[part] += table.first_day
    return keep_trained(
        name, table.source, table.users, table.movies, table.titles, (1.0, 5.0), rows, days
    )


def _inside(day: int, offsets: np.ndarray) -> int:
    return min(max(day, 0), len(offsets) - 1)


def _turn(
    offsets: np.ndarray, column: np.ndarray, data: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is grouped by row grouped by column, in linear time: a sparse matrix turned over.

    Args:
        offsets: [R + 1] by row. column: int32 [n] below `count`. data: int32 [n].

    Returns:
        offsets [count + 1] by column, the row int32 [n] and the data [n] of each; stable.
    """
    shape = (len(offsets) - 1, count)
    from scipy.sparse import csr_array  # slow to import

    # int32 offsets, or SciPy would make all of its indices int64.
    turned = csr_array((data, column, offsets.astype(np.int32)), shape=shape).tocsc()
    return turned.indptr, turned.indices, turned.data


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


def _by_movie(
    blocks: list[Columns], users: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Raw movie ids, sorted; offsets by movie; 8 x user row + stars, and the day, int32 by rating."""
    row_of_user = np.zeros(int(users[-1]) + 1, np.int32)
    row_of_user[users] = np.arange(len(users), dtype=np.int32)
    packed = [(row_of_user[block.user] << 3) | block.rating for block in blocks]
    runs_of = _runs_of_movies(blocks)
    movies = sorted(runs_of)
    counts = [sum(run.count for run, _, _ in runs_of[movie]) for movie in movies]
    offsets = np.concatenate([[0], np.cumsum(counts)])
    user_stars, day = np.empty(offsets[-1], np.int32), np.empty(offsets[-1], np.int32)
    last_seen = np.zeros(len(users), np.int32)
    for movie, begin, count in zip(movies, offsets.tolist(), counts, strict=False):
        place = begin
        for run, block, start in runs_of[movie]:
            stop = start + run.count
            user_stars[place : place + run.count] = packed[block][start:stop]
            day[place : place + run.count] = blocks[block].day[start:stop]
            place += run.count
        rows, order = user_stars[begin:place] >> 3, np.arange(count, dtype=np.int32)
        last_seen[rows] = order
        if (last_seen[rows] != order).any():
            first = int(np.flatnonzero(last_seen[rows] != order)[0])
            _refuse_repeat(
                runs_of[movie], movie, int(users[rows[first]]), int(last_seen[rows[first]])
            )
    return np.array(movies, np.int64), offsets, user_stars, day


_Placed = tuple[MovieRun, int, int]  # with its block and its first rating there


def _runs_of_movies(blocks: list[Columns]) -> dict[int, list[_Placed]]:
    runs_of: dict[int, list[_Placed]] = {}
    movie = 0
    for number, block in enumerate(blocks):
        start = 0
        for run in block.runs:
            if run.movie is not None:
                movie = run.movie
                if movie in runs_of:
                    raise InputError(
                        f"{run.place}, line {run.line - 1}: movie {movie} comes a second time; it "
                        f"stands in {runs_of[movie][0][0].place} too, so keep one of them."
                    )
                runs_of[movie] = []
            runs_of[movie].append((run, number, start))
            start += run.count
    return runs_of


def _refuse_repeat(runs: list[_Placed], movie: int, user: int, place: int) -> None:
    for run, _, _ in runs:
        if place < run.count:
            raise InputError(
                f"{run.place}, line {run.line + place}: user {user} rates movie {movie} a second time; "
                f"keep one of the lines."
            )
        place -= run.count
