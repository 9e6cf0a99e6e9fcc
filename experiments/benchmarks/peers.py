"""The libraries that benchmarks compare jrec with; what is not installed is left out."""

import importlib.util
import subprocess
import sys
from pathlib import Path

_FIND = "import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)"


def has_peer(library: str, python: Path | None = None) -> bool:
    """Returns whether a Python, by default this one, has a library; says so where it has not."""
    if python is None or python == Path(sys.executable):
        found = importlib.util.find_spec(library) is not None
    else:
        found = subprocess.run([python, "-c", _FIND, library]).returncode == 0
    if not found:
        print(f"{library} is not installed{f' for {python}' if python else ''}: it is left out.")
    return found
