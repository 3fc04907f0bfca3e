"""What a driver and its remote jobs leave for each other in an object store. Pure: keys and bytes.

A parcel holds the orders of all jobs that were submitted together, as a packed list whose first
item is what they have in common; a job reads that and its own. A word is what a job says: that it
began, what it printed, how it ended. Words of a run lie side by side under one prefix until its
driver has taken them, so one list finds what is new, however many jobs there are.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, Self

import msgpack
from msgspec import Struct

from engine.errors import BlobCorruptError, StoreError
from engine.ids import safe_name
from engine.stores.directory import digest_of
from engine.stores.packed import pack_list
from engine.stores.remote.keys import run_prefix

PARCEL_VERSION = WORD_VERSION = 1
_DIGEST_BYTES = 32
_END = "end"
_SEQUENCE_DIGITS = 8


def parcels_prefix(flow: str, run_id: str) -> str:
    return f"{run_prefix(flow, run_id)}parcels/"


def parcel_key(flow: str, run_id: str, parcel: str) -> str:
    """Where the orders of one submission lie."""
    return f"{parcels_prefix(flow, run_id)}{safe_name(parcel, what='parcel')}"


def words_prefix(flow: str, run_id: str) -> str:
    return f"{run_prefix(flow, run_id)}words/"


def gang_prefix(flow: str, run_id: str, gang: str) -> str:
    """Where the tasks of a gang's attempt, named by its first job, leave what they have made."""
    told_apart = hashlib.blake2b(gang.encode(), digest_size=16).hexdigest()
    return f"{run_prefix(flow, run_id)}gangs/{told_apart}/"


def gang_result_key(flow: str, run_id: str, gang: str, index: int) -> str:
    """Where one task of a gang's attempt commits its manifest."""
    return f"{gang_prefix(flow, run_id, gang)}{index}.manifest"


def runtime_key(sha256: str) -> str:
    """Where a package of aflow and what it needs lies; named by the SHA-256 of its bytes, which
    Python can check without aflow."""
    return f"runtimes/{sha256}"


class Boot(Struct, frozen=True):
    """What all jobs of a parcel have in common.

    `target` is what the flow is loaded by, relative to the code if `is_file`; or `program` is the
    whole of it, pickled by value. `code` is the packed Entry of the code package. `names` are the
    jobs of the parcel, in order, `pack` to a container: a driver that starts again finds its jobs
    by them, and so does whoever asks which job ran in which container.
    """

    flow: str
    run_id: str
    target: str
    is_file: bool
    names: Sequence[str]
    program: bytes = b""
    code: bytes = b""
    decorators: Sequence[str] = ()
    isolation: str = "fork"
    pack: int = 1

    def packed(self) -> bytes:
        fields = {name: getattr(self, name) for name in self.__struct_fields__}
        return seal(msgpack.packb({"v": PARCEL_VERSION, **fields}))

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Read what `pack` made.

        Raises:
            StoreError: it is damaged, or of another version.
        """
        wire = _opened(data, PARCEL_VERSION, "a parcel")
        return cls(**wire)


class Order(Struct, frozen=True):
    """What one job is told: its name, its packed TaskSpec, and when it must have ended."""

    name: str
    spec: bytes
    deadline_s: float | None = None

    def pack(self) -> bytes:
        return seal(msgpack.packb([self.name, self.spec, self.deadline_s]))

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Read what `pack` made.

        Raises:
            StoreError: it is damaged.
        """
        name, spec, deadline_s = msgpack.unpackb(unseal(data, "an order"))
        return cls(name, spec, deadline_s)


def pack_parcel(boot: Boot, orders: Sequence[Order]) -> bytes:
    return pack_list([boot.packed(), *(order.pack() for order in orders)])


class Ending(Struct, frozen=True):
    """How a job ended: the fields of an executor's Exit and JobEnded, and what its worker said."""

    kind: str
    code: int
    detail: str
    started_us: int
    ended_us: int
    report: bytes | None


class Word(Struct, frozen=True):
    """What a job says at one time. `pid` is set in the first, `ending` in the last one.

    `lines` are (stream, ((at_us, text), ...)) in the order in which they were printed.
    """

    name: str
    at_us: int
    lines: Sequence[tuple[str, Sequence[tuple[int, str]]]] = ()
    pid: int | None = None
    ending: Ending | None = None

    def pack(self) -> bytes:
        e = self.ending
        ending = [e.kind, e.code, e.detail, e.started_us, e.ended_us, e.report] if e else None
        wire = {
            "v": WORD_VERSION,
            "name": self.name,
            "at": self.at_us,
            "lines": self.lines,
            "pid": self.pid,
            "end": ending,
        }
        return seal(msgpack.packb(wire, unicode_errors="surrogatepass"))

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Read what `pack` made.

        Raises:
            StoreError: it is damaged, or of another version.
        """
        wire = _opened(data, WORD_VERSION, "what a job said")
        lines = tuple((s, tuple((at, text) for at, text in ls)) for s, ls in wire["lines"])
        ending = Ending(*wire["end"]) if wire["end"] else None
        return cls(wire["name"], wire["at"], lines, wire["pid"], ending)


def word_key(flow: str, run_id: str, job: str, place: str, sequence: int | None) -> str:
    """Where a word lies; the last one (`sequence` None) sorts behind all others of its job.

    Args:
        flow, run_id: the run.
        job: the job's name.
        place: tells apart two containers that run the same job.
        sequence: counts the words of one container.
    """
    last = _END if sequence is None else f"{sequence:0{_SEQUENCE_DIGITS}d}"
    told_apart = hashlib.blake2b(f"{job}\0{place}".encode(), digest_size=16).hexdigest()
    return f"{words_prefix(flow, run_id)}{told_apart}.{last}"


def seal(data: bytes) -> bytes:
    """Put the digest of `data` before it: whoever reads a part of an object can check it."""
    return bytes.fromhex(digest_of((data,))) + data


def unseal(data: bytes, what: str) -> bytes:
    """Read what `seal` made.

    Raises:
        BlobCorruptError: it is damaged.
    """
    expected, rest = data[:_DIGEST_BYTES].hex(), data[_DIGEST_BYTES:]
    actual = digest_of((rest,))
    if actual != expected:
        raise BlobCorruptError(what, expected=expected, actual=actual)
    return rest


def _opened(data: bytes, version: int, what: str) -> dict[str, Any]:  # Any: plain msgpack values
    wire: dict[str, Any] = msgpack.unpackb(unseal(data, what), unicode_errors="surrogatepass")
    found = wire.pop("v")
    if found != version:
        raise StoreError(
            f"{what} has version {found}; this aflow reads version {version}",
            hint="the driver and its jobs must be of the same aflow",
        )
    return wire
