"""Approximate search over cosine vectors with faiss (the extra `ann`): build, search, add, remove."""

from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import numpy as np

from jrec.data.ragged import Ragged
from jrec.errors import InputError
from jrec.retrieval.score_metric import fitted_to, mapped_items, mapped_queries, score_metric

Kind = Literal["hnsw", "ivf_flat", "ivf_pq"]
KINDS: tuple[Kind, ...] = ("hnsw", "ivf_flat", "ivf_pq")

_SUBVECTOR = 2  # numbers that one byte of a product quantiser stands for
_FEWEST_FOR_PQ = 256  # a byte has so many codes to learn
_PQ_FETCHES = 4  # candidates a listed item whose true cosine is then computed


@dataclass(frozen=True)
class AnnIndex:
    """A faiss index and what its numbers mean.

    Attributes:
        kind: `hnsw` (graph), `ivf_flat` (cells) or `ivf_pq` (cells, a byte for every two numbers).
        index: faiss's own.
        ids: [M], raw ids by row, int or str.
        vectors: float32 [M, D], as given, by row.
        model: the name of the model that made the vectors.
        metric: float64 [2, D, D], the coordinates inside (`score_metric`); None: the vectors' own.
    """

    kind: Kind
    index: Any
    ids: np.ndarray
    vectors: np.ndarray
    model: str
    metric: np.ndarray | None = None


def import_faiss() -> ModuleType:
    """faiss; raises InputError naming the extra where it is not installed."""
    try:
        import faiss
    except ImportError as error:
        raise InputError(
            "Approximate search needs faiss, which is not installed; pip install 'jrec[ann]' brings it."
        ) from error
    return faiss


