"""The ranking network of the YouTube paper on impressions with watch times, in one file.

    python -m experiments.minimal.ranking

Weighted logistic regression: a click weighs its watch time, so exp(logit) is the expected watch time of an impression.
The log is synthetic: its true expected watch times are known. `experiments/ranking` adds KuaiRand-Pure, more heads,
row-updated tables, calibration, checkpoints, resume, several devices and a comparison with trees.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from jrec.data.clicks import Continuous
from jrec.data.impression_history import history_features, watched_before
from jrec.data.impression_maker import ImpressionSize, make_impressions
from jrec.data.impressions import Impressions
from jrec.data.ragged import pad
from jrec.data.vocabulary import FIRST, PADDING
from jrec.evaluate.watch_time import weighted_user_loss

# ---------------------------------------------------------------- settings


@dataclass(frozen=True)
class Settings:
    """Those of `python -m experiments.ranking train --tables dense --tower 256 128`."""

    log: ImpressionSize = field(default_factory=ImpressionSize)
    """Sizes of the synthetic log."""
    tower: tuple[int, ...] = (256, 128)
    """Widths of the ReLU layers."""
    epochs: int = 3
    batch_size: int = 512
    learning_rate: float = 1e-3
    """Of Adam; it falls to 0 along a line."""
    seed: int = 0
    user: int = 1
    """Whose ten best items are printed."""


# ---------------------------------------------------------------- model and loss


class Batch(NamedTuple):
    """Impressions [B], or lists of them [B, C]; rows of tables are int32, 0 is padding.

    ids: by feature. watched: [..., L], the last watched items. numbers: float32 [..., F] in [0, 1], 0 where not known.
    clicked: bool. seconds: float32, the watch time of a click. mask: bool, what counts.
    """

    ids: dict[str, jax.Array]
    watched: jax.Array
    numbers: jax.Array
    known: jax.Array
    clicked: jax.Array
    seconds: jax.Array
    mask: jax.Array


class Ranking(nn.Module):
    """The log of the expected watch time; `rows` has the rows of each feature's table, in order."""

    rows: dict[str, int]
    tower: tuple[int, ...]

    @nn.compact
    def __call__(self, batch: Batch) -> jax.Array:
        """Returns float32 [B] (or [B, C])."""
        tables = {}
        for name, rows in self.rows.items():
            width, init = 32 if name in ("user", "item") else 8, nn.initializers.normal(0.01)
            tables[name] = nn.Embed(rows, width, embedding_init=init, name=f"{name}_table")
        parts = [table(batch.ids[name]) for name, table in tables.items()]
        counted = (batch.watched != PADDING)[..., None]
        watched = jnp.where(counted, tables["item"](batch.watched), 0).sum(-2)
        parts.append(watched / jnp.maximum(counted.sum(-2), 1))
        # The paper's powers let the network learn convex and concave functions of a number.
        parts += [batch.numbers, batch.known, batch.numbers**2, jnp.sqrt(batch.numbers)]
        hidden = jnp.concatenate(parts, -1)
        for k, width in enumerate(self.tower):
            dense = nn.Dense(width, kernel_init=nn.initializers.he_normal(), name=f"tower_{k}")
            hidden = nn.relu(dense(hidden))
        return nn.Dense(1, name="watch_head")(hidden)[..., 0]


def loss(model: Ranking, params: dict, batch: Batch) -> jax.Array:
    """Returns the mean weighted logistic loss over the impressions that count."""
    logit = model.apply(params, batch)
    # A click is a positive example with its seconds as weight; every impression a negative one with 1.
    positive = jnp.where(batch.clicked, batch.seconds, 0)
    each = positive * nn.softplus(-logit) + nn.softplus(logit)
    return jnp.where(batch.mask, each, 0).sum() / jnp.maximum(batch.mask.sum(), 1)


# ---------------------------------------------------------------- step and loop


class State(NamedTuple):
    """Everything that a step changes."""

    params: dict
    opt_state: optax.OptState


def make_step(model: Ranking, optimizer: optax.GradientTransformation) -> Callable:
    """Returns a pure function (state, batch) -> (state, loss)."""

    def step(state: State, batch: Batch) -> tuple[State, jax.Array]:
        value, gradient = jax.value_and_grad(partial(loss, model))(state.params, batch)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        return State(optax.apply_updates(state.params, updates), opt_state), value

    return step


def epoch_batches(data: Batch, key: jax.Array, batch_size: int) -> Batch:
    """Returns the impressions in a random order as [steps, B]; the mask leaves out what fills the last batch."""
    count = len(data.mask)
    order = jax.random.permutation(key, count)
    order = jnp.append(order, jnp.full(-count % batch_size, count)).reshape(-1, batch_size)
    batches = jax.tree.map(lambda column: column.at[order].get(mode="clip"), data)
    real = jnp.expand_dims(order < count, range(2, batches.mask.ndim))
    return batches._replace(mask=batches.mask & real)


