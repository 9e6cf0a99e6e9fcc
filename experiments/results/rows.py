"""Which runs the table of results has: its tasks, its rows, and the command of each run."""

import dataclasses
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from experiments.baselines.next_item import NextItemMethod
from experiments.baselines.ratings import RatingMethod

TaskName = Literal["rating-random", "rating-time", "next-item"]


@dataclass(frozen=True)
class Task:
    """One protocol.

    Attributes:
        title, protocol: for the reader. metrics: shown, as `results.json` names them, the first of
            which decides. lower: whether less is better. paired: the metric of `per_user.npz` that
            the significance is of.
    """

    title: str
    protocol: str
    metrics: tuple[str, ...]
    lower: bool
    paired: str


@dataclass(frozen=True)
class Row:
    """A system or a baseline under one protocol.

    Attributes:
        name: unique within its table. system: false for a baseline. module: of the experiment.
        arguments: without data set, seed and run directory. seeded: whether a seed changes anything.
        resumes: whether an unfinished run can be resumed.
    """

    name: str
    system: bool
    module: str
    arguments: tuple[str, ...]
    seeded: bool = True
    resumes: bool = True

    @property
    def folder(self) -> str:
        """The name as a folder's."""
        return self.name.replace(", ", "-").replace(" ", "-")


_FRACTIONS = {"rating-random": "0.01", "rating-time": "0.05"}
TASKS: dict[str, Task] = {
    "rating-random": Task(
        "ratings, random 90/10",
        "Test: each rating with probability 0.1 (split seed 0). Validation, which chooses the best "
        "epoch: 1% of the rest. RMSE and MAE in stars.",
        ("test_rmse", "test_mae"),
        True,
        "squared_error",
    ),
    "rating-time": Task(
        "ratings, cut in time",
        "Test: the last 10% of all ratings, from one moment on. Validation: the last 5% of what was "
        "before it. Most test ratings are of users with few or no earlier ones. RMSE and MAE in stars.",
        ("test_rmse", "test_mae"),
        True,
        "squared_error",
    ),
    "next-item": Task(
        "the next item",
        "Test: each user's last item, ranked in the whole catalogue, items seen before removed, ties "
        "against the model. Validation: the item before it. Baselines and networks are fitted to what "
        "was before both, and on test read the validation item in the history.",
        ("test_ndcg@10", "test_hr@10"),
        False,
        "ndcg@10",
    ),
}
_SEEDED = ("matrix-factorisation", "implicit-als")
# The source's network without its loss of five noise samples and one pass, which suit a long click log.
_FULL_SOFTMAX = ("--loss", "full-softmax", "--optimizer", "adam", "--learning-rate", "0.001")
_FULL_SOFTMAX += (
    "--weight-decay",
    "0",
    "--batch-size",
    "512",
    "--epochs",
    "12",
    "--no-user-id",
)


def rows_of(task: str, dataset: str) -> list[Row]:
    """All rows of a table."""
    if task == "next-item":
        train = ("train", "--preset")
        network = "experiments.candidates"
        rows = [
            Row("candidates, source", True, network, (*train, "source")),
            Row(
                "candidates, source, full softmax",
                True,
                network,
                (*train, "source", *_FULL_SOFTMAX),
            ),
            Row("candidates, attention", True, network, (*train, "small")),
        ]
        if dataset == "ml-1m-sas":  # for its long histories; hours without a GPU
            rows.append(Row("candidates, attention, improved", True, network, (*train, "improved")))
        # Its items have neither genres nor titles.
        methods = [m for m in NextItemMethod.__args__ if (dataset, m) != ("ml-1m-sas", "content")]
        return rows + [_baseline("rank", method, ()) for method in methods]
    split = "global-time" if task == "rating-time" else "random"
    split_flags = ("--split", split, "--test-fraction", "0.1", "--valid-fraction", _FRACTIONS[task])
    presets = {
        "fusion": ("source", "improved"),
        "embedding_mlp": ("source", "improved"),
        "autoencoder": ("ml-1m", "improved"),
    }
    rows = [
        Row(
            f"{system.replace('embedding_mlp', 'embedding MLP')}, {'source' if preset == 'ml-1m' else preset}",
            True,
            f"experiments.{system}",
            ("train", "--preset", preset, *split_flags),
        )
        for system, names in presets.items()
        for preset in names
    ]
    return rows + [_baseline("rate", method, split_flags) for method in RatingMethod.__args__]


def _baseline(kind: str, method: str, flags: tuple[str, ...]) -> Row:
    arguments = (kind, "--method", method, *flags)
    name, seeded = method.replace("-", " "), method in _SEEDED
    return Row(name, False, "experiments.baselines", arguments, seeded, resumes=False)


_ONE_EPOCH = {
    "experiments.fusion": ("--epochs", "1"),
    "experiments.embedding_mlp": ("--epochs", "1"),
    "experiments.autoencoder": ("--epochs", "1"),
    "experiments.candidates": ("--epochs", "1"),
    "matrix factorisation": ("--matrix-factorisation.epochs", "1"),
    "implicit als": ("--implicit-als.sweeps", "1"),
}


def quick(row: Row) -> Row:
    """The same row with one epoch."""
    kept = row.arguments
    if "--epochs" in kept:
        place = kept.index("--epochs")
        kept = (*kept[:place], *kept[place + 2 :])
    more = _ONE_EPOCH.get(row.module, _ONE_EPOCH.get(row.name, ()))
    return dataclasses.replace(row, arguments=(*kept, *more))


def command_of(row: Row, dataset: str, data_dir: Path | None, seed: int | str) -> list[str]:
    """What a reader types, without the run directory; `seed` may be a letter that stands for all."""
    command = ["python", "-m", row.module, *row.arguments, "--dataset", dataset]
    command += [] if data_dir is None else ["--data-dir", str(data_dir)]
    return command + (["--seed", str(seed)] if row.seeded else [])


def same_run(one: str, other: str) -> bool:
    """Whether two command lines differ at most in where data and run directory are."""
    return _comparable(one) == _comparable(other)


def _comparable(line: str) -> list[str]:
    words, kept = shlex.split(line), []
    while words:
        word = words.pop(0)
        if word in ("--run-dir", "--data-dir"):
            words = words[1:]
        elif word != "--resume":
            kept.append(word)
    return kept
