"""An object store for callers that have no loop: a thread that has one, started when needed.

What loads a value is synchronous, in a notebook as in a program with a loop of its own, so it must
not need the caller's loop.
"""

import asyncio
import sys
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
        self._lock = threading.RLock()  # a collection of garbage in between may close this one
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
        """End the thread; a later call starts another.

        It may be called by the garbage collector: in the thread itself, or when the interpreter
        ends, whose threads then stand still for ever and must not be waited for.
        """
        with self._lock:
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is None or thread is None or sys.is_finalizing():
            return

        async def end() -> None:
            made, self._made = self._made, None
            if made is not None:
                await made.aclose()

        ended = asyncio.run_coroutine_threadsafe(end(), loop)
        if thread is threading.current_thread():
            ended.add_done_callback(lambda _: loop.stop())
            return
        ended.result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_serve, args=(self._loop,), name="aflow portal", daemon=True
                )
                self._thread.start()
            return self._loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()
