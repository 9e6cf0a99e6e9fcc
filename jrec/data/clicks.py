"""Clicks in memory: one form, whatever log they came from; features are described by the data."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from jrec.data.ragged import Ragged
from jrec.data.ratings import Source
from jrec.data.vocabulary import FIRST, UNKNOWN, Vocabulary
from jrec.errors import InputError


@dataclass(frozen=True)
class Categorical:
    """One value a row.

    Attributes:
        rows: int32 [rows], rows of the named vocabulary.
        vocabulary: its name in `Clicks.vocabularies`; columns may share one.
    """

    rows: np.ndarray
    vocabulary: str

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Bag:
    """Any number of values a row, in no order that matters.

    Attributes:
        rows: Ragged of rows of the named vocabulary.
        vocabulary: its name in `Clicks.vocabularies`; columns may share one.
    """

    rows: Ragged
    vocabulary: str

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Continuous:
    """One number a row.

    Attributes:
        values: float32 [rows], 0 where unknown.
        known: bool [rows].
    """

    values: np.ndarray
    known: np.ndarray

    def __len__(self) -> int:
        return len(self.values)


Column = Categorical | Bag | Continuous


@dataclass(frozen=True)
class Clicks:
    """One data set: n clicks of N users, user by user, each user's in time order.

    Attributes:
        offsets: int64 [N + 1]; user r's clicks are `item[offsets[r]:offsets[r + 1]]`, maybe none.
        item: int32 [n], rows of `vocabularies["item"]`, never padding (0) nor unknown (1).
        timestamp: int64 [n], seconds; the place from the user's first click (0) where not `timed`.
        timed: whether the times are known.
        user_row: int32 [N], rows of `vocabularies["user"]`; 1 for a user that it does not hold.
        vocabularies: `user`, `item` and those that columns name.
        item_counts: int64 [V_item], clicks of each item row (see `click_examples.count_items` for
            those of the training part alone).
        user_features: columns of N rows. item_features: of V_item rows; row 0 (padding) holds
            padding or nothing, row 1 the unknown item's. event_features: of n rows.
        dropped: what was left out and how often, by reason.
        unknown: how many values fell on the unknown row, by vocabulary.
    """

    name: str
    source: Source
    offsets: np.ndarray
    item: np.ndarray
    timestamp: np.ndarray
    timed: bool
    user_row: np.ndarray
    vocabularies: dict[str, Vocabulary]
    item_counts: np.ndarray
    user_features: dict[str, Column] = field(default_factory=dict)
    item_features: dict[str, Column] = field(default_factory=dict)
    event_features: dict[str, Column] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    unknown: dict[str, int] = field(default_factory=dict)

    @property
    def users(self) -> int:
        """N."""
        return len(self.user_row)

    @property
    def user_of_event(self) -> np.ndarray:
        """int64 [n], each click's user, 0 to N - 1."""
        return np.repeat(np.arange(self.users), np.diff(self.offsets))

    def __len__(self) -> int:
        return len(self.item)
