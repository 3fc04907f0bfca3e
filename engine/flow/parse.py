"""Reads the steps of a flow from its source: what each calls `self.next` with, and where it stands.

Nothing is judged here, see lint.py. The source is taken from linecache, so flows of a notebook's
cell are read like those of a file; the whole file is parsed once.
"""

import ast
import linecache
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from types import FunctionType
from typing import Any, NamedTuple, TypeGuard

from engine.errors import FlowError
from engine.flow.decorators.base import place

Function = ast.FunctionDef | ast.AsyncFunctionDef
_READ = (None, "foreach", "num_parallel")
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


class NextCall(NamedTuple):
    """One call of self.next in a step's source.

    `odd` are the arguments that cannot be read without running the step, as source text;
    `num_parallel` is the expression given as that; `keywords` are those other than these two;
    `branches` tells that a dict of steps was given.
    """

    line: int
    targets: tuple[str, ...]
    foreach: str | None
    num_parallel: ast.expr | None
    keywords: tuple[str, ...]
    odd: tuple[str, ...]
    branches: bool
    is_last: bool


class StepSource(NamedTuple):
    """A step as it is written; `line` is that of its `def`.

    `assigned` maps the names of `self.x = value` to lines and values; None for a value that is not
    plainly an expression. `read` are the names of `self.x` that are read. `shares_self`: self is
    given away, or a method of it is called, so more may be assigned than is seen here. `code` is a
    fingerprint of its text from the `def` on.
    """

    name: str
    file: str
    line: int
    doc: str
    arguments: tuple[str, ...]
    extra_arguments: bool
    is_async: bool
    yields: bool
    nexts: tuple[NextCall, ...]
    assigned: dict[str, tuple[tuple[int, ast.expr | None], ...]]
    read: frozenset[str]
    shares_self: bool
    code: str

    @property
    def where(self) -> str:
        """ "file:line" of the step."""
        return f"{self.file}:{self.line}"

    def at(self, line: int | None = None) -> str:
        """ "file:line  source text" of a line of the step, by default that of its `def`."""
        return place(self.file, line or self.line)


def read_step(name: str, method: Callable[..., Any]) -> StepSource:
    """Read one step.

    Raises:
        FlowError: its source cannot be had.
    """
    function = _innermost(method)
    file, first_line = function.__code__.co_filename, function.__code__.co_firstlineno
    node = _functions(file, "".join(linecache.getlines(file, function.__globals__))).get(first_line)
    if node is None or node.name != function.__name__:
        raise FlowError(
            f"the source of step {name!r} cannot be read (it was defined in {file})",
            hint="put the flow into a file, or into a cell of a notebook; a changed file has to be "
            "loaded again",
            where=f"{file}:{first_line}",
        )
    return _read(name, file, node)


def _innermost(method: Callable[..., Any]) -> FunctionType:
    function: Any = method  # Any: wrappers of the user's, of any kind
    while not isinstance(function, FunctionType) or hasattr(function, "__wrapped__"):
        inner = getattr(function, "__wrapped__", None) or getattr(function, "__func__", None)
        if inner is None:
            raise FlowError(
                f"{method!r} is marked as a step, but is not a function",
                hint="@step stands directly above the `def`",
            )
        function = inner
    return function


def class_at(cls: type, files: Iterable[str]) -> str | None:
    """ "file:line  source text" of a class statement, sought in its module's file and `files`."""
    own = getattr(sys.modules.get(cls.__module__), "__file__", None)
    for file in (*([own] if own else ()), *files):
        for node in _nodes(file, "".join(linecache.getlines(file))):
            if isinstance(node, ast.ClassDef) and node.name == cls.__name__:
                return place(file, node.lineno)
    return None


@lru_cache(maxsize=8)
def _nodes(file: str, source: str) -> list[ast.AST]:
    try:
        return list(ast.walk(ast.parse(source, file)))
    except SyntaxError:  # not the source that was loaded: nothing in it can be found
        return []


@lru_cache(maxsize=8)
def _functions(file: str, source: str) -> dict[int, Function]:
    """Every function of the source by its first line, which is that of its first decorator."""
    found = {}
    for node in _nodes(file, source):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found[min([node.lineno, *(d.lineno for d in node.decorator_list)])] = node
    return found


