"""Your own ratings out of a delimited text file."""

import math
from pathlib import Path

import numpy as np

from jrec.data.own_csv import CsvRatings, numbered_ids, own_columns, seconds_of
from jrec.data.ratings import Items, Ratings, build
from jrec.data.vocabulary import Vocabulary
from jrec.errors import InputError


def read_ratings_csv(path: Path, csv: CsvRatings) -> Ratings:
    """A file of ratings as `Ratings` without titles, genres or user attributes.

    Ids stay the texts that stand in the file, blanks around them left off. Of ratings of one user for
    one item the latest is kept; without times, the last line.
    Raises InputError, with file and line, for a missing column, a bad field, or an empty file.
    """
    column, source = own_columns(path, csv, ("user", "item", "rating"))
    stars, known = column["rating"].numbers()
    column["rating"].refuse(~known, "a number")
    low = float(stars.min()) if csv.low is None else csv.low
    high = float(stars.max()) if csv.high is None else csv.high
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError("--csv.low and --csv.high must be numbers.")
    column["rating"].refuse(
        (stars < np.float32(low)) | (stars > np.float32(high)), f"from {low:g} to {high:g}"
    )
    if not low < high:
        raise InputError(
            f"{path}: all ratings are {low:g}, so that there is nothing to predict; give their range "
            f"(--csv.low, --csv.high), or take them as clicks (experiments.candidates --dataset csv)."
        )
    users, user = numbered_ids(column["user"])
    items, item = numbered_ids(column["item"])
    time = seconds_of(column["time"], csv) if csv.time else np.arange(len(user))
    raw = {"user": user, "item": item, "rating": stars, "timestamp": time}
    untitled = Items(np.arange(len(items)), [""] * len(items), [[] for _ in items])
    ratings = build(path.stem, source, raw, None, untitled, (low, high))
    # Both are sorted, so that a number's row is its text's.
    ratings.vocabularies["user"] = Vocabulary(users)
    ratings.vocabularies["item"] = Vocabulary(items)
    return ratings
