import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import PartitionSpec
from scipy import sparse

from jrec.evaluate.next_item import make_next_item_ranker, make_recommender
from jrec.evaluate.ranking_metrics import NOT_LISTED, mean_metrics, ranking_metrics
from jrec.evaluate.ranks import pair_scores, ranks_of_scores, target_ranks
from jrec.evaluate.top_k import top_items

pytestmark = pytest.mark.bits
B, M, D, L, T = 6, 300, 5, 9, 3
jit_ranks = jax.jit(target_ranks, static_argnames="item_block")
jit_scores = jax.jit(pair_scores)
jit_lists = jax.jit(top_items, static_argnames=("K", "item_block"))


def whole_numbers(generator, *shape):
    """Few values: many ties, and the same sums in any order of additions."""
    return generator.integers(-2, 3, shape).astype(np.float32)


def problem(seed, users=B, items=M, width=D, seen=L, targets=T):
    """Users, items and lists with everything awkward: repeats, seen targets, rows that are none."""
    g = np.random.default_rng(seed)
    ids = g.integers(-1, items + 1, (users, targets)).astype(np.int32)
    ids[::2, -1] = ids[::2, 0]
    return {
        "user_BD": whole_numbers(g, users, width),
        "item_MD": whole_numbers(g, items, width),
        "bias_M": whole_numbers(g, items),
        "targets_BT": ids,
        "targets_mask_BT": g.random((users, targets)) < 0.8,
        "seen_BL": g.integers(0, items, (users, seen)).astype(np.int32),
        "seen_mask_BL": g.random((users, seen)) < 0.7,
        "recommendable_M": g.random(items) < 0.8,
    }


def sorted_ranks(score_BM, p):
    """What `target_ranks` says it does, with lists, sets and a sort."""
    ranks, counted = np.zeros(p["targets_BT"].shape, int), p["targets_mask_BT"].copy()
    for u, scores in enumerate(score_BM):
        allowed = set(np.flatnonzero(p["recommendable_M"]))
        mine = [int(t) for t in p["targets_BT"][u][p["targets_mask_BT"][u]] if t in allowed]
        left = (allowed - set(p["seen_BL"][u][p["seen_mask_BL"][u]].tolist())) | set(mine)
        for place, target in enumerate(p["targets_BT"][u]):
            if target not in allowed:
                ranks[u, place] = len(scores) + 1
                continue
            # Worst of its equals: sorted by falling score, the target after all others of its score.
            order = sorted(left | {target}, key=lambda i: (-scores[i], i == target))
            ranks[u, place] = order.index(target) + 1
            earlier = p["targets_BT"][u][:place][p["targets_mask_BT"][u][:place]]
            counted[u, place] &= target not in earlier
    return ranks, counted


def check(p, score_BM, **kwargs):
    rank, counted = map(np.asarray, jit_ranks(**p, **kwargs))
    expected, expected_counted = sorted_ranks(score_BM, p)
    assert np.array_equal(counted, expected_counted)
    assert np.array_equal(rank[counted], expected[counted])
    return rank


@given(st.integers(0, 10_000))
def test_ranks_are_those_of_a_full_sort(seed):
    p = problem(seed)
    check(p, p["user_BD"] @ p["item_MD"].T + p["bias_M"], item_block=128)


def test_one_target_no_seen_items_and_a_catalogue_of_one():
    g = np.random.default_rng(0)
    user, item, bias = whole_numbers(g, 4, D), whole_numbers(g, 50, D), np.zeros(50, np.float32)
    targets, mask = np.arange(4, dtype=np.int32)[:, None], np.ones((4, 1), bool)
    rank, counted = jit_ranks(user, item, bias, targets, mask)
    scores = user @ item.T
    assert counted.all()
    for u in range(4):
        others = np.delete(scores[u], u)
        assert rank[u, 0] == 1 + (others >= scores[u, u]).sum()
    assert jit_ranks(user, item[:1], bias[:1], 0 * targets, mask)[0].tolist() == [[1]] * 4


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_ranks_of_given_scores_are_those_of_the_evaluator(dtype):
    """Ties, seen and withdrawn items, targets that are none; of floats NaN and infinities, too."""
    g = np.random.default_rng(3)
    p = problem(3, users=40, targets=1)
    score_BM = whole_numbers(g, 40, M)
    if dtype is not np.int64:
        largest = np.finfo(np.float32).max
        odd = np.array([np.nan, np.inf, -np.inf, largest, -largest], np.float32)
        score_BM = np.where(g.random((40, M)) < 0.2, g.choice(odd, (40, M)), score_BM)
        score_BM[0], score_BM[1] = np.nan, 7  # nothing but NaN; nothing but ties
    score_BM = score_BM.astype(dtype)
    rows = np.repeat(np.arange(40), p["seen_mask_BL"].sum(1))
    seen = sparse.csr_array(
        (np.ones(len(rows)), (rows, p["seen_BL"][p["seen_mask_BL"]])), shape=(40, M)
    )
    found = ranks_of_scores(score_BM, p["targets_BT"][:, 0], seen, p["recommendable_M"])
    zero, every = np.zeros((1, 1), np.float32), np.ones((1, 1), bool)
    for u in range(40):
        one = [p[name][u : u + 1] for name in ("targets_BT", "seen_BL", "seen_mask_BL")]
        bias = score_BM[u].astype(np.float32)  # the score itself: all vectors are 0
        rank, _ = jit_ranks(
            zero, np.zeros((M, 1), np.float32), bias, one[0], every, *one[1:], p["recommendable_M"]
        )
        assert found[u] == rank[0, 0]
    allowed = np.isin(p["targets_BT"][:, 0], np.flatnonzero(p["recommendable_M"]))
    assert (found[~allowed] == M + 1).all() and 0 < allowed.sum() < 40
    plain = ranks_of_scores(score_BM, np.zeros(40, int))
    assert plain.min() >= 1 and plain.max() <= M


