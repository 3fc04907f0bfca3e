"""What a step decorator is: a frozen value on the step's function, read by whichever layer cares.

Nothing here runs anything: a decorator has no hooks. Each built-in is one file of this package.
"""

import linecache
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

from engine.errors import FlowError

F = TypeVar("F", bound=Callable[..., Any])  # Any: a step takes (self) or (self, inputs)

_MARK = "__aflow_step__"


class StepDecorator:
    """Base of all step decorators; subclasses are frozen dataclasses that check their fields."""

    name: ClassVar[str]


@dataclass(frozen=True, slots=True)
class StepMark:
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


def apply(function: F, decorator: StepDecorator) -> F:
    """Add a decorator to a function, above or below its `@step`."""
    if not callable(function):
        raise FlowError(
            f"@{decorator.name} was given {function!r}, which is not a step",
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


def declared_at() -> str | None:
    """ "file:line  source" of the innermost caller outside of this package's flow language."""
    frame = sys._getframe(1)
    while frame.f_back and str(frame.f_globals.get("__name__", "")).startswith("engine.flow."):
        frame = frame.f_back
    file, line = frame.f_code.co_filename, frame.f_lineno
    text = linecache.getline(file, line, frame.f_globals).strip()
    return f"{file}:{line}  {text}" if text else f"{file}:{line}"
