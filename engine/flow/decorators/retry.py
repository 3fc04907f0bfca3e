"""@retry: try a failed task again."""

from collections.abc import Callable
from typing import ClassVar, overload

from engine.flow.decorators.base import F, StepDecorator, decorate


class Retry(StepDecorator, frozen=True):
    """Up to `times` more attempts, each `minutes_between_retries` after the failure before it.

    `times` has no upper limit: an attempt costs a number. (Metaflow's limit of 4 came from the
    names of its files.)

    `oom_memory` multiplies the memory that the next attempt asks for, if one ran out of memory and
    its executor gives memory out (AWS Batch).
    """

    name: ClassVar[str] = "retry"
    times: int = 3
    minutes_between_retries: float = 2
    oom_memory: float | None = None

    def __post_init__(self) -> None:
        self._number("times", whole=True)
        self._number("minutes_between_retries")
        if (self._number("oom_memory") or 2) <= 1:
            self._refuse("oom_memory", self.oom_memory, "must be above 1: it multiplies @resources")


@overload
def retry(function: F, /) -> F: ...
@overload
def retry(
    *, times: int = 3, minutes_between_retries: float = 2, oom_memory: float | None = None
) -> Callable[[F], F]: ...
def retry(
    function: F | None = None,
    /,
    *,
    times: int = 3,
    minutes_between_retries: float = 2,
    oom_memory: float | None = None,
) -> F | Callable[[F], F]:
    """Try a failed task again, up to `times` more times."""
    minutes = minutes_between_retries
    return decorate(
        function, Retry, times=times, minutes_between_retries=minutes, oom_memory=oom_memory
    )
