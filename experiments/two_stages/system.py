"""The two stages as functions of their settings: what the second reads, its batches, what is measured."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.ranking.system import KEYS
from jrec.data.clicks import Bag, Categorical, Column, Continuous, take, with_stand_ins
from jrec.data.impressions import Impressions
from jrec.data.quantiles import Quantiles, normalise
from jrec.data.ragged import pad
from jrec.data.vocabulary import FIRST, UNKNOWN
from jrec.evaluate.ranking_metrics import NOT_LISTED, ranking_metrics
from jrec.evaluate.ranks import ranks_of_scores
from jrec.evaluate.repeated_targets import RepeatedTargets, settle_repeated
from jrec.models.ranking import IdColumn, RankingNetwork
from jrec.retrieval.nominate import SOURCES, Nominated
from jrec.serving.candidate_features import Events, history_names, history_numbers, number_names
from jrec.serving.two_stages import Request, StageSizes, candidate_batch

from .lists import Lists
from .settings import Train

KS = (10, 50, 100)


def history_keys(impressions: Impressions) -> tuple[str, ...]:
    """Item columns that history features go by."""
    return tuple(name for name in KEYS if name in impressions.item_features)


def feature_arrays(
    impressions: Impressions, train: np.ndarray, user_id: bool
) -> tuple[dict[str, Any], list[IdColumn], list[str], list[str]]:
    """Users' and items' columns as `jrec.serving.candidate_features.ranking_batch` reads them.

    Args:
        train: int, positions of impressions; numbers are normalised by their quantiles among these.

    Returns:
        (arrays without `quantiles`; the features of ids; names of the users' and of the items' numbers).
    """
    users, items = dict(impressions.user_features), dict(impressions.item_features)
    if user_id:
        users["user"] = Categorical(impressions.user_row, "user")
    rows = np.arange(impressions.vocabularies["item"].rows, dtype=np.int32)
    items["item"] = Categorical(rows, "item")
    arrays: dict[str, Any] = {}
    ids, names = [], {}
    for of, columns, place in (
        ("user", {name: _with_unknown(column) for name, column in users.items()}, impressions.user),
        ("item", items, impressions.item),
    ):
        numbers = {n: c for n, c in columns.items() if isinstance(c, Continuous)}
        arrays[of] = {n: _as_dict(c) for n, c in columns.items() if n not in numbers}
        ids += [
            IdColumn(n, c.vocabulary, isinstance(c, Bag))
            for n, c in columns.items()
            if not isinstance(c, Continuous)
        ]
        values, known = [], []
        for column in numbers.values():
            values.append(normalise(column, place[train])[0].values)
            known.append(column.known)
        length = len(next(iter(columns.values())))
        empty = np.zeros((length, 0), np.float32)
        arrays[f"{of}_numbers"] = np.stack(values, 1).astype(np.float32) if values else empty
        arrays[f"{of}_known"] = np.stack(known, 1) if known else empty > 0
        names[of] = list(numbers)
    ids.append(IdColumn("watched", "item", bag=True))
    return arrays, ids, names["user"], names["item"]


def history_quantiles(
    arrays: dict[str, Any], keys: tuple[str, ...], lists: Lists, most: int = 2000
) -> dict[str, dict[str, np.ndarray]]:
    """Quantiles of the history's numbers among (up to `most` of) the training lists' candidates."""
    some = np.unique(np.linspace(0, len(lists) - 1, most).astype(int))
    values: dict[str, list[np.ndarray]] = {name: [] for name in history_names(keys)}
    read = jax.jit(lambda items, rows, events: history_numbers(items, keys, rows, Events(*events)))
    for part in np.array_split(some, max(len(some) // 250, 1)):
        rows = np.where(lists.found.mask[part], lists.found.rows[part] + FIRST, 0)
        events = [np.asarray(column)[part] for column in lists.request.events]
        number, known = map(np.asarray, read(arrays["item"], rows, events))
        for k, name in enumerate(values):
            values[name].append(number[..., k][known[..., k] & lists.found.mask[part]])
    found = {}
    for name, parts in values.items():
        quantiles = Quantiles.fit(np.concatenate(parts))
        found[name] = {
            "knots": quantiles.knots.astype(np.float32),
            "levels": quantiles.levels.astype(np.float32),
        }
    return found


def build_model(
    settings: Train,
    impressions: Impressions,
    ids: list[IdColumn],
    users: list[str],
    items: list[str],
) -> RankingNetwork:
    """The second stage's network."""
    heads = ["watch"]
    heads += ["click"] if settings.click_weight else []
    heads += ["completion"] if settings.completion_weight else []
    vocabularies = impressions.vocabularies
    wide = {"user": settings.id_width, "item": settings.id_width}
    return RankingNetwork(
        table_rows={name: vocabulary.rows for name, vocabulary in vocabularies.items()},
        table_widths={name: wide.get(name, settings.feature_width) for name in vocabularies},
        ids=tuple(ids),
        numbers=len(number_names(users, items, history_keys(impressions))),
        powers=settings.powers,
        tower=settings.tower,
        heads=tuple(heads),
        dropout=settings.dropout,
    )


