"""Arrays that are computed once stay what they are, and stay whole in compiled programs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jrec.embeddings.computed_once import computed_once


def _tree(step: jax.Array) -> dict[str, jax.Array]:
    ids = (jnp.arange(6, dtype=jnp.int32) * 7 + step) % 5
    return {"ids": ids, "mask": ids > 1, "values": ids / 3}


def test_values_and_types_stay() -> None:
    step = jnp.int32(3)
    given = _tree(step)
    got = jax.jit(lambda step: computed_once(_tree(step), step >= 0))(step)
    for name, leaf in given.items():
        assert got[name].dtype == leaf.dtype
        np.testing.assert_array_equal(got[name], leaf)


def test_rows_are_found_outside_of_the_loop_that_copies_them() -> None:
    if jax.default_backend() != "cpu":
        pytest.skip("only a CPU's compiler is held back by a condition")

    def rows(once: bool, table: jax.Array, step: jax.Array) -> jax.Array:
        ids = _tree(step)["ids"]
        return table[computed_once(ids, step >= 0) if once else ids]

    def conditions(once: bool) -> int:
        compiled = jax.jit(rows, static_argnums=0).lower(once, jnp.ones((5, 8)), jnp.int32(0))
        return compiled.compile().as_text().count(" conditional(")

    assert conditions(True) == 1
    assert conditions(False) == 0
