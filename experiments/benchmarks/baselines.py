"""Implicit ALS and item neighbours beside independent implementations, on one data set.

    pip install implicit
    python -m experiments.benchmarks.baselines --data-dir ml-1m_sas.txt.gz [--repeats 3]

The last item of each user is found in the whole catalogue, what was seen removed, as in `experiments.baselines
rank`: all contestants are fitted to the training part, with the settings for the method there, read the history
before the target, and take turns, round after round, in one process. Peers: `implicit` (its ALS, three steps of
conjugate gradients, as it comes, from the same initial vectors and at the same objective; its cosine neighbours). Peers that are not installed are left out. Results, with the machine and
its load, stand in BUILD_NOTES.md.
"""

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from scipy import sparse

from experiments.baselines.held_out import Score, held_out_ranks
from experiments.baselines.next_item import load_sequences
from experiments.benchmarks.turns import alternate, has_peer, setting
from jrec.baselines.implicit_als import fit_implicit_als, initial_vectors, score_implicit_als
from jrec.baselines.interactions import interaction_matrix
from jrec.baselines.neighbours import fit_item_neighbours, score_item_neighbours
from jrec.data.click_examples import Examples, held_out_examples, leave_one_out
from jrec.data.clicks import Clicks
from jrec.data.synthetic import SyntheticSize
from jrec.errors import run_command
from jrec.evaluate.ranking_metrics import ranking_metrics
from jrec.report import markdown_table

Fit = Callable[[], Score]
"""Fits anew and returns the scores."""


_LIKE_1M = SyntheticSize(users=6040, items=3706, ratings=1_000_000)


@dataclass
class Benchmark:
    """Print seconds to fit and quality of each."""

    data_dir: Path | None = None
    """The file, folder or archive that holds the data; `--dataset synthetic` needs none."""
    dataset: str = "ml-1m-sas"
    """As in experiments.baselines rank; `synthetic` is made in MovieLens-1M's size."""
    widths: tuple[int, ...] = (64, 128)
    """Of implicit ALS."""
    sweeps: int = 10
    """Of implicit ALS."""
    als_regularisation: float = 10.0
    """Of implicit ALS with one regularisation for all rows, the objective that both have."""
    exact: bool = False
    """Also implicit's ALS with exact solutions, which takes minutes."""
    neighbours: int = 10
    """Of each item."""
    repeats: int = 3
    """Timed rounds, after one that compiles and warms up."""


Data = tuple[np.ndarray, np.ndarray, int, int]
"""User and item rows of the training clicks, numbers of users and items."""


def ours_als(data: Data, width: int, sweeps: int, regularisation: float, exponent: float) -> Fit:
    """Ours; unobserved weight 1."""

    def fit() -> Score:
        model = fit_implicit_als(*data, width, sweeps, 1.0, regularisation, exponent)
        return lambda history, user: score_implicit_als(model, history)

    return fit


def peer_als(
    data: Data, width: int, sweeps: int, regularisation: float, conjugate: bool = True
) -> Fit:
    """`implicit` at the same objective up to a factor: confidence 2, twice the regularisation."""
    from implicit.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    matrix = sparse.csr_matrix(interaction_matrix(*data))
    # Our scores are 1 / (1 + 1) of its: each side of the product carries the root.
    start = [np.float32(2**0.5) * np.asarray(table) for table in initial_vectors(*data, width, 0)]

    def fit() -> Score:
        with threadpool_limits(1, "blas"):  # as its documentation asks; its own threads remain
            model = AlternatingLeastSquares(
                factors=width,
                regularization=2 * regularisation,
                alpha=2.0,
                iterations=sweeps,
                use_cg=conjugate,
            )
            model.user_factors, model.item_factors = (table.copy() for table in start)
            model.fit(matrix, show_progress=False)

        def score(history: sparse.csr_array, user: np.ndarray) -> np.ndarray:
            return model.recalculate_user(user, sparse.csr_matrix(history)) @ model.item_factors.T

        return score

    return fit


def ours_neighbours(data: Data, neighbours: int) -> Fit:
    """Ours, without shrinkage."""

    def fit() -> Score:
        model = fit_item_neighbours(*data, neighbours, 0.0)
        return lambda history, user: score_item_neighbours(model, history)

    return fit


def peer_neighbours(data: Data, neighbours: int) -> Fit:
    """`implicit`, which counts an item among its own neighbours."""
    from implicit.nearest_neighbours import CosineRecommender

    matrix = sparse.csr_matrix(interaction_matrix(*data))

    def fit() -> Score:
        model = CosineRecommender(K=neighbours + 1)
        model.fit(matrix, show_progress=False)
        return lambda history, user: (history @ sparse.csr_array(model.similarity)).toarray()

    return fit


def contestants(settings: Benchmark, data: Data) -> dict[tuple[str, str], Fit]:
    """By method and maker."""
    with_implicit = has_peer("implicit")
    made: dict[tuple[str, str], Fit] = {}
    for width in settings.widths:
        name, shared = f"implicit ALS, {width} wide", (data, width, settings.sweeps)
        made[name, "jrec"] = ours_als(*shared, settings.als_regularisation, 0.0)
        if with_implicit:
            made[name, "implicit"] = peer_als(*shared, settings.als_regularisation)
        if with_implicit and settings.exact:
            exact = peer_als(*shared, settings.als_regularisation, conjugate=False)
            made[name, "implicit, exact solver"] = exact
        made[f"{name}, by frequency", "jrec"] = ours_als(*shared, 0.003, 1.0)
    made["item neighbours", "jrec"] = ours_neighbours(data, settings.neighbours)
    if with_implicit:
        made["item neighbours", "implicit"] = peer_neighbours(data, settings.neighbours)
    return made


def measure(
    fits: dict[tuple[str, str], Fit], clicks: Clicks, examples: Examples, repeats: int
) -> list[list]:
    """A line of the table for each."""
    first, quality = {}, {}
    for key, fit in fits.items():
        start = time.perf_counter()
        score = fit()
        first[key] = time.perf_counter() - start
        rank = held_out_ranks(score, clicks, examples)[:, None]
        found = ranking_metrics(rank, np.ones(rank.shape, bool))
        quality[key] = [float(found[name].mean()) for name in ("hr@10", "ndcg@10")]
    turns = {key: lambda _, fit=fit: fit() and None for key, fit in fits.items()}
    times = alternate(turns, repeats, warm_up=False)
    return [
        [*key, *(f"{s:.2f}" for s in (statistics.median(taken), min(taken), first[key]))]
        + quality[key]
        for key, taken in times.items()
    ]


def main(settings: Benchmark) -> None:
    """Prints the versions and the table."""
    clicks = load_sequences(settings.dataset, settings.data_dir, _LIKE_1M, 0)
    split = leave_one_out(clicks)
    user, item = clicks.user_of_event[split.train], clicks.item[split.train]
    data = (user, item, clicks.users, clicks.vocabularies["item"].rows)
    shown = setting("numpy", "scipy", "implicit")
    examples = held_out_examples(clicks, split, "test")
    rows = measure(contestants(settings, data), clicks, examples, settings.repeats)
    print(f"{shown} before, {os.getloadavg()[0]:.1f} after; {len(user):,} events of {clicks.name}")
    header = ["method", "by", "seconds, median", "fastest", "first", "HR@10", "NDCG@10"]
    print(markdown_table(header, rows))


if __name__ == "__main__":
    run_command(lambda: main(tyro.cli(Benchmark, description=__doc__)))
