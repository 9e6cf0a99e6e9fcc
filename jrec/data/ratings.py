"""Ratings in memory: one form, whatever archive they came from."""

from dataclasses import dataclass, field

import numpy as np

from jrec.data.origin import Source
from jrec.data.ragged import Ragged
from jrec.data.vocabulary import FIRST, Vocabulary
from jrec.errors import InputError


@dataclass(frozen=True)
class Users:
    """The users file: raw ids and one code per attribute (empty where a data set has none)."""

    ids: np.ndarray
    attributes: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Items:
    """The items file: raw ids, titles as printed, genre names."""

    ids: np.ndarray
    titles: list[str]
    genres: list[list[str]]


@dataclass(frozen=True)
class Ratings:
    """One data set: N ratings as typed columns, with what is known of users and items by row.

    Attributes:
        user, item: int32 [N], rows of `vocabularies["user"]` and `["item"]`.
        rating: float32 [N], stars. timestamp: int64 [N], seconds; float64 where the file's times have
            fractions of a second, so that whatever sorts by it keeps their order.
        rating_range: lowest and highest star value of the data set.
        vocabularies: `user`, `item`, one for each user attribute, `genres`, `title`.
        user_features: int32 [users' rows] for each attribute, rows of its vocabulary.
        item_features: Ragged [items' rows] for `genres` and `title`.
        titles: title by item row; rows 0 and 1 have stand-ins.
        repeated: ratings dropped because a later one has the same user and item.
        unknown: ratings whose user or item is in no users or items file (kept, on row 1).
    """

    name: str
    source: Source
    user: np.ndarray
    item: np.ndarray
    rating: np.ndarray
    timestamp: np.ndarray
    rating_range: tuple[float, float]
    vocabularies: dict[str, Vocabulary]
    user_features: dict[str, np.ndarray]
    item_features: dict[str, Ragged]
    titles: list[str]
    repeated: int
    unknown: dict[str, int]

    def __len__(self) -> int:
        return len(self.rating)


# The 1M data set's codes; fixed here so that a file that lacks one group keeps the numbering.
ATTRIBUTE_CODES: dict[str, tuple[int, ...]] = {
    "gender": (0, 1),  # M, F
    "age": (1, 18, 25, 35, 45, 50, 56),  # the youngest age of each group
    "occupation": tuple(range(21)),
}


def build(
    name: str,
    source: Source,
    columns: dict[str, np.ndarray],
    users: Users | None,
    items: Items,
    rating_range: tuple[float, float],
) -> Ratings:
    """Joins raw files into `Ratings`: builds vocabularies, encodes ids, keeps the latest repeat.

    Args:
        columns: raw `user`, `item` (int64), `rating` (float32), `timestamp` (int64 or float64, seconds),
            in file order.
        users: the users file; None where the data set has none (users then come from the ratings).

    Raises InputError where there are no ratings.
    """
    if len(columns["rating"]) == 0:
        raise InputError(f"{source.location} holds no ratings; check that it is the whole archive.")
    kept = _latest_of_each_pair(columns)
    repeated = len(columns["rating"]) - len(kept)
    if repeated:
        columns = {key: column[kept] for key, column in columns.items()}
    words = [title_words(title) for title in items.titles]
    vocabularies = {
        "user": Vocabulary.of(columns["user"] if users is None else users.ids),
        "item": Vocabulary.of(items.ids),
        "genres": Vocabulary.of(np.array([g for row in items.genres for g in row], np.str_)),
        "title": Vocabulary.of(np.array([word for row in words for word in row], np.str_)),
    }
    user_features = {}
    for attribute, codes in (users.attributes if users is not None else {}).items():
        vocabularies[attribute] = Vocabulary(np.array(ATTRIBUTE_CODES[attribute], np.int64))
        # Padding and unknown users have the unknown attribute.
        by_row = np.ones(vocabularies["user"].rows, np.int32)
        by_row[vocabularies["user"].encode(users.ids)] = vocabularies[attribute].encode(codes)
        user_features[attribute] = by_row
    item_row = vocabularies["item"].encode(items.ids)
    titles = ["(padding)", "(unknown item)"] + [""] * (vocabularies["item"].rows - FIRST)
    for row, title in zip(item_row, items.titles, strict=True):
        titles[row] = title
    user, item = (vocabularies[key].encode(columns[key]) for key in ("user", "item"))
    return Ratings(
        name=name,
        source=source,
        user=user,
        item=item,
        rating=columns["rating"],
        timestamp=columns["timestamp"],
        rating_range=rating_range,
        vocabularies=vocabularies,
        user_features=user_features,
        item_features={
            "genres": _by_item_row(item_row, items.genres, vocabularies, "genres"),
            "title": _by_item_row(item_row, words, vocabularies, "title"),
        },
        titles=titles,
        repeated=repeated,
        unknown={"user": int((user < FIRST).sum()), "item": int((item < FIRST).sum())},
    )


def title_words(title: str) -> list[str]:
    """A title's words as the source cuts them: year off, split on blanks, lower case."""
    head, bracket, year = title.rstrip().rpartition("(")
    if bracket and year.endswith(")") and year[:-1].isdecimal():
        title = head
    return title.lower().split()


def _by_item_row(
    item_row: np.ndarray, values: list[list[str]], vocabularies: dict[str, Vocabulary], name: str
) -> Ragged:
    by_row: list[list[str]] = [[] for _ in range(vocabularies["item"].rows)]
    for row, value in zip(item_row, values, strict=True):
        by_row[row] = value
    lengths = Ragged.from_lists([[0] * len(row) for row in by_row])
    flat = np.array([value for row in by_row for value in row], np.str_)
    return Ragged(vocabularies[name].encode(flat), lengths.offsets)


def _latest_of_each_pair(columns: dict[str, np.ndarray]) -> np.ndarray:
    """Positions of the ratings to keep, in file order; of equal times the later line stays."""
    user, item = columns["user"], columns["item"]
    # Ids may be huge: their ranks make a pair's number that cannot overflow.
    if max(int(user.max()), int(item.max())) >= 2**31:
        user, item = (np.unique(ids, return_inverse=True)[1] for ids in (user, item))
    pair = user * (int(item.max()) + 1) + item
    ordered = np.sort(pair)
    repeats = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(repeats) == 0:
        return np.arange(len(pair))
    # Only the pairs that repeat are sorted by time, which is dear.
    again = np.flatnonzero(np.isin(pair, repeats))
    order = again[np.lexsort((again, columns["timestamp"][again], pair[again]))]
    earlier = order[:-1][pair[order][1:] == pair[order][:-1]]
    kept = np.ones(len(pair), bool)
    kept[earlier] = False
    return np.flatnonzero(kept)
