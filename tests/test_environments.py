"""Unusual surroundings: odd ids and paths, narrow encodings, closed pipes, no home, x64, debugging of NaN."""

import ast
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.table import Table

from experiments import rating_report
from experiments.autoencoder import report as autoencoder_report
from experiments.autoencoder import settings as autoencoder_settings
from experiments.candidates import report as candidates_report
from experiments.candidates import settings as candidates_settings
from experiments.fusion import settings as fusion_settings
from experiments.ranking import report as ranking_report
from experiments.ranking import settings as ranking_settings
from jrec.console import plain_console
from jrec.data.origin import Source
from jrec.evaluate.ranks import target_ranks
from jrec.report import code, draw_curves, markdown_table, write_report
from jrec.train.checkpoints import Checkpoints
from jrec.train.step import TrainState

ROOT = Path(__file__).parents[1]
ODD_IDS = ("[/b]", "[red]x", ":smile:", "[link=x]y[/link]", "5 [bold]")
ODD_FOLDERS = ("run[1]", "a*b?", "a [b] {c} 🎬")


# ---- What is printed ----


@pytest.mark.parametrize("name", ODD_IDS)
def test_ids_are_printed_as_they_are(name):
    console = plain_console(file=io.StringIO(), width=100, force_terminal=True)
    table = Table(name, title=name)
    table.add_row(name)
    console.print(f"note: {name}")
    console.print(table)
    said = console.file.getvalue()
    assert said.count(name) == 4
    assert "\x1b[31m" not in said  # no colour of an id's own


