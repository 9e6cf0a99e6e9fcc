"""A finished candidate run measured again, out of its best checkpoint."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp

from jrec.data.click_examples import count_items, held_out_examples
from jrec.errors import InputError
from jrec.evaluate.repeated_targets import RepeatedTargets, repeated_note
from jrec.files import read_json, write_json
from jrec.train.checkpoints import Checkpoints
from jrec.train.flags import settings_of
from jrec.train.step import TrainState

from .batches import device_clicks, make_window_gather, window_data
from .data import load
from .evaluation import make_evaluate
from .network import build_model, feature_names
from .settings import Train


@dataclass
class Evaluate:
    """Measure a finished run again, perhaps with other choices."""

    run_dir: Path
    """A finished run."""
    remove_seen: bool = True
    """Leave items that the user has clicked out of rankings."""
    repeated_targets: RepeatedTargets | None = None
    """With seen items removed, a target that the user has clicked before is a miss, does not count, or is ranked
    (left out: as in the run)."""
    part: Literal["valid", "test"] = "test"
    """Which clicks to rank."""


def evaluate(settings: Evaluate) -> None:
    """Prints and writes the metrics of a finished run's best checkpoint."""
    file = settings.run_dir / "results.json"
    written = read_json(file)
    if "run_settings" not in written or "references" not in written:
        raise InputError(f"{settings.run_dir} holds no finished run of this experiment.")
    again = settings_of(Train, written["run_settings"], file)
    clicks, split = load(again.data)
    model = build_model(again, clicks)
    held_data = device_clicks(clicks, *feature_names(model))
    examples = held_out_examples(clicks, split, settings.part)
    if not len(examples):
        raise InputError(f"{settings.run_dir} was run without a {settings.part} part.")
    batch = make_window_gather(again.length)(
        window_data(held_data, examples), jnp.zeros(1, jnp.int32), jnp.ones(1, bool)
    )
    params = jax.eval_shape(model.init, jax.random.key(0), batch)
    template = TrainState(jnp.zeros((), jnp.int32), jax.random.key(0), params, ())
    chosen, _ = Checkpoints(settings.run_dir / "best", keep=1).restore(template)
    counts = count_items(clicks, split.train)
    choice = settings.repeated_targets or again.repeated_targets
    measure, make_up = make_evaluate(
        again.length,
        model,
        clicks,
        held_data,
        examples,
        settings.remove_seen,
        counts,
        choice=choice,
    )
    means, _ = measure(chosen.params)
    means |= make_up(chosen.params)
    seen = "removed" if settings.remove_seen else "kept"
    print(f"{settings.part}, whole catalogue, seen items {seen}")
    for name, value in means.items():
        print(f"{name:>14}  {value:.4f}")
    count = means["repeats"], len(examples)
    if note := repeated_note(choice, *count, "--no-remove-seen", settings.remove_seen):
        print(note)
    kind = seen if choice == "miss" else f"{seen}-repeats-{choice}"
    protocol = {"part": settings.part, "remove_seen": settings.remove_seen}
    write_json(
        settings.run_dir / f"evaluation-{settings.part}-seen-{kind}.json",
        means | protocol | {"repeated_targets": choice},
    )