def test_a_target_without_a_score_is_last():
    score = np.array([[0.5, np.nan, 0.1, -np.inf]])
    assert ranks_of_scores(score, np.array([1])) == 4
    assert ranks_of_scores(score, np.array([0])) == 2


def near_ties(seed, width=64, users=16, items=700):
    """Items that differ from each other in the last bits, or not at all; targets among them."""
    g = np.random.default_rng(seed)
    few = g.standard_normal((20, width)).astype(np.float32)
    item = few[g.integers(0, 20, items)]
    moved = np.arange(items), g.integers(0, width, items)
    item[moved] = np.where(
        g.random(items) < 0.7, np.nextafter(item[moved], np.float32(9)), item[moved]
    )
    p = problem(seed, users, items, width)
    return p | {
        "user_BD": g.standard_normal((users, width)).astype(np.float32),
        "item_MD": item,
        "bias_M": few[:, 0][g.integers(0, 20, items)] * np.float32(0.01),
    }


@pytest.mark.parametrize("width", [1, 64])
def test_scores_that_differ_in_the_last_bit_are_told_apart(width):
    p = near_ties(width, width)
    score_BM = np.asarray(jit_scores(p["user_BD"][:, None], p["item_MD"][None], p["bias_M"][None]))
    check(p, score_BM, item_block=256)


def test_ranks_do_not_depend_on_block_batch_or_devices():
    p = near_ties(1)
    all_at_once = np.asarray(jit_ranks(**p)[0])
    for item_block in (1, 256):
        assert np.array_equal(jit_ranks(**p, item_block=item_block)[0], all_at_once)
    by_user = {name for name in p if "_B" in name}
    for start in range(0, 16, 4):
        part = {n: v[start : start + 4] if n in by_user else v for n, v in p.items()}
        assert np.array_equal(jit_ranks(**part)[0], all_at_once[start : start + 4])

    mesh = jax.make_mesh((8,), ("users",), axis_types=(jax.sharding.AxisType.Auto,))
    specs = {n: PartitionSpec("users") if n in by_user else PartitionSpec() for n in p}
    sharded = jax.shard_map(
        lambda p: target_ranks(**p),
        mesh=mesh,
        in_specs=(specs,),
        out_specs=PartitionSpec("users"),
        check_vma=False,
    )
    assert np.array_equal(jax.jit(sharded)(p)[0], all_at_once)


def test_a_score_has_the_same_bits_in_any_company():
    g = np.random.default_rng(0)
    for width in (1, 7, 64):
        user, item = (g.standard_normal((2, 50, width)) * 3).astype(np.float32)
        bias = g.standard_normal(50).astype(np.float32)
        each = np.asarray(jit_scores(user[:, None], item[None], bias[None]))
        exact = user.astype(float) @ item.T.astype(float) + bias
        size = np.abs(user) @ np.abs(item).T + np.abs(bias)
        assert (np.abs(each - exact) <= 2.0**-24 * (np.ceil(np.log2(width)) + 3) * size).all()
        for u, i in ((0, 0), (7, 49), (30, 20)):
            assert jit_scores(user[u], item[i], bias[i]) == each[u, i]
        assert np.array_equal(jit_scores(user, item, bias), np.diag(each))
    assert pair_scores(user[1], item[2], bias[2]) == each[1, 2]  # one operation after the other


