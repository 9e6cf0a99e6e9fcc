"""Clicks as a click log (see `jrec.data.click_log`)."""

import gzip
import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np

from jrec.data.click_lines import NULL, PROFILE
from jrec.data.click_maker import make_clicks
from jrec.data.click_truth import ClickSize
from jrec.data.clicks import Bag, Categorical, Clicks, Column
from jrec.data.vocabulary import FIRST
from jrec.errors import InputError
from jrec.files import replacing

_USERS_AT_ONCE = 10_000


def make_click_log(path: Path, size: ClickSize, seed: int) -> None:
    """Writes a synthetic log."""
    write_click_log(make_clicks(size, seed)[0], path)


def write_click_log(clicks: Clicks, path: Path) -> None:
    """Writes one line a user, compressed where the name ends in `.gz`; times are not kept.

    The categorical columns `province`, `city`, `phone` and `category` and the bag `tags` are
    written where there are such, NULL where not. Raises InputError for a value that holds a
    separator of the log.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("wb") as file:
        if path.suffix == ".gz":
            # Without a name and a time in it, equal logs are equal files.
            with gzip.GzipFile("", "wb", 6, file, 0) as packed:
                packed.writelines(_pieces(clicks))
        else:
            file.writelines(_pieces(clicks))


def _pieces(clicks: Clicks) -> Iterator[bytes]:
    tokens = np.array(_tokens(clicks), object)
    user = _names(clicks, "user", "\t\n")[clicks.user_row]
    province, city, phone = (
        _column(clicks, clicks.user_features, key, clicks.users, "\t\n") for key in PROFILE
    )
    for first in range(0, clicks.users, _USERS_AT_ONCE):
        part = slice(first, first + _USERS_AT_ONCE)
        bounds = clicks.offsets[first : first + _USERS_AT_ONCE + 1]
        shown = tokens[clicks.item[bounds[0] : bounds[-1]]].tolist()
        cuts = (bounds - bounds[0]).tolist()
        clicked = [";".join(shown[a:b]) for a, b in pairwise(cuts)]
        columns = [user[part], province[part], city[part], clicked, phone[part]]
        lines = ["\t".join(fields) for fields in zip(*columns, strict=True)]
        yield ("\n".join(lines) + "\n").encode()


def _tokens(clicks: Clicks) -> list[str]:
    """`video:category:tags` by item row."""
    video = _names(clicks, "item", "\t\n;:")
    category = _column(clicks, clicks.item_features, "category", len(video), "\t\n;:")
    bag = clicks.item_features.get("tags")
    tags = [NULL] * len(video)
    if isinstance(bag, Bag):
        names = _names(clicks, bag.vocabulary, "\t\n;:_")[bag.rows.values].tolist()
        cuts = bag.rows.offsets.tolist()
        tags = ["_".join(names[a:b]) or NULL for a, b in pairwise(cuts)]
    return [":".join(parts) for parts in zip(video.tolist(), category, tags, strict=True)]


def _column(
    clicks: Clicks, columns: Mapping[str, Column], key: str, rows: int, separators: str
) -> list[str]:
    column = columns.get(key)
    if not isinstance(column, Categorical):
        return [NULL] * rows
    return _names(clicks, column.vocabulary, separators)[column.rows].tolist()


def _names(clicks: Clicks, vocabulary: str, separators: str) -> np.ndarray:
    """The text of each row; NULL for padding and unknown."""
    values = clicks.vocabularies[vocabulary].values.astype(np.str_)
    for value in values:
        if re.search(f"[{separators}]", value):
            raise InputError(
                f"The value {str(value)!r} of {vocabulary} holds a separator of the click log, which "
                f"has no way to quote it; rename the value."
            )
    return np.concatenate([np.full(FIRST, NULL), values])
