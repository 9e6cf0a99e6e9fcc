import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jrec.data.ragged import Ragged, pad
from jrec.errors import InputError
from jrec.retrieval import grouped
from jrec.retrieval.exact import (
    Ranked,
    approximate_top_k,
    item_table,
    plain_top_k,
    restrict,
)
from jrec.retrieval.grouped import exact_top_k
from jrec.retrieval.largest import largest_places

pytestmark = pytest.mark.bits
D = 5


def whole_numbers(seed, items, queries=4, top=3):
    """u, w, b of small integers: sums are exact in any order, and ties abound."""
    generator = np.random.default_rng(seed)
    shapes = ((queries, D), (items, D), items)
    return [generator.integers(-top, top + 1, shape).astype(np.float32) for shape in shapes]


def brute_force(query_BD, weight_MD, bias_M, count, seen=None, allowed_M=None):
    """(rows, scores) of each query as lists, by a stable sort of everything."""
    lists = []
    for number, query_D in enumerate(query_BD.astype(np.float64)):
        score_M = weight_MD.astype(np.float64) @ query_D + bias_M
        left_out = np.zeros(len(score_M), bool) if allowed_M is None else ~allowed_M
        if seen is not None:
            left_out[seen[number]] = True
        score_M[left_out] = -np.inf
        order = np.argsort(-score_M, kind="stable")[:count]
        order = order[~left_out[order]]
        lists.append((order.tolist(), score_M[order].tolist()))
    return lists


def as_lists(ranked: Ranked):
    mask = np.asarray(ranked.mask)
    assert (np.asarray(ranked.rows)[~mask] == -1).all()
    assert (np.asarray(ranked.scores)[~mask] == -np.inf).all()
    parts = zip(np.asarray(ranked.rows), np.asarray(ranked.scores), mask, strict=True)
    return [(rows[m].tolist(), scores[m].tolist()) for rows, scores, m in parts]


def seen_lists(seed, queries, items, longest):
    generator = np.random.default_rng(seed)
    return [
        generator.integers(0, items, generator.integers(0, longest + 1)) for _ in range(queries)
    ]


@given(
    seed=st.integers(0, 9),
    items=st.sampled_from([1, 700, 1999]),
    blocks=st.sampled_from([192, 8192]),
    count=st.sampled_from([3, 70]),
    longest=st.sampled_from([0, 4]),
    restricted=st.booleans(),
)
def test_lists_equal_brute_force(seed, items, blocks, count, longest, restricted):
    query_BD, weight_MD, bias_M = whole_numbers(seed, items)
    seen = seen_lists(seed, len(query_BD), items, longest)
    allowed_M = np.random.default_rng(seed).random(items) < 0.5 if restricted else None
    table = item_table(weight_MD, bias_M, allowed_M, block_rows=blocks)
    ids, mask = pad(Ragged.from_lists(seen), lengths=[max(longest, 1)])
    found = exact_top_k(table, query_BD, count, ids, mask, group_rows=8)
    assert found.rows.shape == (len(query_BD), count)
    wanted = brute_force(query_BD, weight_MD, bias_M, count, seen, allowed_M)
    assert as_lists(found) == wanted
    assert as_lists(plain_top_k(table, query_BD, count, ids, mask)) == wanted


@pytest.mark.parametrize(
    ("group_rows", "queries_at_once"), [(None, None), (8, 3), (32, None), (64, 4)]
)
def test_groups_of_any_size_give_the_same_lists(group_rows, queries_at_once):
    query_BD, weight_MD, bias_M = whole_numbers(1, 9000, top=50)
    seen = seen_lists(1, len(query_BD), 9000, 6)
    # Seen are the very best, so that they fill the groups that would otherwise be chosen.
    for number, (rows, _) in enumerate(brute_force(query_BD, weight_MD, bias_M, 6)):
        seen[number] = np.array(rows, np.int64)
    ids, mask = pad(Ragged.from_lists(seen))
    table = item_table(weight_MD, bias_M, block_rows=2048)
    found = exact_top_k(table, query_BD, 10, ids, mask, group_rows, queries_at_once)
    assert as_lists(found) == brute_force(query_BD, weight_MD, bias_M, 10, seen)


