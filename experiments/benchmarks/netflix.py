"""The Netflix converter on made archives: seconds and peak memory, by size and form.

    python -m experiments.benchmarks.netflix --ratings 1000000 10000000
    python -m experiments.benchmarks.netflix --ratings 100480507 --forms archive folder

Makes seeded data in the official form under a temporary folder (2.1 GB for 100,480,507 ratings as
files, 0.8 GB more as archive, 0.6 GB converted), then converts it in a fresh process. There is no peer;
the source document says 1 to 2 hours. The target is 60 s and 6 GB on 2 cores for the full size. CPU
seconds are all threads' together; load is the machine's own when the last run ended.
"""

import io
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

from jrec.data.netflix import FULL_MOVIES, FULL_RATINGS, FULL_USERS, Convert, convert
from jrec.errors import run_command

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
    """Ratings of each movie: log-normal, at least 3, at most half of the users; their sum is exact."""
    popularity = generator.lognormal(0, 1.9, movies)
    most = users // 2
    scale = ratings / popularity.sum()
    for _ in range(50):  # what the ceiling cuts off is spread over the rest
        counts = np.clip(np.rint(popularity * scale), 3, most).astype(int)
        scale *= ratings / counts.sum()
    rest = ratings - int(counts.sum())
    for movie in generator.permutation(movies):
        change = int(np.clip(rest, 3 - counts[movie], most - counts[movie]))
        counts[movie] += change
        rest -= change
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
    if form == "combined":
        target.mkdir()
        movies = 0
        for movie, content in made_files(ratings, seed):
            movies = movie
            part = min(4, 1 + 4 * movie // (int(FULL_MOVIES * (ratings / FULL_RATINGS) ** 0.5) + 1))
            with (target / f"combined_data_{part}.txt").open("ab") as file:
                file.write(content)
        (target / "movie_titles.csv").write_bytes(_titles(movies))
        return target
    if form == "folder":
        (target / "training_set").mkdir(parents=True)
        movies = 0
        for movie, content in made_files(ratings, seed):
            movies = movie
            (target / "training_set" / f"mv_{movie:07d}.txt").write_bytes(content)
        (target / "movie_titles.txt").write_bytes(_titles(movies))
        return target
    inner = folder / "training_set.tar"
    with tarfile.open(inner, "w") as archive:
        movies = 0
        for movie, content in made_files(ratings, seed):
            movies = movie
            _add(archive, f"training_set/mv_{movie:07d}.txt", content)
    with tarfile.open(target, "w:gz", compresslevel=6) as archive:
        _add(archive, "download/movie_titles.txt", _titles(movies))
        archive.add(inner, "download/training_set.tar")
    inner.unlink()
    return target


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def _titles(movies: int) -> bytes:
    return "".join(f"{k},{1950 + k % 56},Movie, the {k}th\n" for k in range(1, movies + 1)).encode()


def convert_once(raw: str, out: str, text: bool) -> None:
    """A whole conversion, timed; prints JSON. Peak memory is the process's own."""
    start = time.perf_counter()
    convert(Convert(Path(raw), Path(out), text=text))
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(json.dumps([seconds, time.process_time(), peak]))


def main(settings: Netflix) -> None:
    print("| ratings | form | MB | seconds | CPU s | peak GiB | load |")
    print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for ratings in settings.ratings:
        for form in settings.forms:
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                raw = write_netflix(folder, ratings, form, settings.seed)
                files = [raw] if raw.is_file() else raw.rglob("*.*")
                size = sum(file.stat().st_size for file in files) / 1e6
                runs = []
                for _ in range(settings.repeats):
                    code = (
                        "from experiments.benchmarks.netflix import convert_once; "
                        f"convert_once({str(raw)!r}, {str(folder / 'out')!r}, {settings.text})"
                    )
                    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=-1)
                    runs.append(json.loads(done.stdout.splitlines()[-1]))
                    shutil.rmtree(folder / "out")
                seconds, cpu, peak = (statistics.median(run) for run in zip(*runs, strict=True))
                load = os.getloadavg()[0]
                cells = f"{size:,.0f} | {seconds:.1f} | {cpu:.1f} | {peak:.2f} | {load:.1f}"
                print(f"| {ratings:,} | {form} | {cells} |", flush=True)


if __name__ == "__main__":
    run_command(lambda: main(tyro.cli(Netflix, description=__doc__)))
