"""Area under the ROC curve, exact, over all examples and within groups."""

import numpy as np


def auc(score: np.ndarray, label: np.ndarray) -> float:
    """Probability that a positive example scores above a negative one, equal scores counting 1/2.

    AUC = (sum of the positives' mean ranks - P (P + 1) / 2) / (P Q), for P positives and Q negatives:
    the Mann-Whitney statistic (Hanley and McNeil, Radiology 1982).

    Args:
        score: float [n]. label: bool or 0/1 [n].

    Returns:
        From 0 to 1; NaN without positives, without negatives, or where a score is NaN.
    """
    if len(score) == 0:
        return float("nan")
    return float(group_auc(score, label, np.zeros(len(score), np.int64))[1][0])


def group_auc(
    score: np.ndarray, label: np.ndarray, group: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The AUC within each group (a user, a page).

    Args:
        score: float [n]. label: bool or 0/1 [n]. group: ids [n], in any order.

    Returns:
        (group ids [G], rising; AUC float64 [G], NaN where a group has one kind only; examples int64
        [G]).
    """
    score, label = np.asarray(score), np.asarray(label)
    ids, row, size = np.unique(group, return_inverse=True, return_counts=True)
    order = np.lexsort((score, row))
    row, score, positive = row[order], score[order], label[order] > 0
    starts = np.cumsum(size) - size
    # Equal scores of a group share the mean of their places, which begin at 1 in each group.
    new = np.ones(len(row), bool)
    new[1:] = (row[1:] != row[:-1]) | (score[1:] != score[:-1])
    tie = np.cumsum(new) - 1
    last = np.cumsum(np.bincount(tie))
    first = np.flatnonzero(new) + 1
    rank = ((first + last) / 2)[tie] - starts[row]
    positives = np.bincount(row, positive, len(ids))
    negatives = size - positives
    rank_sum = np.bincount(row, np.where(positive, rank, 0), len(ids))
    with np.errstate(invalid="ignore", divide="ignore"):  # one kind only: 0 / 0
        area = (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)
    area[np.bincount(row, np.isnan(score), len(ids)) > 0] = np.nan
    return ids, area, size


def mean_group_auc(score: np.ndarray, label: np.ndarray, group: np.ndarray) -> float:
    """GAUC: the groups' AUCs weighted by their examples (Zhou et al., KDD 2018).

    Groups with one kind only are left out; NaN where that leaves none, or a score is NaN.
    """
    if np.isnan(score).any():
        return float("nan")
    _, area, size = group_auc(score, label, group)
    has = ~np.isnan(area)
    return float((area * size)[has].sum() / size[has].sum()) if has.any() else float("nan")
