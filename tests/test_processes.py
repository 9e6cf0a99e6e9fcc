"""Two real processes on loopback, with two devices each, against one process with one device."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from experiments.autoencoder import __main__ as autoencoder
from experiments.candidates import __main__ as candidates
from experiments.embedding_mlp import __main__ as embedding_mlp
from experiments.fusion import __main__ as fusion
from experiments.ranking import __main__ as ranking
from jrec.data.click_maker import make_clicks
from jrec.data.click_truth import ClickSize
from jrec.errors import InputError, run_command
from jrec.train import processes
from jrec.train.read_once import read_once
from tests.click_writer import write_click_log
from tests.conftest import toy_ratings

RATINGS = (
    "--dataset synthetic --synthetic.users 60 --synthetic.items 40 --synthetic.ratings 1501 "
    "--valid-fraction 0.1"
)
CLICK_SIZE = ClickSize(users=61, items=30, clicks=8, categories=4, groups=3)
CLICKS = (
    "--synthetic.users 61 --synthetic.items 30 --synthetic.clicks 8 --synthetic.categories 4 "
    "--synthetic.groups 3"
)
FUSION = (
    f"{RATINGS} --tower-width 8 --batch-size 28 --learning-rate 0.02 --chunk-steps 5 --epochs 5"
)
TRAIN = ["train", *FUSION.split()]
OTHERS = {
    "fusion, improved": (
        fusion,
        f"--preset improved {RATINGS} --improved.width 8 --improved.heads 2 --batch-size 10 --epochs 2",
    ),
    "embedding MLP": (
        embedding_mlp,
        "--dataset ml-latest-small --data-dir DATA/ratings --valid-fraction 0.1 --hidden 8 "
        "--batch-size 100 --epochs 2 --chunk-steps 5",
    ),
    "autoencoder": (
        autoencoder,
        f"{RATINGS} --hidden 8 --form rated --centre --refeed 0 --batch-size 14 --epochs 2",
    ),
    "ranking": (
        ranking,
        "--synthetic.users 41 --synthetic.items 30 --synthetic.pages 3 --tower 8 --batch-size 28 "
        "--epochs 2",
    ),
    "candidates, windows": (
        candidates,
        "--preset source --dataset click-log --data-dir DATA/clicks.log --feat-appear-limit 0 "
        "--item-width 4 --length 4 --state-width 8 --tower 8 --batch-size 100 --epochs 2",
    ),
    "candidates, runs": (
        candidates,
        f"{CLICKS} --item-width 4 --length 8 --loss sampled-softmax --negatives 5 --batch-size 14 "
        "--epochs 2",
    ),
}
CLICKED = ("age", "end", "leads", "start", "target", "user")
SHOWN = ("clicked", "completed", "item", "known", "numbers", "rows", "user", "weight")
SPREAD = {
    "fusion, improved": {"stars", "known"},
    "embedding MLP": {"item", "target", "user"},
    "autoencoder": {"item", "rating"},
    "ranking": {*SHOWN, "ids/row/watched/0", "ids/row/watched/1"},
    "candidates, windows": {"item", *(f"examples/{name}" for name in CLICKED)},
    "candidates, runs": {
        *("item", "age", "begins"),
        *(f"segments/{name}" for name in ("end", "start", "user")),
    },
}


def two_free_ports():
    """A port that is free, as is the one after it."""
    while True:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("localhost", 0))
            port = one.getsockname()[1]
            try:
                other.bind(("localhost", port + 1))
            except OSError:
                continue
            return port


def by_address():
    """Flags and variables of each process, where all are told of process 0."""
    flags = ["--coordinator", f"localhost:{two_free_ports()}", "--processes", "2", "--process"]
    return [([*flags, str(process)], {}) for process in range(2)]


def by_slurm():
    """The same where SLURM has started them and left these variables."""
    # JAX makes a port of the last digits of the job's number.
    job = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_NODELIST": "localhost"}
    flags, job = ["--coordinator", "auto"], job | {"SLURM_NTASKS": "2"}
    places = [{"SLURM_PROCID": str(k), "SLURM_LOCALID": str(k)} for k in range(2)]
    return [(flags, job | place) for place in places]


# Run after run in one pair of processes; notes how many rows each of a process's devices holds of a column,
# and which files of the data it has opened.
SEVERAL = """
import importlib, json, os, signal, sys
import jax
import jrec.train.run as driver
from jrec.train.loop import fit
from jrec.train.spread import is_spread