def test_constant_scores_rank_last_and_nan_does_not_win():
    g = np.random.default_rng(0)
    item, bias = np.ones((M, D), np.float32), np.ones(M, np.float32)
    targets, mask = g.integers(0, M, (B, 1)).astype(np.int32), np.ones((B, 1), bool)
    for user in (np.ones((B, D), np.float32), np.zeros((B, D), np.float32)):
        assert (jit_ranks(user, item, bias, targets, mask)[0] == M).all()
    for bad in (np.nan, np.inf):
        user = np.full((B, D), bad, np.float32)
        assert (jit_ranks(user, item * 0, bias, targets, mask)[0] == M).all()
    # One item that scores NaN stands ahead of every target.
    user = np.ones((B, D), np.float32)
    item[5], bias[:] = np.nan, -np.arange(M)
    rank = np.asarray(jit_ranks(user, item, bias, np.full((B, 1), 7, np.int32), mask)[0])
    assert (rank == 8).all() and (jit_ranks(user, item, bias, 0 * targets + 5, mask)[0] == M).all()


def test_huge_scores_do_not_put_removed_items_back():
    user, item = np.full((2, 2), 1e30, np.float32), np.full((10, 2), -1e30, np.float32)
    bias, mask = np.zeros(10, np.float32), np.ones((2, 1), bool)
    seen = np.tile(np.arange(4, dtype=np.int32), (2, 1))
    targets = np.full((2, 1), 9, np.int32)
    rank, _ = jit_ranks(user, item, bias, targets, mask, seen, np.ones((2, 4), bool))
    assert (rank == 6).all()


def test_all_items_seen_leaves_the_target_first():
    p = problem(3, targets=1) | {
        "seen_BL": np.tile(np.arange(M, dtype=np.int32), (B, 1)),
        "seen_mask_BL": np.ones((B, M), bool),
        "targets_BT": np.full((B, 1), 8, np.int32),
        "targets_mask_BT": np.ones((B, 1), bool),
        "recommendable_M": np.ones(M, bool),
    }
    assert (jit_ranks(**p)[0] == 1).all()


def shapes(items, users=64, width=64, seen=100):
    struct = jax.ShapeDtypeStruct
    return (
        struct((users, width), jnp.float32),
        struct((items, width), jnp.float32),
        struct((items,), jnp.float32),
    ), (
        struct((users, seen), jnp.int32),
        struct((users, seen), jnp.bool),
        struct((items,), jnp.bool),
    )


def test_memory_does_not_grow_with_users_times_items():
    """Compiled, not run: 10 million items are a table of 2.6 GB, to which some megabytes come."""
    one = (jax.ShapeDtypeStruct((64, 1), jnp.int32), jax.ShapeDtypeStruct((64, 1), jnp.bool))
    extra = {}
    for items in (100_000, 10_000_000):
        vectors, rest = shapes(items)
        ranks = jit_ranks.lower(*vectors, *one, *rest).compile().memory_analysis()
        lists = jit_lists.lower(
            *vectors, K=100, seen_BL=rest[0], seen_mask_BL=rest[1], recommendable_M=rest[2]
        )
        extra[items] = (
            ranks.temp_size_in_bytes,
            lists.compile().memory_analysis().temp_size_in_bytes,
        )
    assert np.allclose(extra[100_000], extra[10_000_000], rtol=0.01) and max(extra[100_000]) < 20e6


@given(st.integers(0, 10_000), st.sampled_from([(3, 64), (10, 300), (40, 128), (320, 300)]))
def test_lists_are_those_of_a_full_sort(seed, sizes):
    K, item_block = sizes
    p = problem(seed)
    given_ = {name: value for name, value in p.items() if "targets" not in name}
    ids, scores, mask = map(np.asarray, jit_lists(**given_, K=K, item_block=item_block))
    expected = p["user_BD"] @ p["item_MD"].T + p["bias_M"]
    for u in range(B):
        left = p["recommendable_M"].copy()
        left[p["seen_BL"][u][p["seen_mask_BL"][u]]] = False
        order = [i for i in np.argsort(-expected[u], kind="stable") if left[i]][:K]
        assert mask[u].sum() == len(order) and ids[u][mask[u]].tolist() == order
        assert (ids[u][~mask[u]] == -1).all()
        assert np.array_equal(scores[u][mask[u]], expected[u][order])


# A model whose tables are its parameters, on users with clicks in a flat array.
def user_vectors(params, batch):
    return params["user"][batch["user"]]


def item_vectors(params):
    return params["item"], params["bias"]


def gather(data, positions, mask):
    places = data["offset"][positions][:, None] + jnp.arange(8)[None]
    inside = places < data["offset"][positions + 1][:, None]
    return {
        "user": data["user"][positions],
        "targets": data["target"][positions][:, None],
        "targets_mask": (data["has_target"][positions] & mask)[:, None],
        "seen": data["click"][jnp.where(inside, places, 0)],
        "seen_mask": inside,
    }


