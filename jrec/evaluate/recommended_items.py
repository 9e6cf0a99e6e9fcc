"""What a recommender's lists are made of: coverage, popularity bias, concentration (Gini)."""

import numpy as np


def exposure(list_NK: np.ndarray, mask_NK: np.ndarray, M: int) -> np.ndarray:
    """int64 [M]: how many lists hold each item.

    Args:
        list_NK: int [N, K] ids from 0 to M - 1, none twice in a list. mask_NK: bool, false where there
            is none.
    """
    return np.bincount(np.asarray(list_NK)[np.asarray(mask_NK)], minlength=M)


def coverage(exposure_M: np.ndarray, recommendable_M: np.ndarray) -> float:
    """Share of the recommendable items that stand in some list; NaN where there are none."""
    return _mean((exposure_M > 0)[recommendable_M])


def gini(exposure_M: np.ndarray, recommendable_M: np.ndarray) -> float:
    """Concentration of exposure: 0 where all items are shown as often, 1 - 1/M for one item alone.

    G = sum_i (2 i - M - 1) x_i / (M sum_i x_i), x_1 <= ... <= x_M the exposures of the M recommendable
    items. NaN where nothing is shown.
    """
    x = np.sort(exposure_M[recommendable_M]).astype(np.float64)
    if x.sum() == 0:
        return float("nan")
    i = np.arange(1, len(x) + 1)
    return float(((2 * i - len(x) - 1) * x).sum() / (len(x) * x.sum()))


def popularity_bias(
    list_NK: np.ndarray, mask_NK: np.ndarray, count_M: np.ndarray
) -> dict[str, np.ndarray]:
    """How popular the items of each user's list are in training.

    Args:
        list_NK: int [N, K] ids. mask_NK: bool, false where there is none.
        count_M: [M], how often each item occurs in training, 0 or more.

    Returns:
        `popularity`, the mean of count (average recommendation popularity: Yin et al., VLDB 2012), and
        `log_popularity`, the mean of log(1 + count), float64 [N]; NaN for empty lists.
    """
    mask = np.asarray(mask_NK)
    count = np.asarray(count_M, np.float64)[np.where(mask, list_NK, 0)]
    shown = np.maximum(mask.sum(1), 1)
    empty = ~mask.any(1)
    values = {"popularity": count, "log_popularity": np.log1p(count)}
    return {
        name: np.where(empty, np.nan, np.where(mask, value, 0).sum(1) / shown)
        for name, value in values.items()
    }


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
