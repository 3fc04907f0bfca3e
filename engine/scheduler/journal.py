"""What a run's journal says: its records, their encoding, and replay. Pure.

The file is `engine.stores.journals`: it appends and reads payloads by offset and knows no meaning;
here is the meaning and no file. A record is a msgpack map with a version `v`, a kind `k` and a time
`t`; docs/FORMATS.md gives the rest. Unknown fields are ignored, unknown kinds are refused: a record
that is skipped could be a commit.

The journal alone is enough to know a run. A task's frame holds its manifest, so to append it is to
commit the task, and a `ResultRef` is that frame's offset.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

import msgpack
import msgspec
from msgspec import Struct, field

from engine.errors import Failure, StoreError
from engine.ids import Frame, TaskKey
from engine.scheduler.events import (
    CancelRequested,
    Event,
    ExecutorLost,
    ResultRef,
    RetryDue,
    RunStarted,
    TaskFailed,
    TaskSucceeded,
)
from engine.stores.manifest import outline

VERSION = 1

Wire = dict[str, Any]  # Any: plain msgpack values
Frames = Iterable[tuple[int, bytes]]
"""A journal's (offset, payload) pairs, in order."""


Seal = Mapping[str, tuple[int, int]]


class JournalWriter(Protocol):
    def append(self, payload: bytes) -> int:
        """Write a frame, whole or not at all, and return its offset.

        Raises:
            StoreError: there is no room, or another driver holds the run.
        """
        ...


class JournalReader(Protocol):
    def read(self, offset: int) -> bytes:
        """The payload of the frame at `offset`, checked; sees what was appended before.

        Raises:
            StoreError: there is no frame, or a damaged one.
        """
        ...

    def scan(self, start: int = 0) -> Iterator[tuple[int, bytes]]: ...


class RunBeganRecord(Struct, frozen=True):
    """The first frame. `parameters` is the packed manifest of the run's parameters and constants.

    `code` says where the flow was found, and holds the packed manifest of its code's package, if
    there is one. `graph` is a plain value for people and tools; `slots` and `on_failure` are what
    the machine was made with, so that a replay can make the same one; `rerun` are the steps that
    it was told to do again, whatever its origin had of them.
    """

    at_us: int
    flow: str
    run_id: str
    parameters: bytes
    user: str = ""
    host: str = ""
    tags: tuple[str, ...] = ()
    origin_run_id: str | None = None
    code: Mapping[str, Any] = field(default_factory=dict)  # Any: plain msgpack values
    graph: Mapping[str, Any] = field(default_factory=dict)  # Any: plain msgpack values
    slots: int = 1
    on_failure: str = "finish"
    rerun: tuple[str, ...] = ()


class SucceededRecord(Struct, frozen=True):
    """A commit. With `reused` the manifest and the times are those of the run that did the work."""

    at_us: int
    task: TaskKey
    attempt: int
    started_us: int
    ended_us: int
    manifest: bytes
    reused: bool = False


class FailedRecord(Struct, frozen=True):
    at_us: int
    task: TaskKey
    attempt: int
    started_us: int
    ended_us: int
    failure: Failure


class RetryDueRecord(Struct, frozen=True):
    at_us: int
    task: TaskKey
    attempt: int


class CancelRequestedRecord(Struct, frozen=True):
    at_us: int
    reason: str


class ExecutorLostRecord(Struct, frozen=True):
    at_us: int
    reason: str


class RunDoneRecord(Struct, frozen=True):
    """The last frame. `status` is "succeeded", "failed" or "interrupted".

    `seal` holds, for "journal" and "log", what was in the file before this frame was written: the
    number of bytes and their CRC-32. So fsck can tell a log that lost its end.
    """

    at_us: int
    status: str
    reason: str | None = None
    failure: Failure | None = None
    failed_task: TaskKey | None = None
    seal: Seal = field(default_factory=dict)


Record = (
    RunBeganRecord
    | SucceededRecord
    | FailedRecord
    | RetryDueRecord
    | CancelRequestedRecord
    | ExecutorLostRecord
    | RunDoneRecord
)


def encode(record: Record) -> bytes:
    """Lay out a record as a journal's payload."""
    kind, write = _WRITERS[type(record)]
    wire: Wire = {"v": VERSION, "k": kind, "t": record.at_us}
    write(record, wire)
    return bytes(msgpack.packb(wire))


