"""What came strictly before each event of a group, in time: sorts once, no loop over users."""

import numpy as np


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
