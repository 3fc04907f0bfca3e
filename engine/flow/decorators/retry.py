"""@retry: try a failed task again."""

from collections.abc import Callable
from typing import ClassVar, overload

from engine.flow.decorators.base import F, StepDecorator, decorate


class Retry(StepDecorator, frozen=True):
    """Up to `times` more attempts, each `minutes_between_retries` after the failure before it.

    `times` has no upper limit: an attempt costs a number. (Metaflow's limit of 4 came from the
    names of its files.)
    """

    name: ClassVar[str] = "retry"
    times: int = 3
    minutes_between_retries: float = 2

    def __post_init__(self) -> None:
        self._number("times", whole=True)
        self._number("minutes_between_retries")


@overload
def retry(function: F, /) -> F: ...
@overload
def retry(*, times: int = 3, minutes_between_retries: float = 2) -> Callable[[F], F]: ...
def retry(
    function: F | None = None, /, *, times: int = 3, minutes_between_retries: float = 2
) -> F | Callable[[F], F]:
    """Try a failed task again, up to `times` more times."""
    return decorate(function, Retry, times=times, minutes_between_retries=minutes_between_retries)