def decode(payload: bytes) -> Record:
    """Read a journal's payload.

    Raises:
        StoreError: it is damaged, or of a later version.
    """
    try:
        wire: Wire = msgpack.unpackb(payload)
        version, kind = wire["v"], wire["k"]
        if version == VERSION and kind in _READERS:
            return _READERS[kind](wire)
    except (ValueError, KeyError, TypeError, msgpack.UnpackException) as error:
        raise StoreError("a journal's record cannot be read: it is damaged") from error
    raise StoreError(
        f"a journal's record is of kind {kind!r}, version {version}; this aflow reads version "
        f"{VERSION}",
        hint="use the aflow that wrote it, or a later one",
    )


class Glance(Struct, frozen=True):
    """What of a record a resumed run needs. `task` is None if it is about no task.

    `manifest` is that of a commit; `reused` tells that another run had done the work.
    """

    kind: str
    task: TaskKey | None
    manifest: bytes
    reused: bool


class _KeyWire(Struct, array_like=True):
    step: str
    visit: int
    frames: tuple[Frame, ...]


class _GlanceWire(Struct):
    v: int
    k: str
    key: _KeyWire | None = None
    m: bytes = b""
    r: bool = False


_glance = msgspec.msgpack.Decoder(_GlanceWire)


def glance(payload: bytes) -> Glance:
    """Read a record as far as it tells what was committed: 2 us instead of 7.

    Raises:
        StoreError: it is damaged, or of a later version.
    """
    try:
        wire = _glance.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        wire = None
    if wire is None or wire.v != VERSION or wire.k not in _READERS:
        decode(payload)  # says what is wrong
        raise StoreError("a journal's record cannot be read: it is damaged")
    key = TaskKey(wire.key.step, wire.key.frames, wire.key.visit) if wire.key else None
    return Glance(wire.k, key, wire.m, wire.r)


def manifests_in(payload: bytes) -> tuple[bytes, ...]:
    """The packed manifests in a journal's payload: all that it says of blobs.

    Raises:
        StoreError: it is damaged, or of a later version.
    """
    match decode(payload):
        case RunBeganRecord(parameters=parameters, code=code):
            package = code.get("package")
            return (parameters, package) if package else (parameters,)
        case SucceededRecord(manifest=manifest):
            return (manifest,)
    return ()


def events(frames: Frames) -> Iterator[Event]:
    """Turn a journal back into what the machine was told, in order.

    Raises:
        StoreError: a record cannot be read.
    """
    for offset, payload in frames:
        event = _event(ResultRef(offset), decode(payload))
        if event is not None:
            yield event


def committed(frames: Frames) -> dict[TaskKey, int]:
    """Find every commit: the offset of its frame, by task. What failed or was cut off is absent.

    Raises:
        StoreError: a record cannot be read.
    """
    found: dict[TaskKey, int] = {}
    for offset, payload in frames:
        record = decode(payload)
        if isinstance(record, SucceededRecord):
            found.setdefault(record.task, offset)  # the first is the commit
    return found


def _event(at: ResultRef, record: Record) -> Event | None:
    match record:
        case SucceededRecord(task=task, attempt=attempt, manifest=manifest):
            return TaskSucceeded(task, attempt, outline(manifest).transition, at)
        case FailedRecord(task=task, attempt=attempt, failure=failure):
            return TaskFailed(task, attempt, failure.summary, failure.retryable)
        case RetryDueRecord(task=task, attempt=attempt):
            return RetryDue(task, attempt)
        case RunBeganRecord():
            return RunStarted(at)
        case CancelRequestedRecord(reason=reason):
            return CancelRequested(reason)
        case ExecutorLostRecord(reason=reason):
            return ExecutorLost(reason)
        case RunDoneRecord():
            return None


def _key_to_wire(key: TaskKey) -> list[Any]:
    frames = [[f.split, f.index, f.total, f.visit, f.is_foreach] for f in key.frames]
    return [key.step, key.visit, frames]


def _key_from_wire(wire: list[Any]) -> TaskKey:
    step, visit, frames = wire
    return TaskKey(step, tuple(Frame(*f) for f in frames), visit)


