"""Offline mining: hottest items, lists for all users, item to item; in bounded memory, as list sources.

Every function here gives `Lists`, or a function from (start, stop) to them that
`jrec.retrieval.list_files.write_lists` turns into a file. A user or an item without a vector of its own
gets a popular list, and the list's rule says so.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.sparse

from jrec.data.ragged import Ragged, pad
from jrec.errors import InputError
from jrec.retrieval.exact import ItemTable, item_table
from jrec.retrieval.grouped import exact_top_k
from jrec.retrieval.lists import Lists, ListSource
from jrec.retrieval.simple_lsh import unit_rows

# Lengths to pad seen items to, so that few shapes are compiled.
_SEEN_LENGTHS = tuple(8 * 2**power for power in range(24))


class Fallback(NamedTuple):
    """Lists for keys that have no vector.

    Attributes:
        lists: `Lists` of [F, K].
        choice: int [N], which of them each key gets.
    """

    lists: Lists
    choice: np.ndarray


def item_counts(
    item_E: np.ndarray, items: int, time_E: np.ndarray | None = None, since: float | None = None
) -> np.ndarray:
    """int64 [M]: how often each item row was clicked, over all events or those at `since` or later.

    Args:
        item_E: int [E], item row of each event. items: M.
        time_E: [E], in the unit of `since` (a recent window: latest time - length).
    """
    if since is not None:
        if time_E is None:
            raise ValueError("a window needs the events' times")
        item_E = item_E[time_E >= since]
    return np.bincount(item_E, minlength=items)


def hottest(
    count_M: np.ndarray, count: int, allowed_M: np.ndarray | None = None, rule: str = "popular"
) -> Lists:
    """One list of the K most clicked items; of equal counts the lower row; none that nobody clicked.

    Args:
        count_M: int [M], from `item_counts`. allowed_M: bool [M], false for rows not to be listed.
    """
    single = np.zeros(len(count_M), np.int64)
    return hottest_by_category(
        count_M, Ragged(single, np.arange(len(single) + 1)), 1, count, allowed_M, rule
    )


def hottest_by_category(
    count_M: np.ndarray,
    category_M: Ragged,
    categories: int,
    count: int,
    allowed_M: np.ndarray | None = None,
    rule: str = "popular-in-category",
) -> Lists:
    """A list for each category of its K most clicked items, as `hottest`; Lists of [categories, K].

    Args:
        category_M: each item's categories, none or more.
    """
    listed_M = count_M > 0 if allowed_M is None else (count_M > 0) & allowed_M
    item = np.repeat(np.arange(len(count_M)), category_M.lengths)
    kept = listed_M[item]
    item, category = item[kept], category_M.values[kept]
    order = np.lexsort((item, -count_M[item], category))
    item, category = item[order], category[order]
    first = np.searchsorted(category, np.arange(categories))
    rank = np.arange(len(item)) - first[category]
    item, category, rank = (part[rank < count] for part in (item, category, rank))
    rows = np.full((categories, count), -1, np.int64)
    rows[category, rank] = item
    mask = rows >= 0
    scores = np.where(mask, count_M[rows], -np.inf).astype(np.float32)
    return Lists(rows, scores, mask, np.full(categories, rule))


def fall_back(
    wanted_N: np.ndarray | None, by_category: Lists, overall: Lists, keys: int
) -> Fallback:
    """Each key's category list, or the overall list where it has no category or that one is empty.

    Args:
        wanted_N: int [N], category of each key, -1 for none; None: all get the overall list.
        by_category: [categories, K]. overall: [1, K]. keys: N.
    """
    lists = Lists(*(np.concatenate(parts) for parts in zip(by_category, overall, strict=True)))
    last = len(lists.mask) - 1
    if wanted_N is None:
        return Fallback(lists, np.full(keys, last))
    filled = np.append(by_category.mask.any(1), False)
    return Fallback(lists, np.where(filled[wanted_N], wanted_N, last))


def personal_lists(
    user_vectors: Callable[[int, int], np.ndarray],
    table: ItemTable,
    count: int,
    fallback: Fallback,
    has_vector_N: np.ndarray | None = None,
    seen: Ragged | None = None,
    rule: str = "personal",
    batch: int = 256,
) -> ListSource:
    """The K items of the highest w.u + b for every user, what the user has seen left out.

    Args:
        user_vectors: given start and stop, u of these users, float [stop - start, D]. Vectors of another
            kind (from the user's id alone, all other embeddings zeroed) are another rule's lists.
        table: the items. count: K, as many as the fallback's lists hold.
        fallback: for users whose `has_vector_N` (bool [N]) is false: those without a history.
        seen: item rows by user.
        rule: the lists' name in the file.
        batch: users searched for together, those with long histories in batches of their own.
    """
    if seen is None:
        seen = Ragged(np.zeros(0, np.int32), np.zeros(len(fallback.choice) + 1, np.int64))
    seen_N = seen.lengths
    if fallback.lists.rows.shape[1] != count:
        raise ValueError(f"The fallback's lists hold {fallback.lists.rows.shape[1]}, not {count}.")

    def lists(start: int, stop: int) -> Lists:
        own_N = np.ones(stop - start, bool) if has_vector_N is None else has_vector_N[start:stop]
        own = start + np.flatnonzero(own_N)
        user_SD = np.asarray(user_vectors(start, stop), np.float32)
        bad = ~np.isfinite(user_SD[own - start]).all(1)
        if bad.any():
            raise InputError(
                f"The vector of user row {own[bad][0]} is not finite; the training diverged, lower its rate."
            )
        found = Lists(
            np.empty((stop - start, count), np.int64),
            np.empty((stop - start, count), np.float32),
            np.empty((stop - start, count), bool),
            np.full(stop - start, rule, object),
        )
        others = start + np.flatnonzero(~own_N)
        for part, filling in zip(found, fallback_lists(fallback, others, seen), strict=True):
            part[others - start] = filling
        own = own[np.argsort(seen_N[own], kind="stable")]

        def search(some: np.ndarray) -> None:
            # A short batch repeats its last user: one shape, one compilation.
            full = np.pad(some, (0, batch - len(some)), mode="edge")
            left_out = pad(seen, full, _SEEN_LENGTHS) if seen_N[full].any() else (None, None)
            ranked = exact_top_k(table, jnp.asarray(user_SD[full - start]), count, *left_out)
            for part, filling in zip(found, ranked, strict=False):
                part[some - start] = np.asarray(filling)[: len(some)]

        # Two at once: of a program's steps some keep but one core busy, others wait for memory.
        with ThreadPoolExecutor(2) as pool:
            batches = [own[first : first + batch] for first in range(0, len(own), batch)]
            for _ in pool.map(search, batches):
                pass
        return found._replace(rules=found.rules.astype(np.str_))

    return lists


def similar_lists(
    vector_MD: np.ndarray,
    count: int,
    fallback: Fallback,
    has_vector_M: np.ndarray | None = None,
    rule: str = "similar",
    batch: int = 256,
) -> ListSource:
    """Item to item: the K items of the highest cosine to each item, itself left out.

    Args:
        vector_MD: float [M, D], one a row of the catalogue.
        has_vector_M: bool [M], false for new items, which get the fallback and stand in no list.
    """
    unit_MD = unit_rows(vector_MD)
    return personal_lists(
        lambda start, stop: unit_MD[start:stop],
        item_table(unit_MD, allowed_M=has_vector_M),
        count,
        fallback,
        has_vector_M,
        _each_itself(len(unit_MD)),
        rule,
        batch,
    )


def cooccurrence_lists(
    histories: Ragged,
    items: int,
    count: int,
    fallback: Fallback,
    rule: str = "clicked-together",
    block: int = 256,
) -> ListSource:
    """Item to item without a model: users who clicked both / sqrt(users of one x users of the other).

    Sarwar et al., WWW 2001. An item that no user clicked beside another gets the fallback.

    Args:
        histories: item rows by user; repeats count once. items: M.
        block: items at a time, of which at most `block` x M counts stand in memory.
    """
    itself = _each_itself(items)
    users = np.repeat(np.arange(len(histories)), histories.lengths)
    ones = np.ones(len(users), np.float32)
    shape = (len(histories), items)
    clicks = scipy.sparse.csr_array((ones, (users, histories.values)), shape)
    clicks.data[:] = 1  # repeats were summed
    clicks = clicks.tocsc()
    users_M = np.diff(clicks.indptr)
    transposed = clicks.T.tocsr()

    def lists(start: int, stop: int) -> Lists:
        rows, scores, mask, rules = fallback_lists(fallback, np.arange(start, stop), itself)
        for first in range(start, stop, block):
            last = min(first + block, stop)
            together = (transposed[first:last] @ clicks).tocsr()
            for item in range(first, last):
                part = slice(*together.indptr[item - first : item - first + 2])
                other, both = together.indices[part], together.data[part]
                other, both = other[other != item], both[other != item]
                if len(other) == 0:
                    continue
                score = both / np.sqrt(users_M[item] * users_M[other].astype(np.float64))
                best = np.lexsort((other, -score))[:count]
                place = item - start
                rows[place], scores[place], mask[place] = -1, -np.inf, False
                rows[place, : len(best)], scores[place, : len(best)] = other[best], score[best]
                mask[place, : len(best)] = True
                rules[place] = rule
        return Lists(rows, scores, mask, rules.astype(np.str_))

    return lists


def fallback_lists(fallback: Fallback, keys: np.ndarray, seen: Ragged) -> Lists:
    """The fallback's lists of some keys, int [N], without what each key has seen (by all keys).

    Arrays of their own, to be written over; rules are objects. A list may have gaps in its mask.
    """
    rows, scores, mask, rules = (part[fallback.choice[keys]] for part in fallback.lists)
    start_N = seen.offsets[keys]
    length_N = seen.offsets[keys + 1] - start_N
    key_E = np.repeat(np.arange(len(keys)), length_N)
    first_N = np.cumsum(length_N) - length_N
    item_E = seen.values[np.arange(len(key_E)) + np.repeat(start_N - first_N, length_N)]
    items = int(max(rows.max(initial=0), item_E.max(initial=0))) + 1
    place_NK = np.arange(len(keys))[:, None] * items + rows
    mask &= ~np.isin(place_NK, key_E * items + item_E)
    return Lists(rows, scores, mask, rules.astype(object))


def _each_itself(items: int) -> Ragged:
    return Ragged(np.arange(items, dtype=np.int32), np.arange(items + 1))
