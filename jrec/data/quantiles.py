"""Numbers mapped to [0, 1] by where they lie among the training rows' (Covington et al. 2016, 4.1)."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from jrec.data.clicks import Clicks, Column, Continuous
from jrec.finite import check_finite


@dataclass(frozen=True)
class Quantiles:
    """A piecewise linear approximation of a feature's cumulative distribution.

    Attributes:
        knots: float64 [K], rising values. levels: float64 [K], each one's place in [0, 1].
    """

    knots: np.ndarray
    levels: np.ndarray

    @classmethod
    def fit(cls, values: np.ndarray, count: int = 1000) -> "Quantiles":
        """From the known values of the training rows.

        Equal values have the mean of the levels that they cover: half of the share of the zeros for
        0, where zeros are frequent. No values at all: everything maps to 0.5.

        Args:
            values: float [n]. count: steps between levels, at most.

        Raises InputError where a value is not finite.
        """
        if len(values) == 0:
            return cls(np.zeros(1), np.full(1, 0.5))
        check_finite("Values of a feature are", "mark them as unknown", values)
        levels = np.linspace(0, 1, count + 1)
        # An actual value for each level: an interpolated one would break ties apart.
        drawn = np.quantile(np.asarray(values, np.float64), levels, method="inverted_cdf")
        knots, knot = np.unique(drawn, return_inverse=True)
        return cls(knots, np.bincount(knot, levels) / np.bincount(knot))

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """float32 in [0, 1], the shape of `values`; between knots linear, beyond them the last one's."""
        return np.interp(values, self.knots, self.levels).astype(np.float32)


def normalise(column: Continuous, train: np.ndarray) -> tuple[Continuous, Quantiles]:
    """A column by its quantiles among the known training rows; unknown values are 0.

    Args:
        train: int, positions in the column; one that stands there twice counts twice.
    """
    known = train[column.known[train]]
    quantiles = Quantiles.fit(column.values[known])
    values = np.where(column.known, quantiles(column.values), np.float32(0))
    return Continuous(values, column.known), quantiles


def normalised(clicks: Clicks, train: np.ndarray) -> Clicks:
    """Returns the clicks with users' and items' numbers mapped by their quantiles among the training clicks.

    Args:
        train: int, positions of clicks.
    """

    def of(columns: dict[str, Column], rows: np.ndarray) -> dict[str, Column]:
        return {
            name: normalise(column, rows)[0] if isinstance(column, Continuous) else column
            for name, column in columns.items()
        }

    return dataclasses.replace(
        clicks,
        user_features=of(clicks.user_features, clicks.user_of_event[train]),
        item_features=of(clicks.item_features, clicks.item[train]),
    )