def _read(name: str, file: str, node: Function) -> StepSource:
    arguments = tuple(a.arg for a in (*node.args.posonlyargs, *node.args.args))
    self_name = arguments[0] if arguments else "self"
    last = node.body[-1]
    nexts, yields = [], False
    for part in _own(node):
        if isinstance(part, ast.Call) and _attribute(part.func, self_name) == "next":
            is_last = isinstance(last, ast.Expr) and last.value is part
            nexts.append(_next_call(part, self_name, is_last))
        elif isinstance(part, ast.Yield | ast.YieldFrom):
            yields = True
    return StepSource(
        name=name,
        file=file,
        line=node.lineno,
        doc=ast.get_docstring(node) or "",
        arguments=arguments,
        extra_arguments=bool(node.args.vararg or node.args.kwarg or node.args.kwonlyargs),
        is_async=isinstance(node, ast.AsyncFunctionDef),
        yields=yields,
        nexts=tuple(nexts),
        assigned=_assignments(node, self_name),
        read=frozenset(n.attr for n in ast.walk(node) if _reads(n, self_name)),
        shares_self=_shares(node, self_name),
        code=_fingerprint(file, node),
    )


def _fingerprint(file: str, node: Function) -> str:
    """Tells texts apart for people, who are told that a step has changed: no more depends on it."""
    text = "".join(linecache.getlines(file)[node.lineno - 1 : node.end_lineno])
    return f"{zlib.crc32(text.encode()):08x}"


def _own(node: ast.AST) -> Iterator[ast.AST]:
    """What stands in a function's body, without what stands in functions inside of it."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, _SCOPES):
            yield from _own(child)


def _attribute(node: ast.AST, self_name: str) -> str | None:
    """`x` of `self.x`, else None."""
    if (
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == self_name
    ):
        return node.attr
    return None


def _reads(node: ast.AST, self_name: str) -> TypeGuard[ast.Attribute]:
    return (
        isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Load)
        and _attribute(node, self_name) is not None
    )


def _shares(function: Function, self_name: str) -> bool:
    """Whether self is used otherwise than as `self.x` or `self.next(...)`."""
    uses, attributes = 0, 0
    for node in ast.walk(function):
        uses += isinstance(node, ast.Name) and node.id == self_name
        attributes += _attribute(node, self_name) is not None
        if isinstance(node, ast.Call) and _attribute(node.func, self_name) not in (None, "next"):
            return True
    return uses > attributes


def _next_call(call: ast.Call, self_name: str, is_last: bool) -> NextCall:
    targets, odd = [], []
    for argument in call.args:
        target = _attribute(argument, self_name)
        if target is not None:
            targets.append(target)
        elif not isinstance(argument, ast.Dict):
            odd.append(ast.unparse(argument))
    foreach, num_parallel = None, None
    for keyword in call.keywords:
        if keyword.arg is None:
            odd.append(f"**{ast.unparse(keyword.value)}")
        elif keyword.arg == "num_parallel":
            num_parallel = keyword.value
        elif keyword.arg == "foreach":
            if isinstance(keyword.value, ast.Constant) and isinstance(keyword.value.value, str):
                foreach = keyword.value.value
            else:
                odd.append(f"foreach={ast.unparse(keyword.value)}")
    return NextCall(
        line=call.lineno,
        targets=tuple(targets),
        foreach=foreach,
        num_parallel=num_parallel,
        keywords=tuple(k.arg for k in call.keywords if k.arg not in _READ),
        odd=tuple(odd),
        branches=any(isinstance(a, ast.Dict) for a in call.args),
        is_last=is_last,
    )


def _assignments(
    node: Function, self_name: str
) -> dict[str, tuple[tuple[int, ast.expr | None], ...]]:
    """Where self.x is assigned, deleted, or bound in any other way."""
    found: dict[str, list[tuple[int, ast.expr | None]]] = {}
    plain: dict[int, ast.expr] = {}
    for part in ast.walk(node):
        if isinstance(part, ast.Assign):
            plain.update((id(target), part.value) for target in part.targets)
        elif isinstance(part, ast.AnnAssign) and part.value is not None:
            plain[id(part.target)] = part.value
        if isinstance(part, ast.Attribute) and not isinstance(part.ctx, ast.Load):
            name = _attribute(part, self_name) or ""
            found.setdefault(name, []).append((part.lineno, plain.get(id(part))))
    return {name: tuple(places) for name, places in found.items() if name}
