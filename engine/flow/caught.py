"""What @catch leaves in its artifact: an exception as text.

Pickled into users' artifacts, so the class's name and module are part of the store's format.
"""

from typing import Any


class CaughtFailure(Exception):  # noqa: N818  # it says what was caught; Metaflow's is one, too
    """A failure that @catch took.

    `type` is the exception's qualified type, `exception` its text, `stacktrace` the formatted
    traceback, or None when the task's process died without one.
    """

    def __init__(
        self, type: str | None = None, exception: str = "", stacktrace: str | None = None
    ) -> None:
        super().__init__(exception)
        self.type = type
        self.exception = exception
        self.stacktrace = stacktrace

    def __reduce__(self) -> tuple[Any, ...]:  # Any: pickle's own protocol type
        return CaughtFailure, (self.type, self.exception, self.stacktrace)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CaughtFailure) and self.__reduce__() == other.__reduce__()

    __hash__ = Exception.__hash__

    def __str__(self) -> str:
        return self.stacktrace or f"[no stacktrace]\n{self.type}: {self.exception}"

    __repr__ = __str__
