"""A BlobStore in memory: for tests, and for runs that leave nothing behind."""

import os
from collections.abc import AsyncIterator, Callable, Collection, Sequence

from engine.errors import BlobNotFoundError
from engine.stores.base import BlobInfo, Buffer
from engine.stores.keys import checked_key


class MemoryBlobStore:
    """`now_us` is the clock that stamps blobs; `blobs` holds them by key."""

    def __init__(self, now_us: Callable[[], int] = lambda: 0) -> None:
        self.blobs: dict[str, tuple[bytes, int]] = {}
        self._now_us = now_us

    async def get(self, key: str) -> bytes:
        try:
            return self.blobs[checked_key(key)][0]
        except KeyError:
            raise BlobNotFoundError(key) from None

    async def get_range(self, key: str, start: int, length: int) -> bytes:
        return (await self.get(key))[start : start + length]

    async def put(self, key: str, parts: Sequence[Buffer], *, if_absent: bool = False) -> bool:
        if checked_key(key) in self.blobs and if_absent:
            return False
        self.blobs[key] = (b"".join(parts), self._now_us())
        return True

    async def get_to_file(self, key: str, fd: int) -> int:
        data = memoryview(await self.get(key))
        done = 0
        while done < len(data):
            done += os.pwrite(fd, data[done:], done)
        return done

    async def put_file(self, key: str, fd: int, *, if_absent: bool = False) -> bool:
        data = os.pread(fd, os.fstat(fd).st_size, 0)
        return await self.put(key, (data,), if_absent=if_absent)

    async def stat(self, key: str) -> BlobInfo | None:
        found = self.blobs.get(checked_key(key))
        return BlobInfo(key, len(found[0]), found[1]) if found else None

    async def list(self, prefix: str = "") -> AsyncIterator[BlobInfo]:
        for key in sorted(self.blobs):
            if key.startswith(prefix) and (found := self.blobs.get(key)):
                yield BlobInfo(key, len(found[0]), found[1])

    async def delete(self, keys: Collection[str]) -> None:
        for key in keys:
            self.blobs.pop(checked_key(key), None)

    async def aclose(self) -> None:
        """Nothing is open."""
