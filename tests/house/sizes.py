"""Sizes that keep one purpose per file: `python -m tests.house.sizes` lists what is too large.

Lines of modules and classes, parameters of functions. Statements and complexity of functions are
ruff's (PLR0915, C901).
"""

import ast
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
CHECKED = ("engine", "tests", "benchmarks", "examples")
MODULE_LINES = 500
CLASS_LINES = 300
PARAMETERS = 6

_Function = ast.FunctionDef | ast.AsyncFunctionDef


def too_large(source: str) -> Iterator[tuple[int, str]]:
    """Yield (line, what is wrong) for each module, class and function over its limit."""
    lines = source.count("\n")
    if lines > MODULE_LINES:
        yield 1, f"module has {lines} lines, at most {MODULE_LINES}"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > CLASS_LINES:
                yield node.lineno, f"class {node.name} has {length} lines, at most {CLASS_LINES}"
        elif isinstance(node, _Function) and not _is_command(node):
            count = _parameters(node)
            if count > PARAMETERS:
                yield node.lineno, f"{node.name} has {count} parameters, at most {PARAMETERS}"


def _parameters(function: _Function) -> int:
    args = function.args
    named = [*args.posonlyargs, *args.args, *args.kwonlyargs]
    return sum(arg.arg not in ("self", "cls") for arg in named)


def _is_command(function: _Function) -> bool:
    """A click command has one parameter per option, and only click calls it."""
    called = (d.func if isinstance(d, ast.Call) else d for d in function.decorator_list)
    return any(isinstance(d, ast.Attribute) and d.attr in ("command", "option") for d in called)


def faults(paths: Iterable[Path]) -> list[str]:
    found = []
    for path in paths:
        try:
            problems = list(too_large(path.read_text()))
        except SyntaxError as error:
            problems = [(error.lineno or 1, f"cannot be read: {error.msg}")]
        found += [f"{path.relative_to(ROOT)}:{line}: {problem}" for line, problem in problems]
    return found


def modules() -> list[Path]:
    return [path for folder in CHECKED for path in sorted((ROOT / folder).rglob("*.py"))]


if __name__ == "__main__":
    found = faults(modules())
    print("\n".join(found))  # noqa: T201  this is a command
    sys.exit(bool(found))
