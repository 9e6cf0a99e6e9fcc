"""Warnings of user vectors that do not tell users apart, from the numbers to a chunk's report."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.candidates.batches import device_clicks
from experiments.candidates.sample_vectors import make_sample_vectors
from jrec.data.click_examples import held_out_examples, leave_one_out, time_cut
from jrec.data.click_maker import make_clicks
from jrec.data.click_truth import ClickSize
from jrec.evaluate.vector_spread import VectorSpread, vector_spread, vector_warning
from jrec.models.candidates import CandidateNetwork
from jrec.train.checkpoints import Checkpoints
from jrec.train.flags import RunFlags
from jrec.train.loop import ChunkReport, Plan, fit
from jrec.train.step import TrainState
from tests.conftest import FakeStream


def test_the_spread_of_some_vectors():
    vectors = np.array([[1, 0, 0], [1, 2, 0], [1, 0, 0], [1, 2, 0]], np.float32)
    found = vector_spread(vectors)
    assert (found.users, found.units, found.dead) == (4, 3, 1)
    assert found.spread == pytest.approx(1 / np.sqrt(3))
    assert vector_spread(np.zeros((4, 3))) == VectorSpread(4, 3, 3, 0.0)
    assert vector_spread(np.ones((1, 3))).spread == 0


def test_a_warning_has_the_numbers():
    assert vector_warning(VectorSpread(256, 31, 0, 0.3)) == ""
    said = vector_warning(VectorSpread(256, 31, 31, 0.0))
    assert said.startswith(
        "31 of 31 units of the last layer are 0 for all 256 sampled users: the tower is dead"
    )
    said = vector_warning(VectorSpread(256, 31, 18, 0.004))
    assert "256 sampled users" in said and "0.004" in said and "18 of 31 units" in said
    assert "2 of 31 units" in vector_warning(VectorSpread(256, 31, 2, 0.3))
    assert "0.004" in vector_warning(VectorSpread(256, 31, 0, 0.004))


@pytest.mark.parametrize("validates", [True, False])
def test_the_sample_is_of_users_who_differ(validates):
    clicks = make_clicks(ClickSize(users=300, items=40, clicks=5, categories=4, groups=3), 0)[0]
    cut = int(np.median(clicks.timestamp))
    split = leave_one_out(clicks) if validates else time_cut(clicks, cut, cut)
    held_out = {part: held_out_examples(clicks, split, part) for part in ("valid", "test")}
    model = CandidateNetwork(42, {}, {}, encoder="mean", item_width=4, tower=(5,), table_scale=1.0)
    data, seen = device_clicks(clicks, [], []), []

    class Noted:
        tower = model.tower

        def apply(self, params, batch, method):
            seen.append(batch)
            return model.apply(params, batch, method=method)

    vectors = make_sample_vectors(8, Noted(), data, held_out)
    one = {"item": jnp.ones((1, 2), jnp.int32), "mask": jnp.ones((1, 2), bool)}
    params = model.init(jax.random.key(0), one)
    found = vectors(params)
    assert found.shape[1] == 5 and 100 < len(found) <= 256
    np.testing.assert_array_equal(found, vectors(params))
    assert len(seen) == 1  # compiled once


def test_a_check_is_made_once_before_the_next_chunk_and_read_with_its_report(tmp_path):
    done = []

    def chunk(state, data, order, first, steps):
        done.append(f"chunk {int(first)}")
        sums = {"loss_sum": jnp.float32(1), "count": jnp.float32(1)}
        return state._replace(step=state.step + steps), sums, jnp.int32(-1)

    def check(state):
        done.append(f"check {int(state.step)}")
        return lambda: f"read after {len(done)}"

    last, best = (Checkpoints(tmp_path / name, keep=1) for name in ("last", "best"))
    state = TrainState(jnp.int32(0), jax.random.key(0), {"w": jnp.ones(2)}, ())
    plan = Plan(state, None, FakeStream(2, chunk), lambda s: {}, check=check)
    reports = fit(plan, RunFlags(epochs=2, chunk_steps=1), last, best, state)
    said = [report.warning for report in reports if isinstance(report, ChunkReport)]
    assert done == ["chunk 0", "check 1", "chunk 1", "chunk 0", "chunk 1"]
    assert said == ["read after 3", "", "", ""]
