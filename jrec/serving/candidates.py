"""A trained candidate model as a folder: the user vectors' program, the items' vectors, the catalogue, the clicks.

Nothing here imports the model code; `jrec.serving.candidate_lists` turns what is loaded into ranked lists.
Rows of the catalogue count items from 0, in the vocabulary's order; -1 is an item that it does not hold.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jrec.data.clicks import Bag, Categorical, Clicks, take
from jrec.data.ragged import Ragged
from jrec.data.raw_ids import places_of
from jrec.data.vocabulary import FIRST, PADDING, UNKNOWN, Vocabulary
from jrec.errors import InputError
from jrec.files import replacing, replacing_folder
from jrec.retrieval.exact import ItemTable, item_table
from jrec.retrieval.lists import fingerprint
from jrec.retrieval.simple_lsh import item_vectors
from jrec.serving.export import load_arrays, load_export, plain_ids, save_export

_CATALOGUE = "catalogue.npz"
_NAMES = ("name", "fingerprint", "length", "weights", "biases", "trained", "item_ids", "user_ids")
_NAMES += ("user_rows", "clicked", "offsets", "timestamps")


class ItemGroups(NamedTuple):
    """A feature of the items, for lists by category.

    Attributes:
        of_item: groups of each of M items. ids: raw values, one a group.
    """

    of_item: Ragged
    ids: np.ndarray


@dataclass(frozen=True)
class CandidateModel:
    """A loaded export.

    Attributes:
        name: of the data set. fingerprint: of name, items and their SIMPLE-LSH vectors; an index that is
            made for these has the same.
        encode: (item rows int32 [b, L] of the vocabulary, mask bool [b, L], users int32 [b], N for an
            unknown one) -> user vectors float32 [b, D].
        length: L.
        weights, biases: float32 [M, D] and [M], scores are w.u + b. table: the same on the device.
        trained: bool [M], whether training read a click on the item.
        items: vocabulary of M items. users: vocabulary of users.
        user_rows: int32 [N], each user's row in `users`; 1 for users whose id it does not hold.
        histories: catalogue rows by user, all clicks of the data set in time order.
        timestamps: int64, seconds, of these clicks; None where the data has no times.
        groups: features of the items by name.
    """

    name: str
    fingerprint: str
    encode: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
    length: int
    weights: np.ndarray
    biases: np.ndarray
    table: ItemTable
    trained: np.ndarray
    items: Vocabulary
    users: Vocabulary
    user_rows: np.ndarray
    histories: Ragged
    timestamps: np.ndarray | None
    groups: dict[str, ItemGroups] = field(default_factory=dict)


def export_candidate_model(
    folder: Path,
    vectors: Callable[[Any, jax.Array, jax.Array, jax.Array], jax.Array],
    arrays: Any,
    weight_MD: np.ndarray,
    bias_M: np.ndarray,
    clicks: Clicks,
    count_V: np.ndarray,
    length: int,
) -> None:
    """Writes a model and all that its use needs; an older export in the folder is replaced.

    Args:
        vectors: (arrays, item rows [b, L], mask [b, L], users [b]) -> u [b, D]; pure; user N is unknown.
        arrays: nested dicts of arrays.
        weight_MD, bias_M: of the items, rows 2 and on of the vocabulary.
        count_V: int, training clicks of each row of the item vocabulary.
        length: L, clicks of a history that the program reads.
    """
    B = jax.export.symbolic_shape("b")[0]
    items = jax.ShapeDtypeStruct((B, length), jnp.int32)
    mask = jax.ShapeDtypeStruct((B, length), jnp.bool)
    ids = plain_ids(clicks.vocabularies["item"].values)
    groups = {
        name: column
        for name, column in clicks.item_features.items()
        if isinstance(column, Categorical | Bag)
    }
    with replacing_folder(folder) as temporary:
        save_export(temporary, vectors, arrays, items, mask, jax.ShapeDtypeStruct((B,), jnp.int32))
        with replacing(temporary / _CATALOGUE) as path:
            np.savez(
                path,
                name=np.array(clicks.name),
                fingerprint=np.array(
                    fingerprint(clicks.name, ids, item_vectors(weight_MD, bias_M))
                ),
                length=np.array(length),
                weights=np.asarray(weight_MD, np.float32),
                biases=np.asarray(bias_M, np.float32),
                trained=np.asarray(count_V)[FIRST:] > 0,
                item_ids=ids,
                user_ids=plain_ids(clicks.vocabularies["user"].values),
                user_rows=clicks.user_row,
                clicked=clicks.item - FIRST,
                offsets=clicks.offsets,
                timestamps=clicks.timestamp if clicks.timed else np.zeros(0, np.int64),
                **_group_arrays(groups, clicks.vocabularies),
            )


def load_candidate_model(folder: Path, user_id_only: bool = False) -> CandidateModel:
    """Reads what `export_candidate_model` wrote.

    Args:
        user_id_only: all embeddings but the user's own are zero, so that the user's id alone speaks.

    Raises InputError where a file is missing or damaged, and for `user_id_only` where the network has no
    vectors of users.
    """
    encode = load_export(folder, _user_id_alone if user_id_only else None)
    arrays = load_arrays(folder / _CATALOGUE)
    if not set(_NAMES) <= arrays.keys():
        raise InputError(f"{folder / _CATALOGUE} is damaged; train again.")
    groups = {}
    for name in sorted(arrays):
        kind, _, feature = name.partition(":")
        if kind == "group_ids":
            rows = Ragged(arrays[f"group_rows:{feature}"], arrays[f"group_offsets:{feature}"])
            groups[feature] = ItemGroups(rows, arrays[name])
    return CandidateModel(
        name=str(arrays["name"]),
        fingerprint=str(arrays["fingerprint"]),
        encode=encode,
        length=int(arrays["length"]),
        weights=arrays["weights"],
        biases=arrays["biases"],
        table=item_table(arrays["weights"], arrays["biases"]),
        trained=arrays["trained"],
        items=Vocabulary.in_order(arrays["item_ids"]),
        users=Vocabulary.in_order(arrays["user_ids"]),
        user_rows=arrays["user_rows"],
        histories=Ragged(arrays["clicked"], arrays["offsets"]),
        timestamps=arrays["timestamps"] if len(arrays["timestamps"]) else None,
        groups=groups,
    )


def encode_histories(
    model: CandidateModel, histories: Ragged, users: np.ndarray, batch: int = 256
) -> np.ndarray:
    """u float32 [n, D] of users with these histories.

    Args:
        histories: n lists of catalogue rows, -1 for an item that the catalogue does not hold, the oldest
            first; of long ones the end is read. users: int [n], 0 to N - 1, or N for an unknown user.
        batch: histories at once; one compilation serves all.
    """
    n = len(users)
    begin_n, end_n = histories.offsets[:-1], histories.offsets[1:]
    vector_nD = np.zeros((n, model.weights.shape[1]), np.float32)
    for first in range(0, n, batch):
        # A short batch repeats its last row: one shape, one compilation.
        some = np.minimum(np.arange(first, first + batch), n - 1)
        read = history_window(histories.values, begin_n[some], end_n[some], model.length)
        inputs = (*read, np.asarray(users)[some].astype(np.int32))
        vector_BD = np.asarray(model.encode(*map(jnp.asarray, inputs)))
        vector_nD[first : first + batch] = vector_BD[: min(batch, n - first)]
    return vector_nD


def history_window(
    clicked: np.ndarray, begin_B: np.ndarray, end_B: np.ndarray, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """The ends of histories as a network reads them: int32 [B, L] vocabulary rows, mask bool [B, L].

    Args:
        clicked: catalogue rows, -1 for an unknown item; history b is `clicked[begin_B[b]:end_B[b]]`.
        length: L.
    """
    clicked = clicked if len(clicked) else np.zeros(1, np.int32)
    # The unknown click stands before the first, as in training.
    place_BL = np.maximum(begin_B - 1, end_B - length)[:, None] + np.arange(length)
    mask_BL = place_BL < end_B[:, None]
    item_BL = clicked[np.clip(place_BL, 0, len(clicked) - 1)] + FIRST
    item_BL = np.where(place_BL < begin_B[:, None], UNKNOWN, item_BL)
    return np.where(mask_BL, item_BL, PADDING).astype(np.int32), mask_BL


def asked_for(
    users: Vocabulary,
    user_rows: np.ndarray,
    items: Vocabulary,
    user: int | str | None,
    history: Sequence[int | str] | None,
) -> tuple[int, np.ndarray | None, list[str]]:
    """Who asks for a list: a user of the data by raw id, or anybody with a history of raw item ids.

    Args:
        users, items: vocabularies. user_rows: int [N], each user's row in `users`.

    Returns:
        The user's place, N for an unknown one; the catalogue rows of the history, -1 for unknown items,
        None where none is given; a sentence for what is not known.

    Raises InputError where neither is given.
    """
    if user is None and history is None:
        raise InputError("Say for whom: give --user, or --history with items.")
    notes, place, rows = [], len(user_rows), None
    if user is not None:
        row = places_of(users, [user])[0]
        found = np.flatnonzero(user_rows == row + FIRST) if row >= 0 else []
        if len(found):
            place = int(found[0])
        else:
            notes.append(f"user {user} is not in the data: taken for an unknown user")
    if history is not None:
        rows = places_of(items, history)
        if (rows < 0).any():
            first = history[int(np.argmax(rows < 0))]
            notes.append(
                f"{(rows < 0).sum()} of {len(rows)} items of the history are not in the catalogue and "
                f"are read as unknown ({first})"
            )
    return place, rows, notes


def _user_id_alone(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays with all tables but the users' zeroed, and all numbers that describe something unknown."""
    own = "params/params/user_table/embedding"
    if own not in arrays:
        raise InputError(
            "This network has no vectors of users to go by alone; train one with --user-id True."
        )
    return {
        name: np.zeros_like(array)
        if (name.endswith("_table/embedding") and name != own)
        or (name.endswith("/mask") and array.ndim == 1)
        else array
        for name, array in arrays.items()
    }


def _group_arrays(
    columns: Mapping[str, Categorical | Bag], vocabularies: Mapping[str, Vocabulary]
) -> dict[str, np.ndarray]:
    """Features of the known items, without what stands on the unknown row."""
    arrays = {}
    for name, column in columns.items():
        items = take(column, np.arange(FIRST, len(column)))
        rows, lengths = items.rows, np.ones(len(items), np.int64)
        if isinstance(rows, Ragged):
            rows, lengths = rows.values, rows.lengths
        known = rows >= FIRST
        item = np.repeat(np.arange(len(items)), lengths)[known]
        # An item may bear a tag twice, but stands in its list once.
        item, group = np.unique(np.stack([item, rows[known] - FIRST]), axis=1)
        counts = np.bincount(item, minlength=len(items))
        arrays[f"group_ids:{name}"] = plain_ids(vocabularies[column.vocabulary].values)
        arrays[f"group_rows:{name}"] = group.astype(np.int32)
        arrays[f"group_offsets:{name}"] = np.concatenate([[0], np.cumsum(counts)])
    return arrays
