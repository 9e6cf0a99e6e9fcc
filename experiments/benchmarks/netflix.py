"""The Netflix converter on made archives: seconds and peak memory, by size and form.

    python -m experiments.benchmarks.netflix --ratings 1000000 10000000
    python -m experiments.benchmarks.netflix --ratings 100480507 --forms archive folder

Makes seeded data in the official form under a temporary folder (2.1 GB for 100,480,507 ratings as
files, 0.8 GB more as archive, 0.6 GB converted), then converts it in a fresh process. There is no peer;
the source document says 1 to 2 hours. The target is 60 s and 6 GB on 2 cores for the full size. CPU
seconds are all threads' together; load is the machine's own when the last run ended.
"""

import io
import os
import statistics
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

from experiments.benchmarks.turns import in_fresh_process, peak_gib
from jrec.data.netflix import FULL_MOVIES, FULL_RATINGS, FULL_USERS, Convert, convert
from jrec.errors import run_command
from jrec.report import markdown_table

_FIRST_DAY, _LAST_DAY = np.datetime64("1999-11-11"), np.datetime64("2005-12-31")


@dataclass
class Netflix:
    """Sizes and forms to make and time."""

    ratings: tuple[int, ...] = (1_000_000,)
    """How many ratings; users and movies shrink with the root, so the matrix stays as full."""
    forms: tuple[Literal["archive", "folder", "combined"], ...] = ("archive", "folder", "combined")
    """The official `tar.gz`, its files unpacked, Kaggle's four `combined_data` files."""
    text: bool = False
    """Write the original's text form too."""
    repeats: int = 1
    """Fresh processes; the median is printed."""
    seed: int = 0
    """Of the made data."""


def made_files(ratings: int, seed: int) -> Iterator[tuple[int, bytes]]:
    """(movie number, content of its file) of made Netflix-form data.

    Popularity of movies and activity of users are log-normal, a user's ratings start at a day of
    their own and grow denser toward the end; no (user, movie) pair repeats.
    """
    shrink = (ratings / FULL_RATINGS) ** 0.5
    users, movies = max(int(FULL_USERS * shrink), 100), max(int(FULL_MOVIES * shrink), 10)
    generator = np.random.default_rng(seed)
    raw = np.sort(generator.choice(int(5.5 * users), users, replace=False)) + 1
    digits = _text_table(raw)
    activity = generator.lognormal(0, 1.1, users)
    start = generator.random(users) ** (1 / 3)
    # A user's share of the tickets is their share of the draws.
    tickets = np.repeat(np.arange(users), np.ceil(activity / activity.mean() * 8).astype(int))
    counts = _movie_counts(generator, movies, users, ratings)
    length = int((_LAST_DAY - _FIRST_DAY).astype(int)) + 1
    dates = np.datetime_as_string(_FIRST_DAY + np.arange(length)).astype("S10")
    date_table = dates.view(np.uint8).reshape(length, 10)
    for movie, count in enumerate(counts.tolist(), start=1):
        user = _distinct_users(generator, tickets, activity, count)
        stars = np.clip(np.rint(generator.normal(generator.normal(3.5, 0.5), 1.1, count)), 1, 5)
        moment = start[user] + (1 - start[user]) * generator.random(count) ** 0.7
        lines = np.zeros((count, 21), np.uint8)  # zero bytes are cut out below
        lines[:, :7] = digits[user]
        lines[:, 7] = lines[:, 9] = ord(",")
        lines[:, 8] = stars.astype(np.uint8) + ord("0")
        lines[:, 10:20] = date_table[np.minimum((moment * length).astype(int), length - 1)]
        lines[:, 20] = ord("\n")
        flat = lines.ravel()
        yield movie, f"{movie}:\n".encode() + flat[flat != 0].tobytes()


