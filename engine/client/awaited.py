"""What the awaited client's objects share: opened late, read in threads, listed by page."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

from engine.client import code as sync_code
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


class Code:
    """The code of a run; what reads the package is awaited. See engine.client.code.Code."""

    def __init__(self, code: sync_code.Code) -> None:
        self._code = code
        self.flow_name = code.flow_name
        self.script_name = code.script_name
        self.digest = code.digest
        self.size = code.size
        self.path = code.path
        self.info = code.info

    def __repr__(self) -> str:
        return repr(self._code)

    @property
    def files(self) -> Awaitable[list[str]]:
        return in_thread(lambda: self._code.files)

    @property
    def flowspec(self) -> Awaitable[str]:
        return in_thread(lambda: self._code.flowspec)

    async def sizes(self) -> dict[str, int]:
        return await in_thread(self._code.sizes)

    async def read(self, path: str) -> bytes:
        return await in_thread(self._code.read, path)

    async def data(self) -> bytes:
        return await in_thread(self._code.data)

    async def extract_to(self, directory: Path | str) -> Path:
        return await in_thread(self._code.extract_to, directory)
