import errno
import json
import math

import jax
import jax.numpy as jnp
import pytest

from jrec.errors import InputError
from jrec.files import read_json, replacing, write_json
from jrec.report import MetricsLog, markdown_table, read_metrics
from jrec.serving.export import flatten, load_export, save_export


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "results.json"
    write_json(path, {"a": 1})
    with pytest.raises(OSError, match=r"disk full.*results\.json"), replacing(path) as temporary:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, "disk full")
    assert json.loads(path.read_text()) == {"a": 1} and list(tmp_path.iterdir()) == [path]


def test_json_has_null_where_a_number_is_none(tmp_path):
    write_json(tmp_path / "x.json", {"nan": math.nan, "inf": [math.inf], "path": tmp_path})
    value = json.loads((tmp_path / "x.json").read_text())
    assert value == {"nan": None, "inf": [None], "path": str(tmp_path)}


def test_metrics_after_the_resumed_step_are_written_again(tmp_path):
    log = MetricsLog(tmp_path)
    for step in (10, 20, 30):
        log.write(step, loss=step / 10)
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40, "lo')  # what a crash leaves
    log = MetricsLog(tmp_path, resume_step=20)
    log.write(30, loss=7.0)
    log.close()
    assert [(line["step"], line["loss"]) for line in read_metrics(tmp_path)] == [
        (10, 1.0),
        (20, 2.0),
        (30, 7.0),
    ]


def test_a_missing_or_broken_json_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_json(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        read_json(tmp_path / "bad.json")


def test_markdown_table():
    table = markdown_table(["name", "value"], [["rmse", 0.84567], ["n", 3]])
    assert table.splitlines() == [
        "| name | value |",
        "| --- | --- |",
        "| rmse | 0.8457 |",
        "| n | 3 |",
    ]


def test_an_export_binds_nested_arrays_and_empty_dicts(tmp_path):
    arrays = {"tables": {"item": {"genres": jnp.arange(3.0)}, "user": {}}, "mean": jnp.ones(())}
    assert flatten(arrays).keys() == {"tables/item/genres", "mean"}

    def predict(held, row):
        tables = held["tables"]
        return tables["item"]["genres"][row] + held["mean"] + len(tables["user"])

    save_export(tmp_path / "export", predict, arrays, jax.ShapeDtypeStruct((), jnp.int32))
    assert load_export(tmp_path / "export")(2) == 3
