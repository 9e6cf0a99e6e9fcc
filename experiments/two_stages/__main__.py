"""Both stages of the YouTube paper joined: candidates of several sources, then the ranking network.

    python -m experiments.two_stages train --run-dir DIR
    python -m experiments.two_stages train --dataset kuairand-pure --data-dir KuaiRand-Pure.zip --seed 0 --run-dir DIR
    python -m experiments.two_stages recommend --run-dir DIR --user 1 --count 10

The days of a log follow one another: the first stage trains on the first ones, the second on lists of
--list-days, --valid-days choose its epoch, the rest is test (KuaiRand-Pure: 1 to 8 May). A list is made at the
first moment of a day, for each user who is shown something on it; relevant is what the user completes
(KuaiRand-Pure: long views) on that day. All items are candidates of the first stage, but those seen before.
"""

import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.candidates.train import train as train_first
from experiments.ranking.settings import KUAIRAND_LONGEST, load
from jrec.command_line import parse_command
from jrec.data.click_examples import time_cut
from jrec.data.impressions import Impressions, ImpressionSplit
from jrec.data.ragged import Ragged
from jrec.data.vocabulary import FIRST
from jrec.errors import InputError, run_command
from jrec.evaluate.repeated_targets import check_some_count
from jrec.report import open_run_directory
from jrec.retrieval.mining import Fallback, cooccurrence_lists, hottest
from jrec.serving.candidates import load_candidate_model
from jrec.serving.export import load_program
from jrec.serving.two_stage_export import export_two_stages, load_two_stages, recommend_ranked
from jrec.serving.two_stages import Encode, find_candidates, make_two_stages
from jrec.train.flags import kept_settings
from jrec.train.run import run, running

from .lists import DAY, Log, make_lists
from .report import finish_two_stages
from .settings import (
    Train,
    check,
    first_stage_clicks,
    first_stage_settings,
)
from .system import (
    build_model,
    feature_arrays,
    history_keys,
    history_quantiles,
    make_gather,
)
from .training import make_predict, second_stage


@dataclass
class Recommend:
    """Print a ranked list for a user or a history, with scores and who named each item."""

    run_dir: Path
    """A finished run."""
    user: str | None = None
    """Raw id of a user."""
    history: tuple[str, ...] = ()
    """Raw ids of watched items, the oldest first; read in the place of the user's own log."""
    count: int = 10
    """How many."""


@dataclass(frozen=True)
class Moments:
    """First moments of days, seconds: of the lists of each part."""

    train: list[int]
    valid: list[int]
    test: list[int]


def moments_of(settings: Train, impressions: Impressions, split: ImpressionSplit) -> Moments:
    """The days of each part; raises InputError where too few days are there."""
    day_of = _first_moment(impressions, split)
    valid = sorted({day_of(t) for t in impressions.timestamp[split.valid].tolist()})
    test = sorted({day_of(t) for t in impressions.timestamp[split.test].tolist()})
    earlier = sorted({day_of(t) for t in impressions.timestamp[split.train].tolist()})
    if len(earlier) <= settings.list_days or not valid:
        raise InputError(
            f"{len(earlier)} days before validation are too few for --list-days {settings.list_days} and "
            f"a day for the first stage; give fewer, or a longer log."
        )
    return Moments(earlier[-settings.list_days :], valid, test)


def _first_moment(impressions: Impressions, split: ImpressionSplit) -> Any:
    # Days begin where the log's own parts do: midnight in China or in UTC.
    phase = 16 * 3600 if impressions.name == "kuairand-pure" else 0
    return lambda time: (time - phase) // DAY * DAY + phase


def first_stage(
    settings: Train, impressions: Impressions, until: int, test_from: int, folder: Path
) -> tuple[Log, Encode, dict[str, Any], int]:
    """Trains a first stage unless it stands there; the logs, its program, its arrays, its block rows.

    Args:
        until: seconds; it trains on the clicks before, and those up to `test_from` choose its epoch.
    """
    clicks = first_stage_clicks(settings.data, impressions)
    split = time_cut(clicks, until, test_from)
    if not (folder / "results.json").exists():
        train_first(first_stage_settings(settings, folder), lambda _: (clicks, split))
    model = load_candidate_model(folder / "export")
    program, flat = load_program(folder / "export")
    # An export's arrays are named by paths, and a path is no name within another export.
    flat = {name.replace("/", "|"): array for name, array in flat.items()}

    def encode(arrays: Any, *inputs: jax.Array) -> jax.Array:
        return program({name.replace("|", "/"): array for name, array in arrays.items()}, *inputs)

    M, J = len(model.biases), settings.sizes.similar
    known = split.train
    lengths = np.bincount(clicks.user_of_event[known], minlength=clicks.users)
    past = Ragged(clicks.item[known] - FIRST, np.concatenate([[0], np.cumsum(lengths)]))
    nothing = Fallback(hottest(np.zeros(M, np.int64), J), np.zeros(M, np.int64))
    similar = cooccurrence_lists(past, M, J, nothing)(0, M)
    table = model.table
    arrays = {
        "first": flat,
        "table": {"weights": table.weights, "biases": table.biases, "norm": table.norm},
        "similar": np.where(similar.mask, similar.rows, -1).astype(np.int32),
    }
    log = Log.of(impressions, clicks, model.length)
    return log, encode, jax.tree.map(jnp.asarray, arrays), table.block_rows


