"""An object store for callers that have no loop: a thread that has one, started when needed.

What loads a value is synchronous, in a notebook as in a program with a loop of its own, so it must
not need the caller's loop.
"""

import asyncio
import atexit
import threading
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar


class Closing(Protocol):
    async def aclose(self) -> None: ...


C = TypeVar("C", bound=Closing)
R = TypeVar("R")


class Portal(Generic[C]):
    """Calls what `make` makes, which lives on the portal's loop. Closed by `close`, or at exit.

    Args:
        make: called on the loop, once.
    """

    def __init__(self, make: Callable[[], C]) -> None:
        self._make = make
        # Reentrant: garbage that is collected inside of a call may hold, and close, this portal.
        self._lock = threading.RLock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._made: C | None = None

    def call(self, work: Callable[[C], Awaitable[R]]) -> R:
        """Do `work` on the loop and wait for it; what it raises is raised here.

        Raises:
            concurrent.futures.CancelledError: the portal was closed meanwhile.
        """

        async def run() -> R:
            if self._made is None:
                self._made = self._make()
            return await work(self._made)

        with self._lock:
            done = asyncio.run_coroutine_threadsafe(run(), self._running())
        return done.result()

    @property
    def is_here(self) -> bool:
        """Whether this is the portal's own thread, which cannot wait for a call."""
        return self._thread is threading.current_thread()

    def close(self) -> None:
        """End the thread; a later call starts another. The thread itself may call this, too."""
        with self._lock:
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
            if loop is None or thread is None:
                return
            made, self._made = self._made, None
            asyncio.run_coroutine_threadsafe(_end(made), loop)
        atexit.unregister(self.close)
        if thread is not threading.current_thread():
            thread.join()

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(
                target=_serve, args=(self._loop,), name="aflow portal", daemon=True
            )
            self._thread.start()
            # Later, when modules are taken apart, the thread would not run any more.
            atexit.register(self.close)
        return self._loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()


async def _end(made: Closing | None) -> None:
    loop = asyncio.get_running_loop()
    try:
        if others := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in others:
                task.cancel()
            await asyncio.wait(others)
        if made is not None:
            await made.aclose()
    finally:
        loop.stop()
