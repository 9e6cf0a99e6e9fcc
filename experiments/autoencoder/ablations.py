"""The ablations of the autoencoder's paper: activations, depth, dropout, re-feeding x rate.

    python -m experiments.autoencoder.ablations --dataset ml-1m --data-dir PATH --run-dir DIR

Each variant is a run of `experiments.autoencoder` in a folder of its own below --run-dir; finished ones
are not run again. Writes `ablations.md` and `ablations.png`. Compared on validation.
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jrec.command_line import parse_command
from jrec.data.sources import DATASETS
from jrec.data.synthetic import SyntheticSize
from jrec.errors import InputError, run_command
from jrec.files import read_json, replacing
from jrec.models.autoencoder import ACTIVATIONS
from jrec.report import markdown_table
from jrec.train.flags import RunFlags

from .__main__ import train
from .settings import Data, Train


@dataclass
class Ablations:
    """Settings that all variants share."""

    dataset: Literal["netflix", *DATASETS] = "ml-1m"  # type: ignore[valid-type]
    """Which data set."""
    data_dir: Path | None = None
    """Folder or archive that holds it."""
    synthetic: SyntheticSize = field(default_factory=SyntheticSize)
    """Sizes of `--dataset synthetic`."""
    epochs: int = 41
    """Passes over the users, for each variant."""
    batch_size: int = 128
    """Users a step."""
    seed: int = 0
    """Of each variant."""
    studies: tuple[Literal["activation", "depth", "dropout", "refeeding"], ...] = (
        "activation",
        "depth",
        "dropout",
        "refeeding",
    )
    """Which of them to run."""
    run_dir: Path = Path("runs/autoencoder-ablations")
    """Where the runs, the table and the figure go."""


def variants(study: str) -> dict[str, dict[str, Any]]:
    """Names and settings of one study; what is not named is the source's."""
    if study == "activation":
        bounded = ("sigmoid", "tanh")  # cannot reach a rating of 5
        return {
            name: {"activation": name, "last_activation": name not in bounded}
            for name in ACTIVATIONS
        }
    if study == "depth":  # layers in all, encoder and decoder, each 128 wide
        return {str(2 * k): {"hidden": (128,) * k} for k in (1, 2, 3, 4, 6)}
    if study == "dropout":
        return {f"{share:g}": {"dropout": share} for share in (0.0, 0.2, 0.35, 0.5, 0.65, 0.8)}
    return {
        f"{rate:g}, re-fed {times}": {"learning_rate": rate, "refeed": times}
        for rate in (0.001, 0.005, 0.01)
        for times in (0, 1, 2)
    }


def run_variant(settings: Ablations, folder: Path, changes: dict[str, Any]) -> float | None:
    """Best validation RMSE of one variant; None where it diverged."""
    if not (folder / "results.json").exists():
        data = Data(settings.dataset, settings.data_dir, synthetic=settings.synthetic)
        run = RunFlags(
            run_dir=folder,
            resume=(folder / "settings.json").exists(),
            seed=settings.seed,
            epochs=settings.epochs,
            chunk_steps=100,
        )
        wanted = Train(data=data, batch_size=settings.batch_size, run=run)
        try:
            train(dataclasses.replace(wanted, **changes))
        except InputError as error:
            if "not finite" not in str(error):
                raise
            return None
    return read_json(folder / "results.json")["valid_rmse"]


def draw(path: Path, found: dict[str, dict[str, float | None]]) -> None:
    """One panel a study; a variant that diverged has no bar."""
    from matplotlib.figure import Figure  # slow to import, and not needed to train

    figure = Figure(figsize=(11, 7), layout="constrained")
    for axes, (study, values) in zip(
        figure.subplots(2, 2).flat[: len(found)], found.items(), strict=True
    ):
        heights = [value or 0.0 for value in values.values()]
        axes.bar(list(values), heights)
        low = min((height for height in heights if height), default=0.0)
        axes.set(title=study, ylabel="validation RMSE", ylim=(low - 0.02, min(low + 0.3, 1.3)))
        axes.tick_params(axis="x", rotation=45)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)


def main(arguments: list[str] | None = None) -> None:
    """The command line; `arguments` are the process's own by default."""
    settings = parse_command((Ablations,), __doc__, arguments)
    found: dict[str, dict[str, float | None]] = {}
    for study in settings.studies:
        found[study] = {}
        for name, changes in variants(study).items():
            folder = settings.run_dir / study / name.replace(", ", "-").replace(" ", "-")
            found[study][name] = run_variant(settings, folder, changes)
    rows = [
        [study, name, "diverged" if value is None else value]
        for study, values in found.items()
        for name, value in values.items()
    ]
    table = markdown_table(["study", "variant", "validation RMSE"], rows)
    with replacing(settings.run_dir / "ablations.md") as temporary:
        temporary.write_text(table + "\n", encoding="utf-8")
    draw(settings.run_dir / "ablations.png", found)
    print(table)


if __name__ == "__main__":
    run_command(main)
