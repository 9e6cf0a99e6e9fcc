"""Draws the two diagrams of the documentation: how a run flows, and what imports what, read from the code.

python -m experiments.diagrams --out docs
"""

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jrec.command_line import parse_command
from jrec.errors import run_command
from jrec.files import replacing

_ROOT = Path(__file__).parents[1]

# Top-level modules of jrec by what they are about (all others are mathematics); folders are groups.
_GROUPS = {
    "files, errors, flags": ("errors", "files", "command_line", "console", "finite"),
    "reports and exports": (
        *("report", "progress", "candidate_serving", "candidate_features", "two_stages"),
    ),
    "baselines": ("centring",),
}


@dataclass
class Diagrams:
    """Draw `architecture.png` and `imports.png`."""

    out: Path = Path("docs")
    """Folder to write to."""


def imports() -> dict[str, set[str]]:
    """Every module of `jrec` and `experiments` -> the modules of these that it imports, anywhere in its text."""
    files = [*_ROOT.glob("jrec/**/*.py"), *_ROOT.glob("experiments/**/*.py")]
    modules = {".".join(path.relative_to(_ROOT).with_suffix("").parts): path for path in files}
    modules = {name.removesuffix(".__init__"): path for name, path in modules.items()}
    found = {}
    for name, path in sorted(modules.items()):
        wanted: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                wanted |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                below = {f"{node.module}.{alias.name}" for alias in node.names}
                wanted |= below & modules.keys() or {node.module}
        found[name] = wanted & modules.keys() - {name}
    return found


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """Nodes of one cycle, in order; empty where there is none."""
    done: set[str] = set()

    def search(node: str, path: list[str]) -> list[str]:
        if node in path:
            return path[path.index(node) :]
        if node in done:
            return []
        for following in sorted(graph.get(node, ())):
            if found := search(following, [*path, node]):
                return found
        done.add(node)
        return []

    return next((found for node in sorted(graph) if (found := search(node, []))), [])


def group_of(module: str) -> str:
    """The box that a module stands in."""
    top, _, rest = module.partition(".")
    first = rest.partition(".")[0]
    if top == "experiments":
        return top
    if not first:
        return "files, errors, flags"
    if (_ROOT / top / first).is_dir():
        return first
    if first.endswith("export"):
        return "reports and exports"
    return next((g for g, names in _GROUPS.items() if first in names), "losses, sampling, tables")


def grouped(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """The same between groups."""
    found: dict[str, set[str]] = {group_of(module): set() for module in graph}
    for module, wanted in graph.items():
        found[group_of(module)] |= {group_of(other) for other in wanted} - {group_of(module)}
    return found


def levels(graph: dict[str, set[str]]) -> dict[str, int]:
    """Node -> the most steps down from it; all arrows go to lower levels. Needs a graph without cycles."""
    found: dict[str, int] = {}

    def level(node: str) -> int:
        if node not in found:
            found[node] = 1 + max((level(other) for other in graph[node]), default=-1)
        return found[node]

    for node in graph:
        level(node)
    return found


def draw_imports(path: Path, graph: dict[str, set[str]]) -> None:
    """Boxes by level, an arrow from who imports to what is imported; those implied by others left out."""
    height = levels(graph)
    rows = [sorted(n for n in graph if height[n] == k) for k in range(max(height.values()) + 1)]
    at = {}
    for k, row in enumerate(rows):
        for place, node in enumerate(row):
            at[node] = ((place + 1) / (len(row) + 1) * 10, k)
    figure, axes = _canvas(0.75 * len(rows))
    boxes = {node: _box(axes, x, y, node) for node, (x, y) in at.items()}
    for node, wanted in graph.items():
        implied = {far for other in wanted for far in _below(graph, other)}
        for other in sorted(wanted - implied):
            _arrow(axes, boxes[node], boxes[other])
    axes.set(xlim=(0, 10), ylim=(-0.6, len(rows) - 0.4), title="what imports what (arrows down)")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=100)


def _below(graph: dict[str, set[str]], node: str) -> set[str]:
    return graph[node] | {far for other in graph[node] for far in _below(graph, other)}


# x, y, what stands in the box, and the module that does it.
FLOW = [
    (1.4, 4, "archives, CSV, logs", "jrec.data.sources"),
    (4.4, 4, "typed columns, vocabularies,\nsplits", "jrec.data.ratings"),
    (7.8, 4, "arrays on the device", "jrec.train.rating_batches"),
    (7.8, 2.6, "chunk: gather, loss, update\n(one compiled loop)", "jrec.train.stream"),
    (4.4, 2.6, "epochs: order, validation,\nstop", "jrec.train.loop"),
    (1.4, 2.6, "checkpoints\nlast/, best/", "jrec.train.checkpoints"),
    (1.4, 1.2, "export: program + arrays", "jrec.serving.export"),
    (4.4, 1.2, "predict, rank, search, mine", "jrec.serving.candidate_lists"),
    (7.8, 1.2, "metrics, curves, report.md", "jrec.report"),
]
ARROWS = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 3), (4, 5), (5, 4), (5, 6), (6, 7), (4, 8)]


def draw_architecture(path: Path) -> None:
    """How a run flows from files to lists, each box with the module to read."""
    figure, axes = _canvas(4.2)
    boxes = [_box(axes, x, y, f"{text}\n{module}") for x, y, text, module in FLOW]
    for begin, end in ARROWS:
        _arrow(axes, boxes[begin], boxes[end])
    axes.set(xlim=(-0.2, 9.6), ylim=(0.5, 4.6), title="a run, from files to lists")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=100)


def _canvas(height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # slow to import

    figure = Figure(figsize=(9, height), layout="constrained")
    axes = figure.subplots()
    axes.axis("off")
    return figure, axes


def _box(axes: Any, x: float, y: float, text: str) -> Any:
    frame = {"boxstyle": "round,pad=0.5", "facecolor": "#eef3fa", "edgecolor": "#456"}
    return axes.text(x, y, text, ha="center", va="center", fontsize=8.5, bbox=frame, zorder=2)


def _arrow(axes: Any, begin: Any, end: Any) -> None:
    look = {"arrowstyle": "-|>", "color": "#567", "connectionstyle": "arc3,rad=0.08"}
    look |= {"patchA": begin.get_bbox_patch(), "patchB": end.get_bbox_patch(), "shrinkB": 3}
    axes.annotate("", xy=end.get_position(), xytext=begin.get_position(), arrowprops=look, zorder=1)


def main(arguments: list[str] | None = None) -> None:
    """The command line; `arguments` are the process's own by default."""
    settings = parse_command((Diagrams,), __doc__, arguments)
    settings.out.mkdir(parents=True, exist_ok=True)
    draw_architecture(settings.out / "architecture.png")
    draw_imports(settings.out / "imports.png", grouped(imports()))
    print(f"{settings.out}/architecture.png, {settings.out}/imports.png")


if __name__ == "__main__":
    run_command(main)
