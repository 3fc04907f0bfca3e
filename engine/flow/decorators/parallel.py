"""@parallel: a step whose tasks run together, as many as the step before it says."""

from collections.abc import Callable
from typing import ClassVar, overload

from engine.flow.decorators.base import F, StepDecorator, decorate

_PORT_MAX = 65_535


class Parallel(StepDecorator, frozen=True):
    """The step is run by gangs: `self.next(self.STEP, num_parallel=n)` leads to it.

    `master_port` is the port at which the first task of a gang listens for the others (it is told
    to all as MASTER_PORT); without it each gang is given one of its own.
    """

    name: ClassVar[str] = "parallel"
    master_port: int | None = None

    def __post_init__(self) -> None:
        if (self._number("master_port", at_least=1, whole=True) or 1) > _PORT_MAX:
            self._refuse("master_port", self.master_port, f"must be 1 to {_PORT_MAX}")


@overload
def parallel(function: F, /) -> F: ...
@overload
def parallel(*, master_port: int | None = None) -> Callable[[F], F]: ...
def parallel(
    function: F | None = None, /, *, master_port: int | None = None
) -> F | Callable[[F], F]:
    """Run the step as a gang: all its tasks at once, or none of them."""
    return decorate(function, Parallel, master_port=master_port)
