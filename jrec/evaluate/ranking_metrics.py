"""Metrics of ranked lists, a value a user: from the ranks of a user's targets.

With T targets of a user that count, r_t their ranks (1 is first), [.] 1 where true:

    hits@K      = sum_t [r_t <= K]
    hr@K        = [hits@K > 0]
    recall@K    = hits@K / T
    precision@K = hits@K / K
    ndcg@K      = sum_t [r_t <= K] / log2(r_t + 1)  /  sum_{i = 1 .. min(T, K)} 1 / log2(i + 1)
    map@K       = sum_t [r_t <= K] |{s: r_s <= r_t}| / r_t  /  T
    mrr         = 1 / min_t r_t                        (mrr@K: 0 where the first target is behind K)

A target of rank `NOT_LISTED` is never found and adds 0 to every metric.

(Järvelin and Kekäläinen, ACM TOIS 2002, for ndcg, with relevance 0 or 1; map as trec_eval has it.)
With one target recall is hr, and map is mrr. No value is above 1: of j targets one has rank j or
more, also with the pessimistic ties of `target_ranks`.
"""

from collections.abc import Mapping, Sequence

import numpy as np

NOT_LISTED = np.iinfo(np.int32).max


def ranking_metrics(
    rank_NT: np.ndarray, counted_NT: np.ndarray, ks: Sequence[int] = (10,)
) -> dict[str, np.ndarray]:
    """Every metric of above for every user.

    Args:
        rank_NT: int [N, T], 1 to `NOT_LISTED` where counted; different targets of a user, see `target_ranks`.
        counted_NT: bool [N, T], false where there is no target.
        ks: cut-offs K, 1 or more.

    Returns:
        float64 [N] for each of `hr@K`, `recall@K`, `precision@K`, `ndcg@K`, `map@K`, `mrr@K`, and
        `mrr`; NaN for users without a target.

    Raises ValueError for a K or a counted rank below 1.
    """
    counted = np.asarray(counted_NT, bool)
    targets = counted.sum(1)
    rank = np.where(counted, rank_NT, NOT_LISTED).astype(np.int64)  # never within a cut-off
    if not all(1 <= k < NOT_LISTED for k in ks) or (rank < 1).any():
        raise ValueError("Cut-offs and ranks begin at 1.")
    ideal = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(rank.shape[1]) + 2))])
    at_or_before = np.zeros(rank.shape, np.int64)
    for place in range(rank.shape[1]):
        at_or_before += rank[:, place, None] <= rank
    first = rank.min(1, initial=NOT_LISTED)
    values: dict[str, np.ndarray] = {}
    with np.errstate(invalid="ignore"):  # 0 / 0 for users without a target, who become NaN
        for k in ks:
            hit = rank <= k
            hits = hit.sum(1)
            values[f"hr@{k}"] = (hits > 0).astype(np.float64)
            values[f"recall@{k}"] = hits / targets
            values[f"precision@{k}"] = hits / k
            values[f"ndcg@{k}"] = (hit / np.log2(rank + 1)).sum(1) / ideal[np.minimum(targets, k)]
            values[f"map@{k}"] = (hit * at_or_before / rank).sum(1) / targets
            values[f"mrr@{k}"] = np.where(first <= k, 1 / first, 0)
    values["mrr"] = np.where(first < NOT_LISTED, 1 / first, 0)
    return {name: np.where(targets > 0, value, np.nan) for name, value in values.items()}


def mean_metrics(per_user: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Means over the users that have a value; NaN where none has."""
    means = {}
    for name, value in per_user.items():
        value = value[~np.isnan(value)]
        means[name] = float(value.mean()) if len(value) else float("nan")
    return means
