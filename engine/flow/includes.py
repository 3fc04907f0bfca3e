"""IncludeFile: a parameter whose value is what a file holds as the run begins. Pure.

Here is only what was asked for; `engine.runtime.inclusion` opens the file.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from msgspec import Struct

from engine.flow.parameters import Parameter

Parser = Callable[[Any], object]  # Any: a text, or bytes
ENCODING = "utf-8"


class IncludedFile(Struct, frozen=True):
    """A file to include, as the value of a parameter; `where` is the parameter's declaration.

    `encoding` is None if the value is bytes. `parser` turns the file's content into the value.
    """

    parameter: str
    path: str
    encoding: str | None
    parser: Parser | str | None
    where: str


@dataclass(eq=False, repr=False)
class IncludeFile(Parameter):
    """A file whose content is a value of the run: `table = IncludeFile("table", default="t.csv")`.

    The run is given a path; it keeps the content, which `self.table` reads when it is touched. So a
    resumed run, a remote task and a reader see what was there when the run began.

    Args:
        name, required, help, show_default: as of a Parameter.
        default: a path, relative to the working directory, or a function of a ParameterContext that
            makes one. Without it, and without a path given, the value is None.
        is_text: whether the value is text, or bytes.
        encoding: of the text; by default UTF-8.
        parser: a function, or "module.function", that turns the content into the value.
    """

    is_text: bool | None = True
    encoding: str | None = None
    parser: Parser | str | None = None

    def __post_init__(self) -> None:
        self.type = self.type or str
        super().__post_init__()
        self.is_text = self.is_text is not False

    def __repr__(self) -> str:
        return f"IncludeFile({self.name!r})"

    @property
    def type_name(self) -> str:
        return "FILE"

    def faults(self) -> list[str]:
        found = super().faults()
        if self.type is not str or self.separator is not None:
            found.append(f"parameter {self.name!r} is a file: it has no type and no separator")
        if self.encoding is not None and not self.is_text:
            found.append(f"parameter {self.name!r} has an encoding, but is not text")
        elif self.encoding is not None:
            try:
                "".encode(self.encoding)
            except LookupError:
                found.append(f"parameter {self.name!r} has encoding {self.encoding!r}: unknown")
        if self.parser is not None and not callable(self.parser):
            module, dot, function = str(self.parser).rpartition(".")
            if not (dot and module and function):
                found.append(
                    f"parameter {self.name!r} has parser {self.parser!r}, which is neither a "
                    "function nor 'module.function'"
                )
        return found

    def convert(self, value: object) -> Any:  # Any: as of a Parameter
        """The file that is meant by a path; it is not opened.

        Raises:
            ParameterError: it is no path.
        """
        if hasattr(value, "__fspath__"):
            value = value.__fspath__()
        if not isinstance(value, str) or not value or "\0" in value:
            raise self._error(f"must be the path of a file, not {value!r:.60}")
        if "://" in value:
            raise self._error(f"must be the path of a file on this machine, not {value!r:.60}")
        encoding = (self.encoding or ENCODING) if self.is_text else None
        return IncludedFile(self.name, value, encoding, self.parser, self.where)
