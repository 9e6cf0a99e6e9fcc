"""Memory and time of serving: thousands of requests of all lengths to one process.

    python -m experiments.benchmarks.serving --requests 10000

Users, lengths of lists and lengths of histories vary with every request; parameters are drawn at random.
Memory is the process's resident set after the first request, after a tenth of them and after all: it stays
flat where requests share their programs.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments.candidates.batches import device_clicks, make_window_gather, window_data
from experiments.candidates.export import export_run
from experiments.candidates.network import build_model
from experiments.candidates.settings import Train
from jrec.data.click_examples import count_items, held_out_examples, leave_one_out
from jrec.data.click_maker import make_clicks
from jrec.data.click_truth import ClickSize
from jrec.data.rating_parts import rating_parts
from jrec.data.splits import split_ratings
from jrec.data.synthetic import SyntheticSize, synthetic_ratings
from jrec.errors import InputError, run_command
from jrec.report import markdown_table
from jrec.serving.candidate_lists import recommend
from jrec.serving.candidates import load_candidate_model
from jrec.serving.profiles import (
    export_profile_model,
    held_out_of_user,
    load_profile_model,
    profile_of_user,
    rank_items,
)
from jrec.serving.ratings import export_rating_model, load_rating_model, predict_stars
from jrec.serving.ratings import rank_items as rank_rated

Request = Callable[[np.random.Generator], Any]
_WIDTH = 32


@dataclass
class Serving:
    """Print memory and milliseconds a request."""

    requests: int = 10_000
    """Requests of each kind."""
    users: int = 1_000
    """Users of the synthetic data."""
    items: int = 2_000
    """Items of the synthetic data."""
    seed: int = 0
    """Of data, parameters and requests."""


def candidate_requests(settings: Serving, folder: Path) -> Request:
    """Lists for users and for histories, of an untrained candidate network (preset `small`)."""
    clicks, _ = make_clicks(ClickSize(settings.users, settings.items), settings.seed)
    train, split = Train(), leave_one_out(clicks)
    model = build_model(train, clicks)
    columns = [[c.name for c in model.columns if c.of == of] for of in ("user", "item")]
    data = window_data(device_clicks(clicks, *columns), held_out_examples(clicks, split, "test"))
    one = make_window_gather(train.length)(data, jnp.zeros(1, jnp.int32), jnp.ones(1, bool))
    params = jax.jit(model.init)(jax.random.key(settings.seed), one)
    export_run(folder, model, params, clicks, count_items(clicks, split.train), train.length)
    served = load_candidate_model(folder)
    users, items = served.users.values, served.items.values

    def ask(generator: np.random.Generator) -> Any:
        count = some_length(generator, 2 * len(items))
        if generator.random() < 0.5:
            return recommend(served, count, user=users[generator.integers(len(users))])
        length = some_length(generator, len(items))
        history = items[generator.integers(0, len(items), length)].tolist()
        return recommend(served, count, history=history)

    return ask


def rating_requests(settings: Serving, folder: Path) -> Request:
    """Predictions and lists of a product of random vectors."""
    size = SyntheticSize(settings.users, settings.items, 20 * settings.users)
    ratings = synthetic_ratings(size, settings.seed)
    generator = np.random.default_rng(settings.seed)
    arrays = {
        name: generator.standard_normal((ratings.vocabularies[name].rows, _WIDTH), np.float32)
        for name in ("user", "item")
    }

    def predict(arrays: Any, user: jax.Array, item: jax.Array) -> jax.Array:
        return (arrays["user"][user] * arrays["item"][item]).sum(-1)

    export_rating_model(folder, predict, arrays, ratings, split_ratings(ratings))
    served = load_rating_model(folder)

    def ask(generator: np.random.Generator) -> Any:
        user = int(generator.integers(1, settings.users + 9))  # some are unknown
        if generator.random() < 0.5:
            return predict_stars(served, user, int(generator.integers(1, settings.items + 9)))
        return rank_rated(served, user, some_length(generator, 2 * settings.items))

    return ask


def profile_requests(settings: Serving, folder: Path) -> Request:
    """Lists for profiles of users, of two random matrices."""
    size = SyntheticSize(settings.users, settings.items, 20 * settings.users)
    ratings = synthetic_ratings(size, settings.seed)
    parts = rating_parts(ratings, split_ratings(ratings))
    shape, generator = (len(parts.items), _WIDTH), np.random.default_rng(settings.seed)
    arrays = {name: generator.standard_normal(shape, np.float32) for name in ("in", "out")}

    def predict(arrays: Any, ratings: jax.Array, known: jax.Array) -> jax.Array:
        return (ratings * known) @ arrays["in"] @ arrays["out"].T

    export_profile_model(folder, predict, arrays, parts)
    served = load_profile_model(folder)

    def ask(generator: np.random.Generator) -> Any:
        user = int(generator.integers(1, settings.users + 9))
        profile, _ = profile_of_user(served, user)
        count = some_length(generator, 2 * settings.items)
        return rank_items(served, profile, count, also_seen=held_out_of_user(served, user))

    return ask


KINDS: dict[str, Callable[[Serving, Path], Request]] = {
    "candidates": candidate_requests,
    "ratings": rating_requests,
    "profiles": profile_requests,
}


def some_length(generator: np.random.Generator, most: int) -> int:
    """A whole number from 1 to `most`, small ones as likely as large ones by their logarithm."""
    return int(np.exp(generator.uniform(0, np.log(most + 0.999))))


def resident_mib() -> int:
    """Memory of this process (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4 // 1024


def measure(settings: Serving, kind: str, folder: Path) -> list[str]:
    """The cells of one line."""
    ask = KINDS[kind](settings, folder / kind)
    generator = np.random.default_rng(settings.seed)
    ask(generator)
    memory, first = [resident_mib()], settings.requests // 10
    for _ in range(first):
        ask(generator)
    memory.append(resident_mib())
    start = time.perf_counter()
    for _ in range(settings.requests - first):
        ask(generator)
    taken = (time.perf_counter() - start) / (settings.requests - first)
    memory.append(resident_mib())
    return [kind, *(f"{mib:,}" for mib in memory), f"{1000 * taken:.2f}"]


def main(settings: Serving) -> None:
    """Prints a line for each kind of export."""
    if settings.requests < 10:
        raise InputError(f"--requests must be 10 or more, but is {settings.requests}.")
    print(
        f"{settings.requests:,} requests, {settings.users:,} users, {settings.items:,} items; MiB"
    )
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(settings, kind, Path(folder)) for kind in KINDS]
    columns = ["export", "after the first", "after a tenth", "after all", "ms a request"]
    print(markdown_table(columns, rows))


if __name__ == "__main__":
    run_command(lambda: main(tyro.cli(Serving, description=__doc__)))
