"""The blob store seam: bytes by key, nothing more. Retry, limits and caches are wrappers."""

from collections.abc import AsyncIterator, Collection, Sequence
from typing import Protocol

from msgspec import Struct

Buffer = bytes | bytearray | memoryview


class BlobInfo(Struct, frozen=True):
    """`modified_us` is microseconds since 1970, UTC, by the store's clock."""

    key: str
    size_bytes: int
    modified_us: int


class Upload(Struct, frozen=True):
    """An upload in parts that was begun and neither finished nor aborted.

    `begun_us` is microseconds since 1970, UTC, by the store's clock.
    """

    key: str
    upload_id: str
    begun_us: int


class BlobStore(Protocol):
    """Laws, checked for every store by `engine.testing.blob_contract.BlobStoreContract`:

    1. a get after a put returns equal bytes; a reader sees a whole blob or none;
    2. of many `if_absent` writers of one key exactly one gets True;
    3. deleting what is not there is no error; getting it raises BlobNotFoundError;
    4. no reference is kept to a caller's buffers; keys are `/`-joined safe names;
    5. a file that was put and a blob that is got to a file are as by `put` and `get`, wherever the
       descriptor stands.
    """

    async def get(self, key: str) -> bytes:
        """Raises BlobNotFoundError, StoreUnavailableError."""
        ...

    async def get_range(self, key: str, start: int, length: int) -> bytes:
        """At most `length` bytes from `start`; fewer at the end of the blob."""
        ...

    async def put(self, key: str, parts: Sequence[Buffer], *, if_absent: bool = False) -> bool:
        """Store the concatenation of `parts`; False if `if_absent` and something was there."""
        ...

    async def get_to_file(self, key: str, fd: int) -> int:
        """Write a blob to an open, empty file and return its size; holds little of it in memory.

        After an error the file holds anything: rename it to its name when this has returned.

        Raises:
            BlobNotFoundError, StoreUnavailableError.
        """
        ...

    async def put_file(self, key: str, fd: int, *, if_absent: bool = False) -> bool:
        """Put the whole of an open file, which nobody changes meanwhile; holds little of it."""
        ...

    async def stat(self, key: str) -> BlobInfo | None: ...

    def list(self, prefix: str = "") -> AsyncIterator[BlobInfo]:
        """In order of key; pages are fetched as they are needed."""
        ...

    async def delete(self, keys: Collection[str]) -> None: ...

    async def aclose(self) -> None: ...
