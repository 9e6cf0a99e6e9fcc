import re

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from jrec.errors import InputError
from jrec.models.layers import cosine
from jrec.retrieval.simple_lsh import item_vectors, largest_norm, unit_rows, user_vectors
from jrec.retrieval.vector_files import (
    load_vectors,
    read_text_vectors,
    save_vectors,
    write_text_vectors,
)

D = 3
NUMBERS = st.one_of(
    st.integers(-3, 3).map(float),
    st.floats(-1e4, 1e4, width=32),
    st.floats(-0.0009765625, 0.0009765625, width=32),
)


@st.composite
def models(draw):
    """u [N, D], w [M, D], b [M], with repeated items, zero rows and single items among them."""
    M, N = draw(st.integers(1, 7)), draw(st.integers(1, 3))
    weights, users = (
        draw(arrays.arrays(np.float32, (rows, D), elements=NUMBERS)) for rows in (M, N)
    )
    biases = draw(arrays.arrays(np.float32, M, elements=NUMBERS))
    copies = draw(arrays.arrays(np.int64, M, elements=st.integers(0, M - 1)))
    if draw(st.booleans()):
        weights, biases = weights[copies], biases[copies]
    if draw(st.booleans()):
        weights[0], biases[0] = 0, 0
    if draw(st.booleans()):
        users[0] = 0
    return users, weights, biases


@given(models())
def test_cosines_are_the_scores_times_a_number_of_the_user_alone(model):
    users, weights, biases = model
    queries, items = user_vectors(users), item_vectors(weights, biases)
    assert queries.dtype == items.dtype == np.float32
    assert queries.shape == (len(users), D + 2) and items.shape == (len(weights), D + 2)
    assert np.isfinite(items).all() and (items[:, -1] >= 0).all()
    norm = largest_norm(weights, biases)
    assert np.allclose(np.linalg.norm(queries, axis=1), 1, rtol=1e-6)
    assert np.allclose(np.linalg.norm(items.astype(np.float64), axis=1), norm, rtol=1e-6)
    exact = users.astype(np.float64) @ weights.T.astype(np.float64) + biases
    length = np.sqrt(1 + (users.astype(np.float64) ** 2).sum(1, keepdims=True))
    found = queries.astype(np.float64) @ items.T.astype(np.float64)
    assert np.allclose(found, exact / length, rtol=0, atol=2e-6 * norm + 1e-30)


@given(models())
def test_cosine_order_is_score_order(model):
    users, weights, biases = (part.astype(np.float64) for part in model)
    queries, items = user_vectors(users).astype(np.float64), item_vectors(weights, biases)
    items = items.astype(np.float64)
    length = np.linalg.norm(items, axis=1)
    cosines = queries @ items.T / np.where(length > 0, length, 1)
    scores = users @ weights.T + biases
    # Two items may change places only where float32 vectors cannot tell their scores apart.
    close = 4e-6 * np.sqrt(1 + (users**2).sum(1)) * largest_norm(weights, biases)
    for cosine_M, score_M, tolerance in zip(cosines, scores, close, strict=True):
        ranked = score_M[np.argsort(-cosine_M, kind="stable")]
        assert (np.diff(ranked) <= tolerance).all()
    equal = (weights[:, None] == weights[None]).all(2) & (biases[:, None] == biases[None])
    for cosine_M in cosines:
        assert np.array_equal((cosine_M[:, None] == cosine_M[None]) & equal, equal)


def test_small_example_by_hand():
    # |[b, w]| is 5, 3 and 0; m = 5.
    items = item_vectors(np.array([[4.0], [0], [0]]), np.array([3.0, -3, 0]))
    assert items.tolist() == [[3, 4, 0], [-3, 0, 4], [0, 0, 5]]
    assert np.allclose(user_vectors(np.array([[2.0]])), np.array([[1, 2, 0]]) / 5**0.5)
    assert item_vectors(np.zeros((1, 2))).tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e18, 1e30])
def test_the_longest_item_never_has_a_negative_under_its_root(scale):
    generator = np.random.default_rng(0)
    weights = generator.standard_normal((500, 31))
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    weights = (weights * scale).astype(np.float32)
    items = item_vectors(weights, np.zeros(500, np.float32))
    assert np.isfinite(items).all()
    assert (items[:, -1] <= 1e-3 * scale).all()


