"""Candidate generation of Paddle's youtube_recall: a click log in, recall on the whole catalogue out.

    python -m experiments.candidates prepare --log click.log --out prepared
    python -m experiments.candidates train --dataset click-log --data-dir prepared --run-dir DIR
    python -m experiments.candidates train --dataset ml-1m-sas --data-dir ml-1m_sas.txt.gz --seed 0 --run-dir DIR
    python -m experiments.candidates evaluate --run-dir DIR
    python -m experiments.candidates vectors --run-dir DIR --out vectors
    python -m experiments.candidates search --run-dir DIR --user 1
    python -m experiments.candidates mine --run-dir DIR --lists personal --out lists.tsv

Times and scores, with their commands, stand in BUILD_NOTES.md.
"""

import dataclasses
import math
import sys
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.hardware import open_run, using
from jrec.command_line import parse_command
from jrec.console import plain_console
from jrec.data.click_examples import (
    ClickSplit,
    count_items,
    held_out_examples,
    training_examples,
)
from jrec.data.click_truth import ClickSize
from jrec.data.clicks import Clicks
from jrec.data.vocabulary import FIRST
from jrec.errors import run_command
from jrec.evaluate.vector_spread import vector_spread, vector_warning
from jrec.losses.samplers import frequency
from jrec.report import MetricsLog, environment
from jrec.train.checkpoints import Checkpoints
from jrec.train.devices import (
    Devices,
    axis_of,
    first_batch,
    make_chunk_on,
    on_one,
    replicated,
    split_order,
)
from jrec.train.loop import Progress, Schedule, fit, stop_on_signals
from jrec.train.processes import agreed, is_first
from jrec.train.progress import watch_training
from jrec.train.read_once import read_once
from jrec.train.step import TrainState
from jrec.train.stream import epoch_order

from .baselines import reference_metrics
from .batches import (
    device_clicks,
    make_segment_gather,
    make_window_gather,
    segment_data,
    training_segments,
    window_data,
)
from .evaluate import Evaluate, evaluate
from .evaluation import KS, make_evaluate, never_listed, write_test
from .export import export_run
from .mine import Mine, mine
from .network import build_model
from .prepare import Prepare, prepare
from .report import finish_candidates_run, show_split
from .sample_vectors import make_sample_vectors
from .search import Search, Vectors, search, vectors
from .settings import Train, load, with_preset
from .system import (
    build_optimizers,
    build_sampler,
    build_step,
    loss,
    start_biases,
)


def train(settings: Train) -> None:
    """Runs the experiment from data to report."""
    settings = with_preset(settings)
    with using(settings.hardware, settings.run_dir) as devices:
        clicks, split = read_once(lambda: load(settings.data), settings.run_dir)
        made = settings.data.dataset == "synthetic"
        truth = (settings.data.synthetic, settings.data.split_seed) if made else None
        train_on(settings, clicks, split, truth, devices=devices)


