"""@catch: go on after a failure, with the failure as an artifact."""

from collections.abc import Callable
from typing import ClassVar, overload

from engine.flow.decorators.base import F, StepDecorator, decorate


class Catch(StepDecorator, frozen=True):
    """After the last attempt failed, the flow goes on with the failure in artifact `var`.

    `print_exception` says whether the traceback is also printed by the task.
    """

    name: ClassVar[str] = "catch"
    var: str | None = None
    print_exception: bool = True

    def __post_init__(self) -> None:
        if self.var is not None and not (isinstance(self.var, str) and self.var.isidentifier()):
            self._refuse("var", self.var, "must be a name that self.NAME can have")
        if not isinstance(self.print_exception, bool):
            self._refuse("print_exception", self.print_exception, "must be True or False")


@overload
def catch(function: F, /) -> F: ...
@overload
def catch(*, var: str | None = None, print_exception: bool = True) -> Callable[[F], F]: ...
def catch(
    function: F | None = None, /, *, var: str | None = None, print_exception: bool = True
) -> F | Callable[[F], F]:
    """Go on after the step's last attempt failed; `var` names the artifact that tells why."""
    return decorate(function, Catch, var=var, print_exception=print_exception)
