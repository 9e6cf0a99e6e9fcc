"""Do the tests see faults? Small faults in losses, samplers and metrics, one at a time, and what the tests say.

    python -m experiments.mutants --out mutants

Each module's tests run against copies of the tree that have one fault each (`experiments.mutants_changes`). A
fault is killed if a test fails; one that no test sees is a survivor and is listed. Faults that change nothing
that a function promises are in `experiments.mutants_modules`, each with its reason; they are printed too.
"""

import importlib
import os
import random
import shutil
import signal
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

import hypothesis
import jax
import pytest
from rich.console import Console

from experiments.mutants_changes import Change, changes
from experiments.mutants_modules import EQUIVALENT, TESTS
from jrec.command_line import parse_command
from jrec.console import plain_console
from jrec.errors import InputError, run_command
from jrec.files import new_folder, write_json
from jrec.report import markdown_table

_ROOT = Path(__file__).parents[1]
_KINDS = ("killed", "timeout", "survived", "equivalent")


@dataclass
class Mutants:
    """Put faults into losses, samplers and metrics, and run their tests."""

    out: Path
    """Folder to make for `mutants.md` and `mutants.json`."""
    only: list[str] = field(default_factory=list)
    """Modules, `sampling` or `evaluate/ranks` for example; all by default."""
    each: int = 60
    """Faults a module, drawn without replacement; 0 for all."""
    seed: int = 0
    """Of the draw."""


def run_tests(tree: Path, tests: tuple[str, ...], cache: Path, seconds: float) -> str:
    """`killed`, `survived` or `timeout`: what tests say in a tree, in a child of this process.

    The child has JAX and pytest imported and `jrec` not: it imports the tree's. This process must not
    have computed anything with JAX, as a child could not then.
    """
    child = os.fork()
    if child == 0:
        os.setsid()  # so that what the tests start ends with them
        code = 1
        try:
            code = _run_here(tree, tests, cache)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                # Any other end is a kill, also a module that cannot be imported.
                return "killed" if os.waitstatus_to_exitcode(status) else "survived"
            time.sleep(0.02)
    except BaseException:  # Ctrl-C does not reach a session of its own
        os.killpg(child, signal.SIGKILL)
        raise
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "timeout"


