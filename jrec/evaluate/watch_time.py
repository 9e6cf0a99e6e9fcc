"""How well scores rank and foretell watch times: NumPy, exact, over impressions."""

import numpy as np


def weighted_user_loss(
    score: np.ndarray, clicked: np.ndarray, watch: np.ndarray, page: np.ndarray
) -> float:
    """The share of watch time that is mispredicted: the ranking paper's weighted per-user loss.

    Over all pairs of a clicked and an unclicked impression of the same page: where the unclicked one
    scores higher, the clicked one's watch time is mispredicted (half of it where the scores are
    equal). The loss is mispredicted watch time / watch time, both summed over the pairs.

    Args:
        score: float [n]. clicked: bool [n]. watch: float [n], 0 or more. page: ids [n], in any order;
            what a user was shown at once, or whatever else is to be ranked together.

    Returns:
        From 0 to 1; NaN without a pair whose clicked impression was watched, or where a score is NaN.

    Source: Covington, Adams and Sargin (2016), section 4.3.
    """
    lost, total = _pair_sums(score, clicked, watch, page)
    if np.isnan(np.asarray(score)).any() or total.sum() == 0:
        return float("nan")
    return float(lost.sum() / total.sum())


def group_losses(
    score: np.ndarray, clicked: np.ndarray, watch: np.ndarray, group: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(group ids [G], rising; `weighted_user_loss` of each, NaN where a group has none)."""
    lost, total = _pair_sums(score, clicked, watch, group)
    with np.errstate(invalid="ignore"):
        return np.unique(group), lost / total


def _pair_sums(
    score: np.ndarray, clicked: np.ndarray, watch: np.ndarray, page: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """float64 [pages]: mispredicted and whole watch time, summed over the pairs."""
    score, clicked = np.asarray(score), np.asarray(clicked, bool)
    ids, row = np.unique(page, return_inverse=True)
    order = np.lexsort((score, row))
    row, score, clicked = row[order], score[order], clicked[order]
    new = np.ones(len(row), bool)
    new[1:] = (row[1:] != row[:-1]) | (score[1:] != score[:-1])
    tie = np.cumsum(new) - 1
    negative = (~clicked).astype(np.int64)
    of_page = np.bincount(row, negative, len(ids))
    of_tie = np.bincount(tie, negative)
    # Unclicked impressions of lower pages, and of this page up to this score.
    so_far = np.cumsum(of_tie)[tie] - (np.cumsum(of_page) - of_page)[row]
    higher = of_page[row] - so_far + of_tie[tie] / 2
    weight = np.where(clicked, np.asarray(watch, np.float64)[order], 0)
    return np.bincount(row, weight * higher, len(ids)), np.bincount(
        row, weight * of_page[row], len(ids)
    )


def log_loss(probability: np.ndarray, label: np.ndarray) -> float:
    """Mean of -log(probability of what happened), in nats; NaN without examples.

    Args:
        probability: float [n], of a true label; kept within float32's precision of 0 and 1, so that
            one sure mistake costs 16 nats, not infinity. label: bool [n].
    """
    if len(probability) == 0:
        return float("nan")
    smallest = float(np.finfo(np.float32).eps)
    p = np.clip(np.asarray(probability, np.float64), smallest, 1 - smallest)
    return float(-np.log(np.where(label, p, 1 - p)).mean())


def calibration(predicted: np.ndarray, actual: np.ndarray, bins: int = 10) -> dict[str, np.ndarray]:
    """Mean of what was predicted and of what came, in bins of equally many examples (deciles).

    Args:
        predicted: float [n], sorts examples into bins. actual: float or bool [n].

    Returns:
        `predicted`, `actual`, `ratio` (predicted / actual, NaN where nothing came): float64 [bins];
        `count`: int64 [bins]. Bins go from the lowest prediction on and are fewer than asked for
        where there are fewer examples; equal predictions are put in one bin.
    """
    predicted = np.asarray(predicted, np.float64)
    _, value, many = np.unique(predicted, return_inverse=True, return_counts=True)
    middle = np.cumsum(many) - many / 2  # the place of a value's middle example
    raw = np.minimum((middle / max(len(predicted), 1) * bins).astype(np.int64), bins - 1)
    filled, of_value = np.unique(raw, return_inverse=True)
    row = of_value[value]
    count = np.bincount(row, minlength=len(filled))
    means = [
        np.bincount(row, np.asarray(column, np.float64), len(filled)) / count
        for column in (predicted, actual)
    ]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(means[1] > 0, means[0] / means[1], np.nan)
    return {"predicted": means[0], "actual": means[1], "ratio": ratio, "count": count}


def watch_time_errors(predicted: np.ndarray, expected: np.ndarray) -> dict[str, float]:
    """Errors of predicted expected watch times, in the units given.

    Args:
        predicted, expected: float [n]; the second what was watched, or the true mean where planted.

    Returns:
        `mae`, `rmse`, and `bias`: mean predicted / mean expected - 1.
    """
    predicted, expected = (np.asarray(values, np.float64) for values in (predicted, expected))
    error = predicted - expected
    return {
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "bias": float(predicted.mean() / expected.mean() - 1) if expected.any() else float("nan"),
    }
