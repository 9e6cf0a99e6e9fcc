"""The worked fork: its feature is right, is trained, and the program runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.examples import fusion_with_decade as example
from jrec.data.sources import load_ratings
from tests.conftest import TITLES


def test_decades_are_those_of_the_titles(ml_1m):
    ratings = example.with_decades(load_ratings("ml-1m", ml_1m))
    known = ratings.vocabularies["decade"]
    assert known.values.tolist() == [1930, 1970, 1990]
    for item, title in enumerate(TITLES, start=1):
        row = int(ratings.vocabularies["item"].encode([item])[0])
        decade = known.decode(ratings.item_features["decade"][row]).tolist()
        expected = {"(1995)": [1990], "(1977)": [1970], "(1931)": [1930]}.get(title[-6:], [])
        assert decade == expected, title


@pytest.mark.slow
def test_the_fork_runs_and_its_feature_is_read(ml_1m, capsys):
    found = example.train(example.Train("ml-1m", ml_1m, epochs=2, batch_size=16))
    assert 0 < found["rmse"] < 3 and capsys.readouterr().out.count("test_rmse") == 2
    model = example.FusionWithDecade({"user": 4, "item": 4, "genres": 3, "title": 3, "decade": 5})
    bag, mask = jnp.ones((1, 1), jnp.int32), jnp.ones((1, 1), bool)
    item = {
        "item": jnp.array([2]),
        "genres": bag,
        "genres_mask": mask,
        "title": bag,
        "title_mask": mask,
    }
    item |= {"decade": jnp.array([[3]]), "decade_mask": mask}
    params = model.init(jax.random.key(0), {"user": jnp.array([2])}, item)
    gradient = jax.grad(lambda p: model.apply(p, {"user": jnp.array([2])}, item).sum())(params)
    rows = np.abs(gradient["params"]["decade_table"]["embedding"]).sum(1) > 0
    assert rows.tolist() == [False, False, False, True, False]
