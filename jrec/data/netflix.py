"""The Netflix Prize data to ratings by user, split by date as the deep autoencoder's paper does.

    python -m jrec.data.netflix nf_prize_dataset.tar.gz OUT

RAW is the official archive, a folder of `mv_*.txt` or of Kaggle's `combined_data_*.txt`, or one tar or
`combined_data` file. Writes OUT/3m, OUT/6m, OUT/1y and OUT/full, which
`jrec.data.rating_parts.load_rating_parts` reads, and prints the table of the source document. All of
OUT is written, or nothing.

A last line without a line end counts if it is a whole rating, and is refused if it is cut. A text that
is cut between two lines reads like a whole one: only the comparison with the known sizes tells.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.progress import Progress

from jrec.command_line import parse_command
from jrec.console import plain_console
from jrec.data.netflix_files import find_raw
from jrec.data.netflix_table import read_table, window_split
from jrec.data.parts_table import count_ratings, parts_table
from jrec.data.rating_parts import RatingParts, save_rating_parts
from jrec.data.rating_text import write_original_text
from jrec.errors import InputError, run_command
from jrec.files import new_folder

FULL_RATINGS, FULL_USERS, FULL_MOVIES = 100_480_507, 480_189, 17_770

# Ratings, users and items of train, then of valid and test together (the source document's table).
KNOWN_SIZES = {
    "3m": ((13_675_402, 311_315, 17_736), (2_082_559, 160_906, 17_261)),
    "6m": ((29_179_009, 390_795, 17_757), (2_175_535, 169_541, 17_290)),
    "1y": ((41_451_832, 345_855, 16_907), (3_888_684, 197_951, 16_506)),
    "full": ((98_074_901, 477_412, 17_768), (2_250_481, 173_482, 17_305)),
}
_ORIGINAL_NAMES = {"3m": "n3m", "6m": "n6m", "1y": "n1y", "full": "nf"}


@dataclass
class Convert:
    """Netflix Prize data to ratings by user, split by date."""

    raw: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RAW")]
    """The archive, folder or file that holds the ratings."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """The folder to write; must not exist, or be empty."""
    splits: tuple[Literal["3m", "6m", "1y", "full"], ...] = ("3m", "6m", "1y", "full")
    """Which date splits to write."""
    text: bool = False
    """Also write text as the original program does: OUT/N3M_TRAIN/n3m.train.txt and so on."""
    seed: int = 0
    """Of the coin that sends each held-out rating to valid or test."""


def convert(settings: Convert) -> tuple[list[RatingParts], list[str]]:
    """Does what the command line does, but for the printing.

    Returns the splits and, a sentence each, what a reader of results should know.
    Raises InputError where `out` holds anything already, the input has none of the known forms, a
    line is not as it should be, or a split has nothing to train on; nothing is left behind then.
    """
    if settings.seed < 0:
        raise InputError(f"--seed must be 0 or more, but is {settings.seed}.")
    if not settings.splits or len(set(settings.splits)) < len(settings.splits):
        raise InputError("--splits must name each split once; leave it out for all four.")
    console = plain_console(stderr=True)
    done = []
    with (
        new_folder(settings.out) as folder,
        Progress(console=console, transient=True, disable=not console.is_terminal) as bar,
    ):
        raw = find_raw(settings.raw)
        task = bar.add_task("reading", total=raw.size)
        table = read_table(raw, settings.seed, lambda size: bar.advance(task, size))
        whole = (len(table.day), len(table.users), len(table.movies))
        if whole != (FULL_RATINGS, FULL_USERS, FULL_MOVIES):
            table = table.noted("not the whole Netflix Prize data")
        bar.update(task, total=len(settings.splits), completed=0)
        for name in settings.splits:
            bar.update(task, description=f"writing {name}")
            parts = window_split(table, f"netflix-{name}")
            save_rating_parts(folder / name, parts)
            if settings.text:
                write_original_text(folder, _ORIGINAL_NAMES[name], parts)
            done.append(parts)
            bar.advance(task)
    return done, [*_size_notes(whole, dict(zip(settings.splits, done, strict=True)))]


def _size_notes(whole: tuple[int, int, int], splits: dict[str, RatingParts]) -> list[str]:
    wanted = (FULL_RATINGS, FULL_USERS, FULL_MOVIES)
    if whole != wanted:
        return [
            f"This is not the whole Netflix Prize data: {_sizes(whole)} where it has "
            f"{_sizes(wanted)}; published figures are for the whole."
        ]
    notes = []
    for name, parts in splits.items():
        for label, part, known in zip(
            ("train", "valid + test"),
            (("train",), ("valid", "test")),
            KNOWN_SIZES[name],
            strict=True,
        ):
            sizes = count_ratings(parts, part)
            if sizes != known:
                notes.append(
                    f"The {label} part of {name} has {_sizes(sizes)} where the source's table has "
                    f"{_sizes(known)}."
                )
    return notes


def _sizes(sizes: tuple[int, int, int]) -> str:
    return "{:,} ratings, {:,} users, {:,} movies".format(*sizes)


def main() -> None:
    settings = parse_command((Convert,), __doc__)
    splits, notes = convert(settings)
    plain_console().print(parts_table(splits))
    print(f"Written to {settings.out}; checksum of what was read: {splits[0].source.checksum}")
    if splits[0].titles is None:
        notes.append("No movie_titles.txt was found; movies have no titles.")
    for note in notes:
        plain_console(stderr=True).print(f"warning: {note}", soft_wrap=True)


if __name__ == "__main__":
    run_command(main)
