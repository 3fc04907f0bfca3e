"""Finds a flow's class: "file.py", "file.py:Flow" or "pkg.mod:Flow".

A flow's file is executed once, as a module named after the file, never as `__main__`. An artifact
that is an instance of a class of that file is pickled under that name, whichever way the run was
started, so later steps, resumed runs and readers find the class: see `adopt_main`.
"""

import importlib
import linecache
import sys
import traceback
from collections.abc import Iterator
from contextvars import ContextVar
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import FunctionType, ModuleType

from engine.errors import EngineError, FlowError, NotFoundError, UsageError
from engine.flow.decorators.base import place
from engine.flow.spec import FlowSpec, steps_of
from engine.flow.words import did_you_mean, listed

_OURS = str(Path(__file__).parent.parent)
_IMPORTLIB = ("<frozen importlib", str(Path(importlib.__file__).parent))
_FORMS = "a flow is named as FILE.py, FILE.py:FLOW or PACKAGE.MODULE:FLOW"

_executed: dict[str, tuple[bytes, ModuleType]] = {}  # by real path: the source, and what it made
_loading: ContextVar[str] = ContextVar("_loading")  # the target that is being loaded, if one is


class FlowImportError(FlowError):
    """The flow's file could not be executed."""

    code = "flow-import"

    def __init__(self, target: str, cause: BaseException) -> None:
        kind, text = type(cause).__name__, str(cause)
        frames = [f for f in traceback.extract_tb(cause.__traceback__) if not _is_hidden(f)]
        where, hint = _where(cause, frames), None
        if isinstance(cause, SyntaxError):
            text = cause.msg
        elif isinstance(cause, ModuleNotFoundError):
            hint = f"install what provides {cause.name!r} in this environment ({sys.executable})"
        super().__init__(
            f"{target} cannot be loaded: {kind}: {text}" if text else f"{target}: {kind}",
            hint=hint,
            where=where,
        )
        self.traceback = "".join(
            [
                *(["Traceback (most recent call last):\n"] if frames else []),
                *traceback.format_list(frames),
                *traceback.format_exception_only(cause),
            ]
        )


def load(target: str) -> type[FlowSpec]:
    """The flow that `target` names.

    The file's directory (for a module, the working directory) becomes the first of `sys.path`, as
    Python does for a program. A file whose source has not changed since is not executed again.

    Raises:
        NotFoundError: no such file, module or flow.
        UsageError: the file has several flows and none is named, or the name is not a flow's.
        FlowError: executing the file raised; the user's own frames are in `traceback`.
    """
    source, colon, name = target.rpartition(":")
    if not colon or not name.isidentifier():
        source, name = target, ""
    token = _loading.set(source)
    try:
        if source.endswith(".py") or "/" in source or Path(source).exists():
            module = load_file(source)
        elif name:
            module = _load_module(source, target)
        else:
            raise UsageError(f"{target!r} names no flow", hint=_FORMS)
    finally:
        _loading.reset(token)
    return choose(module, name, source)


def refuse_while_loading() -> None:
    """Called before a run: a file that runs its flow whenever it is loaded would do so for ever,
    for the worker loads it, too.

    Raises:
        FlowError: a flow's file is being loaded.
    """
    source = _loading.get(None)
    if source is not None:
        raise FlowError(
            f"{source} runs a flow while it is loaded; what runs it belongs under "
            'if __name__ == "__main__":'
        )


def load_file(path: str) -> ModuleType:
    """Execute a flow's file as a module of its own.

    Raises:
        NotFoundError, UsageError, FlowError: as in `load`.
    """
    file = Path(path)
    if not file.exists():
        raise NotFoundError(f"there is no file {path!r}", hint=_near_file(file))
    if not file.is_file():
        what = "a directory" if file.is_dir() else "not a plain file"
        raise UsageError(f"{path!r} is {what}", hint=_FORMS)
    real = str(file.resolve())
    try:
        source = file.read_bytes()
    except OSError as error:
        raise NotFoundError(f"file {path!r} cannot be read: {error.strerror}") from error
    main = sys.modules.get("__main__")
    if main is not None and _file_of(main) == real:
        return main  # `python flow.py run`: it is loaded, and is running
    done = _executed.get(real)
    _first_on_path(str(Path(real).parent))
    if done is not None and done[0] == source:
        sys.modules[done[1].__name__] = done[1]  # another file of this name may have come between
        return done[1]
    module = _new_module(real)
    before = sys.modules.get(module.__name__)
    sys.modules[module.__name__] = module
    try:
        exec(compile(source, real, "exec", dont_inherit=True), module.__dict__)  # noqa: S102
    except BaseException as error:
        del sys.modules[module.__name__]
        if before is not None:
            sys.modules[module.__name__] = before
        if isinstance(error, EngineError | KeyboardInterrupt | GeneratorExit):
            raise
        raise FlowImportError(path, error) from error
    _keep_source(real)
    _executed[real] = source, module
    return module


