"""Makes blobs of the cache durable in the object store, each once.

What a run knows to be there it learns from what it puts and from the runs that it goes on from. A
small blob of which that is not known is put, whether it is there or not: its name says what its
bytes are, so it is as it was, or mended, and a server need not look first. For a larger one the
conditional put is the question and the answer in one request.
"""

import asyncio
import os
from collections.abc import Iterable

from msgspec import Struct

from engine.errors import BlobNotFoundError
from engine.stores.base import BlobStore
from engine.stores.cas import blob_key
from engine.stores.directory import BlobDirectory
from engine.stores.manifest import FileIdentity
from engine.stores.threads import in_thread

ASK_FIRST_BYTES = 8 << 20
"""From here on sending what is there already costs more than a request that asks."""

SMALL_BYTES = 1 << 20
"""Up to here a blob is put without a condition. Readers bring it by one request, so none of them
sees it change between two of its ranges."""

_OPEN_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class Wanted(Struct, frozen=True):
    """What is known of a blob that is to be durable.

    `identity` is of the file that was hashed, which need then not be hashed again if it is large.
    """

    identity: FileIdentity | None = None
    is_likely_there: bool = False


class Uploads:
    """Uploads blobs of `directory` to `blobs`. Equal digests that overlap go once.

    Args:
        blobs: the object store; it bounds what is in flight.
        directory: where the blobs lie now.
    """

    def __init__(self, blobs: BlobStore, directory: BlobDirectory) -> None:
        self._blobs = blobs
        self._directory = directory
        self._known: set[bytes] = set()
        self._going: dict[bytes, asyncio.Future[None]] = {}

    def note(self, digests: Iterable[bytes]) -> None:
        """Take it as known that these are in the store: a committed manifest names them."""
        self._known.update(digests)

    def forget(self) -> None:
        """Take nothing as known any more."""
        self._known = set()  # not cleared: what is on its way may have come too early

    def knows(self, digest: bytes) -> bool:
        """Whether it is known that the blob is in the store."""
        return digest in self._known

    async def ensure(self, digest: bytes, wanted: Wanted) -> None:
        """Return when the blob is durable.

        Args:
            digest: the blob's, 32 bytes.
            wanted: what is known of it.

        Raises:
            BlobNotFoundError: it is in neither place.
            BlobCorruptError: the file is not what its name says.
            StoreUnavailableError: the store did not take it.
        """
        while digest not in self._known:
            going = self._going.get(digest)
            if going is None:
                await self._upload(digest, wanted)
                return
            await asyncio.wait([going])  # if that fails or is cancelled, it is ours to do

    async def _upload(self, digest: bytes, wanted: Wanted) -> None:
        done, known = asyncio.get_running_loop().create_future(), self._known
        self._going[digest] = done
        try:
            await self._put(digest.hex(), wanted)
            known.add(digest)
        finally:
            del self._going[digest]
            done.cancel()

    async def _put(self, digest: str, wanted: Wanted) -> None:
        key = blob_key(digest)
        try:
            size = self._directory.size(digest)
            is_asked = wanted.is_likely_there or size is None or size >= ASK_FIRST_BYTES
            if is_asked and await self._blobs.stat(key) is not None:
                return
            is_small = size is not None and size <= SMALL_BYTES
            if is_small:  # it may replace a sound one, so what was known of its file is not enough
                await in_thread(self._directory.verify, digest)
            else:
                await in_thread(self._directory.check, digest, wanted.identity)
            fd = await in_thread(os.open, self._directory.path(digest), _OPEN_READ)
        except (BlobNotFoundError, FileNotFoundError) as error:
            if await self._blobs.stat(key) is None:
                raise BlobNotFoundError(digest) from error
            return
        try:
            await self._blobs.put_file(key, fd, if_absent=not is_small)
        finally:
            os.close(fd)
