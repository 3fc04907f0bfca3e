"""@resources: what a task needs of its machine."""

import re
from collections.abc import Callable
from typing import ClassVar, overload

from msgspec.structs import force_setattr

from engine.flow.decorators.base import F, StepDecorator, decorate

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT])(?:i?B)?\Z", re.IGNORECASE)
_MIB = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024**2}

Size = int | str
"""MiB, or a number with its unit: "512M", "16G", "1.5T" (powers of 1024)."""


def mib_of(size: Size | None) -> Size | None:
    """The MiB of a number with its unit, rounded up: less may not do; else what was given."""
    if isinstance(size, str) and (match := _SIZE.match(size.strip())):
        return -int(-(float(match[1]) * _MIB[match[2].upper()]) // 1)
    return size


class Resources(StepDecorator, frozen=True):
    """Hints to an executor that chooses or limits machines; a local task shares its own.

    `memory`, `disk` and `shared_memory` are in MiB, as whole numbers, once given.
    """

    name: ClassVar[str] = "resources"
    cpu: float = 1
    gpu: int | None = None
    memory: Size = 4096
    disk: Size | None = None
    shared_memory: Size | None = None

    def __post_init__(self) -> None:
        if self.cpu is None or self._number("cpu") == 0:
            self._refuse("cpu", self.cpu, "must be above 0")
        self._number("gpu", whole=True)
        for field in ("memory", "disk", "shared_memory"):
            force_setattr(self, field, mib_of(getattr(self, field)))
            self._number(field, at_least=1, whole=True)


@overload
def resources(function: F, /) -> F: ...
@overload
def resources(
    *,
    cpu: float = 1,
    gpu: int | None = None,
    memory: Size = 4096,
    disk: Size | None = None,
    shared_memory: Size | None = None,
) -> Callable[[F], F]: ...
def resources(
    function: F | None = None,
    /,
    *,
    cpu: float = 1,
    gpu: int | None = None,
    memory: Size = 4096,
    disk: Size | None = None,
    shared_memory: Size | None = None,
) -> F | Callable[[F], F]:
    """Say what the step needs: processors, graphics cards, MiB (or "16G") of memory and disk."""
    return decorate(
        function,
        Resources,
        cpu=cpu,
        gpu=gpu,
        memory=memory,
        disk=disk,
        shared_memory=shared_memory,
    )
