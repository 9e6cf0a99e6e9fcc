"""The folder of row-updated tables works in another project with the file of the train step alone."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import jrec

STEPS = """
import sys
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jrec.embeddings import sharded  # imports all that the folder has
from jrec.embeddings.optimizers import adagrad
from jrec.embeddings.row_step import init_row_state, make_row_step
from jrec.embeddings.table import Embed


class Model(nn.Module):
    @nn.compact
    def __call__(self, ids):
        return nn.Dense(1)(Embed(50, 8)(ids))[:, 0]


def loss(params, batch, key, apply=nn.Module.apply):
    errors = apply(Model(), {"params": params}, batch["ids"]) - batch["target"]
    return (errors**2).sum(), jnp.float32(errors.size)


ids = jnp.array([3, 4, 3, 49])
params = Model().init(jax.random.key(0), ids)["params"]
rules = optax.sgd(0.1), adagrad(0.1)
state = init_row_state(params, *rules, jax.random.key(1))
step = jax.jit(make_row_step(loss, *rules))
losses = []
for _ in range(5):
    state, metrics = step(state, {"ids": ids, "target": jnp.ones(4)})
    losses.append(float(metrics["loss_sum"]))
assert losses[-1] < losses[0], losses
before, after = params["Embed_0"]["embedding"], state.params["Embed_0"]["embedding"]
moved = jnp.flatnonzero((before != after).any(1))
assert moved.tolist() == [3, 4, 49], moved
print(*sorted(m.__file__ for name, m in sys.modules.items() if name.split(".")[0] == "jrec"), sep="\\n")
"""


def test_the_folder_and_the_train_step_are_all_that_row_steps_need(tmp_path):
    ours = Path(jrec.__file__).parent
    theirs = tmp_path / "project" / "jrec"
    shutil.copytree(
        ours / "embeddings", theirs / "embeddings", ignore=shutil.ignore_patterns("__pycache__")
    )
    (theirs / "train").mkdir()
    shutil.copy(ours / "train" / "step.py", theirs / "train")
    for package in (theirs, theirs / "train"):
        (package / "__init__.py").touch()
    # -P and an own path: neither the working directory nor an installed jrec comes first.
    environment = os.environ | {"PYTHONPATH": str(theirs.parent)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", STEPS],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    loaded = {Path(line) for line in done.stdout.split()}
    assert all(path.is_relative_to(theirs) for path in loaded), loaded
    # Every copied file was needed or is part of the folder; nothing else of ours was.
    assert {path for path in loaded if path.name != "__init__.py"} == {
        path for path in theirs.rglob("*.py") if path.name != "__init__.py"
    }