def test_masked_seen_ids_are_not_left_out():
    query_BD, weight_MD, bias_M = whole_numbers(2, 3000)
    best = np.array([rows for rows, _ in brute_force(query_BD, weight_MD, bias_M, 2)], np.int32)
    table, wanted = item_table(weight_MD, bias_M), brute_force(query_BD, weight_MD, bias_M, 5)
    nothing = np.zeros(best.shape, bool)
    assert as_lists(exact_top_k(table, query_BD, 5, best, nothing)) == wanted
    assert as_lists(exact_top_k(table, query_BD, 5, best - 5000, nothing)) == wanted
    outside = np.full(best.shape, 10**6, np.int32)
    assert as_lists(exact_top_k(table, query_BD, 5, outside, ~nothing)) == wanted


def test_ties_within_rounding_are_never_decided_by_the_choice_of_groups():
    # All items are one, so all scores are equal, and every group might hold the lowest rows.
    generator = np.random.default_rng(3)
    query_BD = generator.standard_normal((6, 33)).astype(np.float32)
    weight_MD = np.tile(generator.standard_normal((1, 33)).astype(np.float32), (5003, 1))
    found = exact_top_k(item_table(weight_MD), query_BD, 20, group_rows=8)
    assert np.array_equal(found.rows, np.tile(np.arange(20), (6, 1)))


@given(
    seed=st.integers(0, 30),
    number=st.integers(9, 300),
    count=st.integers(1, 8),
    top=st.sampled_from([1, 20, None]),
)
def test_the_largest_of_rows_by_halving(seed, number, count, top):
    generator = np.random.default_rng(seed)
    value_BN = generator.standard_normal((6, number)).astype(np.float32)
    if top is not None:  # equal values
        value_BN = generator.integers(-top, top + 1, (6, number)).astype(np.float32) + 0.5
    value_BN[0], value_BN[1, 3:], value_BN[2, :5] = -np.inf, -np.inf, 3e38
    value_BN[3], value_BN[4, ::2] = -1e-40, 0.0  # denormal, and zeros
    places, thresholds = map(np.asarray, largest_places(jnp.asarray(value_BN), count))
    for value_N, place_C, threshold in zip(value_BN, places, thresholds, strict=True):
        chosen = place_C[place_C < number]
        assert (np.diff(chosen) > 0).all() and (place_C[len(chosen) :] == number).all()
        assert (value_N[chosen] > threshold).all()
        assert (np.delete(value_N, chosen) <= threshold).all()
        # All that are above the next one after them, and so all C where none are equal.
        assert len(chosen) == (value_N > np.sort(value_N)[-count - 1]).sum()


@pytest.mark.parametrize(
    ("items", "block"), [(8193, 5120), (70_001, 7168), (100, 128), (8192, 8192)]
)
def test_blocks_leave_little_room_at_the_end(items, block):
    table = item_table(np.zeros((items, 2), np.float32))
    assert table.block_rows == block and len(table.biases) % block == 0


@pytest.mark.parametrize("queries", [1, 8, 9, 300])
def test_lists_do_not_depend_on_how_many_queries_there_are(queries):
    # One block of all items for a few queries, parts of a block for many.
    generator = np.random.default_rng(5)
    query_BD, weight_MD = (
        generator.standard_normal((rows, 33)).astype(np.float32) for rows in (300, 20_000)
    )
    table = item_table(weight_MD, block_rows=4096)
    whole = exact_top_k(table, query_BD, 20)
    part = exact_top_k(table, query_BD[:queries], 20)
    for one, other in zip(whole, part, strict=True):
        assert np.array_equal(one[:queries], other)


@pytest.mark.parametrize("top", [3, 1000])
def test_lists_are_exact_though_the_maxima_of_groups_are_rounded(monkeypatch, top):
    # Maxima as wrong as a product's rounding can make them: they mislead the choice of groups.
    query_BD, weight_MD, bias_M = whole_numbers(3, 5000, queries=24, top=top)
    table = item_table(weight_MD, bias_M)
    maxima = grouped._group_maxima

    def rounded(table, query_BD, G):
        true_GB = maxima(table, query_BD, G)
        signs = np.random.default_rng(0).choice([-1, 1], true_GB.shape).astype(np.float32)
        error_B = jnp.sqrt(1 + (query_BD**2).sum(1)) * table.norm * (D + 1) * 2.0**-24
        return true_GB + signs * error_B[None]

    monkeypatch.setattr(grouped, "_group_maxima", rounded)
    monkeypatch.setattr(grouped, "_SPARE_GROUPS", 0)
    exact_top_k.clear_cache()
    found = [exact_top_k(table, query_D[None], 20, group_rows=8) for query_D in query_BD]
    exact_top_k.clear_cache()
    wanted = brute_force(query_BD, weight_MD, bias_M, 20)
    assert [as_lists(one)[0] for one in found] == wanted


