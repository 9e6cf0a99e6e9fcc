"""Losses x encoders of candidate generation under one short protocol, in one table.

    python -m experiments.candidates.compare_losses --data-dir ml-1m_sas.txt.gz --run-dir runs/losses

Each cell is a run of `experiments.candidates` in a folder of its own: prefix form, runs of 50 clicks, width
64, the source's tower of 256 with 64 as its last width, Adam, the same epochs for all; 256 negatives that a
step shares (frequency noise; gBCE: uniform, as its paper has it). Best epoch on validation, NDCG@10 on
test. What is finished already is not run again, so the command may be stopped and repeated.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from jrec.command_line import parse_command
from jrec.console import plain_console
from jrec.data.click_sources import CLICK_DATASETS
from jrec.errors import run_command
from jrec.files import read_json, replacing
from jrec.models.encoders import EncoderName
from jrec.report import markdown_table
from jrec.train.flags import RunFlags, same_settings

from .data import load
from .losses import LossName
from .references import references_of
from .settings import Data, Train
from .train import train

PROTOCOL: dict[str, Any] = {
    "form": "prefix",
    "length": 50,
    "item_width": 64,
    "state_width": 64,
    "tower": (256, 64),
    "tied": False,
    "dropout": 0.1,
    "table_scale": 0.02,
    "user_id": False,
    "user_features": (),
    "item_features": (),
    "negatives": 256,
    "shared_negatives": True,
    "optimizer": "adam",
    "weight_decay": 0.0,
    "warmup": 100,
    "batch_size": 32,
}


@dataclass
class Table:
    """Train every cell and print NDCG@10 on test, with the examples trained a second."""

    dataset: Literal[CLICK_DATASETS] = "ml-1m-sas"  # type: ignore[valid-type]
    """Which data set."""
    data_dir: Path | None = None
    """File, folder or archive that holds it."""
    run_dir: Path = Path("runs/losses")
    """Where the runs and `table.md` go."""
    losses: list[LossName] = field(
        default_factory=lambda: [
            "full-softmax",
            "sampled-softmax",
            "sampled-softmax-no-logq",
            "nce",
            "gbce",
        ]
    )
    """Columns."""
    encoders: list[EncoderName] = field(default_factory=lambda: list(get_args(EncoderName)))
    """Rows."""
    epochs: int = 3
    """Of every cell."""
    learning_rate: float = 2e-3
    """Of every cell."""
    bias_start: Literal["level", "zero"] = "level"
    """See `experiments.candidates`."""
    seed: int = 0
    """Of every cell."""


def run_cell(settings: Table, encoder: EncoderName, loss: LossName) -> dict[str, Any]:
    """The results of one cell, trained unless they are there."""
    folder = settings.run_dir / f"{encoder}-{loss}"
    chosen = PROTOCOL | {
        "encoder": encoder,
        "loss": loss,
        "noise": "uniform" if loss.endswith("bce") else "frequency",
        "learning_rate": settings.learning_rate,
        "bias_start": settings.bias_start,
    }
    run = RunFlags(
        run_dir=folder,
        resume=(folder / "settings.json").exists(),
        seed=settings.seed,
        epochs=settings.epochs,
        chunk_steps=200,
    )
    data = Data(dataset=settings.dataset, data_dir=settings.data_dir)
    wanted = Train(data=data, run=run, **chosen)
    if not (folder / "results.json").exists():
        train(wanted, load, references_of)
    results = read_json(folder / "results.json")
    same_settings(folder, results["run_settings"], wanted)
    return results


def main(arguments: list[str] | None = None) -> None:
    """Runs what is missing, prints the table and writes it."""
    settings = parse_command((Table,), __doc__, arguments)
    rows, references = [], {}
    for encoder in settings.encoders:
        cells = []
        for loss in settings.losses:
            results = run_cell(settings, encoder, loss)
            references = results["references"]
            pace = results["examples_per_second"]  # of the second epoch and later ones
            cells.append(f"{results['test_ndcg@10']:.4f}" + (f" ({pace:,.0f}/s)" if pace else ""))
        rows.append([encoder, *cells])
    for name, numbers in references.items():
        rows.append([name, f"{numbers['ndcg@10']:.4f}", *[""] * (len(settings.losses) - 1)])
    header = [f"NDCG@10, {settings.epochs} epochs", *settings.losses]
    table = markdown_table(header, rows)
    with replacing(settings.run_dir / "table.md") as temporary:
        temporary.write_text(table + "\n", encoding="utf-8")
    plain_console().print(table, soft_wrap=True)


if __name__ == "__main__":
    run_command(main)
