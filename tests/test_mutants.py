"""The faults that `python -m experiments.mutants` puts into a source."""

import ast
from pathlib import Path

from experiments.mutants_changes import changes
from experiments.mutants_modules import EQUIVALENT, TESTS

ROOT = Path(__file__).parents[1]
SOURCE = '''
"""3 + 4 is text."""
def f(x: "int | None" = 2) -> int:
    if x < 1 and é:
        raise ValueError(f"{1 + 1}")
    return jnp.where(x, 0.5, -x) if min(x) else stop_gradient(True)
if __name__ == "__main__":
    f(7)
'''


def test_each_fault_is_one_change_of_what_counts():
    found = {str(change) for change in changes(SOURCE.encode())}
    assert found >= {
        "2 -> 3",
        "2 -> 1",
        "x < 1 -> x <= 1",
        "x < 1 -> x >= 1",
        "x < 1 and é -> x < 1 or é",
        "x < 1 and é -> not (x < 1 and é)",
        "jnp.where(x, 0.5, -x) -> 0.5",
        "jnp.where(x, 0.5, -x) -> -x",
        "-x -> x",
        "min -> max in min(x)",
        "True -> False in stop_gradient(True)",
    }
    assert not any(text[0] in "347'" for text in found)
    for change in changes(SOURCE.encode()):
        changed = change.made(SOURCE.encode()).decode()
        assert f"({change.new})" in changed and ast.parse(changed)
        assert changed.count("\n") == SOURCE.count("\n") and len(changed) != len(SOURCE)


def test_what_is_left_out_is_still_there():
    for name, places in EQUIVALENT.items():
        there = {str(change) for change in changes((ROOT / "jrec" / f"{name}.py").read_bytes())}
        assert places.keys() <= there, name
    for test in {test for tests in TESTS.values() for test in tests}:
        file, _, function = test.partition("::")
        assert f"def {function}" in (ROOT / "tests" / f"test_{file}.py").read_text(encoding="utf-8")
