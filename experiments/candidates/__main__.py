"""Candidate generation of Paddle's youtube_recall: a click log in, recall on the whole catalogue out.

    python -m experiments.candidates prepare --log click.log --out prepared
    python -m experiments.candidates train --dataset click-log --data-dir prepared --run-dir DIR
    python -m experiments.candidates train --preset improved --dataset ml-1m-sas --data-dir ml-1m_sas.txt.gz --seed 0 --run-dir DIR
    python -m experiments.candidates evaluate --run-dir DIR
    python -m experiments.candidates vectors --run-dir DIR --out vectors
    python -m experiments.candidates search --run-dir DIR --user 1
    python -m experiments.candidates mine --run-dir DIR --lists personal --out lists.tsv

Scores, times and sources stand in this folder's README.md.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jrec.command_line import parse_command
from jrec.data.click_examples import ClickSplit, count_items, held_out_examples
from jrec.data.clicks import Clicks
from jrec.errors import run_command
from jrec.evaluate.vector_spread import vector_spread, vector_warning
from jrec.train.flags import kept_settings
from jrec.train.loop import Plan
from jrec.train.read_once import read_once
from jrec.train.run import run, running
from jrec.train.step import TrainState

from .baselines import reference_metrics
from .batches import device_clicks
from .evaluate import Evaluate, evaluate
from .evaluation import KS, make_evaluate, never_listed, write_test
from .export import export_run
from .mine import Mine, mine
from .network import build_model, feature_names
from .prepare import Prepare, prepare
from .report import finish_candidates_run, show_split
from .sample_vectors import make_sample_vectors
from .search import Search, Vectors, search, vectors
from .settings import PRESETS, Train, check, load
from .system import build_stream, build_training


def train(
    settings: Train, loaded: tuple[Clicks, ClickSplit] | None = None, compare: bool = True
) -> None:
    """Loads, plans, trains, exports and reports.

    Args:
        loaded: the clicks that `settings.data` describes, where they are there already.
        compare: report what popularity and item neighbours reach, too.
    """
    check(settings)
    with running(settings.run, f"candidates-{settings.data.dataset}") as (folder, console):
        clicks, split = loaded or read_once(lambda: load(settings.data))
        show_split(clicks, split, console)
        init_key, step_key, order_key = jax.random.split(jax.random.key(settings.run.seed), 3)
        model = build_model(settings, clicks)
        data = device_clicks(clicks, *feature_names(model))
        counts = read_once(lambda: count_items(clicks, split.train))
        stream = build_stream(settings, clicks, split, counts, data, order_key)
        state, step = build_training(settings, model, stream, counts, init_key, step_key)
        held_out = {part: held_out_examples(clicks, split, part) for part in ("valid", "test")}
        measure, make_up = {}, {}
        for part, examples in held_out.items():
            measure[part], make_up[part] = make_evaluate(
                settings.length,
                model,
                clicks,
                data,
                examples,
                settings.remove_seen,
                counts,
                settings.repeated_targets,
            )
        sample_vectors = make_sample_vectors(settings.length, model, data, held_out)
        validated = len(held_out["valid"]) > 0

        def evaluate_valid(state: TrainState) -> dict[str, float]:
            means = measure["valid"](state.params)[0] if validated else {}
            shown = ("ndcg@10", "hr@10", "mrr", "recall@100")
            return {f"valid_{name}": means[name] for name in shown if validated}

        def warn(state: TrainState) -> Callable[[], str]:
            found = sample_vectors(state.params)
            return lambda: vector_warning(vector_spread(np.asarray(found)))

        watch = "valid_ndcg@10" if validated else None
        plan = Plan(state, step, stream, evaluate_valid, watch, highest=True, check=warn)
        trained = run(plan, settings.run, folder, record(settings, clicks))
        means, by_example = measure["test"](trained.params)
        means |= make_up["test"](trained.params)
        spread = vector_spread(np.asarray(sample_vectors(trained.params)))
        if not trained.writes:
            return
        write_test(folder, held_out["test"], by_example)
        export_run(folder / "export", model, trained.params, clicks, counts, settings.length)
        results = trained.results | {f"test_{name}": value for name, value in means.items()}
        results |= {
            "sampled_users": spread.users,
            "dead_units": spread.dead,
            "user_vector_spread": spread.spread,
            "warnings": [sentence] if (sentence := vector_warning(spread)) else [],
            "split": settings.data.split,
            "remove_seen": settings.remove_seen,
            "repeated_targets": settings.repeated_targets,
            "test_targets": len(held_out["test"]),
        }
        references = {}
        if compare:
            made = settings.data.dataset == "synthetic"
            references = reference_metrics(
                clicks,
                split,
                counts,
                held_out["test"],
                settings.remove_seen,
                KS,
                (settings.data.synthetic, settings.data.split_seed) if made else None,
                settings.repeated_targets,
                never_listed(clicks, held_out["test"], settings.remove_seen),
            )
        finish_candidates_run(folder, settings, results, references, clicks, console)


def record(settings: Train, clicks: Clicks) -> dict[str, Any]:
    """Returns what `settings.json` keeps, and a resumed run must agree with."""
    source = dataclasses.asdict(clicks.source) | {"location": None}
    return kept_settings(settings) | {"data_source": source, "clicks": len(clicks)}


COMMANDS = {Prepare: prepare, Train: train, Evaluate: evaluate}
COMMANDS |= {Vectors: vectors, Search: search, Mine: mine}


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line; `arguments` are the process's own by default."""
    settings = parse_command(list(COMMANDS), __doc__, arguments, PRESETS)
    COMMANDS[type(settings)](settings)


if __name__ == "__main__":
    run_command(main)