def test_real_scores_agree_with_float64():
    generator = np.random.default_rng(4)
    query_BD, weight_MD = (
        generator.standard_normal((rows, 33)).astype(np.float32) for rows in (7, 20_000)
    )
    bias_M = generator.standard_normal(20_000).astype(np.float32)
    found = exact_top_k(item_table(weight_MD, bias_M), query_BD, 50)
    for (rows, scores), (best, true) in zip(
        as_lists(found), brute_force(query_BD, weight_MD, bias_M, 50), strict=True
    ):
        assert rows == best and np.allclose(scores, true, atol=1e-4)


def test_more_asked_for_than_there_is():
    query_BD, weight_MD, bias_M = whole_numbers(5, 3)
    table = item_table(weight_MD, bias_M)
    found = exact_top_k(table, query_BD, 200)
    assert found.rows.shape == (4, 200) and found.mask.sum() == 12
    assert as_lists(found) == brute_force(query_BD, weight_MD, bias_M, 200)
    none = exact_top_k(restrict(table, np.zeros(3, bool)), query_BD, 2)
    assert not none.mask.any()
    large = item_table(*whole_numbers(5, 5000)[1:], allowed_M=np.arange(5000) == 4321)
    found = exact_top_k(large, query_BD, 3, group_rows=8)
    assert found.rows[:, 0].tolist() == [4321] * 4 and found.mask.sum() == 4


def test_one_trace_a_shape():
    exact_top_k.clear_cache()
    for seed in range(3):
        query_BD, weight_MD, bias_M = whole_numbers(seed, 3000)
        table = restrict(item_table(weight_MD, bias_M), np.arange(3000) > seed)
        exact_top_k(table, query_BD, 4, np.full((4, 2), seed), np.ones((4, 2), bool))
    assert exact_top_k._cache_size() == 1


def test_scores_of_all_items_never_stand_in_memory_at_once():
    table = jax.eval_shape(lambda: item_table_shapes(1 << 20))
    query_BD = jax.ShapeDtypeStruct((64, 32), jnp.float32)
    memory = exact_top_k.lower(table, query_BD, 100).compile().memory_analysis()
    everything = 64 * (1 << 20) * 4
    assert memory.temp_size_in_bytes < everything / 4


def item_table_shapes(items):
    table = item_table(np.zeros((8192, 32)))
    return jax.tree.map(lambda x: jnp.zeros((items, *x.shape[1:])) if x.ndim else x, table)


def test_approximate_lists_reach_their_recall():
    generator = np.random.default_rng(8)
    query_BD, weight_MD = (
        generator.standard_normal((rows, D)).astype(np.float32) for rows in (8, 20_000)
    )
    table = item_table(weight_MD)
    seen = exact_top_k(table, query_BD, 3).rows
    mask = np.ones(seen.shape, bool)
    wanted = exact_top_k(table, query_BD, 50, seen, mask).rows
    found = approximate_top_k(table, query_BD, 50, seen, mask, recall=0.9)
    shared = [len(np.intersect1d(a, b)) for a, b in zip(wanted, found.rows, strict=True)]
    assert np.mean(shared) / 50 >= 0.9
    assert (np.diff(found.scores, axis=1) <= 0).all()
    assert not (np.asarray(found.rows)[:, :, None] == np.asarray(seen)[:, None, :]).any()


def test_no_items_and_bad_numbers_are_refused():
    with pytest.raises(InputError, match="no items"):
        item_table(np.zeros((0, 4)))
    with pytest.raises(InputError, match="row 1 is not finite"):
        item_table(np.array([[1.0], [np.nan]]))
