"""Targets that the user has met before: where seen items are removed, no list can hold them."""

from collections.abc import Callable
from typing import Literal

import numpy as np

from jrec.errors import InputError
from jrec.evaluate.ranking_metrics import NOT_LISTED

RepeatedTargets = Literal["miss", "exclude", "rank"]
Counted = tuple[np.ndarray, np.ndarray]
"""(rank int, counted bool), as `jrec.evaluate.ranking_metrics.ranking_metrics` reads them."""

_MANY = 0.1  # share of repeats from which on a sentence names the other protocol


def _miss(rank: np.ndarray, counted: np.ndarray, repeated: np.ndarray) -> Counted:
    return np.where(repeated, NOT_LISTED, rank), counted


def _exclude(rank: np.ndarray, counted: np.ndarray, repeated: np.ndarray) -> Counted:
    return rank, counted & ~repeated


def _rank(rank: np.ndarray, counted: np.ndarray, repeated: np.ndarray) -> Counted:
    return rank, counted


REPEATED_TARGETS: dict[RepeatedTargets, Callable[..., Counted]] = {
    "miss": _miss,
    "exclude": _exclude,
    "rank": _rank,
}
_MEANING: dict[RepeatedTargets, str] = {
    "miss": "count as misses",
    "exclude": "are left out of the means",
    "rank": "are ranked as if they were new",
}


def settle_repeated(
    choice: RepeatedTargets, rank: np.ndarray, counted: np.ndarray, repeated: np.ndarray
) -> Counted:
    """Returns ranks and which of them count, repeated targets treated by the choice.

    Args:
        choice: `miss`: a repeated target is never found. `exclude`: it does not count. `rank`: it keeps
            the rank that it would have were it new to the user.
        rank, counted, repeated: int, bool and bool arrays of one shape. With seen items kept nothing is
            `repeated`, and the choice has no effect.
    """
    return REPEATED_TARGETS[choice](rank, counted, repeated)


def check_some_count(choice: RepeatedTargets, repeated: int, targets: int) -> None:
    """Raises InputError where all targets of a part are repeats and would be excluded."""
    if choice == "exclude" and 0 < targets == repeated:
        raise InputError(
            f"All {targets:,} targets of a held-out part repeat what their users have met before, so that none "
            f"counts; take --repeated-targets miss or rank."
        )


def repeated_note(
    choice: RepeatedTargets,
    repeated: int,
    targets: int,
    other_protocol: str = "",
    removed: bool = True,
) -> str:
    """Returns one sentence with the number of repeated targets; empty without any.

    Args:
        removed: whether seen items are left out of rankings; else the choice has no effect.
        other_protocol: a flag that keeps seen items, suggested where more than a tenth are repeats.
    """
    if repeated == 0:
        return ""
    share = repeated / targets
    said = f"{repeated:,} of {targets:,} targets ({share:.1%}) repeat what the user has met before"
    if not removed:
        return f"{said}; seen items are kept, so lists can hold them."
    said += (
        f": with seen items removed no list can hold them, and they {_MEANING[choice]} "
        f"(--repeated-targets {choice})"
    )
    return said + (f"; {other_protocol} ranks them." if other_protocol and share > _MANY else ".")