def test_no_other_console_is_made():
    for folder in ("jrec", "experiments"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text("utf-8")
            if path.name != "console.py":
                assert not re.search(r"\bConsole\(|\[/\]|rich import print|markup=True", text), path
            for column in re.findall(
                r"\bTextColumn\(.*{task.*", text
            ):  # these read markup by default
                assert "markup=False" in column, (path, column)


class Unprintable(Exception):
    pass


class Broken:
    """A console on which nothing can be printed."""

    def print(self, *parts, **how):
        raise Unprintable


ERRORS = {"test_rmse": 1.0, "test_mae": 1.0, "test_rmse_rounded": 1.0, "examples_per_second": None}
MEAN = {"global mean": {"rmse": 2.0, "mae": 2.0, "rmse_rounded": 2.0}}
STARS = Source("folder", "x", "")


def finish_rating(run_dir, patch):
    for name in ("predict_in_blocks", "write_rating_errors", "load_rating_model"):
        patch.setattr(rating_report, name, lambda *a: None)
    patch.setattr(rating_report, "baseline_errors", lambda *a: MEAN)
    data = Named(user=np.zeros(1), item=np.zeros(1), source=STARS)
    split = Named(test=np.zeros(1, int))
    rating_report.finish_rating_run(
        run_dir, "s", fusion_settings.source(), ERRORS, data, split, Broken(), "cost"
    )


def finish_autoencoder(run_dir, patch):
    patch.setattr(autoencoder_report, "baseline_errors", lambda *a: MEAN)
    settings = autoencoder_settings.netflix_3m()
    settings = replace(settings, data=replace(settings.data, dataset="netflix"))
    data = Named(test=None, source=STARS)
    autoencoder_report.finish_autoencoder_run(run_dir, settings, ERRORS, data, Broken())


def finish_candidates(run_dir, patch):
    results = {f"test_{name}": 0.5 for name in candidates_report.SHOWN}
    results |= {"test_empty_histories": 1, "examples_per_second": None, "warnings": []}
    results |= {"repeated_targets": "miss", "test_repeats": 0, "test_targets": 1}
    settings, clicks = candidates_settings.small(), Named(source=STARS)
    candidates_report.finish_candidates_run(run_dir, settings, results, {}, clicks, Broken())


def finish_ranking(run_dir, patch):
    popular = dict.fromkeys(ranking_report.SHOWN, 0.5)
    results = {f"test_{name}": 0.5 for name in popular}
    results |= {"examples_per_second": None, "test_watch_loss": 0.5}
    bins = {name: np.ones(2) for name in ("predicted", "actual")}
    settings = ranking_settings.synthetic()
    ranking_report.finish_ranking_run(run_dir, settings, results, popular, bins, Broken())


class Named:
    """Something with a name, and what else is given."""

    def __init__(self, **parts):
        self.name = "a\nb"
        self.__dict__ |= parts


@pytest.mark.parametrize(
    "finish", [finish_rating, finish_autoencoder, finish_candidates, finish_ranking]
)
def test_results_are_written_before_anything_is_printed(finish, tmp_path, monkeypatch):
    line = {"step": 1, "epoch": 1, "train_cost": 1.0, "valid_rmse": 1.0, "test_cost": 1.0}
    line |= {"valid_ndcg@10": 0.1, "valid_weighted_loss": 0.1}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n", "utf-8")
    with pytest.raises(Unprintable):
        finish(tmp_path, monkeypatch)
    for name in ("report.md", "results.json", "environment.json"):
        assert (tmp_path / name).exists(), name
    assert (tmp_path / "report.md").read_text("utf-8").splitlines()[1] == ""  # a title of one line


SPEAKS = """
import sys
from pathlib import Path
from jrec.errors import InputError, run_command

def command():
    for number in range(int(sys.argv[1])):
        print("… é", flush=number == 0)
    print("… é", file=sys.stderr)
    Path(sys.argv[2]).touch()
    raise InputError("no …")

run_command(command)
"""


def speak(tmp_path, lines, environment=(), **how):
    command = [sys.executable, "-c", SPEAKS, str(lines), str(tmp_path / "done")]
    return subprocess.run(command, env=os.environ | dict(environment), cwd=ROOT, **how)


@pytest.mark.parametrize("lines", [1, 20_000])  # at the interpreter's end alone, or long before
def test_a_reader_that_leaves_is_no_error(lines, tmp_path):
    read, write = os.pipe()
    os.close(read)
    done = speak(tmp_path, lines, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert done.stderr.decode().splitlines() == ["… é", "error: no …"] and done.returncode == 1
    assert (tmp_path / "done").exists()


def test_what_the_output_cannot_encode_is_replaced(tmp_path):
    done = speak(tmp_path, 1, {"PYTHONIOENCODING": "latin-1"}, capture_output=True)
    assert done.stdout.decode("latin-1") == "? é\n"
    assert done.stderr.decode("latin-1") == "? é\nerror: no ?\n"
    done = speak(
        tmp_path, 1, {"PYTHONIOENCODING": "ascii", "PYTHONUNBUFFERED": "1"}, capture_output=True
    )
    assert done.stdout == b"? ?\n"


# ---- What is written ----


def test_no_text_breaks_a_markdown_table():
    table = markdown_table(["a|b", "c"], [["x\ny", "|"], ["a\\|b", 1.0]])
    assert table.splitlines() == [
        r"| a\|b | c |",
        "| --- | --- |",
        r"| x y | \| |",
        r"| a\\\|b | 1.0000 |",
    ]


def test_a_code_span_holds_any_text():
    assert code("a b") == "`a b`" and code("") == "`  `"
    assert code("a`b") == "`` a`b ``" and code("``") == "``` `` ```" and code("a\r\nb") == "`a b`"


def test_a_report_takes_a_path_that_is_no_utf_8(tmp_path):
    write_report(tmp_path, "x", "Command: a\udcff")
    assert (tmp_path / "report.md").read_text("utf-8") == "# x\n\nCommand: a?\n"


def test_dollars_in_a_label_are_no_mathematics(tmp_path):
    draw_curves(tmp_path / "x.png", {r"$\x$": [(0, 1)]}, "$a_$", "b")


# ---- Checkpoints under any path ----


def state_of(value):
    params = {"w": jnp.full(3, float(value)), "inner": {"a/b": jnp.ones((2, 2))}}
    return TrainState(jnp.int32(value), jax.random.key(0), params, ())


@pytest.mark.parametrize("name", ODD_FOLDERS)
def test_a_checkpoint_is_read_under_any_path_and_where_it_is_moved(name, tmp_path):
    for saved, moved in ((name, "plain"), ("other", f"{name} moved")):
        kept = Checkpoints(tmp_path / saved / "last", keep=1)
        for value in (1, 2):
            kept.save(state_of(value), {"epoch": value})
        state, _ = kept.restore(state_of(0))
        assert state.params["w"].tolist() == [2, 2, 2]
        kept.close()
        assert [path.name for path in (tmp_path / saved / "last").iterdir()] == ["2"]
        (tmp_path / saved).rename(tmp_path / moved)
        state, record = Checkpoints(tmp_path / moved / "last", keep=1).restore(state_of(0))
        assert (int(state.step), record) == (2, {"epoch": 2})


# ---- Settings of JAX ----


def test_every_new_array_names_its_dtype():
    # Where none is named, JAX_ENABLE_X64 makes it 64 bits wide, which no carry of 32 bits takes.
    unnamed = {
        "jnp.zeros": 1,
        "jnp.ones": 1,
        "jnp.full": 2,
        "jnp.arange": 3,
    }  # arguments without it
    unnamed |= {"jax.random.normal": 2, "jax.random.uniform": 2, "self.param": 3}
    # The minimal files are for reading, and are not run so.
    for path in [*ROOT.glob("jrec/**/*.py"), *ROOT.glob("experiments/**/*.py")]:
        if path.parent.name == "minimal":
            continue
        for call in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(call, ast.Call):
                most = unnamed.get(ast.unparse(call.func), -1)
                names = [keyword.arg for keyword in call.keywords]
                assert len(call.args) > most or "dtype" in names, f"{path}:{call.lineno}"


def test_ranks_are_the_same_under_x64():
    random = np.random.default_rng(0)
    user, item = random.normal(size=(3, 4)), random.normal(size=(300, 4))
    given = [np.float32(user), np.float32(item), np.zeros(300, np.float32)]
    given += [np.int32([[1], [7], [9]]), np.ones((3, 1), bool)]
    ranks = jax.jit(partial(target_ranks, item_block=128))
    rank, _ = ranks(*given)
    with jax.enable_x64(True):
        wide, _ = ranks(*given)
    assert wide.dtype == jnp.int32 and wide.tolist() == rank.tolist()


RATINGS = ["--dataset", "synthetic", "--synthetic.users", "30", "--synthetic.items", "20"]
RATINGS += ["--synthetic.ratings", "600"]
CLICKS = ["--synthetic.users", "40", "--synthetic.items", "30", "--synthetic.clicks", "8"]
CLICKS += ["--item-width", "8", "--state-width", "8", "--tower", "8", "--batch-size", "64"]
PAGES = ["--synthetic.users", "60", "--synthetic.items", "40", "--synthetic.pages", "8"]
PAGES += ["--synthetic.slots", "4", "--tower", "8"]
SIZES = ["--sizes.network", "10", "--sizes.hottest", "5", "--sizes.similar", "2"]
ONE = ["--epochs", "1"]
SYSTEMS = {
    "fusion": ["fusion", "train", *RATINGS, *ONE],
    "fusion-improved": ["fusion", "train", "--preset", "improved", *RATINGS, *ONE],
    "mlp": ["embedding_mlp", "train", *RATINGS, *ONE, "--hidden", "8"],
    "mlp-improved": ["embedding_mlp", "train", "--preset", "improved", *RATINGS, *ONE],
    "autoencoder": ["autoencoder", "train", *RATINGS, *ONE, "--hidden", "8"],
    "autoencoder-improved": ["autoencoder", "train", "--preset", "improved", *RATINGS, *ONE],
    "candidates": ["candidates", "train", *CLICKS, *ONE],
    "candidates-source": ["candidates", "train", "--preset", "source", *CLICKS, *ONE],
    "ranking": ["ranking", "train", *PAGES, *ONE, "--click-weight", "0.5"],
    "two-stages": ["two_stages", "train", *PAGES, *SIZES, *ONE, "--first-epochs", "1"],
    "rate": ["baselines", "rate", "--method", "matrix-factorisation", *RATINGS],
    "rank": ["baselines", "rank", "--method", "implicit-als", *RATINGS],
}


@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_runs_in_unusual_surroundings(system, tmp_path, tmp_path_factory):
    module, *flags = SYSTEMS[system]
    run_dir = tmp_path / "a [1] é🎬"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("LANG", "LC_", "XDG"))}
    environment |= {"LC_ALL": "C", "PYTHONIOENCODING": "latin-1"}
    environment |= {"JAX_ENABLE_X64": "1", "JAX_DEBUG_NANS": "1"}
    environment["HOME"] = str(Path(os.devnull) / "home")  # no folder, and none that could be made
    if system != "fusion":  # elsewhere Matplotlib need not list its fonts again
        environment["MPLCONFIGDIR"] = str(tmp_path_factory.getbasetemp() / "matplotlib")
    command = [sys.executable, "-m", f"experiments.{module}", *flags, "--run-dir", str(run_dir)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True)
    said = done.stdout.decode("latin-1")
    assert done.returncode == 0, done.stderr.decode("latin-1")
    assert "run directory: " in said and "a [1] é?" in said
    results = json.loads((run_dir / "results.json").read_text("utf-8"))
    assert "a [1] é🎬" in results["command"] and (run_dir / "report.md").exists()
