"""The loop over epochs and chunks that every experiment runs."""

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jrec.errors import InputError
from jrec.train.checkpoints import Checkpoints
from jrec.train.step import TrainState


@dataclass
class Progress:
    """What the host must know to go on; saved beside each checkpoint.

    Attributes:
        epoch: epochs begun (from 1). step_in_epoch: steps taken in it.
        loss_sum, count: added up over the epoch so far.
        best: lowest value of the watched metric (negated where the highest is best); best_epoch: when; both as of the last epoch's end.
        examples, seconds: trained since the second epoch began (compilation is in the first).
    """

    epoch: int = 1
    step_in_epoch: int = 0
    loss_sum: float = 0.0
    count: float = 0.0
    best: float = math.inf
    best_epoch: int = 0
    examples: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class ChunkReport:
    """One chunk's result, read a chunk late so that the host never holds the device up.

    Attributes:
        warning: a sentence of `fit`'s `check`, else empty.
    """

    epoch: int
    step: int
    steps: int
    loss: float
    examples: float
    seconds: float
    warning: str = ""


@dataclass(frozen=True)
class EpochReport:
    """One epoch's result. `metrics` is what `evaluate` gave; `best` says whether it is the best yet."""

    epoch: int
    step: int
    loss: float
    metrics: dict[str, float]
    best: bool


@dataclass(frozen=True)
class Stopped:
    """The run was asked to stop and has saved a checkpoint at this step."""

    step: int


