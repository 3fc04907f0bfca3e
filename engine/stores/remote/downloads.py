"""Brings blobs into the cache: by ranges at once, through a file of their own, verified.

Memory is bounded by the ranges in flight, whatever a blob's size.
"""

import asyncio
import os

from engine.groups import unwrapped
from engine.stores.base import BlobStore
from engine.stores.cas import blob_key
from engine.stores.directory import BlobDirectory, access_error, pwrite_all
from engine.stores.temporary import new_file
from engine.stores.threads import in_thread

RANGE_BYTES = 8 << 20
RANGES_AT_ONCE = 4


class Downloads:
    """Fetches blobs of `blobs` into `directory`. Equal digests that overlap are fetched once."""

    def __init__(self, blobs: BlobStore, directory: BlobDirectory) -> None:
        self._blobs = blobs
        self._directory = directory
        self._going: dict[str, asyncio.Future[None]] = {}
        self._ranges = asyncio.Semaphore(RANGES_AT_ONCE)

    async def fetch(self, digest: str) -> None:
        """Return when the blob is in the cache, whole and sound.

        Raises:
            BlobNotFoundError: the store has none of that name.
            BlobCorruptError: what it has is something else.
            StoreUnavailableError: the store does not answer, or the cache takes no more.
        """
        while not self._directory.exists(digest):
            if going := self._going.get(digest):
                await asyncio.wait([going])  # if that fails or is cancelled, it is ours to do
                continue
            done = self._going[digest] = asyncio.get_running_loop().create_future()
            try:
                await self._fetch(digest)
            finally:
                del self._going[digest]
                done.cancel()

    async def _fetch(self, digest: str) -> None:
        key = blob_key(digest)
        head = await self._blobs.get_range(key, 0, RANGE_BYTES)
        found = await self._blobs.stat(key) if len(head) == RANGE_BYTES else None
        size = found.size_bytes if found else len(head)
        temporary = os.path.join(self._directory.root, "tmp")
        try:
            with new_file(temporary) as (fd, name):
                await in_thread(pwrite_all, fd, head, 0)
                del head
                await self._copy_rest(key, size, fd)
                await in_thread(self._directory.adopt, digest, fd, name)
        except OSError as error:
            raise access_error(error, temporary, "write to", size) from error

    async def _copy_rest(self, key: str, size: int, fd: int) -> None:
        with unwrapped():
            async with asyncio.TaskGroup() as group:
                for start in range(RANGE_BYTES, size, RANGE_BYTES):
                    await self._ranges.acquire()
                    group.create_task(self._copy(key, start, fd))

    async def _copy(self, key: str, start: int, fd: int) -> None:
        try:
            data = await self._blobs.get_range(key, start, RANGE_BYTES)
            await in_thread(pwrite_all, fd, data, start)
        finally:
            self._ranges.release()
