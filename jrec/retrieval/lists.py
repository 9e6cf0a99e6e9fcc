"""Ranked lists in memory, and the fingerprint of the vectors that they come from."""

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

ListSource = Callable[[int, int], "Lists"]
"""(start, stop) -> those lists."""


class Lists(NamedTuple):
    """Ranked lists, best first.

    Attributes:
        rows: int [N, K], item rows. scores: float32 [N, K]. mask: bool [N, K], false where there is none.
        rules: str [N], which rule made each list.
    """

    rows: np.ndarray
    scores: np.ndarray
    mask: np.ndarray
    rules: np.ndarray


def fingerprint(model: str, ids: np.ndarray, vectors_MD: np.ndarray) -> str:
    """sha256 of a model's name, its items' ids and their vectors, whatever their order."""
    ids = np.asarray(ids)
    order = np.argsort(ids, kind="stable")
    digest = hashlib.sha256(f"{model}\n{np.shape(vectors_MD)}\n".encode())
    digest.update("\n".join(map(str, ids[order].tolist())).encode())
    for start in range(0, len(order), 1 << 16):
        part = np.asarray(vectors_MD)[order[start : start + (1 << 16)]]
        digest.update(np.ascontiguousarray(part, np.float32).tobytes())
    return digest.hexdigest()
