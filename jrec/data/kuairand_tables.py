"""The user and video tables of KuaiRand-Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from jrec.data.clicks import Bag, Categorical, Column, Continuous, take
from jrec.data.csv_columns import TextColumn, read_columns
from jrec.data.ragged import Ragged
from jrec.data.tables import Files
from jrec.data.vocabulary import UNKNOWN, Vocabulary

USERS = "user_features_pure.csv"
VIDEOS = "video_features_basic_pure.csv"

_USER_NUMBERS = ("follow_user_num", "fans_user_num", "friend_user_num", "register_days")
_USER_WORDS = (
    "user_active_degree",
    "is_live_streamer",
    "is_video_author",
    "follow_user_num_range",
    "fans_user_num_range",
    "friend_user_num_range",
    "register_days_range",
    *(f"onehot_feat{k}" for k in range(18)),
)
_VIDEO_WORDS = ("author_id", "video_type", "upload_dt", "upload_type", "music_id", "music_type")
_NO_WORD = ("", "UNKNOWN")


@dataclass(frozen=True)
class Table:
    """Features by id.

    Attributes:
        ids: int64 [rows]. columns: of rows + 1, the last for an id that is not there.
    """

    ids: np.ndarray
    columns: dict[str, Column]
    vocabularies: dict[str, Vocabulary]

    def of(self, ids: np.ndarray) -> dict[str, Column]:
        """The columns for other ids, int64."""
        order = np.argsort(self.ids, kind="stable")
        place = np.minimum(np.searchsorted(self.ids, ids, sorter=order), len(self.ids) - 1)
        row = np.where(self.ids[order[place]] == ids, order[place], len(self.ids))
        return {key: take(column, row) for key, column in self.columns.items()}


def read_users(files: Files) -> Table:
    """Counts and their ranges, coded attributes."""
    table = read_columns(files, USERS, ("user_id", *_USER_NUMBERS, *_USER_WORDS))
    ids = _ids(table["user_id"], "user")
    columns, vocabularies = _words({key: table[key] for key in _USER_WORDS})
    columns |= {key: _numbers(table[key], 1.0) for key in _USER_NUMBERS}
    return Table(ids, columns, vocabularies)


def read_videos(files: Files) -> Table:
    """Author, music, types, upload day, tags and duration in seconds."""
    table = read_columns(files, VIDEOS, ("video_id", "video_duration", "tag", *_VIDEO_WORDS))
    ids = _ids(table["video_id"], "video")
    columns, vocabularies = _words({key: table[key] for key in _VIDEO_WORDS})
    bags = [text.split(",") if text else [""] for text in [*table["tag"].texts, ""]]
    tags = [tag.strip() for bag in bags for tag in bag]
    vocabularies["tag"] = _vocabulary(tags)
    offsets = np.concatenate([[0], np.cumsum([len(bag) for bag in bags])]).astype(np.int64)
    columns["tag"] = Bag(
        Ragged(vocabularies["tag"].encode(np.array(tags, np.str_)), offsets), "tag"
    )
    columns["video_seconds"] = _numbers(table["video_duration"], 0.001)
    return Table(ids, columns, vocabularies)


def _ids(column: TextColumn, what: str) -> np.ndarray:
    ids = column.whole()
    first = np.unique(ids, return_index=True)[1]
    again = np.ones(len(ids), bool)
    again[first] = False
    column.refuse(again, f"a {what} that no earlier line has")
    return ids


def _words(
    columns: Mapping[str, TextColumn],
) -> tuple[dict[str, Column], dict[str, Vocabulary]]:
    vocabularies = {key: _vocabulary(column.texts) for key, column in columns.items()}
    encoded: dict[str, Column] = {
        key: Categorical(
            np.append(vocabularies[key].encode(np.array(column.texts, np.str_)), UNKNOWN), key
        )
        for key, column in columns.items()
    }
    return encoded, vocabularies


def _vocabulary(texts: list[str]) -> Vocabulary:
    return Vocabulary.of(np.array(sorted(set(texts).difference(_NO_WORD)), np.str_))


def _numbers(column: TextColumn, unit: float) -> Continuous:
    values, known = column.numbers()
    return Continuous(np.append(values * np.float32(unit), np.float32(0)), np.append(known, False))