opened = set()

def listen(event, arguments):
    if event == "open" and str(arguments[0]).startswith(sys.argv[1]):
        opened.add(os.path.relpath(arguments[0], sys.argv[1]))

sys.addaudithook(listen)

for name, arguments, stopped in json.loads(sys.argv[2]):
    module = importlib.import_module(name)

    def noted(plan, *rest):
        if stopped:
            if jax.process_index() == 1:
                os.kill(os.getpid(), signal.SIGINT)
            return fit(plan, *rest)
        nodes = jax.tree_util.tree_leaves_with_path(plan.stream.data, is_leaf=is_spread)
        held = {
            jax.tree_util.keystr(path, simple=True, separator="/"): [
                len(node), *(shard.data.shape[1] for shard in node.part.addressable_shards)
            ]
            for path, node in nodes
            if is_spread(node)
        }
        print("held:", json.dumps(held), flush=True)
        return fit(plan, *rest)

    driver.fit = noted
    try:
        module.main([*arguments, *sys.argv[3:]])
        assert not stopped
    except SystemExit as stop:
        assert stopped and stop.code == 130
        left = os.listdir(arguments[arguments.index("--run-dir") + 1])
        assert jax.process_index() or not any(name.startswith(".") for name in left), left
    driver.join_processes = lambda *_: None  # they have met

