"""What a person sees while a model trains: a live bar on a terminal, a line an epoch elsewhere."""

from collections.abc import Iterable

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from jrec.report import MetricsLog
from jrec.train.loop import ChunkReport, EpochReport, Stopped


def watch_training(
    reports: Iterable[ChunkReport | EpochReport | Stopped],
    epochs: int,
    steps_per_epoch: int,
    log: MetricsLog,
    console: Console,
    first_step: int = 0,
) -> Stopped | None:
    """Drains `jrec.train.loop.fit`: draws the bar, prints each epoch, writes each epoch's metrics.

    Returns the `Stopped` report of a run that was asked to stop, else None.
    """
    bar = Progress(
        TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]} · {task.fields[rate]} examples/s", markup=False),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
    with bar:
        task = bar.add_task(
            "",
            total=epochs * steps_per_epoch,
            completed=first_step,
            epoch=first_step // steps_per_epoch + 1,
            epochs=epochs,
            loss="—",
            rate="—",
        )
        for report in reports:
            if isinstance(report, Stopped):
                return report
            if isinstance(report, ChunkReport):
                bar.update(
                    task,
                    completed=report.step,
                    epoch=report.epoch,
                    loss=f"{report.loss:.4f}",
                    rate=f"{report.examples / report.seconds:,.0f}",
                )
                if report.warning:
                    said = f"warning, after step {report.step}: {report.warning}"
                    bar.console.print(said, soft_wrap=True)
                continue
            log.write(report.step, epoch=report.epoch, train_cost=report.loss, **report.metrics)
            shown = "  ".join(f"{name} {value:.4f}" for name, value in report.metrics.items())
            mark = "  *" if report.best else ""
            bar.console.print(
                f"epoch {report.epoch:3d}  train_cost {report.loss:.4f}  {shown}{mark}",
                soft_wrap=True,
            )
    return None
