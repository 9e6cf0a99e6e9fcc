"""What there is to run, one line each: `python -m experiments`."""

import ast
import difflib
import sys
from pathlib import Path

from jrec.errors import InputError, run_command

_ROOT = Path(__file__).parents[1]
# Title -> how the names of its modules begin; the longest beginning decides.
_GROUPS = {
    "Systems": "experiments.",
    "Each system in one file": "experiments.minimal",
    "Benchmarks": "experiments.benchmarks",
    "Tools": "jrec.",
}


def commands() -> dict[str, str]:
    """Module -> first line of its docstring, of every module that is a command; nothing is imported."""
    found = {}
    for path in sorted([*_ROOT.glob("experiments/**/*.py"), *_ROOT.glob("jrec/**/*.py")]):
        source = path.read_text(encoding="utf-8")
        is_command = 'if __name__ == "__main__":' in source and path != Path(__file__)
        if is_command:
            module = ".".join(path.relative_to(_ROOT).with_suffix("").parts)
            described = ast.get_docstring(ast.parse(source)) or ""
            found[module.removesuffix(".__main__")] = described.split("\n")[0]
    return found


def _prefix(name: str) -> str:
    return max(filter(name.startswith, _GROUPS.values()), key=len)


def main() -> None:
    """Prints the list; a word that is none of it is answered with the nearest."""
    found = commands()
    for word in sys.argv[1:2]:
        if word not in ("--help", "-h"):
            near = difflib.get_close_matches(f"experiments.{word}", found, 1, 0.5)
            meant = f"; did you mean python -m {near[0]}" if near else ""
            raise InputError(f"python -m experiments only lists and takes no {word!r}{meant}.")
    width = max(map(len, found)) + len("python -m ")
    for title, prefix in _GROUPS.items():
        names = [name for name in found if prefix == _prefix(name)]
        lines = [f"  {f'python -m {name}':{width}}  {found[name]}" for name in names]
        if lines:
            print("\n".join([title, *lines, ""]))
    print("Each explains its settings with --help.")


if __name__ == "__main__":
    run_command(main)