def _run_here(tree: Path, tests: tuple[str, ...], cache: Path) -> int:
    log = os.open(tree / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    for name in [n for n in sys.modules if n.partition(".")[0] in ("jrec", "experiments")]:
        del sys.modules[name]
    os.chdir(tree)
    sys.path.insert(0, str(tree))
    os.environ["PYTHONPATH"] = str(tree)
    jax.config.update("jax_platforms", "cpu")
    # Nothing here is timed: the cheapest compilation will do, on the devices of `tests/conftest.py`.
    devices, level = "xla_force_host_platform_device_count=8", "xla_backend_optimization_level=0"
    os.environ["XLA_FLAGS"] = f"--{devices} --{level}"
    # What a fault leaves as it was is compiled once for all children.
    jax.config.update("jax_compilation_cache_dir", str(cache))
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    found = importlib.import_module("jrec").__file__
    if not Path(str(found)).is_relative_to(tree):
        raise ImportError(f"{found} is not the copy's")
    parts = [test.partition("::") for test in tests]
    where = [f"tests/test_{file}.py{colons}{one}" for file, colons, one in parts]
    options = ["-x", "--tb=line", "-p", "no:cacheprovider", "-p", "no:xdist"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # plugins are imported already
    return int(pytest.main([*options, *where], plugins=[_FirstFailure()]))


class _FirstFailure:
    """Lets hypothesis stop at a failing example, of which it would else look for the smallest."""

    def pytest_sessionstart(self) -> None:  # `tests/conftest.py` has set its profile
        phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
        now = hypothesis.settings.default
        hypothesis.settings.register_profile("first failure", now, phases=phases)
        hypothesis.settings.load_profile("first failure")


def of_module(
    settings: Mutants, name: str, tree: Path, cache: Path, console: Console
) -> list[tuple[Change, str, str]]:
    """(fault, what came of it, reason if it is equivalent) of a module's faults."""
    path = tree / "jrec" / f"{name}.py"
    source = path.read_bytes()
    found = changes(source)
    if 0 < settings.each < len(found):
        found = random.Random(f"{settings.seed} {name}").sample(found, settings.each)
    start = time.monotonic()
    sys.dont_write_bytecode = False
    if run_tests(tree, TESTS[name], cache, 3600) != "survived":
        raise InputError(f"The tests of {name} fail without a fault; {_tail(tree)}")
    limit = 3 * (time.monotonic() - start) + 20
    # A fault of the same length within the same second would else be taken for the one before.
    sys.dont_write_bytecode = True
    for stale in path.parent.glob(f"__pycache__/{path.stem}.*"):
        stale.unlink()
    rows = []
    for change in sorted(found, key=lambda change: change.start):
        reason = EQUIVALENT.get(name, {}).get(str(change), "")
        kind = "equivalent"
        if not reason:
            path.write_bytes(change.made(source))
            kind = run_tests(tree, TESTS[name], cache, limit)
        rows.append((change, kind, reason))
        if kind == "survived":
            console.print(f"jrec/{name}.py:{change.line}: {change}")
    path.write_bytes(source)
    return rows


def _tail(tree: Path) -> str:
    return "\n".join((tree / "log").read_text(encoding="utf-8").splitlines()[-15:])


def mutants(settings: Mutants) -> None:
    """Runs all of it and writes `mutants.md`."""
    unknown = [name for name in settings.only if name not in TESTS]
    if unknown or settings.each < 0:
        raise InputError(
            f"--only takes {', '.join(TESTS)}, and --each 0 or more; {' '.join(unknown)} is none."
        )
    console = plain_console(soft_wrap=True)
    for module in ("flax.linen", "optax", "pandas", "scipy.stats", "tyro"):
        importlib.import_module(module)  # once, not in every child
    done: dict[str, list[tuple[Change, str, str]]] = {}
    with new_folder(settings.out) as folder:
        tree, cache = folder.absolute() / "tree", folder.absolute() / "cache"
        ignored = shutil.ignore_patterns("__pycache__")
        for part in ("jrec", "experiments", "tests"):
            shutil.copytree(_ROOT / part, tree / part, ignore=ignored)
        shutil.copy(_ROOT / "pyproject.toml", tree)
        for name in settings.only or TESTS:
            done[name] = of_module(settings, name, tree, cache, console)
            console.print(" | ".join(map(str, _row(name, done[name]))))
        shutil.rmtree(tree)
        shutil.rmtree(cache, ignore_errors=True)
        text = _report(done)
        (folder / "mutants.md").write_text(text, encoding="utf-8")
        listed = {n: [(c.line, str(c), k, why) for c, k, why in r] for n, r in done.items()}
        write_json(folder / "mutants.json", {"seed": settings.seed, "modules": listed})
    console.print(text)


def _row(name: str, rows: list[tuple[Change, str, str]]) -> tuple[object, ...]:
    killed, timeout, survived, equivalent = (sum(k == kind for _, k, _ in rows) for kind in _KINDS)
    counted = killed + timeout + survived
    share = f"{100 * (killed + timeout) / counted:.1f} %" if counted else ""
    return name, counted, killed, timeout, survived, share, equivalent


def _report(done: dict[str, list[tuple[Change, str, str]]]) -> str:
    header = ("module", "mutants", "killed", "timeout", "survived", "share", "equivalent, left out")
    rows = [_row(name, rows) for name, rows in done.items()]
    rows.append(_row("all", [row for rows in done.values() for row in rows]))
    lines = [markdown_table(header, rows), "", "Survivors:", ""]
    for kind in ("survived", "equivalent"):
        for name, found in done.items():
            for change, what, why in found:
                if what == kind:
                    after = f" ({why})" if why else ""
                    lines.append(f"- jrec/{name}.py:{change.line}: `{change}`{after}")
        lines += ["", "Left out, as they change nothing:", ""] if kind == "survived" else []
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """The command line; `arguments` are the process's own by default."""
    mutants(parse_command((Mutants,), __doc__, arguments))


if __name__ == "__main__":
    run_command(main)
