"""What a flow, a run, a step, a task and an artifact of the client have in common."""

from datetime import UTC, datetime
from typing import Any, ClassVar, Self

from engine.client.namespaces import NamespaceMismatchError, default_reader, in_namespace
from engine.client.namespaces import get_namespace as current_namespace
from engine.client.reader import Reader
from engine.errors import NotFoundError, UsageError
from engine.ids import Pathspec
from engine.stores.metadata.base import RunRecord

_FORM = ("Flow", "run", "step", "task", "artifact")


def instant(us: int | None) -> datetime | None:
    """Microseconds since 1970 as an aware instant."""
    return None if us is None else datetime.fromtimestamp(us / 1_000_000, UTC)


class Located:
    """A place in a datastore, and the reader to fetch what is there."""

    __slots__ = ("_place", "_reader")
    _parts: ClassVar[int] = 0  # of the pathspec
    _kinds: ClassVar[dict[int, type["Located"]]] = {}

    _reader: Reader
    _place: Pathspec

    def __init_subclass__(cls) -> None:
        if cls._parts:
            Located._kinds[cls._parts] = cls

    def __init__(self, pathspec: str, *, reader: Reader | None = None) -> None:
        """Open by name.

        Raises:
            NotFoundError: nothing of that name exists, or it is in another namespace.
            UsageError: the pathspec has too few or too many parts.
        """
        self._place = Pathspec.parse(pathspec)
        if pathspec.count("/") + 1 != self._parts:
            form = "/".join(_FORM[: self._parts])
            raise UsageError(f"{type(self).__name__} wants {form}, not {pathspec!r}")
        self._reader = reader or default_reader()
        self._open()

    def _open(self) -> None:
        """Check that what `_place` names is there, and fetch its record."""
        raise TypeError(f"{type(self).__name__} cannot be opened")

    @classmethod
    def _at(cls, reader: Reader, place: Pathspec) -> Self:
        """An object for what is known to be there; its record is the caller's to set."""
        found = cls.__new__(cls)
        found._reader, found._place = reader, place
        return found

    def _run_record(self) -> RunRecord:
        """The run's record, as it is now; of a run in the namespace."""
        place = self._place
        record = self._reader.run(place.flow, place.run or "")
        if record is None:
            raise NotFoundError(
                f"there is no run '{place.flow}/{place.run}' in {self._reader.root}",
                hint="`aflow list` shows the runs there are",
            )
        name = current_namespace()
        if not in_namespace(record, name):
            raise NamespaceMismatchError(self.pathspec, name or "")
        return record

    @property
    def pathspec(self) -> str:
        return str(self._place)

    @property
    def id(self) -> str:
        """The last part of the pathspec."""
        return self.pathspec.rpartition("/")[2]

    @property
    def path_components(self) -> list[str]:
        return self.pathspec.split("/")

    @property
    def parent(self) -> Any:  # Any: each kind has another
        """What holds it."""
        kind = Located._kinds[self._parts - 1]
        return kind(self.pathspec.rpartition("/")[0], reader=self._reader)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.pathspec!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Located) or type(other) is not type(self):
            return NotImplemented
        return self._place == other._place and self._reader.root == other._reader.root

    def __hash__(self) -> int:
        return hash((type(self), self._place))

    def __reduce__(self) -> tuple[Any, ...]:  # Any: pickle's own protocol type
        # Records stay behind: what is read back is looked up again.
        return _reopen, (self._parts, self.pathspec, self._reader.root)


def _reopen(parts: int, pathspec: str, root: str) -> Located:
    return Located._kinds[parts](pathspec, reader=Reader.at(root))