def test_new_items_join_under_the_same_largest_norm():
    generator = np.random.default_rng(1)
    weights, biases = generator.standard_normal((20, 4)), generator.standard_normal(20)
    order = np.argsort(-np.linalg.norm(np.c_[biases, weights], axis=1))
    weights, biases = weights[order], biases[order]
    whole = item_vectors(weights, biases)
    later = item_vectors(
        weights[10:], biases[10:], norm=float(np.float32(largest_norm(weights, biases)))
    )
    assert np.allclose(later, whole[10:], atol=1e-6)
    # Through float32, m may have become a little shorter than the longest item.
    shorter = item_vectors(weights, biases, norm=largest_norm(weights, biases) * (1 - 1e-7))
    assert shorter[0, -1] == 0 and np.allclose(shorter[1:], whole[1:], atol=1e-5)
    with pytest.raises(InputError, match=r"Item 0 is longer .* make all vectors anew"):
        item_vectors(weights, biases, norm=largest_norm(weights[10:], biases[10:]))


def test_fusion_towers_rank_by_their_cosine():
    generator = np.random.default_rng(2)
    users, towers = generator.standard_normal((5, 8)), generator.standard_normal((9, 8))
    towers[3] = 0
    users[1] *= 1e-6  # clamped
    queries, items = user_vectors(unit_rows(users)), item_vectors(unit_rows(towers))
    cosines = queries @ items.T / np.linalg.norm(items, axis=1)[None]
    wanted = np.asarray(cosine(jnp.asarray(users)[:, None], jnp.asarray(towers)[None]))
    assert np.array_equal(
        np.argsort(-cosines, 1)[[0, 2, 3, 4]], np.argsort(-wanted, 1)[[0, 2, 3, 4]]
    )
    assert np.allclose(unit_rows(users) @ unit_rows(towers).T, wanted, atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_named(bad):
    values = np.ones((4, 2), np.float32)
    values[2, 1] = bad
    for make in (user_vectors, item_vectors, unit_rows):
        with pytest.raises(InputError, match="of row 2 is not finite"):
            make(values)
    with pytest.raises(InputError, match="item bias of row 1 is not finite"):
        item_vectors(np.ones((2, 2)), np.array([0, bad]))


@pytest.mark.parametrize("ids", [np.array([7, 3, 9]), np.array(["VIDEO_1", "ü", ""])])
def test_files_give_back_the_same_bits(tmp_path, ids):
    vectors = item_vectors(np.random.default_rng(3).standard_normal((3, 31)))
    save_vectors(tmp_path / "new", "items", ids, vectors)
    for mapped in (False, True):
        found_ids, found = load_vectors(tmp_path / "new", "items", mapped)
        assert np.array_equal(found_ids, ids) and np.array_equal(found, vectors)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "items.npy",
        "items_ids.npy",
    ]
    write_text_vectors(tmp_path / "items.txt", vectors)
    lines = (tmp_path / "items.txt").read_text().splitlines()
    assert len(lines) == 3 and all(len(line.split(",")) == 33 for line in lines)
    assert np.array_equal(read_text_vectors(tmp_path / "items.txt"), vectors)
    write_text_vectors(tmp_path / "none.txt", vectors[:0])
    assert len(read_text_vectors(tmp_path / "none.txt")) == 0


@pytest.mark.parametrize("line", ["1,2", "1,2,3,4", "1,x,3", "1,,3", "", "1,nan,3", "1,2,inf"])
def test_bad_text_lines_are_named(tmp_path, line):
    path = tmp_path / "users.txt"
    path.write_text(f"1,2,3\n4,5,6\n{line}\n7,8,9\n")
    with pytest.raises(InputError, match=rf"{re.escape(str(path))}, line 3: not 3 finite numbers"):
        read_text_vectors(path)


def test_broken_vector_files_are_refused(tmp_path):
    def refusal(reader, *arguments):
        with pytest.raises(InputError) as fault:
            reader(*arguments)
        assert "\n" not in str(fault.value) and str(fault.value).endswith(".")
        return str(fault.value)

    vectors = np.ones((4, 3), np.float32)
    assert "does not exist" in refusal(load_vectors, tmp_path, "users")
    assert "does not exist" in refusal(read_text_vectors, tmp_path / "users.txt")
    save_vectors(tmp_path, "users", np.arange(4), vectors)
    path = tmp_path / "users.npy"
    whole = path.read_bytes()
    for content in (b"", whole[:20], whole[:-5], b"text" + whole):
        path.write_bytes(content)
        for mapped in (False, True):
            assert "damaged" in refusal(load_vectors, tmp_path, "users", mapped)
    path.write_bytes(whole)
    np.save(tmp_path / "users_ids.npy", np.arange(3))
    assert "do not belong together" in refusal(load_vectors, tmp_path, "users")
    np.save(tmp_path / "users_ids.npy", np.array([1, None], object))
    assert "damaged" in refusal(load_vectors, tmp_path, "users")
    save_vectors(tmp_path, "users", np.arange(4), vectors * np.nan)
    assert "not finite" in refusal(load_vectors, tmp_path, "users")
    with pytest.raises(ValueError, match="3 ids for 4 vectors"):
        save_vectors(tmp_path, "users", np.arange(3), vectors)
