"""Shows what a data set holds: `python -m jrec.data --dataset ml-100k [--data-dir PATH]`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console
from rich.table import Table

from jrec.command_line import parse_command
from jrec.console import plain_console
from jrec.data.own_csv import CsvRatings
from jrec.data.ratings import Ratings
from jrec.data.sources import DATASETS, load_ratings
from jrec.data.synthetic import SyntheticSize
from jrec.errors import run_command


@dataclass
class Show:
    """Counts of a data set, one user, one film and one training example."""

    dataset: Literal[DATASETS] = "ml-100k"  # type: ignore[valid-type]
    """Which data set."""
    data_dir: Path | None = None
    """Folder or archive that holds it; else the cache, else it is fetched."""
    csv: CsvRatings = field(default_factory=CsvRatings)
    """Columns of `--dataset csv`, a file of your own that --data-dir names."""
    synthetic: SyntheticSize = field(default_factory=SyntheticSize)
    """Sizes of `--dataset synthetic`."""
    seed: int = 0
    """Seed of `--dataset synthetic`."""


def describe_user(ratings: Ratings, row: int) -> str:
    """One line on a user: id and attributes, as codes of the 1M data set."""
    parts = [f"id {ratings.vocabularies['user'].decode(row)}"]
    for name, by_row in ratings.user_features.items():
        parts.append(f"{name} {ratings.vocabularies[name].decode(by_row[row])}")
    return ", ".join(parts)


def describe_film(ratings: Ratings, row: int) -> str:
    """One line on a film: id, title, genres."""
    genres = ratings.vocabularies["genres"].decode(ratings.film_features["genres"][row])
    film = ratings.vocabularies["film"].decode(row)
    return f"id {film}, {ratings.titles[row]!r}, {', '.join(genres) or 'no genres'}"


def show(ratings: Ratings, console: Console) -> None:
    """Prints the whole description."""
    source = ratings.source
    console.print(f"{ratings.name} from {source.kind}: {source.location}")
    for extra in filter(None, (source.checksum, source.note)):
        console.print(f"  {extra}")
    table = Table("what", "count")
    table.add_row("ratings", f"{len(ratings):,}")
    table.add_row("users (rated any)", _known(ratings, "user"))
    table.add_row("films (rated)", _known(ratings, "film"))
    table.add_row("genres", f"{len(ratings.vocabularies['genres'].values):,}")
    table.add_row("title words", f"{len(ratings.vocabularies['title'].values):,}")
    table.add_row("longest title, words", f"{ratings.film_features['title'].lengths.max()}")
    table.add_row("repeated (user, film) dropped", f"{ratings.repeated:,}")
    table.add_row(
        "ratings of unknown users / films",
        f"{ratings.unknown['user']:,} / {ratings.unknown['film']:,}",
    )
    stars, counts = np.unique(ratings.rating, return_counts=True)
    shown = [f"{s:g}: {c:,}" for s, c in zip(stars, counts, strict=True)]
    table.add_row("stars", ", ".join(shown if len(shown) <= 12 else [*shown[:6], "…", *shown[-5:]]))
    days = ratings.timestamp[[ratings.timestamp.argmin(), ratings.timestamp.argmax()]]
    table.add_row(
        "first and last day", " to ".join(str(np.datetime64(int(d), "s"))[:10] for d in days)
    )
    console.print(table)
    user, film = int(ratings.user[0]), int(ratings.film[0])
    words = ratings.film_features["title"][film]
    console.print(f"a user    : {describe_user(ratings, user)}")
    console.print(f"a film    : {describe_film(ratings, film)}")
    console.print(
        f"an example: user row {user}, film row {film}, "
        f"genre rows {ratings.film_features['genres'][film].tolist()}, "
        f"title rows {words.tolist()}, {ratings.rating[0]:g} stars, "
        f"target {2 * ratings.rating[0] - 5:g}",
    )


def _known(ratings: Ratings, name: str) -> str:
    rows = ratings.user if name == "user" else ratings.film
    rated = int(np.count_nonzero(np.bincount(rows)[2:]))
    return f"{len(ratings.vocabularies[name].values):,} ({rated:,})"


def main() -> None:
    settings = parse_command((Show,), __doc__)
    ratings = load_ratings(
        settings.dataset, settings.data_dir, settings.synthetic, settings.seed, settings.csv
    )
    show(ratings, plain_console())


if __name__ == "__main__":
    run_command(main)
