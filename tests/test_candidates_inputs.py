"""What the candidate network reads: the source's tables and widths, numbers in [0, 1], features by name."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import candidates as benchmark
from experiments.candidates import data as candidates_data
from experiments.candidates.batches import device_clicks
from experiments.candidates.network import build_model
from experiments.candidates.settings import PRESETS, Data
from jrec.data.click_examples import leave_one_out
from jrec.data.click_log import read_click_log
from jrec.data.click_maker import make_clicks
from jrec.data.click_truth import ClickSize
from jrec.data.clicks import Continuous
from jrec.data.quantiles import Quantiles, normalised
from jrec.errors import InputError
from tests.click_writer import make_click_log

SIZE = ClickSize(users=30, items=40, clicks=6, categories=4, groups=3)
SOURCE = {"item": 64, "user": 64, "province": 8, "city": 16, "phone": 16, "category": 8, "tags": 64}


@pytest.fixture(scope="module")
def clicks():
    return make_clicks(SIZE, 0)[0]


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    path = tmp_path_factory.mktemp("log") / "click.log"
    make_click_log(path, SIZE, 0)
    return read_click_log(path, 0)


def network(clicks, preset="source", **changed):
    return build_model(dataclasses.replace(PRESETS[preset](), **changed), clicks)


def widths_of(model):
    """Widths of the tables, and of what the tower reads; nothing is computed."""

    def value(column, *shape):
        if column.kind == "continuous":
            return jnp.zeros(shape), jnp.ones(shape, bool)
        ids = jnp.zeros(shape, jnp.int32)
        return (ids[..., None], ids[..., None] > 0) if column.kind == "bag" else ids

    batch = {
        "item": jnp.zeros((1, 3), jnp.int32),
        "mask": jnp.ones((1, 3), bool),
        "age": jnp.zeros(1),
    }
    for of, shape in (("user", (1,)), ("item", (1, 3))):
        columns = [column for column in model.columns if column.of == of]
        batch[f"{of}_features"] = {column.name: value(column, *shape) for column in columns}
    params = jax.eval_shape(model.init, jax.random.key(0), batch)["params"]
    tables = {
        name.removesuffix("_table"): leaves["embedding"].shape[1]
        for name, leaves in params.items()
        if name.endswith("_table") and name not in ("output_table", "bias_table")
    }
    return tables, params["tower_0"]["kernel"].shape[0]


def test_the_tables_have_the_sources_widths(clicks, log):
    for data, numbers in ((clicks, 1), (log, 0)):  # the synthetic log also has durations
        assert set(SOURCE) == set(data.vocabularies)
        assert widths_of(network(data)) == (SOURCE, sum(SOURCE.values()) + numbers)


def test_the_benchmark_times_the_sources_network(log):
    model = network(log)
    timed = benchmark.network(50)
    assert widths_of(timed) == widths_of(model)
    assert {column.name for column in timed.columns} == {column.name for column in model.columns}
    rows = {"item_rows": 52, "table_rows": timed.table_rows, "table_widths": timed.table_widths}
    same = dataclasses.asdict(model) | rows | {"columns": timed.columns}
    assert {k: same[k] for k in same if k not in ("parent", "name")} == {
        k: getattr(timed, k) for k in same if k not in ("parent", "name")
    }


def test_the_documents_listing_has_fewer_inputs_than_the_program(log):
    tables = {name: SOURCE[name] for name in ("item", "user", "city", "phone")}
    assert widths_of(network(log, "source-listing")) == (tables, sum(tables.values()))


def test_features_are_chosen_by_name(clicks):
    def names(**changed):
        return [c.name for c in network(clicks, **changed).columns]

    everything = ["user", "province", "city", "phone", "category", "tags", "duration_seconds"]
    assert names() == everything
    chosen = {"user_features": ("phone", "city"), "item_features": ("tags",)}
    assert names(**chosen) == ["user", "city", "phone", "tags"]
    assert names(preset="small") == []
    tower = {"tower": (8,), "tied": False}
    assert names(preset="small", user_features=("all",), **tower) == ["province", "city", "phone"]
    for of, known in (
        ("user", "province, city, phone"),
        ("item", "category, tags, duration_seconds"),
    ):
        with pytest.raises(InputError, match=f"^--{of}-features names 'tag', .* have: {known}.$"):
            names(**{f"{of}_features": ("tag",)})


def test_numbers_lie_in_the_unit_interval_by_training_quantiles(clicks):
    split = leave_one_out(clicks)
    found = normalised(clicks, split.train)
    raw, column = (c.item_features["duration_seconds"] for c in (clicks, found))
    drawn = raw.values[clicks.item[split.train]]
    np.testing.assert_array_equal(column.values[2:], Quantiles.fit(drawn)(raw.values[2:]))
    assert (column.values[:2] == 0).all() and not column.known[:2].any()
    # An item that training never read moves nothing else.
    unread = np.setdiff1d(clicks.item, clicks.item[split.train])
    unread = unread if len(unread) else np.array([2])
    values = raw.values.copy()
    values[unread] = 1e6
    moved = dataclasses.replace(
        clicks, item_features={"duration_seconds": Continuous(values, raw.known)}
    )
    train = split.train[~np.isin(clicks.item[split.train], unread)]
    again = normalised(moved, train).item_features["duration_seconds"].values
    kept = np.setdiff1d(np.arange(len(values)), unread)
    one = normalised(clicks, train).item_features["duration_seconds"].values
    np.testing.assert_array_equal(one[kept], again[kept])


def test_users_numbers_count_once_a_training_click(clicks):
    split = leave_one_out(clicks)
    values = np.arange(clicks.users, dtype=np.float32) * 1000
    known = np.arange(clicks.users) % 3 > 0
    given = dataclasses.replace(clicks, user_features={"fans": Continuous(values * known, known)})
    found = normalised(given, split.train).user_features["fans"]
    user = clicks.user_of_event[split.train]
    expected = Quantiles.fit(values[user[known[user]]])(values)
    np.testing.assert_array_equal(found.values, np.where(known, expected, 0))
    assert 0.9 < found.values.max() <= 1


def test_raw_numbers_are_refused(clicks):
    with pytest.raises(ValueError, match="are not in"):
        device_clicks(clicks, [], ["duration_seconds"])


def test_what_is_loaded_is_normalised():
    data = Data(synthetic=SIZE)
    found, split = candidates_data.load(data)
    clicks = make_clicks(SIZE, 0)[0]
    np.testing.assert_array_equal(
        found.item_features["duration_seconds"].values,
        normalised(clicks, split.train).item_features["duration_seconds"].values,
    )


def test_example_age_needs_times(log):
    with pytest.raises(InputError, match="--example-age needs times"):
        network(log, example_age=True)
