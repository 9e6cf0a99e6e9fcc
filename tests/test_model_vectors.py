"""The towers of the fusion model and matrix factorisation rank through cosine vectors as by their own scores."""

import jax
import jax.numpy as jnp
import numpy as np

from jrec.baselines.matrix_factorisation import (
    fit_matrix_factorisation,
    predict_matrix_factorisation,
)
from jrec.data.synthetic import SyntheticSize, synthetic_ratings
from jrec.models.fusion import Fusion
from jrec.retrieval.exact import exact_top_k, item_table
from jrec.retrieval.model_vectors import fusion_vectors, matrix_factorisation_vectors
from jrec.retrieval.simple_lsh import item_vectors, user_vectors
from jrec.train.rating_batches import device_ratings, feature_tables, gather_ratings

RATINGS = synthetic_ratings(SyntheticSize(users=20, items=15, ratings=200), seed=0)
ROWS = {name: vocabulary.rows for name, vocabulary in RATINGS.vocabularies.items()}


def cosines(user_ND, weight_MD, bias_M=None):
    items = item_vectors(weight_MD, bias_M)
    return user_vectors(user_ND) @ (items / np.linalg.norm(items, axis=1, keepdims=True)).T


def check_order(score_NM, cosine_NM, lists):
    """Lists by score, by cosine and from `exact_top_k` are one, but for what rounding cannot tell apart."""
    for rows in (np.argsort(-cosine_NM, 1), lists):
        along = np.take_along_axis(score_NM, rows, 1)
        assert (np.diff(along, axis=1) < 1e-5).all()


def test_fusion_towers_give_the_models_scores():
    tables = jax.tree.map(jnp.asarray, feature_tables(RATINGS))
    data = device_ratings(RATINGS, np.arange(12), tables)
    batch = jax.jit(gather_ratings)(data, jnp.arange(12), jnp.ones(12, bool))
    # So few positions that a batch of all items would not fit.
    model = Fusion(ROWS, title_positions=60)
    params = jax.jit(model.init)(jax.random.key(0), batch["user"], batch["item"])
    users, items = fusion_vectors(model, params, batch["user"], batch["item"])
    pairs = jax.jit(Fusion(ROWS).apply)(params, batch["user"], batch["item"])
    np.testing.assert_allclose(5 * (users * items).sum(1), pairs, atol=2e-5)
    scores = 5 * users @ items.T
    np.testing.assert_allclose(np.diag(scores), pairs, atol=2e-5)
    lists = np.asarray(exact_top_k(item_table(items), users, 12).rows)
    check_order(scores, cosines(users, items), lists)


def test_matrix_factorisation_ranks_by_its_predictions():
    model = fit_matrix_factorisation(
        RATINGS.user, RATINGS.item, RATINGS.rating, ROWS["user"], ROWS["item"], width=4, epochs=3
    )
    users, weights, biases = matrix_factorisation_vectors(model)
    N, M = len(users), len(weights)
    pairs = np.repeat(np.arange(N), M), np.tile(np.arange(M), N)
    predicted = predict_matrix_factorisation(model, *pairs).reshape(N, M)
    scores = users @ weights.T + biases
    shared = model.mean + model.user_bias[:, None]
    np.testing.assert_allclose(scores + shared, predicted, atol=1e-5)
    lists = np.asarray(exact_top_k(item_table(weights, biases), users, M).rows)
    check_order(predicted, cosines(users, weights, biases), lists)
