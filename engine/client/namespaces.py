"""Which runs a client sees by default, as Metaflow has it, and where it reads them.

A namespace is a tag, `user:<name>` by default: runs without it are hidden from lists, and opening
one by name is an error that says so. `namespace(None)` shows everything.
"""

from msgspec import Struct

from engine.client.reader import Reader
from engine.config import load
from engine.errors import NotFoundError
from engine.stores.metadata.base import RunRecord

_UNSET = object()


class _Chosen(Struct):
    namespace: object = _UNSET
    location: str | None = None
    reader: Reader | None = None


_chosen = _Chosen()


class NamespaceMismatchError(NotFoundError):
    """What was asked for exists in another namespace."""

    code = "namespace"

    def __init__(self, pathspec: str, namespace: str) -> None:
        super().__init__(
            f"{pathspec} is not in namespace {namespace!r}",
            hint="namespace(None) shows every run; namespace('user:NAME') those of another",
        )
        self.pathspec, self.namespace = pathspec, namespace


def namespace(name: str | None) -> str | None:
    """Choose what is seen from now on: a tag, or None for everything. Returns it."""
    _chosen.namespace = name
    return name


def get_namespace() -> str | None:
    """The namespace in force."""
    if _chosen.namespace is _UNSET:
        return default_namespace()
    return _chosen.namespace if isinstance(_chosen.namespace, str) else None


def default_namespace() -> str:
    """Go back to the namespace of the user who runs this, and return it."""
    _chosen.namespace = _UNSET
    return load().namespace


def metadata(where: str) -> str:
    """Choose where runs are read from now on: a datastore directory, or `local@DIRECTORY`.

    Returns:
        The choice, as `local@DIRECTORY`.

    Raises:
        DatastoreError: no datastore is there.
    """
    location = where.removeprefix("local@")
    _chosen.reader = Reader.open(load({"datastore": location}))
    _chosen.location = location
    return get_metadata()


def get_metadata() -> str:
    """Where runs are read, as `local@DIRECTORY`."""
    return f"local@{default_reader().root}"


def default_metadata() -> str:
    """Go back to the datastore that the settings name, and return it."""
    _chosen.location = _chosen.reader = None  # objects that were made with it go on using it
    return get_metadata()


def close_default_reader() -> None:
    """Close the files that objects made without a reader of their own have opened; then let go."""
    reader, _chosen.reader = _chosen.reader, None
    if reader is not None:
        reader.close()


def default_reader() -> Reader:
    """The reader of objects that are made without one. It follows the settings until chosen."""
    if _chosen.location is not None and _chosen.reader is not None:
        return _chosen.reader
    config = load()
    if _chosen.reader is None or _chosen.reader.root != config.datastore:
        _chosen.reader = Reader.open(config)
    return _chosen.reader


def in_namespace(record: RunRecord, name: str | None) -> bool:
    """Whether a run is seen in a namespace. A run is always in the one of its user."""
    return name is None or name == f"user:{record.user}" or name in tags_of(record)


def tags_of(record: RunRecord) -> frozenset[str]:
    return frozenset((*record.tags, *record.system_tags))
