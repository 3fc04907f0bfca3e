"""What the awaited client's objects share: opened late, read in threads, listed by page."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Generic, TypeVar

from engine.client.objects import Located
from engine.client.values import ArtifactNotFoundError, TaskData
from engine.stores.threads import in_thread

PAGE = 100
T = TypeVar("T")
S = TypeVar("S", bound=Located)
Held = TypeVar("Held")


async def paged(make: Callable[[], Iterable[Held]], wrap: Callable[[Held], T]) -> AsyncIterator[T]:
    found: Iterator[Held] | None = None

    def page() -> list[Held]:
        nonlocal found
        found = iter(make()) if found is None else found
        return list(islice(found, PAGE))

    while items := await in_thread(page):
        for item in items:
            yield wrap(item)


class Lazy(Generic[S]):
    """An object that is opened by its first read: naming it does no I/O and cannot fail."""

    def __init__(self, pathspec: str, open_: Callable[[], S]) -> None:
        self._pathspec = pathspec
        self._open = open_
        self._opened: S | None = None

    @property
    def pathspec(self) -> str:
        return self._pathspec

    @property
    def id(self) -> str:
        """The last part of the pathspec."""
        return self.pathspec.rpartition("/")[2]

    @property
    def path_components(self) -> list[str]:
        return self.pathspec.split("/")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.pathspec!r})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and repr(other) == repr(self)

    def __hash__(self) -> int:
        return hash(repr(self))

    def _sync(self) -> S:
        if self._opened is None:
            self._opened = self._open()
        return self._opened

    def _read(self, read: Callable[[S], T]) -> Awaitable[T]:
        return in_thread(lambda: read(self._sync()))

    def _list(
        self, read: Callable[[S], Iterable[Held]], wrap: Callable[[Held], T]
    ) -> AsyncIterator[T]:
        return paged(lambda: read(self._sync()), wrap)


class Data:
    """`await data.x` loads the value of artifact x."""

    def __init__(
        self,
        read: Callable[[Callable[[Any], Any]], Awaitable[Any]],  # Any: users' values
        data_of: Callable[[Any], TaskData | None],
    ) -> None:
        self._read = read
        self._data_of = data_of

    def __getattr__(self, name: str) -> Awaitable[Any]:  # Any: users' values
        if name.startswith("__"):
            raise AttributeError(name)

        def load(found: Any) -> Any:  # Any: a run or a task, and a user's value
            data = self._data_of(found)
            if data is None:
                raise ArtifactNotFoundError(name, found.pathspec, [])
            return getattr(data, name)

        return self._read(load)
