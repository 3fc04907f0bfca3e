"""Where the parts of an upload come from, and where those of a download go."""

import asyncio
import io
import os
from bisect import bisect_right
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import accumulate
from typing import Protocol

from engine.errors import StoreError
from engine.stores.base import Buffer
from engine.stores.threads import to_its_end


class Source(Protocol):
    """Bytes to upload; they must not change meanwhile."""

    @property
    def size_bytes(self) -> int: ...

    def cut(self, start: int, length: int) -> AbstractAsyncContextManager[Buffer]:
        """The bytes from `start`, `length` of them, all of which exist, for the time of a block."""
        ...


def joined(parts: Sequence[Buffer]) -> Buffer:
    """All of them in one: a copy if they are several."""
    if len(parts) != 1 or not memoryview(parts[0]).nbytes:  # a view of nothing may have no cast
        return b"".join(parts)
    # Bytes as they are: what sends them would make bytes of a view.
    return parts[0] if isinstance(parts[0], bytes) else memoryview(parts[0]).cast("B")


class BuffersSource:
    """Buffers, one after the other. A cut inside one is a view of it, and no copy."""

    def __init__(self, parts: Sequence[Buffer]) -> None:
        self._views = [memoryview(part).cast("B") for part in parts if memoryview(part).nbytes]
        self._ends = list(accumulate(view.nbytes for view in self._views))

    @property
    def size_bytes(self) -> int:
        return self._ends[-1] if self._ends else 0

    @asynccontextmanager
    async def cut(self, start: int, length: int) -> AsyncIterator[Buffer]:
        pieces = []
        index = bisect_right(self._ends, start)
        while length:
            view = self._views[index]
            skip = start - (self._ends[index] - view.nbytes)
            pieces.append(view[skip : skip + length])
            start, length = start + pieces[-1].nbytes, length - pieces[-1].nbytes
            index += 1
        yield pieces[0] if len(pieces) == 1 else b"".join(pieces)


class FileSource:
    """An open file from its first byte to its last; the descriptor's position does not matter.

    A cut lies in memory that an earlier one of its length has left: new memory would cost as much
    as reading the file does. It is not mapped, since a file that shrinks would kill the process.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._size_bytes = os.fstat(fd).st_size
        self._left: list[bytearray] = []

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    @asynccontextmanager
    async def cut(self, start: int, length: int) -> AsyncIterator[Buffer]:
        fits = self._left and len(self._left[-1]) == length
        body = self._left.pop() if fits else bytearray(length)
        await asyncio.to_thread(self._read, body, start)
        yield body
        self._left.append(body)  # not after an error: who knows what still sends it

    def _read(self, body: bytearray, start: int) -> None:
        # A read of a regular file is short at its end only.
        if os.preadv(self._fd, [body], start) != len(body):
            raise StoreError("a file became shorter while it was stored")


class Target(Protocol):
    """Where a download goes."""

    def reserve(self, size_bytes: int) -> None:
        """So much will come, from here on; what came before is void."""
        ...

    async def place(self, start: int, body: Buffer) -> None:
        """Take the first bytes that come, before any `write`."""
        ...

    def write(self, start: int, body: Buffer) -> None:
        """Take more of them, in a thread; others may do the same elsewhere in the target."""
        ...


class BytesTarget:
    """Collects a download as bytes."""

    def __init__(self) -> None:
        self._whole = b""
        self._file = io.BytesIO()
        self._size_bytes = 0

    def reserve(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._whole = b""
        self._file = io.BytesIO()

    async def place(self, start: int, body: Buffer) -> None:
        if memoryview(body).nbytes == self._size_bytes:  # the common case: all in one piece
            self._whole = body if isinstance(body, bytes) else bytes(body)
            return
        if not self._file.getbuffer().nbytes:
            self._file.seek(self._size_bytes - 1)
            self._file.write(b"\0")  # takes all the room there will be, once
        self.write(start, body)

    def write(self, start: int, body: Buffer) -> None:
        self._file.getbuffer()[start : start + len(body)] = body

    def finish(self) -> bytes:
        return self._whole or self._file.getvalue()  # the file's own object: no copy


class FileTarget:
    """Writes a download into an open file, in any order."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def reserve(self, size_bytes: int) -> None:
        os.ftruncate(self._fd, size_bytes)

    async def place(self, start: int, body: Buffer) -> None:
        await to_its_end(self.write, start, body)

    def write(self, start: int, body: Buffer) -> None:
        view = memoryview(body).cast("B")
        while view:
            written = os.pwrite(self._fd, view, start)
            view, start = view[written:], start + written
