"""The ranking paper's tables on KuaiRand-Pure: depth and width, weights, powers, trees, popularity.

    python -m experiments.ranking.table --data-dir KuaiRand-Pure.zip --run-dir runs/ranking-table

Each cell is a run of `experiments.ranking` in a folder of its own, for each seed: the best epoch on 30 April,
test on 1 to 8 May. `weighted_loss` is the paper's, of pages; completion is KuaiRand's long view. What is
finished already is not run again, so the command may be stopped and repeated. Writes `table.md` and
`depth.png`. The trees need the extra `bench`.
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jrec.command_line import parse_command
from jrec.console import plain_console
from jrec.data.impressions import Impressions, ImpressionSplit
from jrec.errors import InputError, run_command
from jrec.files import read_json, replacing, write_json
from jrec.report import markdown_table
from jrec.train.flags import RunFlags, check_flags, same_settings

from .__main__ import train
from .settings import KUAIRAND_LONGEST, Data, Train, check, load
from .system import measure, popularity_scores
from .trees import tree_metrics

TOWERS: dict[str, tuple[int, ...]] = {
    "none": (),
    "256": (256,),
    "512-256": (512, 256),
    "1024-512-256": (1024, 512, 256),
}
METRICS = (
    "weighted_loss",
    "weighted_loss_user",
    "click_gauc",
    "completion_auc",
    "completion_gauc",
    "completion_head_auc",
    "completion_head_gauc",
)


@dataclass
class Table:
    """Train every cell and print the tables."""

    data_dir: Path | None = None
    """Archive or folder of KuaiRand-Pure; left out, a synthetic log."""
    earlier: bool = True
    """Whether histories begin with the sequences before the log (needs pyarrow)."""
    run_dir: Path = Path("runs/ranking-table")
    """Where the runs, `table.md` and `depth.png` go."""
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    """Of every cell."""
    epochs: int = 2
    """Of every cell."""
    learning_rate: float = 0.001
    """Of every cell."""
    batch_size: int = 128
    """Of every cell; a day's log is small, and without hidden layers 512 are too few steps."""
    dropout: float = 0.0
    """Of every cell."""
    completion_weight: float = 10.0
    """Of the head that foretells long views, in every cell."""
    user_id: bool = True
    """Whether each user has a vector."""
    ablations: bool = True
    """Also the largest tower with equal weights, and without powers."""
    trees: bool = True
    """Also gradient-boosted trees (needs scikit-learn)."""
    users: int = 2_000
    """Of a synthetic log."""


def cells_of(settings: Table) -> dict[str, dict[str, Any]]:
    """What each row of the table changes."""
    cells: dict[str, dict[str, Any]] = {name: {"tower": tower} for name, tower in TOWERS.items()}
    if settings.ablations:
        largest = {"tower": TOWERS["1024-512-256"]}
        cells["equal weights"] = largest | {"weights": "equal"}
        cells["no powers"] = largest | {"powers": False}
    return cells


def settings_of(settings: Table, changed: dict[str, Any], seed: int, folder: Path | None) -> Train:
    """One cell's run."""
    data, longest = Data(), 0.0
    if settings.data_dir is not None:
        longest = KUAIRAND_LONGEST
        data = Data(dataset="kuairand-pure", data_dir=settings.data_dir, earlier=settings.earlier)
    else:
        size = dataclasses.replace(data.synthetic, users=settings.users)
        data = dataclasses.replace(data, synthetic=size)
    return Train(
        data=data,
        longest_watch=longest,
        run=RunFlags(
            run_dir=folder,
            resume=folder is not None and (folder / "settings.json").exists(),
            seed=seed,
            epochs=settings.epochs,
            chunk_steps=200,
        ),
        learning_rate=settings.learning_rate,
        batch_size=settings.batch_size,
        dropout=settings.dropout,
        completion_weight=settings.completion_weight,
        user_id=settings.user_id,
        **changed,
    )


def run_cell(
    settings: Table,
    name: str,
    changed: dict[str, Any],
    seed: int,
    held: tuple[Impressions, ImpressionSplit],
) -> dict[str, Any]:
    """The results of one run, trained on what is `held` unless they are there."""
    folder = settings.run_dir / f"{name.replace(' ', '-').replace(',', '')}-{seed}"
    wanted = settings_of(settings, changed, seed, folder)
    if not (folder / "results.json").exists():
        train(wanted, held)
    results = read_json(folder / "results.json")
    same_settings(folder, results["run_settings"], wanted)
    return results


def baselines(
    settings: Table, impressions: Impressions, split: ImpressionSplit
) -> dict[str, dict[str, float]]:
    """Test metrics of popularity and, if asked for, of trees (mean over seeds); kept in `baselines.json`."""
    path = settings.run_dir / "baselines.json"
    if path.exists():
        found = read_json(path)
        if "gradient-boosted trees" in found or not settings.trees:
            return found
    score = popularity_scores(impressions, split.train, split.test)
    found = {"popularity": measure(impressions, split.test, {"watch": score})}
    if settings.trees:
        each = [
            tree_metrics(settings_of(settings, {}, seed, None), impressions, split)
            for seed in settings.seeds
        ]
        found["gradient-boosted trees"] = {
            name: float(np.mean([values[name] for values in each])) for name in each[0]
        }
    settings.run_dir.mkdir(parents=True, exist_ok=True)
    write_json(path, found)
    return found


def main(arguments: list[str] | None = None) -> None:
    """Runs what is missing, prints the table, writes it and the figure."""
    settings = parse_command((Table,), __doc__, arguments)
    if not settings.seeds:
        raise InputError("--seeds must name a seed or more.")
    one = settings_of(settings, {}, settings.seeds[0], None)
    check(one)
    check_flags(one.run)
    held = load(one.data, one.longest_watch)
    compared = baselines(settings, *held)
    rows, losses = [], {}
    for name, changed in cells_of(settings).items():
        runs = [run_cell(settings, name, changed, seed, held) for seed in settings.seeds]
        values = {m: np.array([run[f"test_{m}"] for run in runs], float) for m in METRICS}
        rows.append([name, *(_spread(values[m]) for m in METRICS)])
        losses[name] = values["weighted_loss"]
    for name, found in compared.items():
        rows.append([name, *(f"{found[m]:.4f}" if m in found else "" for m in METRICS)])
    table = markdown_table(["test", *METRICS], rows)
    with replacing(settings.run_dir / "table.md") as temporary:
        temporary.write_text(table + "\n", encoding="utf-8")
    draw_depth(settings.run_dir / "depth.png", {name: losses[name] for name in TOWERS})
    plain_console().print(table, soft_wrap=True)


def draw_depth(path: Path, losses: dict[str, np.ndarray]) -> None:
    """Weighted per-user loss over towers as a PNG: each seed a point, their mean a line."""
    from matplotlib.figure import Figure  # slow to import

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    names = list(losses)
    axes.plot(names, [100 * values.mean() for values in losses.values()], label="mean of seeds")
    for place, values in enumerate(losses.values()):
        axes.plot([place] * len(values), 100 * values, "k.", markersize=4)
    axes.set(xlabel="hidden ReLU layers", ylabel="weighted per-user loss, %")
    axes.grid(alpha=0.3)
    axes.legend()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)


def _spread(values: np.ndarray) -> str:
    """Mean and standard deviation over seeds."""
    if len(values) == 1:
        return f"{values[0]:.4f}"
    return f"{values.mean():.4f} ± {values.std(ddof=1):.4f}"


if __name__ == "__main__":
    run_command(main)
