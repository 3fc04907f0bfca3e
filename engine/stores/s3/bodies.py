"""Where the parts of an upload come from, and where those of a download go."""

import asyncio
import io
import os
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Protocol

from engine.errors import StoreError
from engine.stores.base import Buffer
from engine.stores.threads import to_its_end


class Source(Protocol):
    """Bytes to upload; they must not change meanwhile."""

    @property
    def size_bytes(self) -> int: ...

    async def cut(self, start: int, length: int) -> Buffer:
        """The bytes from `start`, `length` of them, all of which exist."""
        ...


class BuffersSource:
    """Buffers, one after the other. A cut inside one is a view of it, and no copy."""

    def __init__(self, parts: Sequence[Buffer]) -> None:
        self._views = [memoryview(part).cast("B") for part in parts if memoryview(part).nbytes]
        self._ends = list(accumulate(view.nbytes for view in self._views))

    @property
    def size_bytes(self) -> int:
        return self._ends[-1] if self._ends else 0

    async def cut(self, start: int, length: int) -> Buffer:
        pieces = []
        index = bisect_right(self._ends, start)
        while length:
            view = self._views[index]
            skip = start - (self._ends[index] - view.nbytes)
            pieces.append(view[skip : skip + length])
            start, length = start + pieces[-1].nbytes, length - pieces[-1].nbytes
            index += 1
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class FileSource:
    """An open file from its first byte to its last; the descriptor's position does not matter."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._size_bytes = os.fstat(fd).st_size

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    async def cut(self, start: int, length: int) -> Buffer:
        return await asyncio.to_thread(self._read, start, length)

    def _read(self, start: int, length: int) -> bytes:
        data = os.pread(self._fd, length, start)
        if len(data) != length:  # a read of a regular file is short at its end only
            raise StoreError("a file became shorter while it was stored")
        return data


class Target(Protocol):
    """Where a download goes."""

    def reserve(self, size_bytes: int) -> None:
        """So much will come, from here on; what came before is void."""
        ...

    async def place(self, start: int, body: Buffer) -> None: ...


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
        self._file.seek(start)
        self._file.write(body)

    def finish(self) -> bytes:
        return self._whole or self._file.getvalue()  # the file's own object: no copy


class FileTarget:
    """Writes a download into an open file, in any order."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def reserve(self, size_bytes: int) -> None:
        os.ftruncate(self._fd, size_bytes)

    async def place(self, start: int, body: Buffer) -> None:
        await to_its_end(self._write, start, body)

    def _write(self, start: int, body: Buffer) -> None:
        view = memoryview(body).cast("B")
        while view:
            written = os.pwrite(self._fd, view, start)
            view, start = view[written:], start + written
