"""Ranks of held-out items by a baseline's scores.

A baseline is fitted to the training part alone, like a network, and reads the history before the target,
like a network: on test that is everything before the test item, the validation item included. A network's
report (`experiments.candidates`) ranks its baselines by these functions, so that both commands give one number.
"""

from collections.abc import Callable

import numpy as np
from scipy import sparse

from jrec.baselines.interactions import interaction_matrix
from jrec.data.click_examples import Examples
from jrec.data.clicks import Clicks
from jrec.data.vocabulary import FIRST
from jrec.evaluate.ranks import ranks_of_scores

Score = Callable[[sparse.csr_array, np.ndarray], np.ndarray]
"""(binary histories [B, items], users [B] whose they are) -> scores [B, items]."""
PROTOCOL = (
    "Baselines are fitted to the training part alone and score by the history before the target, as a network "
    "does; on test the validation item is in it. Ties count against them."
)
# Of item neighbours; chosen on the validation items of ml-1m-sas.
ITEM_NEIGHBOURS, ITEM_SHRINKAGE = 10, 0.0
_SCORES = 1 << 25  # that exist at one time


def held_out_ranks(
    score: Score, clicks: Clicks, examples: Examples, remove_seen: bool = True
) -> np.ndarray:
    """Returns int64 [E], each target's rank in the whole catalogue, by the rules of `target_ranks`.

    Args:
        examples: targets and what was clicked before each, which the score reads.
        remove_seen: leave that out of the ranking.
    """
    rows = clicks.vocabularies["item"].rows
    recommendable = np.arange(rows) >= FIRST
    size = min(max(_SCORES // rows, 1), 512)
    ranks = [np.zeros(0, np.int64)]
    for first in range(0, len(examples), size):
        part = slice(first, first + size)
        user, target = examples.user[part], clicks.item[examples.target[part]]
        history = _histories(clicks, user, examples.end[part])
        seen = history if remove_seen else None
        ranks.append(ranks_of_scores(score(history, user), target, seen, recommendable))
    return np.concatenate(ranks)


def _histories(clicks: Clicks, user: np.ndarray, end: np.ndarray) -> sparse.csr_array:
    """Returns float32 [B, V], 1 for what each of the users had clicked before position `end`."""
    begin = clicks.offsets[user]
    lengths = end - begin
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    place = np.repeat(begin - offsets[:-1], lengths) + np.arange(offsets[-1])
    row = np.repeat(np.arange(len(user)), lengths)
    return interaction_matrix(row, clicks.item[place], len(user), clicks.vocabularies["item"].rows)
