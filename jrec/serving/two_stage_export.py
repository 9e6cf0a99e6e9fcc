"""Both stages as one folder: one program, its arrays, the users' logs; and ranked lists out of it.

Nothing here imports the model code.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jrec.data.ragged import Ragged
from jrec.data.vocabulary import FIRST, PADDING, UNKNOWN, Vocabulary
from jrec.errors import InputError
from jrec.files import replacing, replacing_folder
from jrec.retrieval.nominate import SOURCES
from jrec.serving.candidate_features import Events
from jrec.serving.candidates import asked_for, history_window
from jrec.serving.export import check_count, load_arrays, load_export, plain_ids, save_export
from jrec.serving.two_stages import Listed, Request

_LOGS = "logs.npz"
_COLUMNS = ("clicked", "click_offsets", "event_items", "event_offsets", "watched", "timestamps")
_NAMES = ("name", "length", "events", "now", "item_ids", "user_ids", "user_rows", *_COLUMNS)


@dataclass(frozen=True)
class UserLogs:
    """What is known of N users, each one's in time order.

    Attributes:
        clicks: catalogue rows (from 0) that each user watched, as the first stage reads them.
        events: catalogue rows of all that each was shown. watched: bool, of each event.
        timestamps: int64, seconds, of each event.
        now: seconds, the moment of a request for a user of the log; no event is later.
    """

    clicks: Ragged
    events: Ragged
    watched: np.ndarray
    timestamps: np.ndarray
    now: int


@dataclass(frozen=True)
class TwoStageModel:
    """A loaded export.

    Attributes:
        name: of the data set.
        program: (user [1], clicks [1, L], mask, events' items, watched, ages, mask [1, E]) -> the parts of
            `jrec.serving.two_stages.Listed`.
        length: L. events: E.
        items, users: vocabularies. user_rows: int32 [N], each user's row in `users`.
        logs: of the users.
    """

    name: str
    program: Callable[..., Any]
    length: int
    events: int
    items: Vocabulary
    users: Vocabulary
    user_rows: np.ndarray
    logs: UserLogs


class RankedItem(NamedTuple):
    """One line of a ranked list.

    Attributes:
        item: raw id. score: logit of the head that ranks. watch_seconds: expected watch time.
        sources: which of `SOURCES` named it, and at which place of their lists, from 1 on.
    """

    item: int | str
    score: float
    watch_seconds: float
    sources: dict[str, int]


def export_two_stages(
    folder: Path,
    two_stages: Callable[[Any, Request], Listed],
    arrays: Any,
    length: int,
    events: int,
    logs: UserLogs,
    name: str,
    items: Vocabulary,
    users: Vocabulary,
    user_rows: np.ndarray,
) -> None:
    """Writes both stages and all that their use needs; an older export in the folder is replaced.

    Args:
        two_stages: from `jrec.serving.two_stages.make_two_stages`. arrays: its arrays, nested dicts.
        length: L, clicks that the first stage reads. events: E, events that the second reads.
    """

    def program(arrays: Any, user: jax.Array, *parts: jax.Array) -> tuple[jax.Array, ...]:
        clicks, mask, *log = parts
        return tuple(two_stages(arrays, Request(user, clicks, mask, Events(*log))))

    shapes = [((1,), jnp.int32), ((1, length), jnp.int32), ((1, length), jnp.bool)]
    shapes += [((1, events), dtype) for dtype in (jnp.int32, jnp.bool, jnp.float32, jnp.bool)]
    columns = (logs.clicks.values, logs.clicks.offsets, logs.events.values, logs.events.offsets)
    columns += (logs.watched, logs.timestamps)
    with replacing_folder(folder) as temporary:
        save_export(temporary, program, arrays, *(jax.ShapeDtypeStruct(*one) for one in shapes))
        with replacing(temporary / _LOGS) as path:
            np.savez(
                path,
                name=np.array(name),
                length=np.array(length),
                events=np.array(events),
                now=np.array(logs.now),
                item_ids=plain_ids(items.values),
                user_ids=plain_ids(users.values),
                user_rows=user_rows,
                **dict(zip(_COLUMNS, columns, strict=True)),
            )


def load_two_stages(folder: Path) -> TwoStageModel:
    """Reads what `export_two_stages` wrote; raises InputError where a file is missing or damaged."""
    program, found = load_export(folder), load_arrays(folder / _LOGS)
    if not set(_NAMES) <= found.keys():
        raise InputError(f"{folder / _LOGS} is damaged; train again.")
    logs = UserLogs(
        Ragged(found["clicked"], found["click_offsets"]),
        Ragged(found["event_items"], found["event_offsets"]),
        found["watched"],
        found["timestamps"],
        int(found["now"]),
    )
    return TwoStageModel(
        name=str(found["name"]),
        program=program,
        length=int(found["length"]),
        events=int(found["events"]),
        items=Vocabulary.in_order(found["item_ids"]),
        users=Vocabulary.in_order(found["user_ids"]),
        user_rows=found["user_rows"],
        logs=logs,
    )


def recommend_ranked(
    model: TwoStageModel,
    count: int,
    user: int | str | None = None,
    history: Sequence[int | str] | None = None,
) -> tuple[list[RankedItem], list[str]]:
    """Both stages for a user of the log, or for anybody with a history; nothing that was watched.

    The program knows only what it reads of a log; all else that was watched is left out here.

    Args:
        count: K, at most as many as there are candidates. user: raw id, whose features and log are read.
        history: raw ids of watched items, the oldest first, in the place of the user's own log; when they
            were watched is not known.

    Returns:
        The list, best first, and sentences for what was asked for and is not known.

    Raises InputError for a count below 1, and where neither user nor history is given.
    """
    check_count(count)
    place, rows, notes = asked_for(model.users, model.user_rows, model.items, user, history)
    listed = Listed(*map(np.asarray, model.program(*request_arrays(model, place, rows))))
    known = place < len(model.user_rows)
    if rows is None and not (known and len(model.logs.clicks[place])):
        notes.append("there is no known click to go by")
    found = np.flatnonzero(listed.mask[0])
    kept = found[~np.isin(listed.rows[0, found], watched_items(model, place, rows))][:count]
    if len(kept) == 0:
        notes.append("nothing is left to recommend: all that was named has been watched")
    ids = model.items.values[listed.rows[0, kept]].tolist()
    lines = [
        RankedItem(
            item,
            float(listed.scores[0, k]),
            float(listed.watch_seconds[0, k]),
            {s: int(p) for s, p in zip(SOURCES, listed.places[0, k], strict=True) if p},
        )
        for item, k in zip(ids, kept, strict=True)
    ]
    return lines, notes


def watched_items(model: TwoStageModel, place: int, rows: np.ndarray | None = None) -> np.ndarray:
    """All catalogue rows that a user is known to have watched; the arguments are those of `request_arrays`."""
    if rows is not None:
        return rows
    if place >= len(model.user_rows):
        return np.zeros(0, np.int32)
    events, logs = slice(*model.logs.events.offsets[place : place + 2]), model.logs
    shown = logs.events.values[events][logs.watched[events]]
    return np.concatenate([logs.clicks[place], shown])


def request_arrays(
    model: TwoStageModel, place: int, rows: np.ndarray | None = None
) -> tuple[np.ndarray, ...]:
    """What `TwoStageModel.program` reads for one user.

    Args:
        place: 0 to N - 1, or N for an unknown user.
        rows: catalogue rows of watched items in the place of the user's log, -1 for unknown ones.
    """
    E, logs = model.events, model.logs
    known = place < len(model.user_rows)
    if rows is None:
        clicked = logs.clicks[place] if known else np.zeros(0, np.int32)
        part = slice(*logs.events.offsets[place : place + 2]) if known else slice(0, 0)
        shown, watched = logs.events.values[part][-E:], logs.watched[part][-E:]
        ages = (logs.now - logs.timestamps[part][-E:]).astype(np.float32)
    else:
        clicked = shown = rows.astype(np.int32)
        shown = shown[-E:]
        watched, ages = np.ones(len(shown), bool), np.full(len(shown), np.inf, np.float32)
    read = history_window(clicked, np.zeros(1, np.int64), np.array([len(clicked)]), model.length)
    short = (0, E - len(shown))
    item_E = np.pad(np.where(shown >= 0, shown + FIRST, UNKNOWN), short, constant_values=PADDING)
    mask_E = np.arange(E) < len(shown)
    log = (item_E.astype(np.int32), np.pad(watched, short), np.pad(ages, short), mask_E)
    return (np.array([place], np.int32), *read, *(part[None] for part in log))