def train_on(
    settings: Train,
    clicks: Clicks,
    split: ClickSplit,
    truth: tuple[ClickSize, int] | None = None,
    compare: bool = True,
    devices: Devices = (),
) -> None:
    """The same on clicks that are there.

    Args:
        settings: complete, see `with_preset`; its `data` says where the clicks are from.
        compare: report what popularity and item neighbours reach, too.
        truth: the sizes and seed of a made-up log, whose planted optimum is a reference then.
        devices: that share the batches.
    """
    console = plain_console(quiet=not is_first())
    model = build_model(settings, clicks, axis_of(devices))
    stamp = time.strftime("%Y%m%d-%H%M%S")
    run_dir = settings.run_dir or Path("runs") / f"candidates-{settings.data.dataset}-{stamp}"
    open_run(run_dir, settings.resume, lambda: record(settings, clicks))
    show_split(clicks, split, console)

    init_key, step_key, order_key = jax.random.split(jax.random.key(settings.seed), 3)
    columns = [[c.name for c in model.columns if c.of == of] for of in ("user", "item")]
    held_data = device_clicks(clicks, *columns, devices)
    counts = read_once(lambda: count_items(clicks, split.train), settings.run_dir)
    if settings.form == "window":
        examples = read_once(
            lambda: training_examples(clicks, split, settings.length, settings.cap, settings.seed),
            settings.run_dir,
        )
        data, count = window_data(held_data, examples, devices), len(examples)
        inner = make_window_gather(settings.length)
    else:
        segments = read_once(
            lambda: training_segments(clicks, split, settings.length, settings.whole_histories),
            settings.run_dir,
        )
        data = segment_data(held_data, segments, devices)
        count = len(data["segments"]["user"])
        inner = make_segment_gather(settings.length)
    constants = {
        "sampler": build_sampler(settings.noise, settings.noise_power, counts),
        "frequency": frequency(counts),
        "items": jnp.arange(model.item_rows, dtype=jnp.int32) >= FIRST,
    }
    data |= constants

    def gather(data: dict[str, Any], positions: jax.Array, mask: jax.Array) -> dict[str, Any]:
        return inner(data, positions, mask) | {name: data[name] for name in constants}

    first = first_batch(inner, data, devices)
    if settings.form == "prefix":
        first = first | {"age": first["age"][:, 0]}
    params = jax.jit(model.init)(init_key, first)
    if settings.bias_start == "level":
        params = start_biases(
            params,
            settings.loss,
            counts,
            constants["sampler"],
            settings.negatives,
            settings.calibration,
        )
    each = partial(
        loss,
        model,
        settings.loss,
        settings.form,
        settings.negatives,
        settings.shared_negatives,
        settings.calibration,
    )
    optimizers = build_optimizers(
        settings.optimizer,
        settings.learning_rate,
        settings.weight_decay,
        settings.warmup,
        settings.epochs * math.ceil(count / settings.batch_size),
        settings.cooldown,
    )
    rows, whole = settings.tables == "rows", settings.loss == "full-softmax"
    state, step = build_step(each, model, params, optimizers, rows, whole, step_key)
    state, data = replicated((state, data), devices)
    template = jax.eval_shape(lambda: state)

    held_out = {part: held_out_examples(clicks, split, part) for part in ("valid", "test")}
    measure = {
        part: make_evaluate(
            settings.length,
            model,
            clicks,
            held_data,
            held_out[part],
            settings.remove_seen,
            counts,
            devices,
            settings.repeated_targets,
        )
        for part in held_out
    }
    measure_valid, (measure_test, make_up) = measure["valid"][0], measure["test"]

    def evaluate(state: TrainState) -> dict[str, float]:
        if not len(held_out["valid"]):
            return {}
        means, _ = measure_valid(state.params)
        return {f"valid_{name}": means[name] for name in ("ndcg@10", "hr@10", "mrr", "recall@100")}

    sample_vectors = make_sample_vectors(settings.length, model, held_data, held_out, devices)

    def check(state: TrainState) -> Callable[[], str]:
        vectors = sample_vectors(state.params)
        return lambda: vector_warning(vector_spread(np.asarray(vectors)))

    schedule = Schedule(
        epochs=settings.epochs,
        steps_per_epoch=math.ceil(count / settings.batch_size),
        chunk_steps=settings.chunk_steps,
        checkpoint_steps=settings.checkpoint_steps,
        watch="valid_ndcg@10" if len(held_out["valid"]) else None,
        patience=settings.patience,
        highest=bool(len(held_out["valid"])),
    )
    last = Checkpoints(run_dir / "last", 2, devices)
    best = Checkpoints(run_dir / "best", 1, devices)
    progress = Progress()
    if settings.resume and last.latest_step() is not None:
        state, saved = last.restore(template)
        progress = Progress(**saved)
    first_step = int(state.step)

    def order(epoch: int) -> jax.Array:
        whole = epoch_order(order_key, epoch, count, settings.batch_size)
        return split_order(whole, settings.batch_size, devices)

    chunk = make_chunk_on(devices, step, gather, count, settings.batch_size)
    started = time.perf_counter()
    log = MetricsLog(run_dir, first_step, write=is_first())
    with closing(log), stop_on_signals() as should_stop:
        reports = fit(
            state,
            data,
            chunk,
            order,
            evaluate,
            schedule,
            last,
            best,
            progress,
            agreed(should_stop),
            check,
        )
        stopped = watch_training(reports, schedule, log, console, first_step)
    if stopped:
        console.print(
            f"Stopped at step {stopped.step}, saved; go on with --resume --run-dir {run_dir}."
        )
        sys.exit(130)

    chosen, saved = best.restore(template._replace(opt_state=()))
    means, by_example = measure_test(chosen.params)
    means |= make_up(chosen.params)
    spread = vector_spread(np.asarray(sample_vectors(chosen.params)))
    if not is_first():
        return
    write_test(run_dir, held_out["test"], by_example)
    export_run(run_dir / "export", model, on_one(chosen.params), clicks, counts, settings.length)
    results = saved["metrics"] | {f"test_{name}": value for name, value in means.items()}
    results |= {
        "best_epoch": saved["epoch"] - 1,
        "epochs": progress.epoch - 1,
        "seconds": time.perf_counter() - started,
        "examples_per_second": progress.examples / progress.seconds if progress.seconds else None,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(chosen.params)),
        "sampled_users": spread.users,
        "dead_units": spread.dead,
        "user_vector_spread": spread.spread,
        "warnings": [sentence] if (sentence := vector_warning(spread)) else [],
        "seed": settings.seed,
        "split": settings.data.split,
        "remove_seen": settings.remove_seen,
        "repeated_targets": settings.repeated_targets,
        "test_targets": len(held_out["test"]),
    }
    references = {}
    if compare:
        references = reference_metrics(
            clicks,
            split,
            counts,
            held_out["test"],
            settings.remove_seen,
            KS,
            truth,
            settings.repeated_targets,
            never_listed(clicks, held_out["test"], settings.remove_seen),
        )
    kept = dataclasses.asdict(settings) | {"data_source": dataclasses.asdict(clicks.source)}
    finish_candidates_run(run_dir, kept, environment(), results, references, clicks, console)


def record(settings: Train, clicks: Clicks) -> dict[str, Any]:
    """What `settings.json` keeps, and a resumed run must agree with."""
    # What may differ between a run and its continuation.
    free = ("resume", "run_dir", "hardware")
    kept = {k: v for k, v in dataclasses.asdict(settings).items() if k not in free}
    kept["data"] = {k: v for k, v in kept["data"].items() if k != "data_dir"}
    source = dataclasses.asdict(clicks.source) | {"location": None}
    return kept | {"data_source": source, "clicks": len(clicks)}


def main(arguments: list[str] | None = None) -> None:
    """The command line; `arguments` are the process's own by default."""
    commands = {Prepare: prepare, Train: train, Evaluate: evaluate}
    commands |= {Vectors: vectors, Search: search, Mine: mine}
    settings = parse_command(list(commands), __doc__, arguments)
    commands[type(settings)](settings)


if __name__ == "__main__":
    run_command(main)
