"""An object store for callers that have no loop: a thread that has one, started when needed.

What loads a value is synchronous, in a notebook as in a program with a loop of its own, so it must
not need the caller's loop.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar


class Closing(Protocol):
    async def aclose(self) -> None: ...


C = TypeVar("C", bound=Closing)
R = TypeVar("R")


class Portal(Generic[C]):
    """Calls what `make` makes, which lives on the portal's loop. Closed by `close`.

    Args:
        make: called on the loop, once.
    """

    def __init__(self, make: Callable[[], C]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._made: C | None = None

    def call(self, work: Callable[[C], Awaitable[R]]) -> R:
        """Do `work` on the loop and wait for it; what it raises is raised here."""

        async def run() -> R:
            if self._made is None:
                self._made = self._make()
            return await work(self._made)

        return asyncio.run_coroutine_threadsafe(run(), self._running()).result()

    def close(self) -> None:
        """End the thread; a later call starts another."""
        with self._lock:
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is None or thread is None:
            return

        async def end() -> None:
            made, self._made = self._made, None
            if made is not None:
                await made.aclose()

        asyncio.run_coroutine_threadsafe(end(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name="aflow portal", daemon=True
                )
                self._thread.start()
            return self._loop
