"""Exceptions -> `Failure`: text that says what happened in the user's code.

Made in the task's process, where the exception is; nobody unpickles it later. Frames of the engine
are left out, unless there are no others and the engine itself failed. Everything is capped, for a
failure travels in one datagram and is journaled.
"""

import os
import traceback
from collections.abc import Iterator
from pathlib import Path

from engine.errors import EngineError, Failure, InvariantError, TaskFailedError
from engine.flow.decorators.base import place

MESSAGE_MAX_CHARS = 4_000
TRACEBACK_MAX_CHARS = 24_000
_LINE_MAX_CHARS = 500

_ENGINE = str(Path(__file__).parent.parent) + os.sep
_STDLIB = os.path.dirname(os.__file__) + os.sep
_PACKAGES = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


def failure_of(error: BaseException, *, step: str) -> Failure:
    """Describe what a step, or the saving of what it left, raised.

    An engine's own error keeps its code and hint; anything else is `task-failed`, and may be
    retried.
    """
    shown = traceback.TracebackException.from_exception(error, compact=True)
    if isinstance(error, EngineError) and not isinstance(error, InvariantError):
        _tell(shown)  # what led to it is in its message and hint, for people
    else:
        _hide_engine(shown)
    text = _text(error)
    code, hint, retryable = TaskFailedError.code, "", True
    if isinstance(error, EngineError):
        code, hint, retryable = error.code, error.hint or "", error.retryable
    elif isinstance(error, SystemExit):
        text = f"step {step!r} called sys.exit({error.code!r:.80})"
        hint = "a step ends with self.next, or by returning; whatever its code, sys.exit fails it"
    return Failure(
        code=code,
        message=_cut(text or type(error).__name__, MESSAGE_MAX_CHARS),
        type=_cut(type_name(error), _LINE_MAX_CHARS),
        traceback=_cut("".join(shown.format()), TRACEBACK_MAX_CHARS),
        where=_cut(_where(error, shown), _LINE_MAX_CHARS),
        hint=_cut(hint, MESSAGE_MAX_CHARS),
        retryable=retryable,
    )


def type_name(error: BaseException) -> str:
    """The exception's type as a traceback writes it: without the module for a built-in."""
    cls = type(error)
    if cls.__module__ in ("builtins", "__main__"):
        return cls.__qualname__
    return f"{cls.__module__}.{cls.__qualname__}"


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as second:  # noqa: BLE001 (it is the user's __str__)
        return f"<its text cannot be shown: __str__ raised {type(second).__name__}>"


def _where(error: BaseException, shown: traceback.TracebackException) -> str:
    """ "file:line  source" of the innermost frame that the user wrote."""
    if isinstance(error, EngineError) and error.where:
        return error.where
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return f"{error.filename}:{error.lineno}  {(error.text or '').strip()}".rstrip()
    frames = [f for f in _frames(shown) if not f.filename.startswith(_ENGINE)]
    own = [f for f in frames if not _is_library(f.filename)] or frames
    if not own:
        return ""
    return place(own[-1].filename, own[-1].lineno or 0)


def _frames(shown: traceback.TracebackException) -> traceback.StackSummary:
    """The frames of the exception; of a group whose own frames say nothing, its first part's."""
    if not shown.stack and shown.exceptions:
        return _frames(shown.exceptions[0])
    return shown.stack or traceback.StackSummary()


def _is_library(filename: str) -> bool:
    if filename.startswith("<frozen"):
        return True
    return filename.startswith(_STDLIB) or any(part in filename for part in _PACKAGES)


def _tell(shown: traceback.TracebackException) -> None:
    """Leave only the user's frames, and none of the causes, of an error that explains itself."""
    kept = [frame for frame in shown.stack if not frame.filename.startswith(_ENGINE)]
    # None makes format() leave the head out as well.
    shown.stack = traceback.StackSummary.from_list(kept) if kept else None  # type: ignore[assignment]
    shown.__cause__ = shown.__context__ = None


def _hide_engine(shown: traceback.TracebackException) -> None:
    for part in _parts(shown):
        kept = [frame for frame in part.stack if not frame.filename.startswith(_ENGINE)]
        if kept:
            part.stack = traceback.StackSummary.from_list(kept)


def _parts(shown: traceback.TracebackException) -> Iterator[traceback.TracebackException]:
    """The exception, its causes and contexts, and the parts of groups."""
    todo = [shown]
    while todo:
        part = todo.pop()
        yield part
        todo += [p for p in (part.__cause__, part.__context__) if p is not None]
        todo += part.exceptions or ()


def _cut(text: str, most: int) -> str:
    """Cut out the middle of a text that is too long: the beginning and the end say most."""
    text = text.encode("utf-8", "backslashreplace").decode()  # lone surrogates cannot be packed
    if len(text) <= most:
        return text
    head, tail = most // 4, most - most // 4
    return f"{text[:head]}\n... {len(text) - most:,} characters left out ...\n{text[-tail:]}"
