"""Small faults of a Python source: which there are, and the source with one of them in it."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Add,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitOr,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
_PAIRS = (
    ("min", "max"),
    ("minimum", "maximum"),
    ("argmin", "argmax"),
    ("any", "all"),
    ("zeros", "ones"),
    ("zeros_like", "ones_like"),
    ("sum", "mean"),
    ("left", "right"),
    ("log1p", "log"),
)
_NAMES = {a: b for pair in _PAIRS for a, b in (pair, pair[::-1])} | {"logaddexp": "maximum"}
_THROUGH = ("stop_gradient", "abs", "sqrt", "log", "exp", "sort", "clip", "rint", "unique")
"""Functions of one argument (or one that counts) that are left out, as `stop_gradient(x)` -> `x`."""


@dataclass(frozen=True)
class Change:
    """One fault: bytes `start` to `end` of a source, from line `line` on, become `new`.

    `within` is the expression around a number or a name, which alone says little.
    """

    line: int
    start: int
    end: int
    old: str
    new: str
    within: str = ""

    def made(self, source: bytes) -> bytes:
        """The source with the fault."""
        return source[: self.start] + f"({self.new})".encode() + source[self.end :]

    def __str__(self) -> str:
        return f"{self.old} -> {self.new}" + (f" in {self.within}" if self.within else "")


def changes(source: bytes) -> list[Change]:
    """All faults that this module knows of, in the order of the source.

    Comparisons, arithmetic and bit operators, signs, `and` and `or`, `not`, numbers +- 1 and truth
    values (defaults of arguments, too), conditions, either branch of `where` and of `a if b else c`,
    pairs such as min and max, functions left out. Annotations, decorators, docstrings, messages of
    exceptions and the last lines of a command stay as they are: no test need know them.
    """
    lines = source.splitlines(keepends=True)
    begin = [0]
    for line in lines:
        begin.append(begin[-1] + len(line))
    found = []
    for node, around in _expressions(ast.parse(source)):
        start = begin[node.lineno - 1] + node.col_offset
        end = begin[cast(int, node.end_lineno) - 1] + cast(int, node.end_col_offset)
        old = ast.unparse(node)
        small = isinstance(node, ast.Constant | ast.Name) and isinstance(around, ast.expr)
        within = ast.unparse(around) if small else ""
        new = [other for other in _others(node) if other != old]
        found += [Change(node.lineno, start, end, old, other, within) for other in new]
    return sorted(set(found), key=lambda change: (change.start, change.end, change.new))


def _expressions(
    node: ast.AST, around: ast.AST | None = None
) -> Iterator[tuple[ast.expr, ast.AST]]:
    """Expressions whose value counts and what is around them, an outer one first."""
    around = around if around and isinstance(node, ast.keyword | ast.UnaryOp) else node
    for name, field in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        for child in field if isinstance(field, list) else [field]:
            is_command = isinstance(child, ast.If) and "__name__" in ast.unparse(child.test)
            if not isinstance(child, ast.AST) or is_command:
                continue
            if isinstance(child, ast.Raise | ast.JoinedStr):
                continue
            if isinstance(child, ast.expr):
                yield child, around
            yield from _expressions(child, around)
            if isinstance(child, ast.If) and not isinstance(child.test, ast.Compare | ast.UnaryOp):
                yield ast.copy_location(_Condition(operand=child.test), child.test), child


class _Condition(ast.UnaryOp):
    """The test of an `if`, which may be turned round."""

    def __init__(self, operand: ast.expr) -> None:
        super().__init__(ast.UAdd(), operand)


def _others(node: ast.expr) -> Iterator[str]:
    """What may stand in the place of an expression."""
    match node:
        case _Condition():
            yield f"not ({ast.unparse(node.operand)})"
        case ast.Compare(ops=[op], left=left, comparators=right):
            for other in _COMPARISONS[type(op)]:
                yield ast.unparse(ast.Compare(left, [other()], right))
        case ast.Compare(ops=ops, left=left, comparators=right):
            for k, op in enumerate(ops):
                other = [*ops[:k], _COMPARISONS[type(op)][0](), *ops[k + 1 :]]
                yield ast.unparse(ast.Compare(left, other, right))
        case ast.BinOp(op=op, left=left, right=right) if type(op) in _OPERATORS:
            yield ast.unparse(ast.BinOp(left, _OPERATORS[type(op)](), right))
        case ast.UnaryOp(op=ast.USub() | ast.Invert() | ast.Not(), operand=operand):
            yield ast.unparse(operand)
        case ast.BoolOp(op=op, values=values):
            other = ast.Or() if isinstance(op, ast.And) else ast.And()
            yield ast.unparse(ast.BoolOp(other, values))
        case ast.Constant(value=bool(value)):
            yield str(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield from (repr(value + 1), repr(value - 1))
        case ast.Constant(value=str(value)) if value in ("left", "right"):
            yield repr(_NAMES[value])
        case ast.IfExp(body=body, orelse=orelse):
            yield from map(ast.unparse, (body, orelse))
        case ast.Call(func=ast.Attribute(attr="where"), args=[_, then, otherwise]):
            yield from map(ast.unparse, (then, otherwise))
        case ast.Call(func=ast.Attribute(attr=name), args=[first, *_]) if name in _THROUGH:
            yield ast.unparse(first)
        case ast.Attribute(value=value, attr=name) if name in _NAMES:
            yield ast.unparse(ast.Attribute(value, _NAMES[name]))
        case ast.Name(id=name) if name in _NAMES:
            yield _NAMES[name]
