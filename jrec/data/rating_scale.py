"""A standard unit to train ratings in, where the source does not fix theirs."""

from dataclasses import dataclass
from typing import TypeVar

import jax
import numpy as np

Numbers = TypeVar("Numbers", float, np.ndarray, jax.Array)
_LEVEL = 3.5  # near the mean of stars, so that recipes for stars see what they were made for


@dataclass(frozen=True)
class RatingScale:
    """standard = (rating - shift) / unit.

    Attributes:
        shift, unit: in the user's unit, unit above 0; 0 and 1 leave every bit as it is.
    """

    shift: float = 0.0
    unit: float = 1.0

    def standard(self, rating: Numbers) -> Numbers:
        """The user's unit -> the standard one."""
        return rating if self == STARS else (rating - self.shift) / self.unit

    def user(self, standard: Numbers) -> Numbers:
        """The standard unit -> the user's."""
        return standard if self == STARS else standard * self.unit + self.shift


STARS = RatingScale()


def scale_of_ratings(rating: np.ndarray) -> RatingScale:
    """Brings ratings [n] to mean 3.5 and standard deviation 1; constant ones to 3.5."""
    mean = float(np.mean(rating, dtype=np.float64))
    constant = rating.min() == rating.max()  # the deviation may then be a rounding error above 0
    unit = 1.0 if constant else float(np.std(rating, dtype=np.float64))
    return RatingScale(mean - _LEVEL * unit, unit)


def scale_of_range(low: float, high: float) -> RatingScale:
    """Brings low to 1 and high to 5; high is above low."""
    unit = (high - low) / 4
    return RatingScale(low - unit, unit)
