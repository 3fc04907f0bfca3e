"""How an error is told: to people in one shape on stderr, to programs as one JSON object.

error[code]: what failed
  where it failed, in the user's own source
  hint: how to mend it
  run:  Flow/run   resume: aflow resume run
"""

import json
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from engine.cli.escapes import safe
from engine.errors import EXIT_BUG, EngineError, Failure

_RED = "\x1b[1;31m"
_BOLD = "\x1b[1m"
_DIM = "\x1b[2m"
_RESET = "\x1b[0m"
_FRAME = '  File "'  # how a frame of a formatted traceback begins


class InternalError(EngineError):
    """Something happened in aflow that it did not foresee."""

    code = "internal"
    exit_code = EXIT_BUG

    def __init__(self, cause: BaseException) -> None:
        frames = traceback.extract_tb(cause.__traceback__)
        last = frames[-1] if frames else None
        super().__init__(
            f"{type(cause).__name__}: {cause}",
            hint="this is a bug in aflow: please report it with the output of the same command "
            "with --debug",
            where=f"{last.filename}:{last.lineno}  {last.line or ''}".rstrip() if last else None,
        )


def lines(error: EngineError, *, color: bool = False) -> Iterator[str]:
    """The error in its shape, line by line."""
    yield _head(error.code, error.message, color=color)
    if error.where:
        yield f"  {safe(error.where)}"
    for note in getattr(error, "story", ()):
        yield f"  {safe(str(note))}"
    if error.hint:
        yield f"  hint: {safe(error.hint)}"


def failure_lines(
    failure: Failure, *, run: str, color: bool = False, is_told: bool = False
) -> Iterator[str]:
    """A task's failure in the same shape, the last lines that it printed before the hint.

    Args:
        failure: what is known of it.
        run: `Flow/run`, to resume.
        color: whether the head may be coloured.
        is_told: whether the task's stderr, and so its traceback, was shown above.
    """
    yield _head(failure.code, failure.summary, color=color)
    if failure.where:
        yield f"  {safe(failure.where)}"
    traceback = failure.traceback.splitlines()
    # Where it was raised is not all there is to know if it was deep in the user's code.
    if not is_told and failure.traceback.count(_FRAME) > 1:
        yield from (f"  {safe(line)}" for line in traceback)
    for line in _without(failure.log_tail, traceback):
        yield f"  | {safe(line)}"
    if failure.hint:
        yield f"  hint: {safe(failure.hint)}"
    run_id = run.rpartition("/")[2]
    yield f"  run:  {run}   resume: aflow resume {run_id}"


def _without(tail: Sequence[str], traceback: Sequence[str]) -> Sequence[str]:
    """The last lines that a task printed, less the traceback that its worker printed after them."""
    for start in range(len(tail)):
        rest = tail[start:]
        if traceback and list(rest) == list(traceback[-len(rest) :]):
            return tail[:start]
    return tail


def _head(code: str, message: str, *, color: bool) -> str:
    text = "\n".join(safe(line) for line in message.splitlines()) or code
    if not color:
        return f"error[{code}]: {text}"
    return f"{_RED}error[{code}]{_RESET}{_BOLD}: {text}{_RESET}"


def as_dict(error: EngineError) -> dict[str, Any]:  # Any: details are the error's own facts
    """The error for programs: code, message, hint, details."""
    details = {k: v for k, v in error.details().items() if k != "hint" and v is not None}
    fields = {
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
        "details": details,
    }
    return {**fields, "others": [as_dict(e) for e in error.others]} if error.others else fields


def write(error: EngineError, *, as_json: bool, color: bool, stream: TextIO | None = None) -> None:
    """Tell the error on stderr."""
    stream = stream or sys.stderr
    if as_json:
        stream.write(json.dumps(as_dict(error), default=str) + "\n")
    else:
        told = [line for e in (error, *error.others) for line in lines(e, color=color)]
        stream.write("\n".join(told) + "\n")
    stream.flush()


def exit_code_of(code: str) -> int:
    """The exit code of the error class that has this `code`; a failed run's, if none has."""
    found = _by_code(EngineError, code)
    return found.exit_code if found else 1


def _by_code(cls: type[EngineError], code: str) -> type[EngineError] | None:
    if cls.code == code:
        return cls
    return next((f for sub in cls.__subclasses__() if (f := _by_code(sub, code))), None)
