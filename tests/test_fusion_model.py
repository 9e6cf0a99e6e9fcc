import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jrec.data.synthetic import SyntheticSize, synthetic_ratings
from jrec.losses.ratings import squared_error, weighted_squared_error
from jrec.models.fusion import Fusion
from jrec.train.rating_batches import device_ratings, feature_tables, features, gather_ratings

RATINGS = synthetic_ratings(SyntheticSize(users=20, items=15, ratings=200), seed=0)
TABLES = jax.tree.map(jnp.asarray, feature_tables(RATINGS))
ROWS = {name: vocabulary.rows for name, vocabulary in RATINGS.vocabularies.items()}
DATA = device_ratings(RATINGS, np.arange(64), TABLES)
BATCH = jax.jit(gather_ratings)(DATA, jnp.arange(16), jnp.ones(16, bool))


def by_hand(p, user, item, pooling):
    """The network of the source, one pair at a time, in NumPy."""
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), p["params"])

    def dense(name, x):
        return x @ p[name]["kernel"] + p[name]["bias"]

    def attribute(name, row):
        return dense(f"{name}_layer", p[f"{name}_table"]["embedding"][row])

    scores = []
    for b in range(len(user["user"])):
        names = ["user", *sorted(set(user) - {"user"})]
        parts = [attribute(name, user[name][b]) for name in names]
        tower_u = np.tanh(dense("user_tower", np.concatenate(parts)))
        genres = item["genres"][b][item["genres_mask"][b]]
        words = p["title"]["words"]["embedding"][item["title"][b][item["title_mask"][b]]]
        zero = np.zeros((1, words.shape[1]))
        wide = np.concatenate([zero, words, zero])
        filters = p["title"]["filters"]
        hidden = [
            np.tanh(wide[k : k + 3].reshape(-1) @ filters["kernel"] + filters["bias"])
            for k in range(len(words))
        ]
        title = np.sum(hidden, 0) if pooling == "sum" else np.max(hidden, 0)
        genre_sum = p["genres_table"]["embedding"][genres].sum(0)
        parts = [attribute("item", item["item"][b]), genre_sum, title]
        tower_f = np.tanh(dense("item_tower", np.concatenate(parts)))
        cosine = tower_u @ tower_f / np.linalg.norm(tower_u) / np.linalg.norm(tower_f)
        scores.append(5 * cosine)
    return np.array(scores)


@pytest.mark.parametrize("pooling", ["sum", "max"])
@pytest.mark.parametrize("positions", [None, 16 * 5])
def test_model_is_the_sources_network(pooling, positions):
    model = Fusion(ROWS, title_pooling=pooling, title_positions=positions)
    params = jax.jit(model.init)(jax.random.key(0), BATCH["user"], BATCH["item"])
    arrays = jax.tree.map(np.asarray, BATCH)
    expected = by_hand(params, arrays["user"], arrays["item"], pooling)
    np.testing.assert_allclose(
        jax.jit(model.apply)(params, BATCH["user"], BATCH["item"]), expected, atol=2e-5
    )


def test_default_widths_are_the_sources():
    params = jax.jit(Fusion(ROWS).init)(jax.random.key(0), BATCH["user"], BATCH["item"])["params"]
    shapes = {
        "/".join(k.key for k in path): v.shape for path, v in jax.tree.leaves_with_path(params)
    }
    assert shapes == {
        "user_table/embedding": (22, 32),
        "user_layer/kernel": (32, 32),
        "user_layer/bias": (32,),
        "gender_table/embedding": (4, 16),
        "gender_layer/kernel": (16, 16),
        "gender_layer/bias": (16,),
        "age_table/embedding": (9, 16),
        "age_layer/kernel": (16, 16),
        "age_layer/bias": (16,),
        "occupation_table/embedding": (23, 16),
        "occupation_layer/kernel": (16, 16),
        "occupation_layer/bias": (16,),
        "user_tower/kernel": (80, 200),
        "user_tower/bias": (200,),
        "item_table/embedding": (17, 32),
        "item_layer/kernel": (32, 32),
        "item_layer/bias": (32,),
        "genres_table/embedding": (ROWS["genres"], 32),
        "title/words/embedding": (ROWS["title"], 32),
        "title/filters/kernel": (96, 32),
        "title/filters/bias": (32,),
        "item_tower/kernel": (96, 200),
        "item_tower/bias": (200,),
    }
    # Xavier-uniform everywhere, tables included, and zero biases.
    for path, value in jax.tree.leaves_with_path(params):
        limit = np.sqrt(6 / sum(value.shape)) if value.ndim == 2 else 0.0
        assert np.abs(value).max() <= limit, path
        assert value.ndim == 1 or np.abs(value).max() > 0.8 * limit, path


def test_a_data_set_without_user_attributes_runs():
    tables = {"user": {}, "item": TABLES["item"]}
    user, item = features(tables, jnp.array([2, 1]), jnp.array([3, 1]))
    model = Fusion({name: ROWS[name] for name in ("user", "item", "genres", "title")})
    score = model.apply(jax.jit(model.init)(jax.random.key(0), user, item), user, item)
    assert score.shape == (2,) and jnp.isfinite(score).all()


def test_squared_error_masked_is_filtered():
    generator = np.random.default_rng(0)
    prediction, target = generator.normal(size=(2, 9)).astype(np.float32)
    mask = generator.random(9) < 0.5
    broken = np.where(mask, prediction, np.nan)
    total, count = squared_error(jnp.asarray(broken), jnp.asarray(target), jnp.asarray(mask))
    np.testing.assert_allclose(total, ((prediction - target)[mask] ** 2).sum(), rtol=1e-6)
    assert count == mask.sum()
    gradient = jax.grad(lambda p: squared_error(p, jnp.asarray(target), jnp.asarray(mask))[0])(
        jnp.asarray(broken)
    )
    expected = np.where(mask, 2 * (prediction - target), 0)
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)


def test_weighted_squared_error_weighs_and_leaves_out():
    prediction, target = jnp.array([1.0, 2.0, jnp.nan]), jnp.array([0.0, 4.0, 0.0])
    weight = jnp.array([0.5, 2.0, 0.0])
    total, count = weighted_squared_error(prediction, target, weight)
    assert (float(total), float(count)) == (8.5, 2.5)
    gradient = jax.grad(lambda p: weighted_squared_error(p, target, weight)[0])(prediction)
    assert gradient.tolist() == [1.0, -8.0, 0.0]
