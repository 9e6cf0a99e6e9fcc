import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jrec.data.vocabulary import PADDING, UNKNOWN, Vocabulary

raw = st.one_of(
    st.lists(st.integers(0, 1000), min_size=1, max_size=40),
    st.lists(st.integers(-(10**12), 10**12), min_size=1, max_size=40),
    st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=40),
)


@given(raw)
def test_every_value_has_a_row_of_its_own_and_comes_back(values):
    vocabulary = Vocabulary.of(values)
    rows = vocabulary.encode(values)
    assert rows.min() >= 2 and rows.max() < vocabulary.rows
    assert vocabulary.rows == len(set(values)) + 2
    assert vocabulary.decode(rows).tolist() == np.asarray(values).tolist()


def test_rows_follow_sorted_order():
    assert Vocabulary.of([30, 10, 20, 10]).encode([10, 20, 30]).tolist() == [2, 3, 4]
    assert Vocabulary.of(["b", "a"]).encode(["a", "b"]).tolist() == [2, 3]


def test_unknown_values_have_row_one():
    for vocabulary in (Vocabulary.of([5, 7]), Vocabulary.of([5, 7 * 10**9])):
        assert vocabulary.encode([6, -1, 8, 10**10, 5]).tolist() == [1, 1, 1, 1, 2]
    assert Vocabulary.of(["x"]).encode(["a", "x", "z"]).tolist() == [1, 2, 1]
    assert Vocabulary(np.array([], np.int64)).encode([1, 2]).tolist() == [UNKNOWN, UNKNOWN]


def test_padding_and_unknown_stand_for_no_value():
    for row in (PADDING, UNKNOWN):
        with pytest.raises(IndexError):
            Vocabulary.of([1]).decode([row])
