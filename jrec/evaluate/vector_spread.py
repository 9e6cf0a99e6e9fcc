"""Measures whether user vectors tell users apart: units that are 0 for everybody, and how far vectors differ."""

from dataclasses import dataclass

import numpy as np

# Below this spread vectors are alike: the source's recipe ends at .02, new networks have .2 to .7.
ALIKE = 0.05


@dataclass(frozen=True)
class VectorSpread:
    """Describes a sample of user vectors.

    Attributes:
        users: N. units: D. dead: units that are 0 for all users.
        spread: standard deviation over the users (root of the mean squared distance from the mean vector) in
            lengths of a vector (root of the mean squared length); 0 where all vectors are equal.
    """

    users: int
    units: int
    dead: int
    spread: float


def vector_spread(vectors_ND: np.ndarray) -> VectorSpread:
    """Returns the spread of user vectors, float [N, D], finite."""
    vectors_ND = np.asarray(vectors_ND, np.float64)
    distance = np.sqrt(vectors_ND.var(0).sum())
    length = np.sqrt((vectors_ND**2).sum(1).mean())
    dead = int((vectors_ND == 0).all(0).sum())
    spread = float(distance / length) if length else 0.0
    return VectorSpread(*vectors_ND.shape, dead, spread)


def vector_warning(found: VectorSpread) -> str:
    """Returns a sentence where units are dead or vectors alike, else an empty text; one user tells neither."""
    if found.users < 2:
        return ""
    dead = f"{found.dead} of {found.units} units of the last layer are 0 for all {found.users} sampled users"
    advice = "try a larger --table-scale, a lower --learning-rate or --optimizer adam"
    if found.dead == found.units:
        return f"{dead}: the tower is dead, and every user gets the same list; {advice}."
    if found.spread < ALIKE:
        return (
            f"User vectors hardly differ: over {found.users} sampled users their standard deviation is "
            f"{found.spread:.2g} of their length, and {found.dead} of {found.units} units are 0 for all; "
            f"{advice}."
        )
    return f"{dead}; {advice}." if found.dead else ""
