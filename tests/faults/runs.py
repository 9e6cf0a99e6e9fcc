"""The small run that the fault script disturbs: its command, what it comes to, and going on with it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

SMALL = ["train", "--dataset", "synthetic", "--synthetic.users", "60", "--synthetic.items", "40"]
SMALL += ["--synthetic.ratings", "3000", "--epochs", "3", "--batch-size", "64"]
SMALL += ["--chunk-steps", "5", "--checkpoint-steps", "10", "--valid-fraction", "0.1"]
TIMES = ("seconds", "examples_per_second", "command")  # of results.json, which differ

Row = tuple[str, str, str, str]  # fault, when, what the run said or did, what came of going on


def train_command(system: str, run_dir: Path, *more: str) -> list[str]:
    """The small run's command."""
    return [sys.executable, "-m", f"experiments.{system}", *SMALL, "--run-dir", str(run_dir), *more]


def run(command: list[str], **how: object) -> tuple[int, str]:
    """A finished process: its code and the last line that it said."""
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), **how)
    if "Traceback" in done.stderr:
        return done.returncode, f"TRACEBACK {done.stderr.strip().splitlines()[-1]}"
    said = [line for line in (done.stdout + "\n" + done.stderr).splitlines() if line.strip()]
    return done.returncode, said[-1] if said else ""


def environment() -> dict[str, str]:
    """What the processes run under."""
    # Nothing here is timed: the cheapest compilation will do.
    return os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0", "COLUMNS": "1000"}


def outcome(run_dir: Path) -> dict[str, object]:
    """All that a finished run has come to, but for times and temporary files."""
    import orbax.checkpoint as ocp

    found: dict[str, object] = {}
    steps = sorted(int(path.name) for path in (run_dir / "last").iterdir() if path.name.isdigit())
    state = ocp.StandardCheckpointer().restore(
        (run_dir / "last" / str(steps[-1]) / "state").absolute()
    )
    for path, leaf in _leaves(state):
        found[f"last {path}"] = np.asarray(leaf).tobytes()
    for name in ("export/arrays.npz", "export/catalogue.npz", "per_user.npz"):
        with np.load(run_dir / name, allow_pickle=False) as arrays:
            for key in arrays.files:
                found[f"{name} {key}"] = arrays[key].tobytes()
    results = json.loads((run_dir / "results.json").read_text(encoding="utf-8"))
    found["results"] = {key: value for key, value in results.items() if key not in TIMES}
    found["metrics"] = (run_dir / "metrics.jsonl").read_text(encoding="utf-8")
    report = ("report.md", "curves.png", "environment.json", "settings.json")
    found["files"] = all((run_dir / name).stat().st_size for name in report)
    found["left over"] = sorted(str(p) for p in run_dir.rglob("*") if is_temporary(p.name))
    return found


def is_temporary(name: str) -> bool:
    """Whether a file is one that its writer would have renamed or deleted."""
    return (name.startswith(".") and len(name) > 1) or "checkpoint-tmp" in name


def _leaves(tree: object, path: str = "") -> list[tuple[str, object]]:
    if isinstance(tree, dict):
        return [leaf for key in sorted(tree) for leaf in _leaves(tree[key], f"{path}/{key}")]
    if isinstance(tree, list | tuple):
        return [leaf for k, part in enumerate(tree) for leaf in _leaves(part, f"{path}/{k}")]
    return [] if tree is None else [(path, tree)]


def went_on(system: str, run_dir: Path, reference: dict[str, object]) -> str:
    """Goes on with a run (or begins it, where nothing is there yet), and compares it."""
    begun = (run_dir / "settings.json").exists()
    code, said = run(train_command(system, run_dir, *(["--resume"] if begun else [])))
    if code:
        return f"FAILED: {said}"
    found = outcome(run_dir)
    differ = [key for key in reference | found if reference.get(key) != found.get(key)]
    return f"DIFFERS: {', '.join(differ)}" if differ else "finished, all bits equal"


def saved_steps(run_dir: Path) -> list[int]:
    """Steps of the checkpoints to go on from, rising."""
    folder = run_dir / "last"
    return (
        sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit()) if folder.exists() else []
    )
