"""The training of a candidate network, from clicks to report."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jrec.data.click_examples import ClickSplit, count_items, held_out_examples
from jrec.data.clicks import Clicks
from jrec.evaluate.vector_spread import vector_spread, vector_warning
from jrec.train.flags import kept_settings
from jrec.train.loop import Plan
from jrec.train.read_once import read_once
from jrec.train.run import run, running
from jrec.train.step import TrainState

from .batches import device_clicks
from .evaluation import make_evaluate, write_test
from .export import export_run
from .network import build_model, feature_names
from .report import finish_candidates_run, show_split
from .sample_vectors import make_sample_vectors
from .settings import Data, Train, check
from .system import build_stream, build_training


def train(
    settings: Train,
    load: Callable[[Data], tuple[Clicks, ClickSplit]],
    references_of: Callable[..., dict[str, dict[str, float]]] | None = None,
) -> None:
    """Loads, plans, trains, exports and reports.

    Args:
        load: gives the clicks that `settings.data` names.
        references_of: (settings, clicks, split, counts, test examples) -> metrics of what the report
            compares with, by name; None for nothing.
    """
    check(settings)
    with running(settings.run, f"candidates-{settings.data.dataset}") as (folder, console):
        clicks, split = read_once(lambda: load(settings.data))
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
        if references_of is not None:
            references = references_of(settings, clicks, split, counts, held_out["test"])
        finish_candidates_run(folder, settings, results, references, clicks, console)


def record(settings: Train, clicks: Clicks) -> dict[str, Any]:
    """Returns what `settings.json` keeps, and a resumed run must agree with."""
    source = dataclasses.asdict(clicks.source) | {"location": None}
    return kept_settings(settings) | {"data_source": source, "clicks": len(clicks)}
