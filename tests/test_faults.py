"""What a kill leaves behind, and how a run goes on; the whole table is `python -m tests.faults`."""

import contextlib
import os
import random
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from jrec.errors import InputError
from jrec.files import check_seal, clear_leftovers, read_json, replacing, sealed, write_json
from jrec.report import MetricsLog, open_run_directory
from jrec.train.checkpoints import Checkpoints
from jrec.train.flags import RunFlags
from jrec.train.loop import EpochReport, Plan, fit
from jrec.train.step import TrainState
from tests.conftest import FakeStream
from tests.faults.__main__ import Faults
from tests.faults.damage import archive_faults, damaged
from tests.faults.runs import is_temporary

SETTINGS = {"epochs": 2}


def dead_process():
    """The number of a process that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def test_only_what_a_dead_process_left_is_cleared(tmp_path):
    dead, alive = dead_process(), os.getpid()
    left = [f".results.json.{dead}.json", f".report.md.{dead}.md", f"export/.arrays.npz.{dead}.npz"]
    kept = [f".results.json.{alive}.json", ".gitignore", "notes.123.txt", ".hidden.txt"]
    (tmp_path / "export").mkdir()
    for name in left + kept:
        (tmp_path / name).write_text("half")
    folder = tmp_path / f".export.{dead}.old"
    folder.mkdir()
    (folder / "arrays.npz").write_text("old")
    clear_leftovers(tmp_path)
    names = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert names == set(kept)
    with replacing(tmp_path / "results.json") as temporary:
        assert is_temporary(temporary.name)


def test_a_run_killed_before_its_settings_were_written_begins_again(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / f".settings.json.{dead_process()}.json").write_text('{"epo')
    shared = run / f".shared.{dead_process()}"
    shared.mkdir()
    (shared / "0.npy").write_text("half")
    open_run_directory(run, False, SETTINGS)
    assert [path.name for path in run.iterdir()] == ["settings.json"]
    (run / f".report.md.{dead_process()}.md").write_text("half")
    with pytest.raises(InputError, match="not empty"):
        open_run_directory(run, False, SETTINGS)
    open_run_directory(run, True, SETTINGS)
    assert [path.name for path in run.iterdir()] == ["settings.json"]


def test_what_this_runs_processes_share_is_left_to_them(tmp_path):
    shared = tmp_path / f".shared.{os.getpid()}"
    shared.mkdir()
    open_run_directory(tmp_path, False, SETTINGS)
    open_run_directory(tmp_path, True, SETTINGS)
    assert shared.exists()


def test_an_epoch_is_reported_before_it_is_saved(tmp_path):
    # Killed between the two, the run writes the epoch's line again; the other way round it were lost.
    def chunk(state, data, order, first, steps):
        sums = {"loss_sum": jnp.float32(1), "count": jnp.float32(1)}
        return state._replace(step=state.step + steps), sums, jnp.int32(-1)

    last, best = (Checkpoints(tmp_path / name, keep=2) for name in ("last", "best"))
    state = TrainState(jnp.int32(0), jax.random.key(0), {"w": jnp.ones(2)}, ())
    plan = Plan(state, None, FakeStream(3, chunk), lambda s: {})
    saved = []
    for report in fit(plan, RunFlags(epochs=2, chunk_steps=3), last, best, state):
        if isinstance(report, EpochReport):
            saved.append((report.step, last.latest_step(), best.latest_step()))
    assert saved == [(3, None, None), (6, 3, 3)]
    assert (last.latest_step(), best.latest_step()) == (6, 6)


def test_a_sealed_record_shows_any_change(tmp_path):
    path = tmp_path / "record.json"
    write_json(path, sealed({"name": "x", "range": (0.5, 5.0), "none": float("nan")}))
    record = read_json(path)
    check_seal(path, record)
    assert record["range"] == [0.5, 5.0] and record["none"] is None
    for key, value in (("name", "y"), ("range", [0.5, 4.0]), ("sum", "0")):
        with pytest.raises(InputError, match="changed since it was written"):
            check_seal(path, record | {key: value})
    with pytest.raises(InputError):
        check_seal(path, record | {"more": 1})


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '{"a": ' + "9" * 5000 + "}"], ids=["deep", "long"]
)
def test_json_that_python_refuses_is_named(content, tmp_path):
    (tmp_path / "record.json").write_text(content)
    with pytest.raises(InputError, match="is not JSON"):
        read_json(tmp_path / "record.json")


def test_damaged_archives_are_named_or_read_right(tmp_path):
    rows = archive_faults(Faults(tmp_path, damages=60), tmp_path)
    assert "named in one sentence" in {row[2] for row in rows}
    assert {row[2] for row in rows} <= {"named in one sentence", "read right"}
    draw = random.Random(0)
    kinds = {damaged(bytes(range(256)), draw)[0] for _ in range(100)}
    assert kinds == {"cut short", "emptied", "bit turned", "zeros"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_names_the_metrics(tmp_path):
    log = MetricsLog(tmp_path)
    log._file.close()
    with Path("/dev/full").open("w") as log._file:
        with pytest.raises(OSError) as fault:
            log.write(1, loss=1.0)
        assert fault.value.filename == str(tmp_path / "metrics.jsonl")
        with contextlib.suppress(OSError):  # what was not written is tried again
            log._file.close()
    log.close()
