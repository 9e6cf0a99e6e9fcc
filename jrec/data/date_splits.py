"""Splits by calendar date: the four of the Netflix autoencoder, usable on any ratings with times."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class DateWindow:
    """Days to train on and days to hold out, as (first, last), both included; UTC."""

    train: tuple[str, str]
    held_out: tuple[str, str]

    def days(self) -> tuple[int, int, int, int]:
        """The four days as numbers of days since 1970-01-01."""
        return tuple(int(np.datetime64(day, "D").astype(int)) for day in self.train + self.held_out)


# Kuchaiev and Ginsburg 2017 (arXiv:1708.01715), as their program cuts.
NETFLIX_WINDOWS = {
    "netflix-3m": DateWindow(("2005-09-01", "2005-11-30"), ("2005-12-01", "2005-12-31")),
    "netflix-6m": DateWindow(("2005-06-01", "2005-11-30"), ("2005-12-01", "2005-12-31")),
    "netflix-1y": DateWindow(("2004-06-01", "2005-05-31"), ("2005-06-01", "2005-06-30")),
    "netflix-full": DateWindow(("1999-12-01", "2005-11-30"), ("2005-12-01", "2005-12-31")),
}

_SECONDS_A_DAY = 86_400


def goes_to_test(count: int, seed: int) -> np.ndarray:
    """bool [count]: one fair coin for each held-out rating (or user), in order."""
    return np.random.default_rng(seed).random(count) >= 0.5


def window_parts(timestamp: np.ndarray, window: DateWindow, seed: int) -> np.ndarray:
    """int8 by rating: 0 train, 1 valid, 2 test, -1 outside the window.

    The coins are thrown in time order (equal times: file order), so windows with the same held-out
    days, and data sets that differ in older ratings only, get the same valid and test.

    Args:
        timestamp: seconds since 1970-01-01.
    """
    day = timestamp // _SECONDS_A_DAY
    first, last, held_first, held_last = window.days()
    part = np.full(len(day), -1, np.int8)
    part[(day >= first) & (day <= last)] = 0
    held = np.flatnonzero((day >= held_first) & (day <= held_last))
    held = held[np.argsort(timestamp[held], kind="stable")]
    part[held] = 1 + goes_to_test(len(held), seed)
    return part
