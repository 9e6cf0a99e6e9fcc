import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jrec.data.ragged import Ragged, fixed_length, pad
from jrec.errors import InputError

rows = st.lists(st.lists(st.integers(1, 99), max_size=9), min_size=1, max_size=8)


@given(rows)
def test_pad_keeps_every_value_and_no_more(lists):
    ids, mask = pad(Ragged.from_lists(lists))
    assert [ids[k][mask[k]].tolist() for k in range(len(lists))] == lists
    assert (ids[~mask] == 0).all()
    assert ids.dtype == np.int32 and mask.dtype == bool


@given(rows, st.integers(1, 5))
def test_pad_cuts_at_the_end(lists, length):
    ids, mask = pad(Ragged.from_lists(lists), lengths=[length])
    assert ids.shape == (len(lists), length)
    assert [ids[k][mask[k]].tolist() for k in range(len(lists))] == [r[:length] for r in lists]


def test_pad_uses_the_smallest_of_a_few_lengths():
    ragged = Ragged.from_lists([[1], [1, 2, 3], [1, 2, 3, 4, 5, 6, 7]])
    assert pad(ragged, rows=[0], lengths=(2, 4, 8))[0].shape == (1, 2)
    assert pad(ragged, rows=[1, 0], lengths=(2, 4, 8))[0].shape == (2, 4)
    assert pad(ragged, rows=[2], lengths=(2, 4))[0].shape == (1, 4)


def test_empty_rows_and_no_rows():
    ids, mask = pad(Ragged.from_lists([[], []]))
    assert ids.shape == (2, 1) and not mask.any()
    assert pad(Ragged.from_lists([[1]]), rows=np.array([], int))[0].shape == (0, 1)


@pytest.mark.parametrize("lengths", [[], [0], [4, -1]])
def test_lengths_must_be_positive(lengths):
    with pytest.raises(InputError, match="1 or more"):
        fixed_length(3, lengths)