@dataclass(frozen=True)
class Schedule:
    """How long to train and when to look.

    Attributes:
        epochs: the whole run's. steps_per_epoch: with the last, partial batch counted.
        chunk_steps: steps between two looks of the host (progress, NaN, Ctrl-C).
        checkpoint_steps: also save each time this many steps are done; 0: at epoch ends only.
        watch: the metric whose lowest value is the best; None: the last epoch is the best.
        highest: the highest value is the best instead.
        patience: stop after this many epochs without a new best; 0: never.
    """

    epochs: int
    steps_per_epoch: int
    chunk_steps: int
    checkpoint_steps: int = 0
    watch: str | None = None
    patience: int = 0
    highest: bool = False


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Gives a function that tells whether Ctrl-C or SIGTERM has come; a second one stops at once."""
    seen: list[int] = []

    def note(number: int, frame: object) -> None:
        if seen:
            raise KeyboardInterrupt
        seen.append(number)

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def fit(
    state: TrainState,
    data: Any,
    chunk: Callable,
    order_of_epoch: Callable[[int], jax.Array],
    evaluate: Callable[[TrainState], dict[str, float]],
    schedule: Schedule,
    last: Checkpoints,
    best: Checkpoints,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    check: Callable[[TrainState], Callable[[], str]] | None = None,
) -> Iterator["ChunkReport | EpochReport | Stopped"]:
    """Trains, yielding a report after each chunk and each epoch.

    The caller prints, logs and draws; nothing here calls back. Saves to `last` at each epoch's end,
    after its report (and every `checkpoint_steps`), to `best` at each new best. Given the state and `Progress` of any
    checkpoint it goes on exactly as the run that wrote it would have.

    Args:
        state: donated, chunk by chunk.
        chunk: from `jrec.train.stream.make_chunk`.
        order_of_epoch: epoch (from 0) -> the epoch's order on the device.
        evaluate: at each epoch's end, state -> metrics.
        should_stop: asked after each chunk; true saves a checkpoint, yields `Stopped` and ends.
        check: after the first chunk, state -> a function that gives the chunk's warning. The first starts
            work on the device, the second is called with the chunk's report and may wait for it.

    Raises InputError when a loss is not finite, with the step; the checkpoints stay.
    """
    now = progress or Progress()
    while now.epoch <= schedule.epochs:
        if schedule.patience and now.epoch - 1 - now.best_epoch >= schedule.patience:
            return
        order = order_of_epoch(now.epoch - 1)
        before = (now.epoch - 1) * schedule.steps_per_epoch
        done = now.step_in_epoch
        waiting = None  # a chunk on the device whose metrics the host has not read
        clock = time.perf_counter()
        while done < schedule.steps_per_epoch:
            steps = _chunk_length(schedule, before, done)
            state, sums, bad_step = chunk(state, data, order, done, steps)
            done += steps
            # Before the next chunk, which takes the state's memory.
            warning, check = check(state) if check else None, None
            if waiting is not None:
                report = _read(waiting, now, before, clock, last)
                clock = time.perf_counter()
                yield report
            waiting = (done, steps, sums, bad_step, warning)
            stop = should_stop()
            due = schedule.checkpoint_steps and (before + done) % schedule.checkpoint_steps == 0
            if stop or (due and done < schedule.steps_per_epoch):
                yield _read(waiting, now, before, clock, last)
                waiting = None
                _check_finite(state, now, last)
                last.save(state, asdict(now))
                clock = time.perf_counter()
            if stop:
                yield Stopped(before + done)
                return
        if waiting is not None:
            yield _read(waiting, now, before, clock, last)
        report = _end_epoch(state, evaluate, schedule, now, last)
        # Before it is saved: what the caller logs is written again, not lost, if the run is killed here.
        yield report
        if report.best:
            # What was best is used, not gone on with: its optimizer state is left out.
            kept = asdict(now) | {"metrics": report.metrics}
            best.save(state._replace(opt_state=()), kept)
        last.save(state, asdict(now))


def _chunk_length(schedule: Schedule, before: int, done: int) -> int:
    steps = min(schedule.chunk_steps, schedule.steps_per_epoch - done)
    if schedule.checkpoint_steps:
        steps = min(steps, schedule.checkpoint_steps - (before + done) % schedule.checkpoint_steps)
    return steps


def _read(
    waiting: tuple, now: Progress, before: int, clock: float, last: Checkpoints
) -> ChunkReport:
    """Waits for a chunk, adds it to the progress, and stops the run where a loss is not finite."""
    done, steps, sums, bad_step, warning = waiting
    loss_sum, count = float(sums["loss_sum"]), float(sums["count"])
    if int(bad_step) >= 0:
        raise InputError(
            f"The loss is not finite at step {int(bad_step)} (epoch {now.epoch}); "
            f"{_kept(last)}try a lower --learning-rate."
        )
    seconds = time.perf_counter() - clock
    now.step_in_epoch = done
    now.loss_sum += loss_sum
    now.count += count
    if now.epoch > 1:
        now.examples += count
        now.seconds += seconds
    said = warning() if warning else ""
    loss, step = loss_sum / max(count, 1), before + done
    return ChunkReport(now.epoch, step, steps, loss, count, seconds, said)


def _end_epoch(
    state: TrainState,
    evaluate: Callable[[TrainState], dict[str, float]],
    schedule: Schedule,
    now: Progress,
    last: Checkpoints,
) -> EpochReport:
    metrics = evaluate(state)
    loss, step = now.loss_sum / max(now.count, 1), now.epoch * schedule.steps_per_epoch
    watched = -float(now.epoch) if schedule.watch is None else metrics[schedule.watch]
    watched = -watched if schedule.highest else watched
    if not math.isfinite(watched):
        raise InputError(
            f"The metric {schedule.watch} is not finite after step {step} (epoch {now.epoch}); "
            f"{_kept(last)}try a lower --learning-rate."
        )
    _check_finite(state, now, last)
    improved = watched < now.best
    if improved:
        now.best, now.best_epoch = watched, now.epoch
    report = EpochReport(now.epoch, step, loss, metrics, improved)
    now.epoch, now.step_in_epoch, now.loss_sum, now.count = now.epoch + 1, 0, 0.0, 0.0
    return report


@jax.jit
def _all_finite(params: Any) -> jax.Array:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params)]).all()


def _check_finite(state: TrainState, now: Progress, last: Checkpoints) -> None:
    """Before a save: the last update may have overflowed although the loss before it had not."""
    if not bool(_all_finite(state.params)):
        raise InputError(
            f"A parameter is not finite after step {int(state.step)} (epoch {now.epoch}); "
            f"{_kept(last)}try a lower --learning-rate."
        )


def _kept(last: Checkpoints) -> str:
    step = last.latest_step()
    return "" if step is None else f"the checkpoint of step {step} is kept; "