def _write_began(r: RunBeganRecord, wire: Wire) -> None:
    wire.update(flow=r.flow, run=r.run_id, parameters=r.parameters, user=r.user, host=r.host)
    wire.update(tags=list(r.tags), origin=r.origin_run_id, code=dict(r.code), graph=dict(r.graph))
    wire.update(slots=r.slots, on_failure=r.on_failure)
    if r.rerun:
        wire["rerun"] = list(r.rerun)


def _read_began(wire: Wire) -> RunBeganRecord:
    return RunBeganRecord(
        at_us=wire["t"],
        flow=wire["flow"],
        run_id=wire["run"],
        parameters=wire["parameters"],
        user=wire["user"],
        host=wire["host"],
        tags=tuple(wire["tags"]),
        origin_run_id=wire["origin"],
        code=wire["code"],
        graph=wire["graph"],
        slots=wire["slots"],
        on_failure=wire["on_failure"],
        rerun=tuple(wire.get("rerun", ())),
    )


def _write_succeeded(r: SucceededRecord, wire: Wire) -> None:
    wire["key"] = _key_to_wire(r.task)
    wire["a"], wire["s"], wire["e"], wire["m"] = r.attempt, r.started_us, r.ended_us, r.manifest
    if r.reused:
        wire["r"] = True


def _read_succeeded(wire: Wire) -> SucceededRecord:
    key = _key_from_wire(wire["key"])
    is_reused = wire.get("r", False)
    return SucceededRecord(wire["t"], key, wire["a"], wire["s"], wire["e"], wire["m"], is_reused)


def _write_failed(r: FailedRecord, wire: Wire) -> None:
    wire["key"] = _key_to_wire(r.task)
    wire["a"], wire["s"], wire["e"] = r.attempt, r.started_us, r.ended_us
    wire["f"] = r.failure.to_dict()


def _read_failed(wire: Wire) -> FailedRecord:
    key, failure = _key_from_wire(wire["key"]), Failure.from_dict(wire["f"])
    return FailedRecord(wire["t"], key, wire["a"], wire["s"], wire["e"], failure)


def _write_retry_due(r: RetryDueRecord, wire: Wire) -> None:
    wire["key"], wire["a"] = _key_to_wire(r.task), r.attempt


def _read_retry_due(wire: Wire) -> RetryDueRecord:
    return RetryDueRecord(wire["t"], _key_from_wire(wire["key"]), wire["a"])


def _write_reason(r: CancelRequestedRecord | ExecutorLostRecord, wire: Wire) -> None:
    wire["reason"] = r.reason


def _write_done(r: RunDoneRecord, wire: Wire) -> None:
    wire["status"], wire["reason"] = r.status, r.reason
    wire["f"] = r.failure.to_dict() if r.failure else None
    wire["key"] = _key_to_wire(r.failed_task) if r.failed_task else None
    if r.seal:
        wire["seal"] = {name: list(seal) for name, seal in r.seal.items()}


def _read_done(wire: Wire) -> RunDoneRecord:
    failure = Failure.from_dict(wire["f"]) if wire["f"] else None
    key = _key_from_wire(wire["key"]) if wire["key"] else None
    seal: Seal = {name: (size, crc) for name, (size, crc) in wire.get("seal", {}).items()}
    return RunDoneRecord(wire["t"], wire["status"], wire["reason"], failure, key, seal)


_Write = Callable[[Any, Wire], None]  # Any: each takes the record that it is listed with
_WRITERS: Mapping[type[Record], tuple[str, _Write]] = {
    RunBeganRecord: ("run-began", _write_began),
    SucceededRecord: ("task-succeeded", _write_succeeded),
    FailedRecord: ("task-failed", _write_failed),
    RetryDueRecord: ("retry-due", _write_retry_due),
    CancelRequestedRecord: ("cancel-requested", _write_reason),
    ExecutorLostRecord: ("executor-lost", _write_reason),
    RunDoneRecord: ("run-done", _write_done),
}
_READERS: Mapping[str, Callable[[Wire], Record]] = {
    "run-began": _read_began,
    "task-succeeded": _read_succeeded,
    "task-failed": _read_failed,
    "retry-due": _read_retry_due,
    "cancel-requested": lambda wire: CancelRequestedRecord(wire["t"], wire["reason"]),
    "executor-lost": lambda wire: ExecutorLostRecord(wire["t"], wire["reason"]),
    "run-done": _read_done,
}
