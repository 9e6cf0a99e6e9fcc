"""A check that what was fitted or measured is finite."""

from typing import Any

import numpy as np
from scipy import sparse

from jrec.errors import InputError


def check_finite(what: str, remedy: str, *values: Any) -> None:
    """Raises InputError, "WHAT not finite; REMEDY.", where a number is NaN or infinite.

    Args:
        what: with its verb, as "EASE's weights are". remedy: the setting to change.
        values: numbers, arrays or sparse arrays of any shape.
    """
    for value in values:
        numbers = value.data if sparse.issparse(value) else np.asarray(value)
        # NaN is the least and the greatest of anything; a mask of 10 GB of similarities is never made.
        if numbers.size and not (np.isfinite(numbers.min()) and np.isfinite(numbers.max())):
            raise InputError(f"{what} not finite; {remedy}.")
