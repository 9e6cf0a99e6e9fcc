"""KuaiRand-Pure (Gao et al., CIKM 2022): a short-video log with watch times, in its own layout."""

import datetime
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from jrec.data.clicks import (
    Categorical,
    Clicks,
    Column,
    Continuous,
    build_clicks,
    with_stand_ins,
)
from jrec.data.csv_columns import read_columns
from jrec.data.kuairand_tables import read_users, read_videos
from jrec.data.origin import Source
from jrec.data.tables import Files
from jrec.data.vocabulary import UNKNOWN, Vocabulary
from jrec.errors import InputError

Watched = Literal["long_view", "is_click", "is_like", "shown"]

LOG = "log_standard_4_22_to_5_08_pure.csv"
EARLIER = "user_sequences_to_4_24.parquet"

_SIGNALS = ("is_click", "long_view", "is_like")
_TIMES = ("time_ms", "play_time_ms", "duration_ms")
_LOG_COLUMNS = ("user_id", "video_id", "hourmin", "tab", *_TIMES, *_SIGNALS)

# Of the earlier log only lists of videos are left; none of them holds all clicks.
_SEQUENCE_OF = {
    "long_view": "long_watch_seq",
    "is_click": "long_watch_seq",
    "is_like": "like_seq",
    "shown": "watch_seq",
}


def read_kuairand(path: Path, watched: Watched = "long_view", earlier: bool = True) -> Clicks:
    """KuaiRand-Pure in memory; the catalogue is every video of its tables, watched or not.

    Args:
        path: its zip archive, or the folder of its tables.
        watched: which rows of the log count as clicks: `long_view` (the default: the one kind of
            which the earlier sequences tell, too), `is_click`, `is_like`, or all that was `shown`.
        earlier: begin each user's clicks with the sequence of the same kind up to 24 April (for
            `is_click` that of long views), at most 50 videos. Of its times only that of the user's
            last row is known: all of it has this time.

    User features: counts and their ranges, coded attributes. Item features: author, music, types,
    upload day, tags, duration. Event features: `play_seconds`, `duration_seconds`, `tab`, `hour`
    and, with `shown`, the three signals as 0 or 1; unknown for the earlier sequences.

    Raises InputError: missing or damaged files, a missing column, the first malformed line, or
    earlier sequences without pyarrow to read them.
    """
    if watched not in _SEQUENCE_OF:
        raise InputError(f"There is no kind {watched!r}; choose from {', '.join(_SEQUENCE_OF)}.")
    files = Files.at(Path(path))
    log = _read_log(files)
    before = _read_earlier(files, _SEQUENCE_OF[watched]) if earlier else _NOTHING_EARLIER
    rows = np.flatnonzero(log[watched] == 1) if watched != "shown" else np.arange(len(log["tab"]))
    # The log's first row of a user may be the sequence's last.
    last = np.array([before.last.get(user, -1) for user in log["user_id"][rows].tolist()], np.int64)
    twice = log["time_ms"][rows] <= last
    events = {key: values[rows[~twice]] for key, values in log.items()}
    user = np.concatenate([before.user, events["user_id"]])
    item = np.concatenate([before.item, events["video_id"]])
    users, videos = read_users(files), read_videos(files)
    vocabularies = {
        "user": Vocabulary.of(np.concatenate([users.ids, log["user_id"], before.user])),
        "item": Vocabulary.of(np.concatenate([videos.ids, log["video_id"], before.item])),
        **users.vocabularies,
        **videos.vocabularies,
        **{key: Vocabulary.of(log[key]) for key in ("tab", "hour")},
    }
    user_row = vocabularies["user"].encode(user)
    present = np.unique(user_row)
    note, dropped = "clicks are all rows", {}
    if watched != "shown":
        note = f"clicks are rows with {watched}"
        dropped = {f"rows without {watched}": len(log["tab"]) - len(rows)}
    if earlier:
        note += "; earlier sequences have the time of their user's last row"
        dropped["rows that the earlier sequences hold, too"] = int(twice.sum())
    return build_clicks(
        name="kuairand-pure",
        source=Source(
            "archive" if files.path.is_file() else "folder",
            str(path),
            files.checksum(None if files.path.is_file() else LOG),
            note,
        ),
        user=np.searchsorted(present, user_row),
        item=vocabularies["item"].encode(item),
        timestamp=np.concatenate([before.time_ms, events["time_ms"]]) / 1000,
        user_row=present,
        vocabularies=vocabularies,
        user_features=users.of(vocabularies["user"].decode(present)),
        item_features={
            key: with_stand_ins(column)
            for key, column in videos.of(vocabularies["item"].values).items()
        },
        event_features=_event_features(events, len(before.user), vocabularies, watched),
        dropped=dropped,
    )


