"""Every command of the README runs, in its order and in one folder, and so does its Python.

Later commands use what earlier ones wrote, as a reader's do. The data are small archives made here, under
the README's names and with the ids that it asks for; `SHORT` appends to a command what makes it short, and
never takes a word away. Not run here: those of "Your own data" (tests/test_readme.py runs them), and of `make`
all but the commands that it starts; `make test` and `make fuzz` are the tests themselves.
"""

import gzip
import hashlib
import importlib
import importlib.util
import re
import runpy
import shlex
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from experiments.__main__ import commands as known_commands
from experiments.autoencoder import ablations as autoencoder_ablations
from experiments.benchmarks import __main__ as benchmarks
from experiments.ranking import table as ranking_table
from jrec.data import grouplens
from jrec.data.click_truth import ClickSize
from jrec.data.kuairand import LOG
from jrec.data.kuairand_tables import USERS, VIDEOS
from tests.click_writer import make_click_log
from tests.conftest import GENRES, TITLES
from tests.test_click_sources import LOG_HEADER, MAY, USER_HEADER, VIDEO_HEADER
from tests.test_netflix import as_official, toy

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
HAS_FAISS = importlib.util.find_spec("faiss") is not None
USER_COUNT, ITEM_COUNT = 30, 20

# What a command begins with -> what is appended to it; all that fit are.
SHORT = {
    "experiments.fusion train": "--epochs 2",
    "experiments.autoencoder train": "--epochs 1 --hidden 8",
    "experiments.autoencoder.ablations": "--epochs 1 --studies dropout",
    "experiments.candidates train": "--epochs 1 --length 8 --item-width 8 --layers 1",
    "experiments.candidates train --run-dir": "--encoder mean --synthetic.users 30 --synthetic.items 20 "
    "--synthetic.clicks 4 --synthetic.categories 3 --synthetic.groups 2",
    "experiments.candidates.compare_losses": "--epochs 1 --encoders mean --losses full-softmax",
    "experiments.ranking train": "--epochs 1 --tower 8",
    "experiments.ranking train --run-dir": "--synthetic.users 30 --synthetic.items 20",
    # The earlier sequences need pyarrow; the rest makes it the table's network, which is compiled once.
    "experiments.ranking train --preset": "--no-earlier --batch-size 128 --completion-weight 10",
    "experiments.ranking.table": "--epochs 1 --seeds 0 --no-ablations --no-trees --no-earlier",
    "experiments.two_stages train": "--epochs 1 --tower 8 --first-epochs 1 --first-encoder mean "
    "--first-width 8 --sizes.network 10 --sizes.hottest 5 --sizes.similar 2 --sizes.events 20",
    "experiments.two_stages train --run-dir": "--synthetic.users 30 --synthetic.items 20",
    "experiments.two_stages train --dataset": "--no-earlier",
    "experiments.embedding_mlp train": "--epochs 1",
    "experiments.minimal.fusion": "--epochs 1",
    "experiments.results": "--ml-100k cache/ml-100k.zip --seeds 1 --quick --only biases popularity "
    "--tasks rating-random next-item",
    "experiments.benchmarks": "--only loading",
    "tests.faults": "--only archives --damages 5",
    "jrec.data.show_clicks": "--synthetic.users 30 --synthetic.items 20",
}


def steps():
    """The README's commands and pieces of Python in their order, each once: ("$", words) or (">>>", text).

    `make NAME` is the line of the Makefile that it starts. "…" after --resume stands for the flags of the run.
    """
    own = README.index("## Your own data"), README.index("## Experiments")
    text = README[: own[0]] + README[own[1] :]
    found = []
    for kind, block, inline in re.findall(
        r"^```(\w*)\n(.*?)^```|`((?:python -m|make) [^`\n]+)`", text, re.MULTILINE | re.DOTALL
    ):
        if kind == "python":
            found.append((">>>", block))
            continue
        for line in (block or inline).splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["make"]:
                rule = re.search(rf"^{words[1]}:.*\n(?:\t.*\n)+", MAKEFILE, re.MULTILINE)
                assert rule, f"the Makefile has no {words[1]}"
                words = shlex.split(rule[0].replace("$(BENCH)", "").splitlines()[-1])
            if words[:1] in (["python"], ["$(BIN)/python"], [".venv-bench/bin/python"]):
                found.append(("$", tuple(words[2:])))
    first = {}
    for kind, step in found:
        # Where a run goes, and the seed that is the default anyway, make no other command.
        plain = step if kind == ">>>" else re.sub(r" --run-dir \S+| --seed 0", "", " ".join(step))
        first.setdefault(plain, (kind, step))
    return [step for plain, step in first.items() if not plain.startswith("pytest")]