def train(settings: Train) -> None:
    """Runs both stages from data to report; each trains in a folder of its own, `first/` and `second/`."""
    check(settings)
    with running(settings.run, f"two-stages-{settings.data.dataset}") as (folder, console):
        longest = KUAIRAND_LONGEST if settings.data.dataset == "kuairand-pure" else 0.0
        impressions, split = load(settings.data, longest)
        moments = moments_of(settings, impressions, split)
        open_run_directory(folder, settings.run.resume, record(settings, impressions))
        log, encode, arrays, block_rows = first_stage(
            settings, impressions, moments.train[0], moments.test[0], folder / "first"
        )
        sizes, keys = settings.sizes, history_keys(impressions)
        find = jax.jit(partial(_find, encode, block_rows, sizes))
        lists = {
            part: make_lists(
                log, at, find, arrays, sizes, settings.recent_days, only_targets=part != "train"
            )
            for part, at in vars(moments).items()
        }
        fresh = None
        if settings.fresh_first:
            _, again, given, rows = first_stage(
                settings, impressions, moments.valid[0], moments.test[0], folder / "fresh"
            )
            look = jax.jit(partial(_find, again, rows, sizes))
            fresh = make_lists(log, moments.test, look, given, sizes, settings.recent_days, True)
        for part, some in lists.items():
            console.print(
                f"{part}: {len(some):,} lists, {int(some.completed.sum()):,} targets named",
                soft_wrap=True,
            )
            repeats, targets = int(some.repeats.sum()), int(some.targets.lengths.sum())
            if part != "train":
                check_some_count(settings.repeated_targets, repeats, targets)

        before = np.flatnonzero(
            (impressions.timestamp < moments.valid[0]) & ~impressions.history_only
        )
        features, *columns = feature_arrays(impressions, before, settings.user_id)
        features["quantiles"] = history_quantiles(features, keys, lists["train"])
        model = build_model(settings, impressions, *columns)
        gather = make_gather(keys, sizes)
        predict = make_predict(model, gather)
        plan = second_stage(settings, model, gather, predict, features, lists)
        second = folder / "second"
        resume = settings.run.resume and (second / "settings.json").exists()
        flags = dataclasses.replace(settings.run, resume=resume)
        trained = run(plan, flags, second, record(settings, impressions))
        logits = predict(trained.params, features, lists["test"])
        popular, recent, _ = log.recent(moments.test[-1] + DAY, settings.recent_days, sizes)
        whole = arrays | {"hottest": jnp.asarray(popular), "recent": jnp.asarray(recent)}
        whole |= {"features": features, "ranker": trained.params}
        two_stages = make_two_stages(
            encode, model.apply, keys, sizes, block_rows, settings.rank_by, sum(sizes.lengths)
        )
        vocabularies = impressions.vocabularies
        export_two_stages(
            folder / "export",
            two_stages,
            whole,
            log.length,
            sizes.events,
            log.user_logs(moments.test[-1] + DAY),
            impressions.name,
            vocabularies["item"],
            vocabularies["user"],
            impressions.user_row,
        )
        results = trained.results
        results["candidates_per_second"] = results.pop("examples_per_second")
        finish_two_stages(
            folder,
            settings,
            results,
            lists["test"],
            logits,
            fresh,
            console,
        )


def _find(encode: Encode, block_rows: int, sizes: Any, arrays: Any, request: Any) -> Any:
    return find_candidates(arrays, encode, block_rows, sizes, request)


def record(settings: Train, impressions: Impressions) -> dict[str, Any]:
    """Returns what `settings.json` keeps, and a resumed run must agree with."""
    source = dataclasses.asdict(impressions.source) | {"location": None}
    kept = kept_settings(settings)
    del kept["fresh_first"]  # an evaluation more, which changes nothing else
    return kept | {"data_source": source, "impressions": len(impressions)}


def recommend(settings: Recommend) -> None:
    """Prints a ranked list of both stages, out of the export."""
    model = load_two_stages(settings.run_dir / "export")
    lines, notes = recommend_ranked(model, settings.count, settings.user, settings.history or None)
    for note in notes:
        print(f"note: {note}")
    if not lines:
        return
    print("rank  item  score  expected seconds  named by (place)")
    for rank, line in enumerate(lines, start=1):
        named = ", ".join(f"{source} {place}" for source, place in line.sources.items())
        print(f"{rank:>4}  {line.item}  {line.score:.3f}  {line.watch_seconds:.1f}  {named}")


COMMANDS = {Train: train, Recommend: recommend}


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line; `arguments` are the process's own by default."""
    settings = parse_command(list(COMMANDS), __doc__, arguments)
    COMMANDS[type(settings)](settings)


if __name__ == "__main__":
    run_command(main)