def list_data(lists: Lists, features: dict[str, Any], some: np.ndarray) -> dict[str, Any]:
    """Some lists (positions) and the features on the device, for `make_gather`."""
    names = ("request", "found", "late", "clicked", "completed", "watch")
    parts = {name: getattr(lists, name) for name in names}
    parts = jax.tree.map(lambda column: column[some], parts)
    return jax.tree.map(jnp.asarray, {"lists": parts, "features": features})


def make_gather(keys: tuple[str, ...], sizes: StageSizes) -> Any:
    """Batches of all candidates of some lists, as the second stage's loss reads them."""

    def gather(data: dict[str, Any], positions: jax.Array, mask: jax.Array) -> dict[str, Any]:
        part = jax.tree.map(lambda column: column[positions], data["lists"])
        request, found = part["request"], part["found"]
        request = Request(*request[:3], Events(*request.events))
        batch = candidate_batch(data, keys, sizes, request, Nominated(*found), part["late"])
        batch |= {name: part[name].reshape(-1) for name in ("clicked", "completed")}
        batch["weight"] = part["watch"].reshape(-1)
        return batch | {"mask": (found.mask & mask[:, None]).reshape(-1)}

    return gather


def list_metrics(
    lists: Lists, score_QC: np.ndarray, choice: RepeatedTargets = "miss"
) -> dict[str, np.ndarray]:
    """float64 [Q] by metric, of the candidates in the order of a score, as `ranks_of_scores` has it.

    Targets that no source named have no rank. NaN for lists without a target that counts.

    Args:
        choice: what targets count as that the user had watched before; no source names them.
    """
    score = np.where(lists.found.mask, score_QC, -np.inf)
    longest = max(int(lists.targets.lengths.max(initial=1)), 1)
    rank = np.full((len(lists), longest), NOT_LISTED, np.int64)
    number = lists.targets.lengths[:, None]
    counted = np.arange(longest) < number
    # A list's targets stand in no order but that those with a rank come first.
    repeated = counted & (np.arange(longest) >= number - lists.repeats[:, None])
    for q in np.flatnonzero(lists.completed.any(1)):
        named = score[q] != -np.inf
        hit = np.flatnonzero(lists.completed[q] & named)
        score_TC = np.broadcast_to(score[q], (len(hit), len(named)))
        rank[q, : len(hit)] = ranks_of_scores(score_TC, hit, recommendable_M=named)
    return ranking_metrics(*settle_repeated(choice, rank, counted, repeated), KS)


def source_scores(lists: Lists) -> dict[str, np.ndarray]:
    """Each source's own order as scores [Q, C]; what it does not name has none (-inf)."""
    return {
        name: np.where(lists.found.places[..., k] > 0, -lists.found.places[..., k], -np.inf)
        for k, name in enumerate(SOURCES)
    }


def _with_unknown(column: Column) -> Column:
    """One row more, of a user of whom nothing is known."""
    if isinstance(column, Categorical):
        return Categorical(np.append(column.rows, np.int32(UNKNOWN)), column.vocabulary)
    if isinstance(column, Continuous):
        return Continuous(
            np.append(column.values, np.float32(0)), np.append(column.known, np.bool_(False))
        )
    stood = with_stand_ins(column)
    return take(stood, np.append(np.arange(FIRST, len(stood)), UNKNOWN))


def _as_dict(column: Column) -> dict[str, np.ndarray]:
    if isinstance(column, Bag):
        values, mask = pad(column.rows)
        return {"values": values, "mask": mask}
    return {"rows": np.asarray(column.rows, np.int32)}