def short(words):
    """The command's words, and those that make it short."""
    command = " ".join(words)
    more = [some for key, some in SHORT.items() if command.startswith(key)]
    return [*words, *" ".join(more).split()]


def run(words, monkeypatch):
    """Calls the program's `main` with these words."""
    module, *arguments = words
    name = f"{module}.__main__" if hasattr(importlib.import_module(module), "__path__") else module
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    if module.startswith("experiments.minimal."):  # its `main` takes the settings
        monkeypatch.delitem(sys.modules, module, raising=False)
        runpy.run_module(module, run_name="__main__")
        return
    try:
        importlib.import_module(name).main()
    except SystemExit as end:
        assert end.code == 0 and "--help" in arguments, f"it ended with code {end.code}"


def crash(run_dir):
    """Leaves of a finished run what one has that was killed in its last epoch."""
    steps = sorted(int(path.name) for path in (run_dir / "last").iterdir() if path.name.isdigit())
    assert len(steps) > 1
    shutil.rmtree(run_dir / "last" / str(steps[-1]))
    shutil.rmtree(run_dir / "export")
    for name in ("results.json", "report.md", "per_user.npz"):
        (run_dir / name).unlink()


def zipped(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, lines in files.items():
            archive.writestr(name, "\n".join(lines) + "\n")


def write_data(folder, ml_100k):
    """All files that the README names, and the cache with MovieLens-100K."""
    generator = np.random.default_rng(0)

    def chosen(items, count):
        return (items[k] for k in generator.permutation(ITEM_COUNT)[:count])

    people = range(1, USER_COUNT + 1)
    items = [*range(1, ITEM_COUNT - 2), 661, 783, 1193]
    ratings = [
        f"{u}::{f}::{generator.integers(1, 6)}::{978300000 + 60 * generator.integers(10**5)}"
        for u in people
        for f in chosen(items, 12)
    ]
    titles = [f"{f}::{TITLES[k % 9]}::{'|'.join(GENRES[k % 5])}" for k, f in enumerate(items)]
    users = [f"{u}::{'FM'[u % 2]}::25::{u % 21}::12345" for u in people]
    tables = {"ml-1m/users.dat": users, "ml-1m/movies.dat": titles, "ml-1m/ratings.dat": ratings}
    zipped(folder / "ml-1m.zip", tables)
    of_20m = ["userId,movieId,rating,timestamp", *(row.replace("::", ",") for row in ratings)]
    titles = [f'{f},"{TITLES[k % 9]}",{"|".join(GENRES[k % 5])}' for k, f in enumerate(items)]
    tables = {"ratings.csv": of_20m, "movies.csv": ["movieId,title,genres", *titles]}
    zipped(folder / "ml-20m.zip", {f"ml-20m/{name}": lines for name, lines in tables.items()})
    with gzip.open(folder / "ml-1m_sas.txt.gz", "wt") as file:
        file.writelines(f"{u} {f}\n" for u in people for f in chosen(items, 12))
    (folder / "my_ratings.txt").write_text("783 5\n661 3\n")
    as_official(folder / "nf_prize_dataset", toy())
    make_click_log(folder / "click.log", ClickSize(200, ITEM_COUNT, 5, 3, 2), 0)
    write_kuairand(folder / "KuaiRand-Pure.zip", generator)
    (folder / "cache").mkdir()
    tables = {f"ml-100k/{p.name}": p.read_text("latin-1").splitlines() for p in ml_100k.iterdir()}
    zipped(folder / "cache" / "ml-100k.zip", tables)


def write_kuairand(path, generator):
    """Three impressions a user and day from 23 April to 8 May."""
    videos, shown = [*range(10, 8 + ITEM_COUNT), 1305, 4226], []
    for day in range(-8, 8):
        for user in range(USER_COUNT):
            for k in generator.permutation(ITEM_COUNT)[:3]:
                moment = 1000 * (MAY + 86_400 * day + generator.integers(86_400))
                click, like, long = generator.integers(0, 2, 3)
                shown.append(
                    f"{user},{videos[k]},20220430,900,{moment},{click},{like},0,0,0,0,{click * long},"
                    f"{9000 * click},10000,0,0,0,0,1"
                )
    attributes = '"(0,10]",2,"[1,10)",3,"[1,5)",700,366-730,' + ",".join(["1"] * 18)
    users = [f"{u},full_active,0,1,0,{u},{attributes}" for u in range(USER_COUNT)]
    table = [
        f"{v},{v % 4},NORMAL,2022-04-10,Web,0.0,10000.0,720.0,1280.0,{v % 3},9.0,{v % 5}"
        for v in videos
    ]
    tables = {LOG: [LOG_HEADER, *shown], USERS: [USER_HEADER, *users]}
    tables[VIDEOS] = [VIDEO_HEADER, *table]
    zipped(path, {f"KuaiRand-Pure/data/{name}": lines for name, lines in tables.items()})


def run_command_of_the_readme(words, begun, monkeypatch, capsys):
    """One command; checks that what it names to be written is there, or that it says something."""
    if words[-1] == "…":
        run_dir = words[words.index("--run-dir") + 1]
        crash(Path(run_dir))
        words = (*begun[run_dir], "--resume")
    else:
        words = short(words)
    run(words, monkeypatch)
    said = capsys.readouterr().out
    assert said.strip()
    for flag in ("--run-dir", "--out"):
        if flag in words:
            place = words[words.index(flag) + 1]
            assert Path(place).exists()
            if words[1] == "train":
                begun[place] = words
                assert (Path(place) / "report.md").exists()
                assert (Path(place) / "export").exists() or "ranking" in words[0]


def run_python_of_the_readme(text, monkeypatch):
    """One piece of Python; its names when it has run."""
    if "load_model_index" in text:
        if HAS_FAISS:
            build = "search --run-dir runs/next --user 1 --index index --build hnsw"
            run(["experiments.candidates", *build.split()], monkeypatch)
        else:  # the extra `ann`, of which the README speaks there
            text = re.sub(r", index=.*\)\)$", ")", text, flags=re.MULTILINE)
    found = {}
    exec(text, found)
    return found


@pytest.mark.slow
def test_all_of_it_runs_in_its_order(tmp_path, ml_100k, monkeypatch, capsys):
    write_data(tmp_path, ml_100k)
    archive = tmp_path / "cache" / "ml-100k.zip"
    md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    monkeypatch.setitem(grouplens.PUBLISHED_MD5, "ml-100k", md5)
    monkeypatch.setenv("JREC_CACHE", str(archive.parent))
    # Programs that train many networks: one of them, and the one benchmark that is asked for, small.
    monkeypatch.setattr(ranking_table, "TOWERS", {"8": (8,)})
    monkeypatch.setattr(
        autoencoder_ablations, "variants", lambda study: {"0.5": {study: 0.5, "hidden": (8,)}}
    )
    monkeypatch.setattr(benchmarks, "machine", lambda: [])
    monkeypatch.setitem(benchmarks.COMMANDS, "loading", ("loading", "--rows", "99", "--repeats", "1"))  # fmt: skip
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # for the processes that commands start elsewhere
    monkeypatch.chdir(tmp_path)
    begun, results = {}, []
    for kind, step in steps():
        try:
            if kind == "$":
                run_command_of_the_readme(step, begun, monkeypatch, capsys)
            else:
                results.append(run_python_of_the_readme(step, monkeypatch))
        except BaseException as error:
            error.add_note(f"in the README: {step if kind == '>>>' else ' '.join(step)}")
            raise
    rated, nominated, listed, ranked = results
    assert list(listed["lists"].columns) == ["user", "rank", "item", "score", "rule"]
    assert len(rated["items"]) > 7 and rated["notes"] == []  # 12 of 20 are rated
    assert len(nominated["found"].items) == 10 and nominated["found"].notes == []
    assert len(ranked["lines"]) > 5 and ranked["notes"] == []


def test_the_readme_has_its_commands():
    found = [" ".join(step) for kind, step in steps() if kind == "$"]
    assert len(found) == 41 and len([kind for kind, _ in steps() if kind == ">>>"]) == 4
    assert found[0] == "experiments.fusion train --dataset ml-100k --preset improved"  # make run
    assert {command.split()[0] for command in found} - {
        "experiments",
        "tests.faults",
    } <= known_commands().keys()
    for key in SHORT:
        assert any(command.startswith(key) for command in found), key
