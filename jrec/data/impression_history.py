"""Features of an impression from what came strictly before it: sorts once, no loop over users."""

from collections.abc import Mapping

import numpy as np

from jrec.data.clicks import Bag, Categorical, Column, Continuous, take
from jrec.data.impressions import Impressions
from jrec.data.ragged import Ragged
from jrec.data.vocabulary import FIRST


def history_features(impressions: Impressions, keys: Mapping[str, Column]) -> dict[str, Column]:
    """Features of each impression from the same user's strictly earlier ones, as a server knew them.

    Impressions of one moment do not see each other, so later rows, and rows of the same moment,
    change nothing. (A click and its watch time count as known from the next moment on.)

    Args:
        impressions: all of them, training and test together: each sees its own past alone.
        keys: item columns by name (author, category), of V_item rows.

    Returns:
        Continuous columns of n rows, for `item` and for each key: `NAME_shown`, how many earlier
        impressions had the same value (for a bag, one for each value in common);
        `NAME_idle_seconds`, the time since the last watch of the same value (for a bag, of any of its
        values), unknown where there was none. Padding and unknown values are no values.
    """
    items = Categorical(np.arange(impressions.vocabularies["item"].rows), "item")
    columns: dict[str, Column] = {}
    for name, key in {"item": items, **keys}.items():
        row, value = _values_of(key, impressions.item)
        group = impressions.user[row].astype(np.int64) * (int(value.max(initial=0)) + 1) + value
        time = impressions.timestamp[row]
        shown, last = earlier_in_group(group, time, impressions.clicked[row])
        known = np.zeros(len(impressions), bool)
        known[row[last >= 0]] = True
        latest = np.full(len(impressions), np.iinfo(np.int64).min)
        np.maximum.at(latest, row[last >= 0], time[last[last >= 0]])
        idle = np.where(known, impressions.timestamp - np.where(known, latest, 0), 0)
        count = np.bincount(row, shown, len(impressions))
        columns[f"{name}_shown"] = Continuous(count.astype(np.float32), np.ones(len(count), bool))
        columns[f"{name}_idle_seconds"] = Continuous(idle.astype(np.float32), known)
    return columns


def _values_of(key: Column, item: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(impression, value) int64 pairs of an item column; padding and unknown values are left out."""
    taken = take(key, item)
    if isinstance(taken, Bag):
        row, value = np.repeat(np.arange(len(item)), taken.rows.lengths), taken.rows.values
    elif isinstance(taken, Categorical):
        row, value = np.arange(len(item)), taken.rows
    else:
        raise ValueError("A number is no key: use a categorical column or a bag.")
    kept = value >= FIRST
    return row[kept], value[kept].astype(np.int64)


def watched_before(impressions: Impressions, count: int) -> Bag:
    """Each impression's last `count` watched items of the same user, strictly earlier ones."""
    place, offsets = last_watched(
        impressions.user, impressions.timestamp, impressions.clicked, count
    )
    return Bag(Ragged(impressions.item[place], offsets), "item")


def earlier_in_group(
    group: np.ndarray, timestamp: np.ndarray, watched: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How many events of its group were earlier than each event, and the last watched one of these.

    Args:
        group: int [n]. timestamp: int [n]. watched: bool [n].

    Returns:
        (int64 [n], events of the group with a smaller time; int64 [n], place of the last watched of
        them, of equal times the last given, -1 where there is none).
    """
    order, group_first, moment_first = _sorted_firsts(group, timestamp)
    place = np.arange(len(order))
    # The last watched place up to each, in the sorted order, whatever its group.
    so_far = np.maximum.accumulate(np.where(watched[order], place, -1))
    before = np.concatenate([[-1], so_far])[moment_first]
    before = np.where(before >= group_first, before, -1)
    shown, last = np.empty(len(order), np.int64), np.empty(len(order), np.int64)
    shown[order] = moment_first - group_first
    last[order] = np.where(before >= 0, order[before], -1)
    return shown, last


def last_watched(
    group: np.ndarray, timestamp: np.ndarray, watched: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The last `count` watched events of its group strictly before each event, the oldest first.

    Returns:
        (int64 [total], their places; int64 [n + 1], where each event's begin).
    """
    order, group_first, moment_first = _sorted_firsts(group, timestamp)
    watches = order[watched[order]]
    until = np.concatenate([[0], np.cumsum(watched[order])])  # watches before each sorted place
    end, start = np.empty(len(order), np.int64), np.empty(len(order), np.int64)
    end[order] = until[moment_first]
    start[order] = until[group_first]
    lengths = np.minimum(end - start, count)
    offsets = np.zeros(len(order) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    shift = np.repeat(end - lengths - offsets[:-1], lengths)
    return watches[shift + np.arange(offsets[-1])], offsets


def _sorted_firsts(
    group: np.ndarray, timestamp: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Events by group and time, and for each the first place of its group and of its moment."""
    order = np.lexsort((timestamp, group))
    group, timestamp = np.asarray(group)[order], np.asarray(timestamp)[order]
    new_group = np.ones(len(order), bool)
    new_group[1:] = group[1:] != group[:-1]
    new_moment = new_group.copy()
    new_moment[1:] |= timestamp[1:] != timestamp[:-1]
    firsts = [np.flatnonzero(new)[np.cumsum(new) - 1] for new in (new_group, new_moment)]
    return order, firsts[0], firsts[1]
