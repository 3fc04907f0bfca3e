"""What a step decorator is: a frozen value on the step's function, read by whichever layer cares.

Nothing here runs anything: a decorator has no hooks. Each built-in is one file of this package.
"""

import linecache
import math
import sys
from collections.abc import Callable
from typing import Any, ClassVar, NoReturn, TypeVar

from msgspec import Struct
from msgspec.structs import force_setattr, replace

from engine.errors import FlowError

F = TypeVar("F", bound=Callable[..., Any])  # Any: a step takes (self) or (self, inputs)

_MARK = "__aflow_step__"


class StepDecorator(Struct, frozen=True):
    """Base of all step decorators; subclasses check their fields in `__post_init__`."""

    name: ClassVar[str]

    def _number(self, field: str, *, at_least: float = 0, whole: bool = False) -> float | None:
        """Replace a field by its number, which may have been given as text; None stays None.

        Raises:
            FlowError: it is no finite number, too small, or not whole.
        """
        given = getattr(self, field)
        if given is None:
            return None
        value = _as_number(given)
        if not value >= at_least or (whole and value != int(value)):
            kind = "a whole number" if whole else "a number"
            self._refuse(field, given, f"must be {kind} of at least {at_least}")
        number = int(value) if value == int(value) else value
        force_setattr(self, field, number)
        return number

    def _refuse(self, field: str, given: object, why: str) -> NoReturn:
        raise FlowError(f"@{self.name}({field}={given!r:.80}): {field} {why}", where=declared_at())


def _as_number(given: object) -> float:
    """The number that was meant, or NaN, which is not at least anything."""
    if isinstance(given, bool):
        return math.nan
    try:
        value = float(given)  # type: ignore[arg-type]  # anything at all: TypeError is an answer
    except (TypeError, ValueError, OverflowError):
        return math.nan
    return value if math.isfinite(value) else math.nan


class StepMark(Struct, frozen=True):
    """What `@step` and the decorators left on a function. Decorators: outermost first."""

    is_step: bool = False
    start: bool = False
    end: bool = False
    decorators: tuple[StepDecorator, ...] = ()


def mark_of(function: object) -> StepMark | None:
    """The mark of a function (or bound method), or None if nothing marked it."""
    mark = getattr(function, _MARK, None)
    return mark if isinstance(mark, StepMark) else None


def is_step(value: object) -> bool:
    """Whether `@step` marked the value."""
    mark = mark_of(value)
    return mark is not None and mark.is_step


def set_mark(function: F, mark: StepMark) -> F:
    """Leave `mark` on the function, in the place of an earlier one."""
    setattr(function, _MARK, mark)
    return function


def decorate(
    function: F | None, kind: type[StepDecorator], **fields: object
) -> F | Callable[[F], F]:
    """The body of every decorator function: `@kind` on a function, or `@kind(...)` before one.

    Raises:
        FlowError: a field's value does not fit, or the function has this decorator already.
    """
    decorator = kind(**fields)
    if function is None:
        return lambda f: apply(f, decorator)
    return apply(function, decorator)


def apply(function: F, decorator: StepDecorator) -> F:
    """Add a decorator to a function, above or below its `@step`."""
    if not callable(function):
        raise FlowError(
            f"@{decorator.name} was given {function!r:.80}, which is not a step",
            hint=f"name the attributes: @{decorator.name}(name=value)",
            where=declared_at(),
        )
    mark = mark_of(function) or StepMark()
    if any(d.name == decorator.name for d in mark.decorators):
        raise FlowError(
            f"step {function.__name__!r} has @{decorator.name} twice",
            hint="keep one of them",
            where=declared_at(),
        )
    return set_mark(function, replace(mark, decorators=(decorator, *mark.decorators)))


def declared_at() -> str:
    """ "file:line  source" of the innermost caller outside of the flow language."""
    return place(*caller())


def caller() -> tuple[str, int]:
    """File and line of the innermost caller outside of the flow language."""
    frame = sys._getframe(1)
    while frame.f_back and _is_ours(str(frame.f_globals.get("__name__", ""))):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


def _is_ours(module: str) -> bool:
    return module.startswith("engine.flow.") or module == "dataclasses"


def place(file: str, line: int) -> str:
    """ "file:line  source text", or less of it where the source cannot be had."""
    text = linecache.getline(file, line).strip()
    return f"{file}:{line}  {text}" if text else f"{file}:{line}"