def china_midnight(day: str) -> int:
    """Seconds of a day's first moment where the log was written, of a day like `2022-05-01`."""
    zone = datetime.timezone(datetime.timedelta(hours=8))
    try:
        return int(datetime.datetime.fromisoformat(day).replace(tzinfo=zone).timestamp())
    except ValueError as error:
        raise InputError(f"{day!r} is no day; write it like 2022-05-01.") from error


def _read_log(files: Files) -> dict[str, np.ndarray]:
    """int64 columns in the order of the file."""
    columns = read_columns(files, LOG, _LOG_COLUMNS)
    log = {key: column.whole() for key, column in columns.items()}
    for key in _SIGNALS:
        columns[key].refuse(log[key] > 1, "0 or 1")
    columns["hourmin"].refuse(log["hourmin"] >= 2400, "hours and minutes below 2400")
    log["hour"] = log.pop("hourmin") // 100
    return log


class _Earlier(NamedTuple):
    """Clicks before the log, each user's in time order: int64 [n] columns, raw ids.

    Attributes:
        last: user id -> time of the user's last row of any kind.
    """

    user: np.ndarray
    item: np.ndarray
    time_ms: np.ndarray
    last: dict[int, int]


_NOTHING_EARLIER = _Earlier(*(np.zeros(0, np.int64) for _ in range(3)), {})


def _read_earlier(files: Files, column: str) -> _Earlier:
    content = files.read(EARLIER)
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(
            f"{files.place(EARLIER)} needs pyarrow (pip install 'jrec[parquet]'); or leave the "
            f"earlier sequences out (--no-earlier)."
        ) from error
    wanted = ["user_id", "last_time_ms", column]
    try:
        file = pyarrow.parquet.ParquetFile(io.BytesIO(content))
        missing = [name for name in wanted if name not in file.schema_arrow.names]
        if missing:
            raise InputError(
                f"{files.place(EARLIER)} lacks the column {', '.join(missing)}; is it the original?"
            )
        table = file.read(columns=wanted).combine_chunks()
        lists = table[column].combine_chunks()
        lengths = pyarrow.compute.fill_null(lists.value_lengths(), 0)
        columns = (table["user_id"], table["last_time_ms"], lists.flatten(), lengths)
        user, last, item, lengths = map(_whole, columns)
    except (pyarrow.ArrowException, OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"{files.place(EARLIER)} is damaged or of another form; fetch it again."
        ) from error
    if len(np.unique(user)) < len(user) or min(user.min(initial=0), item.min(initial=0)) < 0:
        raise InputError(f"{files.place(EARLIER)} holds a user twice or an id below 0.")
    last_of = dict(zip(user.tolist(), last.tolist(), strict=True))
    return _Earlier(np.repeat(user, lengths), item, np.repeat(last, lengths), last_of)


def _whole(values: Any) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind not in "iu":  # where some are missing, pyarrow gives floats
        raise TypeError(f"{array.dtype} where there should be whole numbers")
    return array.astype(np.int64)


def _event_features(
    events: Mapping[str, np.ndarray],
    earlier: int,
    vocabularies: dict[str, Vocabulary],
    watched: str,
) -> dict[str, Column]:
    known = np.concatenate([np.zeros(earlier, bool), np.ones(len(events["tab"]), bool)])

    def numbers(values: np.ndarray) -> Continuous:
        return Continuous(np.concatenate([np.zeros(earlier), values]).astype(np.float32), known)

    unknown = np.full(earlier, UNKNOWN, np.int32)
    features: dict[str, Column] = {
        "play_seconds": numbers(events["play_time_ms"] / 1000),
        "duration_seconds": numbers(events["duration_ms"] / 1000),
    }
    for key in ("tab", "hour"):
        rows = vocabularies[key].encode(events[key])
        features[key] = Categorical(np.concatenate([unknown, rows]), key)
    if watched == "shown":
        features |= {key: numbers(events[key]) for key in _SIGNALS}
    return features
