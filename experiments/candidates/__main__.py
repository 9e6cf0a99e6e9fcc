"""Candidate generation of Paddle's youtube_recall: a click log in, recall on the whole catalogue out.

    python -m experiments.candidates prepare --log click.log --out prepared
    python -m experiments.candidates train --dataset click-log --data-dir prepared --run-dir DIR
    python -m experiments.candidates train --preset improved --dataset ml-1m-sas --data-dir ml-1m_sas.txt.gz --seed 0 --run-dir DIR
    python -m experiments.candidates evaluate --run-dir DIR
    python -m experiments.candidates vectors --run-dir DIR --out vectors
    python -m experiments.candidates search --run-dir DIR --user 1
    python -m experiments.candidates mine --run-dir DIR --lists personal --out lists.tsv

Scores, times and sources stand in this folder's README.md.
"""

from functools import partial

from jrec.command_line import parse_command
from jrec.errors import run_command

from .data import load
from .evaluate import Evaluate, evaluate
from .mine import Mine, mine
from .prepare import Prepare, prepare
from .references import references_of
from .search import Search, Vectors, search, vectors
from .settings import PRESETS, Train
from .train import train

COMMANDS = {
    Prepare: prepare,
    Train: partial(train, load=load, references_of=references_of),
    Evaluate: evaluate,
    Vectors: vectors,
    Search: search,
    Mine: mine,
}


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line; `arguments` are the process's own by default."""
    settings = parse_command(list(COMMANDS), __doc__, arguments, PRESETS)
    COMMANDS[type(settings)](settings)


if __name__ == "__main__":
    run_command(main)