print("opened:", json.dumps(sorted(opened)), flush=True)
"""


def start(program, told=by_address):
    """Two processes of one program."""
    environment = os.environ | {
        "XLA_FLAGS": re.sub(r"(device_count)=\d+", r"\1=2", os.environ["XLA_FLAGS"]),
        "JAX_PLATFORMS": "cpu",
    }
    return [
        subprocess.Popen(
            [sys.executable, *program, *flags],
            env=environment | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for flags, variables in told()
    ]


def start_fusion(folder, told=by_address):
    return start(["-m", "experiments.fusion", *TRAIN, "--run-dir", str(folder)], told)


def lines(folder):
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def same_run(folder, other):
    for line, expected in zip(lines(folder), lines(other), strict=True):
        assert line.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(line[name], value, rtol=1e-6, err_msg=name)
    results, expected = (json.loads((f / "results.json").read_text()) for f in (folder, other))
    measured = [name for name in expected if name.startswith("test_")]
    assert measured
    for name in measured:
        np.testing.assert_allclose(results[name], expected[name], rtol=1e-6, err_msg=name)
    arrays, others = (np.load(f / "per_user.npz") for f in (folder, other))
    for name in others.files:
        np.testing.assert_allclose(arrays[name], others[name], 1e-5, 1e-6, err_msg=name)
    if not (other / "export").exists():  # ranking has none
        return
    arrays, others = (np.load(f / "export" / "arrays.npz") for f in (folder, other))
    numbers = [name for name in arrays.files if arrays[name].dtype == np.float32]
    assert arrays.files == others.files and len(numbers) > 4
    for name in numbers:
        if re.search(r"/key_\d/bias$", name):  # moves no weight; see `gap` in test_devices
            continue
        ours, theirs = (values[name].astype(np.float64) for values in (arrays, others))
        assert np.linalg.norm(ours - theirs) <= 1e-5 * max(np.linalg.norm(theirs), 1e-3), name


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One process, one device."""
    folder = tmp_path_factory.mktemp("runs") / "alone"
    fusion.main([*TRAIN, "--run-dir", str(folder)])
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("told", [by_address, by_slurm])
def test_two_processes_of_two_devices_give_the_one_process_result(alone, tmp_path, told):
    running = start_fusion(tmp_path / "run", told)
    said = [process.communicate(timeout=300)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    same_run(tmp_path / "run", alone)
    assert "run directory" in said[0] and "epoch" not in said[1], "one process reports"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of text files: ratings in MovieLens's last layout, and a click log."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "ratings").mkdir()
    rows = toy_ratings(60, 40, 1501)
    items = [f"{k},Item {k},War" for k in range(1, 41)]
    for name, header, lines in (
        ("movies", "movieId,title,genres", items),
        ("ratings", "userId,movieId,rating,timestamp", [",".join(map(str, row)) for row in rows]),
    ):
        (folder / "ratings" / f"{name}.csv").write_text("\n".join([header, *lines]) + "\n")
    write_click_log(make_clicks(CLICK_SIZE, 0)[0], folder / "clicks.log")
    return folder


def arguments(flags, data, run_dir):
    return ["train", *flags.replace("DATA", str(data)).split(), "--run-dir", str(run_dir)]


@pytest.fixture(scope="module")
def others(tmp_path_factory, data):
    """Folder of the runs of all other systems in two processes, and what these said.

    One is stopped by Ctrl-C and gone on with.
    """
    folder = tmp_path_factory.mktemp("runs")
    runs = [
        [module.__name__, arguments(flags, data, folder / name), False]
        for name, (module, flags) in OTHERS.items()
    ]
    place = list(OTHERS).index("embedding MLP")
    name, given, _ = runs[place]
    runs[place : place + 1] = [[name, given, True], [name, [*given, "--resume"], False]]
    running = start(["-c", SEVERAL, str(data), json.dumps(runs)])
    said = [process.communicate(timeout=600)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    return folder, said


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_two_processes_train_every_system_to_the_one_process_result(
    name, others, data, tmp_path, capsys
):
    module, flags = OTHERS[name]
    module.main(arguments(flags, data, tmp_path / "alone"))
    same_run(others[0] / name, tmp_path / "alone")


@pytest.mark.slow
def test_one_process_reads_the_files_and_nothing_that_they_share_is_left(others):
    files = ["clicks.log", "ratings", "ratings/movies.csv", "ratings/ratings.csv"]
    opened = [json.loads(re.search("^opened: (.*)$", said, re.MULTILINE)[1]) for said in others[1]]
    assert opened == [[name for name in files if name != "ratings"], []]
    assert not list(others[0].glob("*/.*"))


# Files may not grow beyond 8 KB, which the timestamps do.
LIMITED = """
import os, resource
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
from experiments.fusion import __main__ as fusion
from jrec.errors import InputError, run_command
from jrec.train import processes
from jrec.train.read_once import read_once
run_command(fusion.main)
"""


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["a bad line", "a full disk"])
def test_what_one_process_cannot_read_or_write_stops_all_with_its_sentence(fault, data, tmp_path):
    folder = tmp_path / "ratings"
    shutil.copytree(data / "ratings", folder)
    program, sentence = ["-c", LIMITED], "The system refused a file operation at "
    if fault == "a bad line":
        with (folder / "ratings.csv").open("a") as file:
            file.write("1,2,six,3\n")
        program = ["-m", "experiments.fusion"]
        sentence = f"{folder / 'ratings.csv'}, line 1503: rating is 'six'"
    flags = "--dataset ml-latest-small --data-dir"
    given = arguments(f"{flags} {folder}", data, tmp_path / "runs" / "run")
    running = start([*program, *given])
    said = [process.communicate(timeout=300)[0] for process in running]
    assert [process.returncode for process in running] == [1, 1], said
    for lines in said:
        assert f"error: {sentence}" in lines and lines.count("error: ") == 1, said
        assert "Traceback" not in lines and "***" not in lines, said
    assert [path.name for path in tmp_path.iterdir()] == ["ratings"]


@pytest.fixture
def first(monkeypatch):
    """The first of two processes, as far as it speaks to the other."""
    monkeypatch.setattr(processes.jax, "process_count", lambda: 2)
    monkeypatch.setattr(processes.multihost_utils, "broadcast_one_to_all", lambda said: said)


@pytest.mark.slow
def test_what_the_first_process_says_arrives_in_every_byte(first):
    place = "runs/\udcff/\u00e9 .shared "  # a path may hold bytes that are no text
    assert processes.by_first(lambda: place) == place
    assert processes.by_first(lambda: None) == ""

    def fails(said):
        raise InputError(said)

    for said, heard in (
        (f"{place} does not exist", f"{place} does not exist"),
        ("x" * 9999, "x" * 4095),
    ):
        with pytest.raises(InputError) as fault:
            processes.by_first(lambda said=said: fails(said))
        assert str(fault.value) == heard


@pytest.mark.slow
def test_a_run_directory_that_is_a_file_is_refused_before_anything_is_shared(
    first, tmp_path, monkeypatch
):
    path = tmp_path / "run"
    path.write_text("")
    monkeypatch.setattr(processes, "_run_dir", path)
    with pytest.raises(InputError, match="is a file; give --run-dir a folder"):
        read_once(lambda: 1)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
def test_ctrl_c_while_a_process_reads_is_a_sentence(first, monkeypatch, capsys, tmp_path):
    def leave(status):
        raise SystemExit(status)

    monkeypatch.setattr(processes.os, "_exit", leave)
    monkeypatch.setattr(processes, "_leaving", threading.Lock())
    with pytest.raises(SystemExit) as stop, processes.stop_together(tmp_path):
        raise KeyboardInterrupt
    assert stop.value.code == 1 and capsys.readouterr().err == "error: Stopped, as asked.\n"


@pytest.mark.slow
def test_a_killed_process_stops_the_other_and_another_number_of_devices_goes_on(alone, tmp_path):
    folder = tmp_path / "run"
    running = start_fusion(folder)
    while not lines(folder) and all(process.poll() is None for process in running):
        time.sleep(0.05)
    running[1].send_signal(signal.SIGKILL)
    said = [process.communicate(timeout=300)[0] for process in running]
    assert running[0].returncode == 1
    assert "error: This run has lost one of its processes" in said[0]
    assert said[0].count("error: ") == 1, said[0]
    assert "Traceback" not in said[0] and "*** Check" not in said[0], said[0]
    assert not (folder / "results.json").exists(), "the kill came too late to test anything"
    assert not list(folder.glob(".*")), "what the processes have shared is left"
    fusion.main([*TRAIN, "--run-dir", str(folder), "--resume", "--devices", "3"])
    same_run(folder, alone)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--processes 2", "need --coordinator"),
        ("--coordinator localhost:1 --run-dir R", "needs --processes"),
        ("--coordinator localhost:1 --processes 2 --process 2 --run-dir R", "--process from 0"),
        ("--coordinator localhost --processes 2 --process 0 --run-dir R", "HOST:PORT"),
        ("--coordinator auto --processes 2 --run-dir R", "leave them out"),
        ("--coordinator localhost:1 --processes 2 --process 0", "needs --run-dir"),
        ("--devices 0", "from 1 to 8, but is 0"),
        ("--devices 9", "device_count=9"),
    ],
)
def test_bad_settings_give_one_sentence(flags, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        run_command(lambda: fusion.main(["train", "--dataset", "synthetic", *flags.split()]))
    said = capsys.readouterr().err
    assert stop.value.code == 1 and said.startswith("error: ") and said.count("\n") == 1
    assert sentence in said and not list(tmp_path.iterdir())
