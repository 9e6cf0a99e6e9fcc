"""A fork: the decade of an item, read from its title, joins the fusion model's item tower.

    python -m experiments.examples.fusion_with_decade --dataset ml-100k --epochs 5

A feature is three things: values by item row (`with_decades`), a part of the tower (`item_parts`), and the
rows of its table, which every model takes from the vocabularies. The rest is a plain training program.
"""

import re
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import optax

from experiments.fusion.source import loss, predict_rows
from jrec.command_line import parse_command
from jrec.data.ragged import Ragged
from jrec.data.ratings import Ratings
from jrec.data.sources import load_ratings
from jrec.data.splits import split_ratings
from jrec.data.vocabulary import Vocabulary
from jrec.embeddings.table import Embed
from jrec.errors import run_command
from jrec.evaluate.rating_errors import make_rating_errors
from jrec.models.fusion import Fusion
from jrec.train.rating_batches import device_ratings, feature_tables, gather_ratings
from jrec.train.step import init_state, make_step
from jrec.train.stream import epoch_order, make_chunk


@dataclass
class Train:
    """Train the fork with the source's settings, and print its errors on test."""

    dataset: str = "ml-100k"
    """Which data set."""
    data_dir: Path | None = None
    """Folder or archive that holds it."""
    epochs: int = 5
    """Passes over the training ratings."""
    batch_size: int = 256
    """Ratings a step."""


class FusionWithDecade(Fusion):
    """The fusion model with one more part in its item tower."""

    def item_parts(self, item):
        table = Embed(self.table_rows["decade"], 16, pooling="sum", name="decade_table")
        return [*super().item_parts(item), table(item["decade"], item["decade_mask"])]


def with_decades(ratings: Ratings) -> Ratings:
    """The data set with an item feature `decade`: 1990 for "Heat (1995)", nothing where no year is known."""
    years = [re.search(r"\((\d{4})\)$", title) for title in ratings.titles]
    decades = [[int(year[1]) // 10 * 10] if year else [] for year in years]
    known = Vocabulary.of([decade for row in decades for decade in row])
    rows = Ragged.from_lists([known.encode(row).tolist() for row in decades])
    return replace(
        ratings,
        vocabularies=ratings.vocabularies | {"decade": known},
        item_features=ratings.item_features | {"decade": rows},
    )


def train(settings: Train) -> dict[str, float]:
    """Trains, and returns RMSE and MAE of the test ratings, in stars."""
    ratings = with_decades(load_ratings(settings.dataset, settings.data_dir))
    split = split_ratings(ratings)
    model = FusionWithDecade({name: known.rows for name, known in ratings.vocabularies.items()})
    tables = jax.tree.map(jnp.asarray, feature_tables(ratings))
    data, test = (device_ratings(ratings, part, tables) for part in (split.train, split.test))
    one = gather_ratings(data, jnp.zeros(1, jnp.int32), jnp.ones(1, bool))
    optimizer = optax.sgd(0.2)
    params = model.init(jax.random.key(0), one["user"], one["item"])
    state = init_state(params, optimizer, jax.random.key(1))
    count, size = len(split.train), settings.batch_size
    chunk = make_chunk(make_step(partial(loss, model), optimizer), gather_ratings, count, size)
    errors = make_rating_errors(
        lambda params, batch: predict_rows(
            model, {"params": params, "tables": tables}, *batch["rows"]
        ),
        lambda data, at, mask: {
            "rows": (data["user"][at], data["item"][at]),
            "rating": data["rating"][at],
        },
    )
    for epoch in range(settings.epochs):
        order = epoch_order(jax.random.key(2), epoch, count, size)
        state, sums, _ = chunk(state, data, order, 0, -(-count // size))
        found = errors(state.params, test)
        cost = float(sums["loss_sum"] / sums["count"])
        print(f"epoch {epoch + 1}  train_cost {cost:.4f}  test_rmse {found['rmse']:.4f}")
    return found


def main(arguments: list[str] | None = None) -> None:
    """The command line; `arguments` are the process's own by default."""
    train(parse_command((Train,), __doc__, arguments))


if __name__ == "__main__":
    run_command(main)
