"""Coordinates in which items lie close together that users score alike.

A product q.x stays what it is when items are mapped by A and queries by A^-1 (A symmetric). With A the root of
the queries' second moments, A^2 = E[q q^T], the distance of two mapped items is the root mean square of
the difference of their scores over the queries:

    |A x - A y|^2 = E[(q.x - q.y)^2]

That is the distance a graph or cells should be made by. Items' own distance also counts directions in which no
query points, and counts one in which all point as any other.
"""

import numpy as np

_SMALLEST = (
    1e-3  # of the largest second moment; no query points that way, and the inverse must exist
)


def score_metric(query_ND: np.ndarray) -> np.ndarray:
    """float64 [2, D, D]: A for items and A^-1 for queries.

    Args:
        query_ND: float [N, D], a sample of the queries to come; unit vectors. Some thousands are enough.
    """
    query_ND = np.asarray(query_ND, np.float64)
    moment_DD = query_ND.T @ query_ND / len(query_ND)
    values, directions = np.linalg.eigh(moment_DD)
    roots = np.sqrt(np.maximum(values, _SMALLEST * values.max()))
    return np.stack([directions * roots @ directions.T, directions / roots @ directions.T])


def fitted_to(metric: np.ndarray, unit_MD: np.ndarray) -> np.ndarray:
    """The metric scaled so that the longest of the mapped items [M, D] has norm 1."""
    items, queries = metric
    longest = np.sqrt(((unit_MD @ items) ** 2).sum(1).max(initial=0))
    return metric if longest == 0 else np.stack([items / longest, queries * longest])


def mapped_items(metric: np.ndarray, unit_MD: np.ndarray) -> np.ndarray:
    """float32 [M, D + 1]: A x, and what it lacks to norm 1 (an item longer than all before: nothing)."""
    mapped_MD = unit_MD @ metric[0]
    missing_M = np.sqrt(np.maximum(1 - (mapped_MD**2).sum(1), 0))
    return np.concatenate([mapped_MD, missing_M[:, None]], 1).astype(np.float32)


def mapped_queries(metric: np.ndarray, query_ND: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(float32 [N, D + 1]: A^-1 q / |A^-1 q| and 0; float [N]: |A^-1 q|, by which products become q.x again)."""
    mapped_ND = query_ND @ metric[1]
    norm_N = np.linalg.norm(mapped_ND, axis=1)
    unit_ND = mapped_ND / np.where(norm_N > 0, norm_N, 1)[:, None]
    return np.pad(unit_ND, ((0, 0), (0, 1))).astype(np.float32), norm_N
