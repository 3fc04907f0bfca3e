"""Brings blobs into the cache, through a file of their own and verified."""

import asyncio
import os

from engine.stores.access import access_error
from engine.stores.base import BlobStore
from engine.stores.cas import blob_key
from engine.stores.directory import BlobDirectory
from engine.stores.temporary import new_file
from engine.stores.threads import to_its_end


class Downloads:
    """Fetches blobs of `blobs` into `directory`. Equal digests that overlap are fetched once."""

    def __init__(self, blobs: BlobStore, directory: BlobDirectory) -> None:
        self._blobs = blobs
        self._directory = directory
        self._going: dict[str, asyncio.Future[None]] = {}

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
        temporary = os.path.join(self._directory.root, "tmp")
        need_bytes: int | None = None
        try:
            with new_file(temporary) as (fd, name):
                try:
                    await self._blobs.get_to_file(blob_key(digest), fd)
                except OSError:
                    need_bytes = os.fstat(fd).st_size  # as long as it was to become
                    raise
                await to_its_end(self._directory.adopt, digest, fd, name)
        except OSError as error:
            raise access_error(error, temporary, "write to", need_bytes) from error
