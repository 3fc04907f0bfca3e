"""What an attempt committed: its artifacts by name, where it goes next. Pure values and bytes.

A manifest is complete: artifacts that a step did not touch are listed again by digest. Small values
lie inside it, so a task with ten ints is one record. docs/FORMATS.md gives the layout; a manifest
of another version is refused, unknown fields are ignored.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Self, cast

import msgpack
import msgspec
from msgspec import Struct, field

from engine.errors import StoreError
from engine.flow.graph import Transition

VERSION = 1
MANIFEST_MAX_BYTES = 64 << 20
"""Largest manifest that may be committed, packed: some 50,000 artifacts."""

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class FileIdentity(Struct, frozen=True, array_like=True):
    """What `stat` said of a local blob right after its bytes were hashed.

    While it holds, the bytes are the ones that were hashed, and mapping them needs no new hash.
    """

    inode: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int


_FIELDS = {
    "serializer": "s",
    "type": "t",
    "size_bytes": "n",
    "sha": "h",
    "inline": "i",
    "digest": "d",
    "codec": "c",
    "meta": "m",
    "identity": "f",
    "preview": "p",
}


class Entry(Struct, frozen=True, rename=_FIELDS, omit_defaults=True):
    """One stored value, readable without loading it.

    Exactly one of `inline` and `digest` is set. `size_bytes` is the serialized size before the
    codec. `type` is the value's qualified type, `preview` a short repr made when it was saved.
    `meta` belongs to the serializer (dtype, shape, buffer sizes ...); `sha` is the digest of the
    serialized bytes, for inline values too, so that equal values can be told without loading.
    """

    serializer: str
    type: str
    size_bytes: int
    sha: str
    inline: bytes | None = None
    digest: str | None = None
    codec: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)  # Any: plain msgpack values
    identity: FileIdentity | None = None
    preview: str = ""

    def pack(self) -> bytes:
        return _encoder.encode(self)

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Read what `pack` wrote.

        Raises:
            StoreError: the bytes are no entry.
        """
        try:
            return cast("Self", _entry.decode(data))
        except _UNREADABLE as error:
            raise StoreError("an entry of a value cannot be read: it is damaged") from error

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Self:
        """Make an entry of plain values.

        Raises:
            StoreError: they are none.
        """
        try:
            return msgspec.convert(wire, cls)
        except msgspec.ValidationError as error:
            raise StoreError("an entry of a manifest cannot be read: it is damaged") from error


