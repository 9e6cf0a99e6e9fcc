"""What sampled losses learn: the full softmax, log-probabilities; the same on rows and on devices."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jrec.embeddings import optimizers as row_optimizers
from jrec.embeddings.batch_axis import local_part
from jrec.embeddings.row_step import init_row_state, make_row_step
from jrec.embeddings.table import Embed
from jrec.losses.sampled import in_batch_softmax, nce, sampled_softmax
from jrec.losses.samplers import frequency
from jrec.train.step import init_state, make_step

B, K, M = 6, 7, 12
GENERATOR = np.random.default_rng(0)
LOGITS_M = GENERATOR.normal(size=M) * 1.5
# Noise that likes what the model likes, as popularity does: what logQ has to put right.
NOISE = frequency(np.exp(LOGITS_M + GENERATOR.normal(size=M)), first=0)
TARGET = 3


def full_gradient(shares_M):
    """Of the full softmax, averaged over targets with these shares."""
    return np.exp(LOGITS_M) / np.exp(LOGITS_M).sum() - shares_M


def over_draws(loss, draws):
    """The mean gradient of loss(logits_M, key) -> ({name: loss}, ids), by name, and all the ids."""
    keys = jax.random.split(jax.random.key(0), draws)
    many = jax.jit(jax.vmap(jax.jacrev(loss, has_aux=True), in_axes=(None, 0)))
    gradient, ids = many(jnp.asarray(LOGITS_M, jnp.float32), keys)
    return {name: np.asarray(value).mean(0) for name, value in gradient.items()}, np.asarray(ids)


def test_the_sampled_gradient_tends_to_the_full_one_and_without_log_q_does_not():
    target, mask = jnp.array([TARGET]), jnp.ones(1, bool)

    def errors(negatives):
        def loss(logits_M, key):
            ids, log_q = NOISE.sample(key, (negatives,))
            logits = (logits_M[target], logits_M[ids][None], target, ids)
            return {
                "log_q": sampled_softmax(*logits, log_q, mask)[0],
                "none": sampled_softmax(*logits, None, mask)[0],
            }, ids

        mean, _ = over_draws(loss, 3000)
        return {k: np.abs(v - full_gradient(np.arange(M) == TARGET)).max() for k, v in mean.items()}

    few, many = errors(10), errors(250)
    assert many["log_q"] < 0.004 and 4 * many["log_q"] < few["log_q"] < 0.1
    assert few["none"] > 0.1 and many["none"] > 0.1


def test_the_in_batch_gradient_tends_to_the_full_one_and_without_log_q_does_not():
    """Targets drawn from the noise are each other's negatives."""

    def errors(size):
        def loss(logits_M, key):
            ids, log_q = NOISE.sample(key, (size,))
            logits_BC, mask = jnp.broadcast_to(logits_M[ids], (size, size)), jnp.ones(size, bool)
            return {
                "log_q": in_batch_softmax(logits_BC, ids, log_q, mask)[0] / size,
                "none": in_batch_softmax(logits_BC, ids, None, mask)[0] / size,
            }, ids

        mean, ids = over_draws(loss, 800)
        full = full_gradient(np.bincount(ids.ravel(), minlength=M) / ids.size)
        assert np.abs(full).max() > 0.1, "there is a gradient to tend to"
        return {name: np.abs(value - full).max() for name, value in mean.items()}

    few, many = errors(30), errors(100)
    assert many["log_q"] < min(0.01, few["log_q"] / 2)
    assert many["none"] > 0.1


def test_nce_recovers_log_probabilities_and_needs_no_normalisation():
    probability = np.array([0.4, 0.3, 0.2, 0.06, 0.04])
    noise = frequency(np.array([1, 2, 3, 4, 5]), first=0)
    target = jnp.asarray(np.repeat(np.arange(5), (probability * 100).round().astype(int)))

    def loss(logits, key):
        ids, log_q = noise.sample(key, (len(target), 10))
        total, count = nce(
            logits[target], logits[ids], noise.log_q(target), log_q, jnp.ones(len(target), bool)
        )
        return total / count

    def step(state, number):
        logits, mean = state
        gradient = jax.grad(loss)(logits, jax.random.fold_in(jax.random.key(0), number))
        logits = logits - gradient
        return (logits, mean + jnp.where(number >= 200, logits / 300, 0)), None

    state = (jnp.zeros(5), jnp.zeros(5))
    (_, mean), _ = jax.jit(lambda s: jax.lax.scan(step, s, jnp.arange(500)))(state)
    np.testing.assert_allclose(mean, np.log(probability), atol=0.05)


# In a train step.


class Scores(nn.Module):
    """A user's vector against looked-up items'."""

    def setup(self):
        self.users = Embed(B, 3, nn.initializers.normal(1.0))
        self.items = Embed(M, 3, nn.initializers.normal(1.0))

    def __call__(self, users, ids):
        return (self.users(users)[:, None] * self.items(ids)).sum(-1)


def step_loss(params, batch, key, apply=nn.Module.apply, axis_name=None):
    ids, log_q = NOISE.sample(key, (8, K))
    if axis_name is not None:
        ids, log_q = local_part(ids, axis_name), local_part(log_q, axis_name)
    target = batch["target"]
    logits = apply(Scores(), params, batch["user"], jnp.concatenate([target[:, None], ids], 1))
    return sampled_softmax(logits[:, 0], logits[:, 1:], target, ids, log_q, batch["mask"])


@pytest.mark.slow
def test_rows_dense_tables_and_devices_take_the_same_steps():
    generator = np.random.default_rng(0)
    batch = {
        "user": jnp.asarray(generator.integers(0, B, 8)),
        "target": jnp.asarray(generator.integers(0, M, 8)),
        "mask": jnp.arange(8) != 2,
    }
    params = jax.jit(Scores().init)(jax.random.key(0), batch["user"], batch["target"][:, None])
    key, rows, dense = jax.random.key(1), row_optimizers.sgd(0.5), optax.sgd(0.5)
    state = init_row_state(params, dense, rows, key)
    one, metrics = jax.jit(make_row_step(step_loss, dense, rows))(state, batch)
    whole, _ = jax.jit(make_step(step_loss, dense))(init_state(params, dense, key), batch)
    on_device = functools.partial(step_loss, axis_name="data")
    on_many = make_row_step(on_device, dense, rows, "data")
    split = jax.tree.map(lambda a: a.reshape(2, 4), batch)
    many, many_metrics = jax.pmap(on_many, "data", in_axes=(None, 0))(state, split)
    assert np.isfinite(metrics["loss_sum"]) and metrics["count"] == 7
    np.testing.assert_allclose(many_metrics["loss_sum"][0], metrics["loss_sum"], rtol=1e-6)
    for before, table, *others in zip(
        *(jax.tree.leaves(s) for s in (params, one.params, whole.params)),
        jax.tree.leaves(jax.tree.map(lambda a: a[0], many.params)),
        strict=True,
    ):
        assert np.abs(table - before).max() > 0.01
        for other in others:
            np.testing.assert_allclose(other, table, atol=1e-6)
