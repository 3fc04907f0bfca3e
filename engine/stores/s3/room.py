"""Room in memory: how many bytes may be on their way at once."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Room:
    """So many bytes, taken and left in order: a large claim is not overtaken for ever.

    `most_taken` is the most that ever was taken at once.
    """

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.most_taken = 0
        self._taken = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def take(self, count: int) -> AsyncIterator[None]:
        """Hold `count` bytes of room, at most `size_bytes`, for the time of the block."""
        await self.enter(count)
        try:
            yield
        finally:
            self.leave(count)

    async def enter(self, count: int) -> None:
        """Wait for `count` bytes of room and hold them until `leave`: `take`, where calls count."""
        if count > self.size_bytes:
            raise ValueError(f"there is no room for {count:,} bytes in {self.size_bytes:,}")
        if self._waiting or self._taken + count > self.size_bytes:
            await self._queue(count)
        else:
            self._add(count)

    def leave(self, count: int) -> None:
        """Give back what `enter` took."""
        self._add(-count)
        self._admit()

    async def _queue(self, count: int) -> None:
        turn = asyncio.get_running_loop().create_future()
        claim = (count, turn)
        self._waiting.append(claim)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._add(-count)
            elif claim in self._waiting:
                self._waiting.remove(claim)
            self._admit()
            raise

    def _admit(self) -> None:
        while self._waiting and self._taken + self._waiting[0][0] <= self.size_bytes:
            count, turn = self._waiting.popleft()
            if not turn.done():
                self._add(count)
                turn.set_result(None)

    def _add(self, count: int) -> None:
        self._taken += count
        if self._taken > self.most_taken:
            self.most_taken = self._taken
