"""The content-addressed store: equal bytes are stored once, and read back only if intact.

A blob's key is made of the BLAKE3 of its bytes, so a writer that finds it present has nothing to
do, and a reader can tell damage from data. Keys fan out by two hex digits, because S3 and file
systems both slow down on one huge prefix.
"""

import asyncio
from collections.abc import Sequence

from engine.errors import BlobCorruptError, StoreError
from engine.stores.base import BlobStore, Buffer
from engine.stores.directory import DIGEST_HEX, digest_of

_THREAD_MIN_BYTES = 1 << 20  # hashing less takes under 0.25 ms, no more than a thread's round trip


def blob_key(digest: str) -> str:
    """The key of a blob in any BlobStore.

    Raises:
        StoreError: `digest` is not 64 lower-case hex digits.
    """
    if len(digest) != DIGEST_HEX or digest.strip("0123456789abcdef"):
        raise StoreError(f"{digest[:80]!r} is not a digest")
    return f"blobs/{digest[:2]}/{digest}"


class ContentAddressedStore:
    """Bytes by digest over a BlobStore. Equal puts that overlap write once."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._writing: dict[str, asyncio.Future[None]] = {}

    async def put(self, parts: Sequence[Buffer]) -> str:
        """Store the concatenation of `parts` unless equal bytes are stored; return its digest.

        Raises:
            StoreUnavailableError: the store did not take it.
        """
        digest = await _digest(parts)
        while pending := self._writing.get(digest):
            # Shielded: one waiter's cancellation is not the writer's.
            await asyncio.wait([pending])
            if not pending.cancelled() and pending.exception() is None:
                return digest
        done = self._writing[digest] = asyncio.get_running_loop().create_future()
        try:
            if await self._blobs.stat(blob_key(digest)) is None:
                await self._blobs.put(blob_key(digest), parts, if_absent=True)
            done.set_result(None)
        finally:
            del self._writing[digest]
            done.cancel()  # of no effect when it is done; those who wait try for themselves
        return digest

    async def get(self, digest: str) -> bytes:
        """The bytes whose BLAKE3 is `digest`.

        Raises:
            BlobNotFoundError: nothing is stored under it.
            BlobCorruptError: what is stored hashes to something else.
            StoreUnavailableError: the store did not answer.
        """
        data = await self._blobs.get(blob_key(digest))
        actual = await _digest((data,))
        if actual != digest:
            raise BlobCorruptError(digest, expected=digest, actual=actual)
        return data

    async def exists(self, digest: str) -> bool:
        return await self._blobs.stat(blob_key(digest)) is not None


async def _digest(parts: Sequence[Buffer]) -> str:
    if sum(memoryview(part).nbytes for part in parts) < _THREAD_MIN_BYTES:
        return digest_of(parts)
    return await asyncio.to_thread(digest_of, parts)
