"""Coordinates by how queries score items."""

import numpy as np
import pytest

from jrec.retrieval.ann import build_index, search_index
from jrec.retrieval.recall import mean_recall
from jrec.retrieval.score_metric import fitted_to, mapped_items, mapped_queries, score_metric

generator = np.random.default_rng(0)


def units(*shape, scale=1.0):
    values = generator.standard_normal(shape) * scale
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


@pytest.mark.parametrize("empty", [0, 3])
def test_products_stay_and_distances_are_of_scores(empty):
    scale = np.r_[np.zeros(empty), 0.1, 1, 3, np.ones(4)]  # in some directions no query points
    queries, items = units(200, len(scale), scale=scale), units(50, len(scale))
    metric = fitted_to(score_metric(queries), items)
    mapped, (asked, norms) = mapped_items(metric, items), mapped_queries(metric, queries)
    assert np.allclose(np.linalg.norm(mapped, axis=1), 1, atol=1e-6)
    assert np.allclose(np.linalg.norm(asked, axis=1), 1, atol=1e-6)
    scores = queries @ items.T
    assert np.allclose(asked @ mapped.T * norms[:, None], scores, atol=1e-5)
    if empty == 0:
        root = score_metric(queries)[0]
        wanted = np.sqrt(((scores[:, :1] - scores) ** 2).mean(0))
        assert np.allclose(np.linalg.norm((items[:1] - items) @ root, axis=1), wanted)
    longest = np.linalg.norm(items @ metric[0], axis=1).max()
    assert np.isclose(longest, 1)


def test_an_item_longer_than_those_before_keeps_its_products():
    queries, items = units(100, 5, scale=[3, 1, 1, 1, 1]), units(20, 5)
    metric = fitted_to(score_metric(queries), items)
    longer = np.array([[5.0, 0, 0, 0, 0]])
    asked, norms = mapped_queries(metric, queries)
    found = asked @ mapped_items(metric, longer).T * norms[:, None]
    assert np.allclose(found, queries @ longer.T, atol=1e-4)


def test_no_items_and_queries_of_zero():
    metric = score_metric(units(10, 4))
    assert np.array_equal(fitted_to(metric, np.zeros((0, 4))), metric)
    assert mapped_items(metric, np.zeros((0, 4))).shape == (0, 5)
    assert not mapped_queries(metric, np.zeros((2, 4)))[0].any()


def test_little_effort_finds_more():
    pytest.importorskip("faiss", reason="faiss (the extra ann) is not installed")
    scale = np.r_[np.ones(4), np.full(60, 0.01)]  # users differ in few directions, items in all
    queries, items = units(300, 64, scale=scale).astype(np.float32), units(5000, 64)
    truth = np.argsort(-queries[:100] @ items.T, axis=1)[:, :20]
    recalls = []
    for sample in (None, queries[100:]):
        index = build_index(items, np.arange(5000), "m", query_ND=sample)
        rows = search_index(index, queries[:100], 20, effort=20)[0]
        recalls.append(mean_recall(rows, truth))
    assert recalls[1] > recalls[0] + 0.1, recalls
