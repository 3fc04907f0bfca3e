"""What is asked of S3, one value per HTTP request, and what comes back. Pure.

A sender turns a request into one exchange with the server, no more: it neither tries again nor
waits for its turn. Those are senders around it (pacing.py), and the store (store.py) stands on
whatever chain it is given. So a failed part of a large blob is sent again alone, every limit sees
every request, and tests need no server.
"""

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from msgspec import Struct

from engine.stores.base import BlobInfo, Buffer, Upload

R = TypeVar("R")

Sink = Callable[[int, Buffer], None]
"""Takes bytes of a blob, with the place of the first of them in it; keeps no reference to them.

It may block, and is called in threads, several at once."""

PIECE_BYTES = 256 << 10
"""What a sink gets at once: written while it is in the processor's cache, from memory that is used
again, and where a new file's pages come in small folios (docs/decisions/0008)."""


class Request(Struct, Generic[R], frozen=True, kw_only=True):
    """`key` is the blob's, without the store's prefix; R is the type of the reply."""

    key: str = ""

    @property
    def flight_bytes(self) -> int:
        """The most bytes of blobs that this moves."""
        return 0

    @property
    def held_bytes(self) -> int:
        """The most of them that are in memory at once."""
        return self.flight_bytes

    @property
    def server_s(self) -> float:
        """How many seconds the server may take beside moving the bytes."""
        return 10.0


class Found(Struct, frozen=True):
    """What Head tells. `writer` is the token of the write that made the blob, if it left one."""

    info: BlobInfo
    writer: str = ""


class Fetched(Struct, frozen=True):
    """`body` is the part of the range that exists; `size_bytes` and `etag` are the whole blob's.

    A range that begins behind the end has an empty body, and -1 where the server tells no size.
    """

    body: Buffer
    size_bytes: int
    etag: str


class Page(Struct, frozen=True):
    """Some keys in order; `after` asks for the next ones, None at the end."""

    infos: list[BlobInfo]
    after: str | None


class UploadPage(Struct, frozen=True):
    uploads: list[Upload]
    after: tuple[str, str] | None


class Head(Request[Found | None], frozen=True, kw_only=True):
    """Is there a blob?"""


class Get(Request[Fetched], frozen=True, kw_only=True):
    """Bytes start <= i < start + length, length >= 1; of the blob with `etag` if that is given.

    With a `sink` they go there as they come, and the reply's body is empty. What fails may have
    brought some of them, and brings them again when it is tried again. If `needs_facts` is false
    there is no sink and no etag, and the reply may lack size and etag, -1 and "": bytes alone cost
    less.

    Raises:
        BlobNotFoundError, BlobChangedError; what the sink raises.
    """

    start: int
    length: int
    etag: str | None = None
    sink: Sink | None = None
    needs_facts: bool = True

    @property
    def flight_bytes(self) -> int:
        return self.length

    @property
    def held_bytes(self) -> int:
        return self.length if self.sink is None else min(self.length, PIECE_BYTES)


class Put(Request[bool], frozen=True, kw_only=True):
    """Write a whole blob; False if `if_absent` and the key is taken.

    `writer` is written beside it if `if_absent`; nobody asks who wrote what needed no free key.
    """

    body: Buffer
    writer: str
    if_absent: bool = False

    @property
    def flight_bytes(self) -> int:
        return memoryview(self.body).nbytes


class List(Request[Page], frozen=True, kw_only=True):
    """The next page of the keys that begin with `key`."""

    after: str | None = None


class Delete(Request[None], frozen=True, kw_only=True):
    """Delete at most DELETE_MAX keys; what is not there is no error."""

    keys: tuple[str, ...]


class BeginUpload(Request[str], frozen=True, kw_only=True):
    """Begin an upload in parts; the reply is its id."""

    writer: str


class PutPart(Request[str], frozen=True, kw_only=True):
    """Part `number`, from 1; the reply is what FinishUpload has to say of it."""

    upload_id: str
    number: int
    body: Buffer

    @property
    def flight_bytes(self) -> int:
        return memoryview(self.body).nbytes


class FinishUpload(Request[bool], frozen=True, kw_only=True):
    """Make the blob of its parts; False if `if_absent` and the key is taken.

    Raises:
        UploadGoneError: there is no such upload (any more).
        UploadConflictError: another writer came between.
    """

    upload_id: str
    parts: tuple[str, ...]
    writer: str
    if_absent: bool = False

    @property
    def server_s(self) -> float:
        """S3 "can take several minutes" to join parts (API Reference, read 2026-11). Mostly it is
        done in a second, and to ask again is safe: so a request that was lost does not hold up."""
        return 60.0


class AbortUpload(Request[None], frozen=True, kw_only=True):
    """Drop an upload and its parts; one that is gone is no error."""

    upload_id: str


class ListUploads(Request[UploadPage], frozen=True, kw_only=True):
    """The next page of unfinished uploads of keys that begin with `key`."""

    after: tuple[str, str] | None = None


class Sender(Protocol):
    """Exchanges requests for replies. Each failure is a StoreError; a retryable one may help."""

    async def send(self, request: Request[R]) -> R: ...

    async def aclose(self) -> None: ...


DELETE_MAX = 1000  # Amazon S3 API Reference, DeleteObjects: "up to 1,000 keys" (read 2026-11)
LIST_MAX = 1000  # ListObjectsV2, MaxKeys: "up to 1,000 key names" (read 2026-11)
PARTS_MAX = 10_000  # S3 User Guide, multipart upload limits (read 2026-11)
PART_MIN_BYTES = 5 << 20  # the same; the last part may be smaller
