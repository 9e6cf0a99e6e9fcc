"""SIMPLE-LSH: vectors whose cosine ranks as the score w.u + b does, for systems that know only cosine.

    user  [1, u, 0] / |[1, u]|                      every user vector has norm 1
    item  [b, w, sqrt(m^2 - |[b, w]|^2)]            every item vector has norm m, the largest |[b, w]|

so cosine(user, item) = (w.u + b) / (|[1, u]| m), and a user's items keep their order. Neyshabur and
Srebro, "On Symmetric and Asymmetric LSHs for Inner Product Search", ICML 2015, section 4; the item is not
divided by m, as in the Paddle source (candidate generation), which keeps more digits.
"""

import numpy as np

from jrec.errors import InputError


def user_vectors(user_ND: np.ndarray) -> np.ndarray:
    """float [N, D] -> float32 [N, D + 2]: [1, u, 0] / |[1, u]|.

    Raises InputError where a number is not finite.
    """
    norm_N = np.sqrt(1 + _square_norms(user_ND, "user vector"))
    vectors = np.zeros((len(user_ND), user_ND.shape[1] + 2), np.float32)
    vectors[:, 0] = 1 / norm_N
    vectors[:, 1:-1] = user_ND / norm_N[:, None]
    return vectors


def largest_norm(weight_MD: np.ndarray, bias_M: np.ndarray | None = None) -> float:
    """m: the largest |[b, w]| of float [M, D] and [M]; 0 without items. No bias counts as 0."""
    return float(np.sqrt(_item_square_norms(weight_MD, bias_M).max(initial=0)))


def item_vectors(
    weight_MD: np.ndarray, bias_M: np.ndarray | None = None, norm: float | None = None
) -> np.ndarray:
    """float [M, D] and [M] -> float32 [M, D + 2]: [b, w, sqrt(m^2 - |[b, w]|^2)].

    Args:
        norm: m; by default these items' own. Items that join others later must be given the others' m.

    Raises InputError where a number is not finite, or an item is longer than `norm`.
    """
    square_M = _item_square_norms(weight_MD, bias_M)
    largest = square_M.max(initial=0)
    # An m that has been through float32 may be a rounding error below the longest item.
    if norm is not None and norm**2 < largest * (1 - 1e-6):
        row = int(square_M.argmax())
        raise InputError(
            f"Item {row} is longer ({largest**0.5:.6g}) than all items it joins ({norm:.6g}); "
            f"make all vectors anew."
        )
    vectors = np.zeros((len(weight_MD), weight_MD.shape[1] + 2), np.float32)
    if bias_M is not None:
        vectors[:, 0] = bias_M
    vectors[:, 1:-1] = weight_MD
    vectors[:, -1] = np.sqrt(np.maximum((largest if norm is None else norm**2) - square_M, 0))
    return vectors


def unit_rows(tower_ND: np.ndarray, smallest: float = 1e-8) -> np.ndarray:
    """Towers that are compared by cosine (the fusion model's) as vectors that are compared by w.u.

    float [N, D] -> float32 [N, D], each row divided by its norm, whose square is clamped to at least
    `smallest` as in `jrec.models.layers.cosine`. With u, w the unit rows of both towers and b = 0,
    w.u + b is their cosine, so all of `jrec.retrieval` serves such a model too.
    """
    square_N = np.maximum(_square_norms(tower_ND, "tower"), smallest)
    return (tower_ND / np.sqrt(square_N)[:, None]).astype(np.float32)


def _item_square_norms(weight_MD: np.ndarray, bias_M: np.ndarray | None) -> np.ndarray:
    square_M = _square_norms(weight_MD, "item weight")
    return square_M if bias_M is None else square_M + _square_norms(bias_M[:, None], "item bias")


def _square_norms(values_ND: np.ndarray, what: str) -> np.ndarray:
    # In float64: the square of a large float32 overflows, and m^2 - |v|^2 cancels.
    values_ND = np.asarray(values_ND)
    square_N = np.einsum("nd,nd->n", values_ND, values_ND, dtype=np.float64)
    bad_N = ~np.isfinite(square_N)
    if bad_N.any():
        raise InputError(
            f"The {what} of row {int(bad_N.argmax())} is not finite; the training diverged, lower its rate."
        )
    return square_N
