"""Shows what a data set holds: `python -m jrec.data --dataset ml-100k [--data-dir PATH] [--user ID --item ID]`."""

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
from jrec.data.raw_ids import places_of
from jrec.data.sources import DATASETS, load_ratings
from jrec.data.synthetic import SyntheticSize
from jrec.data.user_labels import user_labels
from jrec.data.vocabulary import FIRST
from jrec.errors import InputError, run_command


@dataclass
class Show:
    """Counts of a data set, one user, one item and one example."""

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
    user: str | None = None
    """Id of the user to show; left out, a user who rated --item, or the first one of the ratings."""
    item: str | None = None
    """Id of the item to show; left out, an item that --user rated."""


def describe_user(ratings: Ratings, row: int) -> str:
    """One line on a user: id and attributes in words."""
    labels = [f"{name} {label}" for name, label in user_labels(ratings, row).items()]
    return ", ".join([f"id {ratings.vocabularies['user'].decode(row)}", *labels])


def describe_item(ratings: Ratings, row: int) -> str:
    """One line on an item: id, title, genres."""
    genres = ratings.vocabularies["genres"].decode(ratings.item_features["genres"][row])
    item = ratings.vocabularies["item"].decode(row)
    return f"id {item}, {ratings.titles[row]!r}, {', '.join(genres) or 'no genres'}"


def chosen_pair(
    ratings: Ratings, user: str | None, item: str | None
) -> tuple[int | None, int | None, int | None]:
    """The rows of a user and an item to show, and the position of their rating; None where there is none.

    Args:
        user, item: raw ids. One that is left out is taken from the first rating of the other.

    Raises InputError for an id that the data set does not hold.
    """
    fits = (ratings.user >= FIRST) & (ratings.item >= FIRST)
    rows: dict[str, int | None] = {"user": None, "item": None}
    for name, identity, column in (("user", user, ratings.user), ("item", item, ratings.item)):
        if identity is None:
            continue
        row = int(places_of(ratings.vocabularies[name], [identity])[0]) + FIRST
        if row < FIRST:
            ids = ratings.vocabularies[name].values
            flag = "user" if name == "user" else "item"
            raise InputError(
                f"--{flag} {identity[:60]} is no {name} of {ratings.name}; it has {len(ids):,} from {ids[0]} "
                f"to {ids[-1]}."
            )
        rows[name] = row
        fits &= column == row
    found = np.flatnonzero(fits)
    if len(found) == 0:
        return rows["user"], rows["item"], None
    return int(ratings.user[found[0]]), int(ratings.item[found[0]]), int(found[0])


def show(
    ratings: Ratings, console: Console, user_id: str | None = None, item_id: str | None = None
) -> None:
    """Prints the whole description, with the user and the item of these raw ids.

    Raises InputError for an id that the data set does not hold.
    """
    user, item, rating = chosen_pair(ratings, user_id, item_id)
    source = ratings.source
    console.print(f"{ratings.name} from {source.kind}: {source.location}", soft_wrap=True)
    for extra in filter(None, (source.checksum, source.note)):
        console.print(f"  {extra}", soft_wrap=True)
    table = Table("what", "count")
    table.add_row("ratings", f"{len(ratings):,}")
    table.add_row("users (rated any)", _known(ratings, "user"))
    table.add_row("items (rated)", _known(ratings, "item"))
    table.add_row("genres", f"{len(ratings.vocabularies['genres'].values):,}")
    table.add_row("title words", f"{len(ratings.vocabularies['title'].values):,}")
    table.add_row("longest title, words", f"{ratings.item_features['title'].lengths.max()}")
    table.add_row("repeated (user, item) dropped", f"{ratings.repeated:,}")
    table.add_row(
        "ratings of unknown users / items",
        f"{ratings.unknown['user']:,} / {ratings.unknown['item']:,}",
    )
    stars, counts = np.unique(ratings.rating, return_counts=True)
    shown = [f"{s:g}: {c:,}" for s, c in zip(stars, counts, strict=True)]
    table.add_row(
        "stars" if ratings.source.in_stars else "ratings",
        ", ".join(shown if len(shown) <= 12 else [*shown[:6], "…", *shown[-5:]]),
    )
    days = ratings.timestamp[[ratings.timestamp.argmin(), ratings.timestamp.argmax()]]
    table.add_row(
        "first and last day", " to ".join(str(np.datetime64(int(d), "s"))[:10] for d in days)
    )
    console.print(table)
    if user is not None:
        console.print(f"a user    : {describe_user(ratings, user)}", soft_wrap=True)
    if item is not None:
        console.print(f"an item   : {describe_item(ratings, item)}", soft_wrap=True)
    if rating is None:
        console.print("an example: the data set has no such rating", soft_wrap=True)
        return
    words, stars = ratings.item_features["title"][item], ratings.rating[rating]
    console.print(
        f"an example: user row {user}, item row {item}, "
        f"genre rows {ratings.item_features['genres'][item].tolist()}, "
        f"title rows {words.tolist()}, "
        + (
            f"{stars:g} stars, target {2 * stars - 5:g}"
            if ratings.source.in_stars
            else f"rating {stars:g}"
        ),
        soft_wrap=True,
    )


def _known(ratings: Ratings, name: str) -> str:
    rows = ratings.user if name == "user" else ratings.item
    rated = int(np.count_nonzero(np.bincount(rows)[2:]))
    return f"{len(ratings.vocabularies[name].values):,} ({rated:,})"


def main() -> None:
    settings = parse_command((Show,), __doc__)
    ratings = load_ratings(
        settings.dataset, settings.data_dir, settings.synthetic, settings.seed, settings.csv
    )
    show(ratings, plain_console(), settings.user, settings.item)


if __name__ == "__main__":
    run_command(main)