def choose(module: ModuleType, name: str, source: str) -> type[FlowSpec]:
    """The flow `name` of a module, or its only one if `name` is empty."""
    flows = flows_of(module)
    if name:
        found = vars(module).get(name)
        if isinstance(found, type) and issubclass(found, FlowSpec) and found is not FlowSpec:
            return found
        if found is not None:
            raise UsageError(
                f"{name!r} in {source} is not a flow, but a {type(found).__name__}"
                if not isinstance(found, type)
                else f"class {name!r} in {source} is not a flow",
                hint=f"the flows there are {listed(flows)}"
                if flows
                else "a flow is a class that inherits from FlowSpec",
            )
        raise NotFoundError(
            f"there is no flow {name!r} in {source}",
            hint=did_you_mean(name, flows) or _there(flows),
        )
    if not flows:
        raise NotFoundError(f"there is no flow in {source}", hint=_there(flows))
    if len(flows) > 1:
        raise UsageError(
            f"there are {len(flows)} flows in {source}: {listed(flows)}",
            hint=f"name one of them: {source}:{next(iter(flows))}",
        )
    return next(iter(flows.values()))


def flows_of(module: ModuleType) -> dict[str, type[FlowSpec]]:
    """The flows that a module defines, else those that it imports, in the order of the source.

    A class that others there inherit from counts only if it has a first step, so could run.
    """
    found = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, FlowSpec) and value is not FlowSpec
    }
    own = {n: f for n, f in found.items() if f.__module__ == module.__name__}
    flows = own or found
    bases = {base for flow in flows.values() for base in flow.__mro__[1:]}
    return {n: f for n, f in flows.items() if f not in bases or _can_run(f)}


def target_of(cls: type[FlowSpec]) -> str | None:
    """What `load` finds the class by, in another process; None for a class of a notebook's cell,
    of an interactive session, or of a function's body."""
    module = sys.modules.get(cls.__module__)
    if module is None or vars(module).get(cls.__qualname__) is not cls:
        return None
    file = _file_of(module)
    is_main = module is sys.modules.get("__main__")
    spec = getattr(module, "__spec__", None)
    if is_main and spec is not None:  # python -m package.module
        return f"{spec.name}:{cls.__qualname__}"
    if is_main or (file is not None and file in _executed):
        return f"{file}:{cls.__qualname__}" if file is not None else None
    return f"{cls.__module__}:{cls.__qualname__}"


def adopt_main() -> None:
    """Let the running program's classes be known by its file's name, instead of `__main__`.

    The program is entered in `sys.modules` under the name that `load` would give it, and its
    classes and functions are labelled with that name. So an artifact pickled by
    `python flow.py run` has the bytes, and finds the class, that `aflow run flow.py` gives it.
    Does nothing in a notebook, where there is no file.
    """
    main = sys.modules.get("__main__")
    file = _file_of(main) if main is not None else None
    if main is None or file is None:
        return
    spec = getattr(main, "__spec__", None)  # set by `python -m package.module`
    name = spec.name if spec is not None else _module_name(file)
    sys.modules[name] = main
    for value in list(_labelled("__main__", vars(main).values())):
        value.__module__ = name


def _labelled(module: str, values: object) -> Iterator[type | FunctionType]:
    for value in values:  # type: ignore[attr-defined]  # a view of any dict's values
        if not isinstance(value, type | FunctionType) or value.__module__ != module:
            continue
        yield value
        if isinstance(value, type):
            yield from _labelled(module, list(vars(value).values()))


def _load_module(name: str, target: str) -> ModuleType:
    _first_on_path(str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise NotFoundError(f"there is no module {error.name!r}", hint=_FORMS) from error
        raise FlowImportError(target, error) from error
    except (EngineError, KeyboardInterrupt):
        raise
    except (Exception, SystemExit) as error:  # the user's module may raise anything
        raise FlowImportError(target, error) from error


def _new_module(real: str) -> ModuleType:
    name = _module_name(real)
    module = ModuleType(name)
    loader = SourceFileLoader(name, real)
    module.__file__ = real
    module.__loader__ = loader
    module.__spec__ = ModuleSpec(name, loader, origin=real)
    return module


def _module_name(real: str) -> str:
    """The file's stem; with a prefix where a module of that name is another one."""
    stem = Path(real).stem
    there = sys.modules.get(stem)
    is_other = there is not None and _file_of(there) not in (real, *_executed)
    return f"aflow_{stem}" if stem in sys.stdlib_module_names or is_other else stem


def _file_of(module: ModuleType) -> str | None:
    file = getattr(module, "__file__", None)
    return str(Path(file).resolve()) if file else None


def _first_on_path(directory: str) -> None:
    if not sys.path or sys.path[0] != directory:
        sys.path.insert(0, directory)


def _keep_source(real: str) -> None:
    """Keep the lines as they were executed: messages quote them, and edits would misplace them."""
    lines = linecache.getlines(real)
    linecache.cache[real] = (sum(map(len, lines)), None, lines, real)


def _can_run(flow: type[FlowSpec]) -> bool:
    steps = steps_of(flow)
    return len(steps) == 1 or "start" in steps


def _there(flows: dict[str, type[FlowSpec]]) -> str:
    return f"it has {listed(flows)}" if flows else "a flow is a class that inherits from FlowSpec"


def _near_file(file: Path) -> str | None:
    there = [p.name for p in file.parent.glob("*.py")] if file.parent.is_dir() else []
    return did_you_mean(file.name, there)


def _is_hidden(frame: traceback.FrameSummary) -> bool:
    return frame.filename.startswith((_OURS, *_IMPORTLIB))


def _where(cause: BaseException, frames: list[traceback.FrameSummary]) -> str | None:
    if isinstance(cause, SyntaxError) and cause.filename and cause.lineno:
        return f"{cause.filename}:{cause.lineno}  {(cause.text or '').strip()}".rstrip()
    if not frames:
        return None
    return place(frames[-1].filename, frames[-1].lineno or 1)
