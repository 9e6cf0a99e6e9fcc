"""The loop over epochs and chunks that every experiment runs."""

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jrec.errors import InputError
from jrec.train.checkpoints import Checkpoints
from jrec.train.flags import RunFlags
from jrec.train.step import Step, TrainState
from jrec.train.streams import DeviceStream


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
        warning: a sentence of the plan's `check`, else empty.
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


class Plan(NamedTuple):
    """What a run trains and how it is measured.

    Attributes:
        state: before the first step.
        step: the train step, made for `jrec.train.devices.device_axis()`.
        stream: where batches come from, see `jrec.train.streams`.
        evaluate: at each epoch's end, state -> metrics.
        watch: the metric whose best value chooses the parameters; None: those of the last epoch.
        highest: the highest value of it is the best, not the lowest.
        check: after the first chunk, state -> a function that gives a warning or "". The first starts
            work on the device, the second is called when the chunk is read and may wait for it.
        cost_scale: factor of reported losses, where training is in another unit than the user's.
    """

    state: TrainState
    step: Step
    stream: DeviceStream
    evaluate: Callable[[TrainState], dict[str, float]]
    watch: str | None = None
    highest: bool = False
    check: Callable[[TrainState], Callable[[], str]] | None = None
    cost_scale: float = 1.0


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
    plan: Plan,
    flags: RunFlags,
    last: Checkpoints,
    best: Checkpoints,
    state: TrainState,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator["ChunkReport | EpochReport | Stopped"]:
    """Trains, yielding a report after each chunk and each epoch.

    The caller prints, logs and draws. Saves to `last` at each epoch's end, after its report (and every
    `checkpoint_steps`), to `best` at each new best. Given the state and `Progress` of any checkpoint it
    continues exactly as the run that wrote it would have.

    Args:
        state: where to start; donated, chunk by chunk.
        should_stop: asked after each chunk; true saves a checkpoint, yields `Stopped` and ends.

    Raises InputError when a loss is not finite, with the step; the checkpoints stay.
    """
    now, check, steps_per_epoch = progress or Progress(), plan.check, plan.stream.steps
    data, chunk = plan.stream.on_devices(), plan.stream.chunk(plan.step)
    while now.epoch <= flags.epochs:
        if flags.patience and now.epoch - 1 - now.best_epoch >= flags.patience:
            return
        order = plan.stream.order(now.epoch - 1)
        before = (now.epoch - 1) * steps_per_epoch
        done = now.step_in_epoch
        waiting = None  # a chunk on the device whose metrics the host has not read
        clock = time.perf_counter()

        def read(waiting: tuple, before: int = before) -> ChunkReport:
            nonlocal clock
            report = _read(waiting, now, before, clock, last, plan.cost_scale)
            clock = time.perf_counter()
            return report

        while done < steps_per_epoch:
            steps = _chunk_length(flags, steps_per_epoch, before, done)
            state, sums, bad_step = chunk(state, data, order, done, steps)
            done += steps
            # Before the next chunk, which takes the state's memory.
            warning, check = check(state) if check else None, None
            if waiting is not None:
                yield read(waiting)
            waiting = (done, steps, sums, bad_step, warning)
            stop = should_stop()
            due = flags.checkpoint_steps and (before + done) % flags.checkpoint_steps == 0
            if stop or (due and done < steps_per_epoch):
                yield read(waiting)
                waiting = None
                _check_finite(state, now, last)
                last.save(state, asdict(now))
                clock = time.perf_counter()
            if stop:
                yield Stopped(before + done)
                return
        if waiting is not None:
            yield read(waiting)
        report = _end_epoch(state, plan, now, last)
        # Before it is saved: what the caller logs is written again, not lost, if the run is killed here.
        yield report
        if report.best:
            # The best parameters are used, not resumed: their optimizer state is left out.
            kept = asdict(now) | {"metrics": report.metrics}
            best.save(state._replace(opt_state=()), kept)
        last.save(state, asdict(now))


def _chunk_length(flags: RunFlags, steps_per_epoch: int, before: int, done: int) -> int:
    steps = min(flags.chunk_steps, steps_per_epoch - done)
    if flags.checkpoint_steps:
        steps = min(steps, flags.checkpoint_steps - (before + done) % flags.checkpoint_steps)
    return steps


def _read(
    waiting: tuple, now: Progress, before: int, clock: float, last: Checkpoints, scale: float
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
    loss, step = scale * loss_sum / max(count, 1), before + done
    return ChunkReport(now.epoch, step, steps, loss, count, seconds, said)


def _end_epoch(state: TrainState, plan: Plan, now: Progress, last: Checkpoints) -> EpochReport:
    metrics = plan.evaluate(state)
    loss = plan.cost_scale * now.loss_sum / max(now.count, 1)
    step = now.epoch * plan.stream.steps
    watched = -float(now.epoch) if plan.watch is None else metrics[plan.watch]
    watched = -watched if plan.highest and plan.watch else watched
    if not math.isfinite(watched):
        raise InputError(
            f"The metric {plan.watch} is not finite after step {step} (epoch {now.epoch}); "
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
