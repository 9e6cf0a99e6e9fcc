"""Raw ids, as a command line gives them, among those of a vocabulary."""

from collections.abc import Sequence

import numpy as np

from jrec.data.vocabulary import Vocabulary


def places_of(vocabulary: Vocabulary, ids: Sequence[int | str]) -> np.ndarray:
    """int64 [n], the places of raw ids among a vocabulary's values, -1 where it does not hold them.

    Text is taken for a number where the values are numbers.
    """
    values, order = vocabulary.values, vocabulary.order
    places = np.full(len(ids), -1, np.int64)
    for k, identity in enumerate(ids):
        wanted: int | str = str(identity)
        if np.issubdtype(values.dtype, np.integer):
            try:
                wanted = int(wanted)
            except ValueError:
                continue
            if not abs(wanted) < 2**63:
                continue
        place = int(np.searchsorted(values, wanted, sorter=order))
        if place < len(values):
            place = place if order is None else int(order[place])
            places[k] = place if values[place] == wanted else -1
    return places
