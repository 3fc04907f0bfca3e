"""A failure of an attempt, as text."""

from typing import Any, Self

from msgspec import Struct
from msgspec.structs import asdict, replace

from engine.errors.base import EngineError


class Failure(Struct, frozen=True):
    """How one attempt failed, as text: it crosses processes, is stored, and is never unpickled.

    `code` is an error code of this module (`task-failed` for an exception of the user's).
    `type` and `message` describe the exception; `traceback` is formatted, the user's frames first;
    `where` is "file:line  source" of the innermost user frame; `log_tail` the last lines printed.
    """

    code: str
    message: str
    type: str = ""
    traceback: str = ""
    where: str = ""
    hint: str = ""
    retryable: bool = True
    log_tail: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """In one line: a user's exception with its type; ours say all in their message."""
        if not self.type or self.type.startswith("engine.") or self.message.startswith(self.type):
            return self.message
        return f"{self.type}: {self.message}" if self.message else self.type

    def to_dict(self) -> dict[str, Any]:  # Any: msgpack takes plain values
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        known = {k: v for k, v in fields.items() if k in cls.__struct_fields__}
        return cls(**{**known, "log_tail": tuple(known.get("log_tail", ()))})

    def with_log_tail(self, lines: tuple[str, ...]) -> Self:
        return replace(self, log_tail=lines)

    @classmethod
    def from_error(cls, error: EngineError) -> Self:
        return cls(
            code=error.code,
            message=error.message,
            type=type(error).__name__,
            where=error.where or "",
            hint=error.hint or "",
            retryable=error.retryable,
        )