def _movie_counts(
    generator: np.random.Generator, movies: int, users: int, ratings: int
) -> np.ndarray:
    """Ratings of each movie: log-normal, at least 3, at most half of the users."""
    popularity = generator.lognormal(0, 1.9, movies)
    most = users // 2
    scale = ratings / popularity.sum()
    for _ in range(50):  # what the ceiling cuts off is spread over the rest
        counts = np.clip(np.rint(popularity * scale), 3, most).astype(int)
        scale *= ratings / counts.sum()
    return counts


def _distinct_users(
    generator: np.random.Generator, tickets: np.ndarray, activity: np.ndarray, count: int
) -> np.ndarray:
    """`count` different users, the active ones more often."""
    if count * 20 > len(activity):  # draws with replacement would mostly repeat
        keys = generator.exponential(1, len(activity)) / activity
        return generator.permutation(np.argpartition(keys, count)[:count])
    user = np.empty(0, int)
    while len(user) < count:
        more = tickets[generator.integers(0, len(tickets), 2 * count + 8)]
        user = np.unique(np.concatenate([user, more]))
    return generator.permutation(user)[:count]


def _text_table(numbers: np.ndarray) -> np.ndarray:
    return numbers.astype("S7").view(np.uint8).reshape(len(numbers), 7)


def write_netflix(folder: Path, ratings: int, form: str, seed: int) -> Path:
    """Writes made data in one form under `folder`; returns what to give the converter."""
    target = folder / ("nf_prize_dataset.tar.gz" if form == "archive" else form)
    files = dict(made_files(ratings, seed))
    titles = "".join(f"{k},{1950 + k % 56},Movie, the {k}th\n" for k in files).encode()
    if form == "combined":
        target.mkdir()
        for movie, content in files.items():
            with (target / f"combined_data_{-(-4 * movie // len(files))}.txt").open("ab") as file:
                file.write(content)
        (target / "movie_titles.csv").write_bytes(titles)
    elif form == "folder":
        (target / "training_set").mkdir(parents=True)
        for movie, content in files.items():
            (target / "training_set" / f"mv_{movie:07d}.txt").write_bytes(content)
        (target / "movie_titles.txt").write_bytes(titles)
    else:
        inner = folder / "training_set.tar"
        with tarfile.open(inner, "w") as archive:
            for movie, content in files.items():
                _add(archive, f"training_set/mv_{movie:07d}.txt", content)
        with tarfile.open(target, "w:gz", compresslevel=6) as archive:
            _add(archive, "download/movie_titles.txt", titles)
            archive.add(inner, "download/training_set.tar")
        inner.unlink()
    return target


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def convert_once(raw: str, text: bool) -> list[float]:
    """Returns seconds of a whole conversion, CPU seconds, and this process's peak memory."""
    with tempfile.TemporaryDirectory(dir=Path(raw).parent) as folder:
        start = time.perf_counter()
        convert(Convert(Path(raw), Path(folder) / "out", text=text))
        return [time.perf_counter() - start, time.process_time(), peak_gib()]


def main(settings: Netflix) -> None:
    rows = []
    for ratings in settings.ratings:
        for form in settings.forms:
            with tempfile.TemporaryDirectory() as folder:
                raw = write_netflix(Path(folder), ratings, form, settings.seed)
                files = [raw] if raw.is_file() else raw.rglob("*.*")
                size = sum(file.stat().st_size for file in files) / 1e6
                runs = [
                    in_fresh_process(convert_once, str(raw), settings.text)
                    for _ in range(settings.repeats)
                ]
            seconds, cpu, peak = (statistics.median(run) for run in zip(*runs, strict=True))
            numbers = [f"{size:,.0f}", f"{seconds:.1f}", f"{cpu:.1f}", f"{peak:.2f}"]
            rows.append([f"{ratings:,}", form, *numbers, f"{os.getloadavg()[0]:.1f}"])
    header = ["ratings", "form", "MB", "seconds", "CPU s", "peak GiB", "load"]
    print(markdown_table(header, rows))


if __name__ == "__main__":
    run_command(lambda: main(tyro.cli(Netflix, description=__doc__)))