def train(model: Ranking, data: Batch, settings: Settings, evaluate: Callable) -> dict:
    """Returns trained parameters; prints a line an epoch with what `evaluate` returns for them."""
    init_key, order_key = jax.random.split(jax.random.key(settings.seed))
    params = model.init(init_key, jax.tree.map(lambda column: column[:1], data))
    steps = -(-len(data.mask) // settings.batch_size)
    rate = optax.linear_schedule(settings.learning_rate, 0, settings.epochs * steps)
    optimizer = optax.adam(rate)
    step = make_step(model, optimizer)

    @partial(jax.jit, donate_argnums=0)
    def epoch(state: State, data: Batch, key: jax.Array) -> tuple[State, jax.Array]:
        state, losses = jax.lax.scan(step, state, epoch_batches(data, key, settings.batch_size))
        return state, losses.mean()

    state = State(params, optimizer.init(params))
    for number in range(settings.epochs):
        state, value = epoch(state, data, jax.random.fold_in(order_key, number))
        found = "  ".join(f"{name} {mean:.4f}" for name, mean in evaluate(state.params).items())
        print(f"epoch {number + 1}  train cost {value:.4f}  {found}")
    return state.params


# ---------------------------------------------------------------- data, evaluation, table


def features(log: Impressions, train: np.ndarray) -> Batch:
    """Returns all impressions [n]; numbers are mapped to [0, 1] by quantiles of those of a bool mask [n]."""
    ids, numbers = {}, {}
    for name, own, row, columns in (
        ("user", log.user_row[log.user], log.user, log.user_features),
        ("item", log.item, log.item, log.item_features),
    ):
        ids[name] = own
        for key, column in columns.items():
            if isinstance(column, Continuous):
                numbers[key] = Continuous(column.values[row], column.known[row])
            else:
                ids[key] = column.rows[row]
    # From earlier impressions: how often the item, its author and category were shown, when last watched.
    keys = {name: log.item_features[name] for name in ("author", "category")}
    numbers |= history_features(log, keys)
    values = [c.known * quantile_of(c.values, c.known & train) for c in numbers.values()]
    return Batch(
        ids=ids,
        watched=pad(watched_before(log, 10).rows, lengths=[10])[0],
        numbers=np.stack(values, -1),
        known=np.stack([column.known for column in numbers.values()], -1),
        clicked=log.clicked,
        seconds=log.watch_seconds,
        mask=np.ones(len(log), bool),
    )


def rows_of(every: Batch, rows: np.ndarray | slice) -> Batch:
    """Returns some of the impressions, on the device."""
    return jax.tree.map(lambda column: jnp.asarray(column[rows]), every)


def quantile_of(values: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """Returns float32 [n] in [0, 1]: where values lie among those that a bool mask [n] selects."""
    levels = np.linspace(0, 1, 1001)
    drawn = np.quantile(values[fitted].astype(np.float64), levels, method="inverted_cdf")
    knots, knot = np.unique(drawn, return_inverse=True)
    return np.interp(values, knots, np.bincount(knot, levels) / np.bincount(knot)).astype("f4")


def ask(log: Impressions, user: np.ndarray, item: np.ndarray, moment: int) -> Impressions:
    """Returns the log with n pairs of user and item appended, as if shown at a moment and not clicked."""
    nothing = np.zeros(len(item))
    new = {"user": user, "item": item, "timestamp": nothing + moment}
    for name in ("page", "clicked", "completed", "watch_seconds", "history_only"):
        new[name] = nothing
    old = {name: getattr(log, name) for name in new}
    return replace(log, **{k: np.append(old[k], new[k].astype(old[k].dtype)) for k in new})


def main(settings: Settings) -> float:
    """Trains, prints mispredicted watch time beside item means' and ten items for one user; returns it."""
    log = make_impressions(settings.log, 0)
    # The last fifth of the days is test. The day before would choose the epoch, and is not trained on.
    days, day = settings.log.days, 86_400
    test_from = log.timestamp.min() // day * day + (days - max(1, days // 5)) * day
    train_rows, test_rows = log.timestamp < test_from - day, log.timestamp >= test_from
    every = features(log, train_rows)
    data, test = (rows_of(every, rows) for rows in (train_rows, test_rows))
    model = Ranking({name: log.vocabularies[name].rows for name in every.ids}, settings.tower)
    predict = jax.jit(model.apply)

    def measure(score: jax.Array) -> float:
        known = (column[test_rows] for column in (log.clicked, log.watch_seconds, log.page))
        return weighted_user_loss(np.asarray(score), *known)

    params = train(model, data, settings, lambda p: {"mispredicted": measure(predict(p, test))})
    result = measure(predict(params, test))
    item, rows = data.ids["item"], model.rows["item"]
    # An item's mean watch time an impression; one of the mean of all is added to each.
    means = np.bincount(item, data.seconds, rows) + np.mean(data.seconds)
    means /= np.bincount(item, minlength=rows) + 1
    print("\nshare of watch time that a page's order mispredicts, test")
    print(f"{'item mean':24s}{measure(means[log.item[test_rows]]):.4f}")
    print(f"{'ranking network':24s}{result:.4f}")
    print(f"{'true expected times':24s}{measure(log.expected_watch_seconds[test_rows]):.4f}")

    seen = log.item[(log.user == settings.user) & log.clicked]
    items = np.setdiff1d(np.arange(FIRST, len(means)), seen)
    asked = ask(log, np.full(len(items), settings.user), items, log.timestamp.max() + 1)
    every = features(asked, np.append(train_rows, np.zeros(len(items), bool)))
    seconds = np.exp(predict(params, rows_of(every, slice(-len(items), None))))
    print(f"\nten items for user {settings.user}, expected seconds:")
    for k in np.argsort(-seconds)[:10]:
        print(f"  {seconds[k]:5.1f}  {log.vocabularies['item'].decode(items[k : k + 1])[0]}")
    return result


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
