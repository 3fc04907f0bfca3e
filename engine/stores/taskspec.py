"""What a worker is told, and what it reports: the two messages across the process boundary.

Both are msgpack, never pickle: the scheduler parses nothing that could run code. A spec or a report
too large for its channel is stored as a blob, and the message names the digest.
"""

from collections.abc import Mapping, Sequence
from typing import Self, cast

import msgpack
import msgspec
from msgspec import Struct, field

from engine.errors import Failure, JobRejectedError
from engine.ids import Frame

SPEC_VERSION = 1
CHANNEL_MAX_BYTES = 64 * 1024
"""Largest message on the worker's channel: well under Linux's default of 212,992 for a datagram."""


class InputRef(Struct, frozen=True, array_like=True):
    """A parent task as its child sees it: which it was, and its packed manifest."""

    step: str
    task_id: str
    manifest: bytes


class TaskSpec(Struct, frozen=True):
    """One attempt.

    `parameters` is the packed manifest of the run's parameters and constants. `inputs` holds the
    parents, unless there are too many: then `inputs_digest` names a packed list of packed
    InputRefs. `items` holds, for each foreach level of `frames`, the packed Entry of this task's
    item, or an Entry of the whole packed list, as `items_whole` says level by level.
    `last_attempt` tells @catch that no retry follows. `fallback` is the failure to catch without
    running user code. `datastore` is the local directory of the datastore;
    `durability` and `verify` are how its blobs are written and read (BlobDirectory); `broker` is
    the socket where a blob that is not there is asked for (engine.stores.remote.ask).
    `master_port` is where a gang's first task listens for the others; None: they agree on one.
    `main_ip` is that one's address, None on the machine where the driver is.
    """

    flow: str
    run_id: str
    step: str
    task_id: str
    attempt: int
    datastore: str
    frames: tuple[Frame, ...] = ()
    parameters: bytes = b""
    inputs: Sequence[InputRef] = ()
    inputs_digest: str | None = None
    items: Sequence[bytes] = ()
    items_whole: Sequence[bool] = ()
    last_attempt: bool = True
    fallback: str | None = None
    timeout_s: float | None = None
    origin_run_id: str | None = None
    username: str = ""
    tags: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    durability: str = "process"
    verify: str = "identity"
    broker: str | None = None
    master_port: int | None = None
    main_ip: str | None = None

    def pack(self) -> bytes:
        wire = {
            "v": SPEC_VERSION,
            **{name: getattr(self, name) for name in self.__struct_fields__},
            "frames": [[f.split, f.index, f.total, f.visit, f.is_foreach] for f in self.frames],
            "inputs": [[i.step, i.task_id, i.manifest] for i in self.inputs],
        }
        return bytes(msgpack.packb(wire))

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Read a spec.

        Raises:
            JobRejectedError: it is of another version.
        """
        version = _version.decode(data).v
        if version != SPEC_VERSION:
            raise JobRejectedError(
                f"the driver writes tasks of version {version}; this worker reads {SPEC_VERSION}",
                hint="install the same aflow where the driver and where the tasks run",
            )
        return cast("Self", _spec.decode(data))


class Report(Struct, frozen=True):
    """What a worker says at its end: a packed manifest, the digest of one, or a failure."""

    manifest: bytes | None = None
    manifest_digest: str | None = None
    failure: Failure | None = None

    def pack(self) -> bytes:
        failure = self.failure.to_dict() if self.failure else None
        return _encoder.encode((self.manifest, self.manifest_digest, failure))

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Read a report; whoever sent it has run user code, so each part is held to its type.

        Raises:
            ValueError: it is no report.
        """
        try:
            return cls(*_report.decode(data))
        except (msgspec.MsgspecError, RecursionError) as error:
            raise ValueError("no report") from error


class _Versioned(Struct):
    v: int


_encoder = msgspec.msgpack.Encoder()
_version = msgspec.msgpack.Decoder(_Versioned)
_spec = msgspec.msgpack.Decoder(TaskSpec)  # one call: each Python function would cost a task pages
_report = msgspec.msgpack.Decoder(tuple[bytes | None, str | None, Failure | None])
