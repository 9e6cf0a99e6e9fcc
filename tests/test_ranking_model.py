"""The ranking network against NumPy: tables shared, powers, depths, heads, masks, row updates."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jrec.embeddings import optimizers as row_optimizers
from jrec.embeddings.row_step import init_row_state, make_row_step
from jrec.losses.watch_time import weighted_logistic
from jrec.models.ranking import IdColumn, RankingNetwork
from jrec.train.step import init_state, make_step

B, F = 6, 2
IDS = (
    IdColumn("item", "item"),
    IdColumn("watched", "item", bag=True),
    IdColumn("author", "author"),
)


def network(**given):
    rows, widths = {"item": 7, "author": 4}, {"item": 3, "author": 2}
    return RankingNetwork(rows, widths, **({"ids": IDS, "numbers": F, "tower": (5, 4)} | given))


def batch_of(seed=0):
    generator = np.random.default_rng(seed)
    mask = generator.random((B, 3)) < 0.6
    mask[0] = False  # nothing watched yet
    batch = {
        "ids": {
            "item": generator.integers(2, 7, B),
            "watched": (np.where(mask, generator.integers(2, 7, (B, 3)), 0), mask),
            "author": generator.integers(2, 4, B),
        },
        "numbers": generator.random((B, F)).astype(np.float32),
        "known": generator.random((B, F)) < 0.7,
        "clicked": np.arange(B) % 2 == 0,
        "watch": generator.random(B).astype(np.float32) * 9,
        "mask": np.arange(B) < B - 1,
    }
    batch["numbers"][1] = 0
    return jax.tree.map(jnp.asarray, batch)


def fresh(model, batch):
    """Parameters far from zero, biases too."""
    params = jax.jit(model.init)(jax.random.key(0), batch)
    leaves, structure = jax.tree.flatten(params)
    generator = np.random.default_rng(1)
    filled = [jnp.asarray(generator.normal(size=leaf.shape), jnp.float32) for leaf in leaves]
    return jax.tree.unflatten(structure, filled)


def by_hand(params, batch, b, depth, powers, head):
    p = jax.tree.map(np.asarray, params["params"])
    items, authors = p["item_table"]["embedding"], p["author_table"]["embedding"]
    ids, mask = (np.asarray(part[b]) for part in batch["ids"]["watched"])
    bag = items[ids[mask]].mean(0) if mask.any() else np.zeros(items.shape[1])
    known = np.asarray(batch["known"][b])
    x = np.where(known, np.asarray(batch["numbers"][b]), 0)
    numbers = [x, known] + ([x**2, np.sqrt(x)] if powers else [])
    ids = items[batch["ids"]["item"][b]], bag, authors[batch["ids"]["author"][b]]
    hidden = np.concatenate([*ids, *numbers])
    for k in range(depth):
        layer = p[f"tower_{k}"]
        hidden = np.maximum(hidden @ layer["kernel"] + layer["bias"], 0)
    return (hidden @ p[f"{head}_head"]["kernel"] + p[f"{head}_head"]["bias"])[0]


@pytest.mark.parametrize(
    "tower, powers",
    [
        pytest.param((), True, marks=pytest.mark.slow),
        pytest.param((), False, marks=pytest.mark.slow),
        ((5,), True),
        pytest.param((5, 4), False, marks=pytest.mark.slow),
    ],
)
def test_the_network_is_what_its_docstring_says(tower, powers):
    heads = ("watch", "click", "completion")
    model, batch = network(tower=tower, powers=powers, heads=heads), batch_of()
    params = fresh(model, batch)
    found = jax.jit(model.apply)(params, batch)
    assert set(found) == set(heads)
    for head in heads:
        expected = [by_hand(params, batch, b, len(tower), powers, head) for b in range(B)]
        np.testing.assert_allclose(found[head], expected, rtol=1e-4, atol=1e-5)


def test_without_hidden_layers_it_is_logistic_regression():
    model, batch = network(tower=()), batch_of()
    assert set(fresh(model, batch)["params"]) == {"item_table", "author_table", "watch_head"}


def test_unknown_numbers_and_masked_ids_change_nothing():
    model, batch = network(), batch_of()
    params = fresh(model, batch)
    ids, mask = batch["ids"]["watched"]
    other = batch | {
        "numbers": jnp.where(batch["known"], batch["numbers"], 0.7),
        "ids": batch["ids"] | {"watched": (jnp.where(mask, ids, 6), mask)},
    }
    one, two = (model.apply(params, each)["watch"] for each in (batch, other))
    np.testing.assert_array_equal(one, two)
    known = batch | {"known": jnp.ones_like(batch["known"])}
    assert np.abs(one - model.apply(params, known)["watch"]).max() > 1e-3


def test_the_gradient_is_finite_where_a_number_is_zero():
    model, batch = network(), batch_of()
    params = fresh(model, batch)

    def total(numbers):
        return model.apply(params, batch | {"numbers": numbers})["watch"].sum()

    assert np.isfinite(jax.grad(total)(batch["numbers"])).all()


def loss(model, params, batch, key, apply=nn.Module.apply):
    logit = apply(model, params, batch)["watch"]
    return weighted_logistic(logit, batch["clicked"], batch["watch"], batch["mask"])


def test_tables_can_be_updated_by_rows_or_whole():
    model, batch = network(), batch_of()
    params = fresh(model, batch)
    dense = make_step(partial(loss, model), optax.sgd(0.1))
    rows = make_row_step(partial(loss, model), optax.sgd(0.1), row_optimizers.sgd(0.1))
    one = init_state(params, optax.sgd(0.1), jax.random.key(0))
    two = init_row_state(params, optax.sgd(0.1), row_optimizers.sgd(0.1), jax.random.key(0))
    for seed in range(3):
        one, _ = jax.jit(dense)(one, batch_of(seed))
        two, _ = jax.jit(rows)(two, batch_of(seed))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one.params, two.params
    )
    moved = (
        one.params["params"]["item_table"]["embedding"]
        != params["params"]["item_table"]["embedding"]
    )
    assert moved.any() and not moved[0].any()  # padding never moves


@pytest.mark.parametrize("given", [{"heads": ()}, {"ids": (), "numbers": 0}, {"numbers": 3}])
def test_what_cannot_be_a_network_is_refused(given):
    with pytest.raises(ValueError):
        network(**given).init(jax.random.key(0), batch_of())
