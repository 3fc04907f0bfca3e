"""A task's artifacts as attributes: `task.data.x` loads the value, `task.artifacts.x` does not."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from engine.errors import NotFoundError

Held = TypeVar("Held")


class ArtifactNotFoundError(NotFoundError, AttributeError):
    """The task has no artifact of that name."""

    code = "artifact-not-found"

    def __init__(self, artifact: str, task: str, names: list[str]) -> None:
        shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
        NotFoundError.__init__(
            self,
            f"{task} has no artifact {artifact!r}",
            hint=f"it has {shown}" if names else "it has none",
        )
        self.artifact, self.task = artifact, task


class _ByName(Generic[Held]):
    """Attributes made on demand. Not a mapping, so that no method hides an artifact's name."""

    __slots__ = ("_get", "_names", "_task")

    def __init__(
        self, task: str, names: Callable[[], list[str]], get: Callable[[str], Held]
    ) -> None:
        self._task = task
        self._names = names
        self._get = get

    def __getattr__(self, name: str) -> Held:
        names = self._names()
        if name not in names:
            raise ArtifactNotFoundError(name, self._task, names)
        return self._get(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names()

    def __dir__(self) -> list[str]:
        return self._names()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._task}: {', '.join(self._names())}>"


class TaskData(_ByName[Any]):  # Any: users' values
    """`data.x` loads the value of artifact x; nothing is loaded before, and nothing is kept."""


class Artifacts(_ByName[Held]):
    """`artifacts.x` is the artifact, unloaded; iterating gives them all."""

    def __iter__(self) -> Iterator[Held]:
        return (self._get(name) for name in self._names())

    def __len__(self) -> int:
        return len(self._names())

    @property
    def _fields(self) -> tuple[str, ...]:
        """The names, as a named tuple has them."""
        return tuple(self._names())

    def _asdict(self) -> Mapping[str, Held]:
        return {name: self._get(name) for name in self._names()}
