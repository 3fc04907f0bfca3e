"""@timeout: how long an attempt may take."""

from collections.abc import Callable
from typing import ClassVar, overload

from engine.flow.decorators.base import F, StepDecorator, decorate


class Timeout(StepDecorator, frozen=True):
    """An attempt is ended after the sum of the three."""

    name: ClassVar[str] = "timeout"
    seconds: float = 0
    minutes: float = 0
    hours: float = 0

    def __post_init__(self) -> None:
        for field in ("seconds", "minutes", "hours"):
            self._number(field)
        if not self.total_s > 0:
            self._refuse("seconds", self.seconds, "must be above 0, or minutes or hours must")

    @property
    def total_s(self) -> float:
        """The limit in seconds."""
        return float(self.seconds + 60 * self.minutes + 3600 * self.hours)


@overload
def timeout(function: F, /) -> F: ...
@overload
def timeout(*, seconds: float = 0, minutes: float = 0, hours: float = 0) -> Callable[[F], F]: ...
def timeout(
    function: F | None = None, /, *, seconds: float = 0, minutes: float = 0, hours: float = 0
) -> F | Callable[[F], F]:
    """End an attempt that runs longer than the sum of the three."""
    return decorate(function, Timeout, seconds=seconds, minutes=minutes, hours=hours)