class Manifest(Struct, frozen=True):
    """What one attempt committed.

    `items` is the foreach's list (serializer "packed": an `engine.stores.packed` list whose items
    are packed `Entry`s), when the step fanned out. `caught` tells that @catch took a failure.
    """

    flow: str
    run_id: str
    step: str
    task_id: str
    attempt: int
    artifacts: Mapping[str, Entry] = field(default_factory=dict)
    transition: Transition = field(default_factory=lambda: Transition(()))
    items: Entry | None = None
    caught: bool = False

    def pack(self) -> bytes:
        artifacts = self.artifacts
        return _encoder.encode(
            _ManifestWire(
                VERSION,
                self.flow,
                self.run_id,
                self.step,
                self.task_id,
                self.attempt,
                self.transition.targets,
                self.transition.fanout,
                artifacts if type(artifacts) is dict else dict(artifacts),
                self.items,
                self.caught,
            )
        )

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Read a manifest.

        Raises:
            StoreError: the bytes are no manifest, or one of a later version.
        """
        try:
            wire = _manifest.decode(data)
        except _UNREADABLE as error:
            raise _unreadable(data) from error
        _check_version(wire.v)
        return cls(
            wire.flow,
            wire.run,
            wire.step,
            wire.task,
            wire.attempt,
            wire.artifacts,
            Transition(wire.next, wire.fanout),
            wire.items,
            wire.caught,
        )


class Outline(Struct, frozen=True):
    """What of a manifest the scheduler needs: whose it is and where it goes."""

    run_id: str
    step: str
    task_id: str
    attempt: int
    transition: Transition
    caught: bool


class _OutlineWire(Struct):
    v: int
    run: str
    step: str
    task: str
    attempt: int
    next: tuple[str, ...]
    fanout: int | None
    caught: bool = False


class _ManifestWire(Struct, omit_defaults=True):
    v: int
    flow: str
    run: str
    step: str
    task: str
    attempt: int
    next: tuple[str, ...]
    fanout: int | None
    artifacts: dict[str, Entry]
    items: Entry | None = None
    caught: bool = False


class _Held(Struct):
    d: str | None = None


class _HoldingWire(Struct):
    v: int
    artifacts: dict[str, _Held]
    items: _Held | None = None


# Written and read in one call each: in a task's process each Python function costs pages.
_entry = msgspec.msgpack.Decoder(Entry)
_manifest = msgspec.msgpack.Decoder(_ManifestWire)
_encoder = msgspec.msgpack.Encoder()
_outline = msgspec.msgpack.Decoder(_OutlineWire)
_holding = msgspec.msgpack.Decoder(_HoldingWire)


def outline(data: bytes) -> Outline:
    """Read a manifest without decoding its artifacts: 1 us, however many they are.

    Raises:
        StoreError: the bytes are no manifest, one of a later version, or too many to be committed.
    """
    if len(data) > MANIFEST_MAX_BYTES:
        raise StoreError(
            f"a manifest has {len(data):,} bytes; {MANIFEST_MAX_BYTES:,} are the most",
            hint="a task has too many artifacts: keep many small values in one list",
        )
    try:
        wire = _outline.decode(data)
    except _UNREADABLE as error:
        raise _unreadable(data) from error
    _check_version(wire.v)
    going = Transition(wire.next, wire.fanout)
    return Outline(wire.run, wire.step, wire.task, wire.attempt, going, wire.caught)


def digests_in(data: bytes) -> list[str]:
    """The digests of the blobs that a packed manifest names, without decoding its entries.

    Those of a foreach's items, which lie inside of a blob, are not among them.

    Raises:
        StoreError: the bytes are no manifest, or one of a later version.
    """
    try:
        wire = _holding.decode(data)
    except _UNREADABLE as error:
        raise _unreadable(data) from error
    _check_version(wire.v)
    held = [entry.d for entry in wire.artifacts.values() if entry.d is not None]
    return [*held, wire.items.d] if wire.items and wire.items.d else held


def _unreadable(data: bytes) -> StoreError:
    """Why a manifest cannot be read: a later version may have fields of other types."""
    try:
        _check_version(msgpack.unpackb(data)["v"])
    except (ValueError, KeyError, TypeError, msgpack.UnpackException):
        pass
    except StoreError as error:
        return error
    return StoreError("a manifest cannot be read: it is damaged")


class Entries(Mapping[str, Entry]):
    """The artifacts of a packed manifest, each decoded when it is asked for.

    A reader that wants one int of each of 1,000 tasks spends 20 us a task instead of 45.

    Raises:
        StoreError: the bytes are no manifest, or one of a later version.
    """

    __slots__ = ("_wire",)

    def __init__(self, data: bytes) -> None:
        try:
            wire = msgpack.unpackb(data)
            version, self._wire = wire["v"], wire["artifacts"]
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError("a manifest cannot be read: it is damaged") from error
        _check_version(version)

    def __getitem__(self, name: str) -> Entry:
        return Entry.from_wire(self._wire[name])

    def __contains__(self, name: object) -> bool:
        return name in self._wire

    def __iter__(self) -> Iterator[str]:
        return iter(self._wire)

    def __len__(self) -> int:
        return len(self._wire)


def _check_version(version: object) -> None:
    if version != VERSION:
        raise StoreError(
            f"a manifest has version {version}; this aflow reads version {VERSION}",
            hint="use the aflow that wrote it, or a later one",
        )
