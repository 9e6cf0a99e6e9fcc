"""Two real processes on loopback, with two devices each, against one process with one device."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from experiments import fusion
from jrec.errors import run_command

TRAIN = [
    "train",
    "--dataset",
    "synthetic",
    "--synthetic.users",
    "60",
    "--synthetic.films",
    "40",
    "--synthetic.ratings",
    "1500",
    "--valid-fraction",
    "0.1",
    "--tower-width",
    "8",
    "--batch-size",
    "28",
    "--learning-rate",
    "0.02",
    "--chunk-steps",
    "5",
    "--epochs",
    "5",
]


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


def start(folder, told=by_address):
    """Two processes of one run."""
    environment = os.environ | {
        "XLA_FLAGS": re.sub(r"(device_count)=\d+", r"\1=2", os.environ["XLA_FLAGS"]),
        "JAX_PLATFORMS": "cpu",
    }
    return [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "experiments.fusion",
                *TRAIN,
                "--run-dir",
                str(folder),
                *flags,
            ],
            env=environment | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for flags, variables in told()
    ]


def lines(folder):
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def same_run(folder, other):
    for line, expected in zip(lines(folder), lines(other), strict=True):
        assert line.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(line[name], value, rtol=1e-6, err_msg=name)
    results, expected = (json.loads((f / "results.json").read_text()) for f in (folder, other))
    np.testing.assert_allclose(results["test_rmse"], expected["test_rmse"], rtol=1e-6)
    arrays, others = (np.load(f / "export" / "arrays.npz") for f in (folder, other))
    numbers = [name for name in arrays.files if arrays[name].dtype == np.float32]
    assert arrays.files == others.files and len(numbers) > 10
    for name in numbers:
        ours, theirs = (values[name].astype(np.float64) for values in (arrays, others))
        assert np.linalg.norm(ours - theirs) <= 1e-5 * max(np.linalg.norm(theirs), 1e-3), name


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One process, one device."""
    folder = tmp_path_factory.mktemp("runs") / "alone"
    fusion.main([*TRAIN, "--run-dir", str(folder)])
    return folder


@pytest.mark.parametrize("told", [by_address, by_slurm])
def test_two_processes_of_two_devices_give_the_one_process_result(alone, tmp_path, told):
    running = start(tmp_path / "run", told)
    said = [process.communicate(timeout=300)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    same_run(tmp_path / "run", alone)
    assert "run directory" in said[0] and "epoch" not in said[1], "one process reports"


def test_a_killed_process_stops_the_other_and_another_number_of_devices_goes_on(alone, tmp_path):
    folder = tmp_path / "run"
    running = start(folder)
    while not lines(folder) and all(process.poll() is None for process in running):
        time.sleep(0.05)
    running[1].send_signal(signal.SIGKILL)
    said = [process.communicate(timeout=300)[0] for process in running]
    assert running[0].returncode == 1
    assert "error: This run has lost one of its processes" in said[0]
    assert said[0].count("error: ") == 1, said[0]
    assert "Traceback" not in said[0] and "*** Check" not in said[0], said[0]
    assert not (folder / "results.json").exists(), "the kill came too late to test anything"
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
