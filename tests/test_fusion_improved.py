import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.fusion.improved import (
    Improved,
    all_vectors,
    build_improved,
    gather_items,
    improved_loss,
    init_improved,
    item_blocks,
    predict_pairs,
    ratings_by_item,
)
from jrec.data.splits import split_ratings
from jrec.data.synthetic import SyntheticSize, synthetic_ratings
from jrec.errors import InputError
from jrec.models.profiled_fusion import block_scores, profile_of
from jrec.train.rating_batches import feature_tables

RATINGS = synthetic_ratings(SyntheticSize(users=20, items=15, ratings=200), seed=0)
SPLIT = split_ratings(RATINGS)
SETTINGS = Improved(heads=2, width=6)
MODEL = build_improved(SETTINGS, RATINGS)
BY_ITEM = ratings_by_item(RATINGS, SPLIT.train)
DATA = item_blocks(BY_ITEM, jax.tree.map(jnp.asarray, feature_tables(RATINGS)))
PARAMS = init_improved(MODEL, SETTINGS, DATA, jax.random.key(0))
ITEMS = jnp.arange(17)


def block(items=ITEMS, mask=None):
    return gather_items(DATA, items, jnp.ones(items.shape, bool) if mask is None else mask)


def test_blocks_hold_the_training_ratings_and_no_other():
    train = SPLIT.train
    known = np.zeros((17, 22), bool)
    known[RATINGS.item[train], RATINGS.user[train]] = True
    assert np.array_equal(DATA["known"], known)
    stars = np.asarray(block()["stars"])
    assert (stars[RATINGS.item[train], RATINGS.user[train]] == RATINGS.rating[train]).all()


def test_a_profile_reads_what_is_shown_alone():
    stars, shown = jnp.array([[5.0, 1.0, 3.0]]), jnp.array([[True, False, True]])
    profile = profile_of(stars, shown, jnp.float32(3.5), jnp.array([0.5]))
    assert profile.tolist() == [[1.0, 0.0, -1.0]]


def test_pairs_are_scored_as_blocks_are():
    features = block()
    profile = profile_of(features["stars"], features["known"], DATA["mean"], DATA["item_bias"])
    scores = []
    for head in range(2):
        params = jax.tree.map(lambda leaf, head=head: leaf[head], PARAMS)
        towers = MODEL.apply(params, features["user"], features["item"], profile, train=False)
        scores.append(block_scores(towers))
    assert np.abs(scores[0] - scores[1]).max() > 0.01, "the heads should differ"
    expected = np.clip(DATA["mean"] + (scores[0] + scores[1]) / 2, 1, 5)
    vectors = all_vectors(MODEL, DATA, PARAMS)
    user, item = np.meshgrid(np.arange(22), np.arange(17))
    pairs = predict_pairs(vectors, jnp.asarray(user.ravel()), jnp.asarray(item.ravel()), 1.0, 5.0)
    np.testing.assert_allclose(pairs.reshape(17, 22), expected, atol=1e-5)


def test_count_is_the_number_of_ratings_and_masked_items_have_none():
    loss = jax.jit(lambda b, k: improved_loss(MODEL, SETTINGS, PARAMS, b, k))
    counts = [float(loss(block(), jax.random.key(k))[1]) for k in range(20)]
    np.testing.assert_allclose(np.mean(counts), len(SPLIT.train), rtol=0.02)
    total, count = loss(block(mask=jnp.zeros(17, bool)), jax.random.key(0))
    assert (float(total), float(count)) == (0.0, 0.0)


@pytest.mark.slow
def test_a_hidden_rating_is_predicted_from_the_others():
    """With everything hidden but nothing shown, the profile weights have no data gradient."""
    settings = Improved(
        heads=2, width=6, hide=255 / 256, seen_weight=0.0, dropout=0.0, profile_decay=0.0
    )
    one_user = jnp.arange(22)[None, :] == int(RATINGS.user[SPLIT.train][0])
    few = block() | {"known": block()["known"] & one_user}
    # One rating an item at most: where it is hidden (255 of 256) no rating is left to show.
    gradient = jax.grad(lambda p: improved_loss(MODEL, settings, p, few, jax.random.key(0))[0])(
        PARAMS
    )
    assert np.abs(gradient["params"]["profile"]).max() == 0
    assert np.abs(gradient["params"]["user_table"]).max() > 0


def test_a_matrix_that_cannot_fit_is_refused(monkeypatch):
    monkeypatch.setattr("experiments.fusion.improved._LARGEST_MATRIX", 100)
    with pytest.raises(InputError, match="use --preset source"):
        ratings_by_item(RATINGS, SPLIT.train)