def small_world():
    g = np.random.default_rng(5)
    users = 23
    lengths = g.integers(0, 8, users)
    params = {
        "user": g.standard_normal((users, D), np.float32),
        "item": g.standard_normal((60, D), np.float32),
        "bias": g.standard_normal(60, np.float32),
    }
    data = {
        "user": np.arange(users, dtype=np.int32),
        "offset": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32),
        "click": g.integers(2, 60, lengths.sum()).astype(np.int32),
        "target": g.integers(2, 60, users).astype(np.int32),
        "has_target": g.random(users) < 0.8,
        "recommendable": np.arange(60) >= 2,
    }
    return params, data


def test_the_evaluator_gives_means_over_users_with_a_target():
    params, data = small_world()
    score = params["user"] @ params["item"].T + params["bias"]
    rank = np.full(len(score), 99)
    for u, mine in enumerate(np.split(data["click"], data["offset"][1:-1])):
        left = (set(range(2, 60)) - set(mine.tolist())) | {int(data["target"][u])}
        order = sorted(left, key=lambda i: -score[u, i])
        rank[u] = order.index(data["target"][u]) + 1
    device = jax.tree.map(jnp.asarray, data)
    for batch_size in (4, 64):
        ranker = make_next_item_ranker(
            user_vectors, item_vectors, gather, batch_size, item_block=128
        )
        per_user = ranking_metrics(*ranker(params, device), (1, 10))
        means = mean_metrics(per_user)
        has = data["has_target"]
        assert np.array_equal(np.isnan(per_user["ndcg@10"]), ~has)
        ndcg = np.where(rank <= 10, 1 / np.log2(rank + 1), 0)
        assert np.allclose(per_user["ndcg@10"][has], ndcg[has])
        assert means["hr@10"] == pytest.approx((rank <= 10)[has].mean())
        assert means["mrr"] == pytest.approx((1 / rank)[has].mean())
        assert all(type(value) is float for value in means.values())


def test_lists_and_ranks_agree():
    params, data = small_world()
    device = jax.tree.map(jnp.asarray, data)
    recommend = make_recommender(user_vectors, item_vectors, gather, K=10, batch_size=5)
    ids, _, mask = recommend(params, device)
    assert ids.shape == (23, 10) and (ids[mask] >= 2).all()
    ranker = make_next_item_ranker(user_vectors, item_vectors, gather, batch_size=5)
    # A target that was seen is ranked, but stands in no list.
    clicks = np.split(data["click"], data["offset"][1:-1])
    fresh = [target not in mine for target, mine in zip(data["target"], clicks, strict=True)]
    asked = data["has_target"] & fresh
    found = mask & (ids == data["target"][:, None])
    rank = np.where(found.any(1), found.argmax(1) + 1, NOT_LISTED)
    by_list = ranking_metrics(rank[:, None], asked[:, None])
    by_rank = ranking_metrics(*ranker(params, device))
    for name in ("hr@10", "ndcg@10", "map@10"):
        assert np.allclose(by_list[name][asked], by_rank[name][asked])


def test_an_evaluator_without_users_gives_nan():
    params, data = small_world()
    data = data | {"user": data["user"][:0]}
    ranker = make_next_item_ranker(user_vectors, item_vectors, gather)
    per_user = ranking_metrics(*ranker(params, jax.tree.map(jnp.asarray, data)))
    assert np.isnan(mean_metrics(per_user)["ndcg@10"]) and per_user["ndcg@10"].shape == (0,)


def test_nothing_seen_and_nan_comes_last():
    bias = np.array([1, np.nan, 3, 2], np.float32)
    ids, scores, mask = jit_lists(np.zeros((1, 1), np.float32), np.zeros((4, 1)), bias, K=5)
    assert ids.tolist() == [[2, 3, 0, 1, -1]] and mask.tolist() == [[True] * 4 + [False]]
    assert scores[0, :3].tolist() == [3, 2, 1] and scores[0, 3] == np.finfo(np.float32).min
    none = np.zeros((1, 0), np.int32)
    again = jit_lists(
        np.zeros((1, 1)), np.zeros((4, 1)), bias, K=5, seen_BL=none, seen_mask_BL=none
    )
    assert np.array_equal(again[0], ids)


@pytest.mark.parametrize("seen", [1, 63, 64, 65, 130])
def test_lists_of_seen_items_have_any_length(seen):
    ids = np.arange(seen, dtype=np.int32)[None]
    found, _, mask = jit_lists(
        np.zeros((1, 1)),
        np.zeros((140, 1)),
        np.zeros(140),
        K=140,
        seen_BL=ids,
        seen_mask_BL=ids >= 0,
    )
    assert found[mask].tolist() == list(range(seen, 140))