def build_index(
    vectors_MD: np.ndarray,
    ids: np.ndarray,
    model: str,
    kind: Kind = "hnsw",
    links: int = 32,
    build_effort: int = 100,
    cells: int | None = None,
    query_ND: np.ndarray | None = None,
) -> AnnIndex:
    """Indexes items by the cosine of their vectors, such as `simple_lsh.item_vectors` makes.

    With several threads faiss links an `hnsw` graph in no fixed order, so two builds may differ in a few
    items of a list. Malkov and Yashunin, 2018 (hnsw); Jégou et al., 2011 (ivf, pq).

    Args:
        vectors_MD: float32 [M, D]. ids: [M], distinct. model: any name; part of the fingerprint.
        links: neighbours of an item in the graph. build_effort: candidates for them.
        cells: of `ivf_*`; 4 sqrt(M) by default.
        query_ND: float [N, D], a sample of the unit vectors that will be searched for. Items are then near
            where these users score them alike (`score_metric`): far more is found for the same effort.

    Raises InputError where faiss is missing, ids repeat, or there are too few items for the kind.
    """
    metric = None if query_ND is None or len(query_ND) == 0 else score_metric(query_ND)
    faiss = import_faiss()
    ids, vectors_MD = np.asarray(ids), np.ascontiguousarray(vectors_MD, np.float32)
    _check_distinct(ids)
    metric = None if metric is None else fitted_to(metric, _unit(vectors_MD))
    searched_MD = _searched(kind, vectors_MD, metric)
    M, width = searched_MD.shape
    fewest = _FEWEST_FOR_PQ if kind == "ivf_pq" else 1
    if len(vectors_MD) < fewest:
        raise InputError(
            f"{M} items are too few for an {kind} index; use --kind hnsw or exact search."
        )
    product = faiss.METRIC_INNER_PRODUCT
    if kind == "hnsw":
        index = faiss.IndexHNSWFlat(width, links, product)
        index.hnsw.efConstruction = build_effort
    else:
        # k-means wants some 39 points a cell.
        cells = max(min(int(4 * M**0.5) if cells is None else cells, M // 39), 1)
        quantizer = faiss.IndexFlatIP(width)
        if kind == "ivf_flat":
            index = faiss.IndexIVFFlat(quantizer, width, cells, product)
        else:
            index = faiss.IndexIVFPQ(quantizer, width, cells, width // _SUBVECTOR, 8, product)
            index.pq.cp.min_points_per_centroid = 1
        index.cp.min_points_per_centroid = 1
        index.cp.max_points_per_centroid = (
            64  # a quarter of faiss's time for half a point of recall
        )
        index.train(searched_MD)
    index.add(searched_MD)
    return AnnIndex(kind, index, ids, vectors_MD, model, metric)


def search_index(
    index: AnnIndex,
    query_BD: np.ndarray,
    count: int,
    effort: int = 64,
    seen: Ragged | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lists of the highest cosine that the index finds, best first; of equal ones the lower row.

    Args:
        query_BD: float32 [B, D], unit vectors (`simple_lsh.user_vectors`).
        count: K. effort: candidates held (`hnsw`, at least K are) or cells looked at (`ivf_*`).
        seen: rows of `index.ids` to leave out, one list a query.

    Returns:
        (rows int64 [B, K] into `index.ids`, cosines float32 [B, K], mask bool [B, K]); where the mask is
        false, fewer were found and the row is -1.
    """
    faiss = import_faiss()
    query_BD = np.ascontiguousarray(query_BD, np.float32)
    longest = 0 if seen is None else int(seen.lengths.max(initial=0))
    fetched = count * (_PQ_FETCHES if index.kind == "ivf_pq" else 1) + longest
    fetched = min(fetched, len(index.ids))
    if index.kind == "hnsw":
        settings = faiss.SearchParametersHNSW(efSearch=max(effort, fetched))
    else:
        settings = faiss.SearchParametersIVF(nprobe=effort)
    inside_BE, norm_B = query_BD, None
    if index.metric is not None:
        inside_BE, norm_B = mapped_queries(index.metric, query_BD)
    cosine_BF, row_BF = index.index.search(_padded(index.kind, inside_BE), fetched, params=settings)
    if index.kind == "ivf_pq":  # its cosines are those of the codes
        vector_BFD = _unit(index.vectors[row_BF.ravel()]).reshape(*row_BF.shape, -1)
        cosine_BF = np.einsum("bd,bfd->bf", query_BD, vector_BFD)
    elif norm_B is not None:
        cosine_BF = cosine_BF * norm_B[:, None]
    keep_BF = row_BF >= 0
    if longest:
        M = len(index.ids)
        users = np.repeat(np.arange(len(seen)), seen.lengths)
        places_BF = np.arange(len(query_BD))[:, None] * M + row_BF
        keep_BF &= ~np.isin(places_BF, users * M + seen.values)
    cosine_BF = np.where(keep_BF, cosine_BF, -np.inf)
    order_BK = np.lexsort((row_BF, -cosine_BF))[:, :count]
    missing = ((0, 0), (0, count - order_BK.shape[1]))
    mask_BK = np.pad(np.take_along_axis(keep_BF, order_BK, 1), missing)
    row_BK = np.pad(np.take_along_axis(row_BF, order_BK, 1), missing)
    cosine_BK = np.pad(np.take_along_axis(cosine_BF, order_BK, 1), missing)
    return (
        np.where(mask_BK, row_BK, -1),
        np.where(mask_BK, cosine_BK, -np.inf).astype(np.float32),
        mask_BK,
    )


def _searched(kind: Kind, vectors_ND: np.ndarray, metric: np.ndarray | None) -> np.ndarray:
    unit_ND = _unit(vectors_ND)
    return _padded(kind, unit_ND if metric is None else mapped_items(metric, unit_ND))


def _padded(kind: Kind, vectors_ND: np.ndarray) -> np.ndarray:
    extra = -vectors_ND.shape[1] % _SUBVECTOR if kind == "ivf_pq" else 0
    return np.pad(vectors_ND, ((0, 0), (0, extra))) if extra else vectors_ND


def _unit(vectors_ND: np.ndarray) -> np.ndarray:
    norm_N1 = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    return vectors_ND / np.where(norm_N1 > 0, norm_N1, 1)


def _check_distinct(ids: np.ndarray) -> None:
    values, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise InputError(f"Item {values[counts > 1][0]} is there twice; give each id once.")
