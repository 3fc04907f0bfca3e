"""The command of a container: the bootstrap program, as one word that any `python3` runs."""

import ast
import base64
import zlib
from pathlib import Path

_SOURCE = Path(__file__).with_name("bootstrap.py")


def container_command() -> list[str]:
    """What a job definition's `command` is: under 4 KB, and equal for equal versions of aflow."""
    packed = base64.b85encode(zlib.compress(condensed(_SOURCE.read_text()).encode(), 9)).decode()
    program = f"import base64,zlib;exec(zlib.decompress(base64.b85decode({packed!r})))"
    return ["python3", "-c", program]


def condensed(source: str) -> str:
    """A program without its comments, docstrings and annotations."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.returns = None
            for argument in (*node.args.args, *node.args.kwonlyargs):
                argument.annotation = None
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and _is_docstring(body[0]):
            node.body = body[1:] or [ast.Pass()]  # type: ignore[attr-defined]  # it has one
    return ast.unparse(tree)


def _is_docstring(node: ast.stmt) -> bool:
    is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return is_text and isinstance(node.value.value, str)  # type: ignore[attr-defined]  # as above
