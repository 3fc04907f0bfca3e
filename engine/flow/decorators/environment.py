"""@environment: environment variables of a task's process."""

from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar, overload

from msgspec import field
from msgspec.structs import force_setattr

from engine.flow.decorators.base import F, StepDecorator, decorate


class Environment(StepDecorator, frozen=True):
    """`vars` are set in the task's process before the step's code runs. Numbers become text."""

    name: ClassVar[str] = "environment"
    vars: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.vars, Mapping):
            self._refuse("vars", self.vars, 'must be a mapping: vars={"NAME": "value"}')
        texts: dict[str, str] = {}
        given: Iterable[tuple[object, object]] = self.vars.items()  # as it is, not as it should be
        for name, value in given:
            if not isinstance(name, str) or not name or "=" in name or "\0" in name:
                self._refuse("vars", name, "must have names without `=`")
            if isinstance(value, bool) or not isinstance(value, str | int | float):
                self._refuse("vars", {name: value}, "must have texts as values")
            if "\0" in str(value):
                self._refuse("vars", {name: value}, "must have values without NUL")
            texts[name] = str(value)
        force_setattr(self, "vars", texts)


@overload
def environment(function: F, /) -> F: ...
@overload
def environment(*, vars: Mapping[str, str]) -> Callable[[F], F]: ...
def environment(
    function: F | None = None, /, *, vars: Mapping[str, str] | None = None
) -> F | Callable[[F], F]:
    """Set environment variables for the step."""
    return decorate(function, Environment, vars={} if vars is None else vars)
