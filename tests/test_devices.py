"""Many devices take the steps that one takes: every system as its experiment trains and measures it."""

import re

import jax
import numpy as np
import pytest

from experiments.autoencoder import __main__ as autoencoder
from experiments.candidates import __main__ as candidates
from experiments.candidates import train as candidates_train
from experiments.embedding_mlp import __main__ as embedding_mlp
from experiments.fusion import __main__ as fusion
from experiments.ranking import __main__ as ranking
from jrec.train.devices import replicated

STEPS = 50
RATINGS = (
    "--dataset synthetic --synthetic.users 60 --synthetic.items 40 --synthetic.ratings 1500 "
    "--valid-fraction 0.1"
)
CLICKS = (
    "--synthetic.users 120 --synthetic.items 40 --synthetic.clicks 8 --synthetic.categories 4 "
    "--synthetic.groups 3 --item-width 8 --dropout 0.2"
)
WINDOW = f"--preset source {CLICKS} --length 4 --state-width 8 --tower 8 --batch-size 28"
SHOWN = (
    "--synthetic.users 60 --synthetic.items 30 --synthetic.pages 6 --tower 16 8 --dropout 0.2 "
    "--batch-size 28"
)
NOISY = f"{RATINGS} --dropout 0.5 --input-noise 0.3 --batch-size 14"

# What is drawn for each example is here, and batches that 4 and 8 devices do not divide.
SYSTEMS = {
    "fusion": (fusion, f"{RATINGS} --tower-width 16 --batch-size 28 --learning-rate 0.02"),
    "autoencoder": (autoencoder, f"{NOISY} --hidden 16 8 --form rated"),
    "embedding MLP": (
        embedding_mlp,
        f"--preset source-20m {RATINGS} --hidden 16 --batch-size 28",
    ),
    "candidates": (
        candidates,
        f"{CLICKS} --length 8 --loss sampled-softmax --negatives 5 --no-shared-negatives "
        "--batch-size 14",
    ),
    "ranking": (ranking, SHOWN),
}
OTHERS = {
    "fusion, improved": (
        fusion,
        f"--preset improved {RATINGS} --improved.width 8 --improved.heads 2 --batch-size 10",
    ),
    "embedding MLP, improved": (
        embedding_mlp,
        f"--preset improved {RATINGS} --improved.hidden 8 --improved.factors 4 --batch-size 100",
    ),
    "candidates, in-batch": (candidates, f"{WINDOW} --loss in-batch-softmax"),
}


class _Ready(Exception):
    """Carries what an experiment has trained."""


def trained(module, flags, count, folder, monkeypatch):
    """Parameters and validation metrics of an experiment after `STEPS` steps on so many devices."""

    def instead(plan, *_):
        state, stream = replicated(plan.state), plan.stream
        data, chunk = stream.on_devices(), stream.chunk(plan.step)
        taken, losses = 0, []
        while taken < STEPS:
            steps = min(stream.steps, STEPS - taken)
            state, sums, bad = chunk(state, data, stream.order(taken // stream.steps), 0, steps)
            assert bad == -1
            losses.append(float(sums["loss_sum"] / sums["count"]))
            taken += steps
        assert state.step == STEPS
        raise _Ready(jax.device_get(state.params), {"loss": losses} | plan.evaluate(state))

    place = candidates_train if module is candidates else module
    monkeypatch.setattr(place, "run", instead)
    arguments = [
        "train",
        *flags.split(),
        "--devices",
        str(count),
        "--run-dir",
        str(folder / str(count)),
    ]
    with pytest.raises(_Ready) as ready:
        module.main(arguments)
    return ready.value.args


def gap(one, other):
    """The largest distance of a leaf, in parts of that leaf's norm.

    Attention's key biases move no weight, as a softmax does not see what all its scores share: their gradient
    is rounding, which Adam makes as large as any other.
    """
    leaves, others = jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(other)
    pairs = [
        (a, b)
        for (path, a), b in zip(leaves, others, strict=True)
        if not re.search(r"'key_\d'.*'bias'", jax.tree_util.keystr(path))
    ]
    assert len(leaves) - len(pairs) in (0, 2)
    return max(np.linalg.norm(a - b) / max(np.linalg.norm(a), 1e-3) for a, b in pairs)


def compare(one, other):
    assert gap(one[0], other[0]) < 1e-5
    assert one[1].keys() == other[1].keys() and len(one[1]) > 1
    for name, value in one[1].items():
        np.testing.assert_allclose(other[1][name], value, rtol=1e-6, atol=1e-6, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("name", SYSTEMS)
def test_1_2_4_and_8_devices_train_and_measure_the_same(name, tmp_path, monkeypatch, capsys):
    one, *others = (trained(*SYSTEMS[name], n, tmp_path, monkeypatch) for n in (1, 2, 4, 8))
    for other in others:
        compare(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_3_devices_train_and_measure_the_same(name, tmp_path, monkeypatch, capsys):
    one, other = (trained(*OTHERS[name], n, tmp_path, monkeypatch) for n in (1, 3))
    compare(one, other)
