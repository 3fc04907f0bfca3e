"""An event loop for callers that have none: a thread that runs it, started when needed.

What loads a value or moves an object is synchronous, in a notebook as in a program with a loop of
its own, so it must not need the caller's loop.
"""

import asyncio
import atexit
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError, Future, wait
from contextlib import suppress
from typing import Generic, Protocol, TypeVar


class Closing(Protocol):
    async def aclose(self) -> None: ...


C = TypeVar("C", bound=Closing)
R = TypeVar("R")


class Portal(Generic[C]):
    """Calls what `make` makes, which lives on the portal's loop. Closed by `close`, or at exit.

    It may be used from any thread but its own, with or without a running loop, by several at once.
    A fork of the process starts a thread of its own, and has `make` called again.

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
        self._pid = os.getpid()
        self._parents: tuple[object, ...] = ()

    def call(self, work: Callable[[C], Awaitable[R]]) -> R:
        """Do `work` on the loop and wait for it; what it raises is raised here.

        An interrupt of the caller (Ctrl-C) cancels it, and is raised once it has ended; a second
        one is raised at once.

        Raises:
            concurrent.futures.CancelledError: the portal was closed meanwhile.
        """

        async def run() -> R:
            if self._made is None:
                self._made = self._make()
            return await work(self._made)

        self._leave_to_parent()
        call = Call(run)
        loop: asyncio.AbstractEventLoop | None = None
        try:
            with self._lock:
                loop = self._running()
                loop.call_soon_threadsafe(call.start)
            return call.done.result()
        except BaseException:
            if loop is not None and not call.done.done():
                with suppress(RuntimeError):  # the loop has ended meanwhile
                    loop.call_soon_threadsafe(call.cancel)
                    wait([call.done])
            raise

    @property
    def is_here(self) -> bool:
        """Whether this is the portal's own thread, which cannot wait for a call."""
        return self._thread is threading.current_thread()

    def close(self) -> None:
        """End the thread; a later call starts another. The thread itself may call this, too."""
        self._leave_to_parent()
        with self._lock:
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
            if loop is None or thread is None:
                return
            made, self._made = self._made, None
            asyncio.run_coroutine_threadsafe(_end(made), loop)
        atexit.unregister(self.close)
        if thread is not threading.current_thread():
            thread.join()

    def _leave_to_parent(self) -> None:
        """In a fork, let go of what has stayed behind: the thread, and the lock if it was held."""
        if self._pid != os.getpid():
            # Kept: to take them apart would reach into the sockets that both processes have.
            self._parents = (self._loop, self._made, self._parents)
            self._loop, self._thread, self._made = None, None, None
            self._lock = threading.RLock()
            self._pid = os.getpid()

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


class Call(Generic[R]):
    """A coroutine that runs on a loop while another thread waits for it. `done` has its end."""

    def __init__(self, work: Callable[[], Awaitable[R]]) -> None:
        self.done: Future[R] = Future()
        self._work = work
        self._task: asyncio.Task[R] | None = None

    def start(self) -> None:
        """Begin, on the running loop, unless it was cancelled before."""
        if not self.done.cancelled():
            self._task = asyncio.ensure_future(self._run())
            self._task.add_done_callback(self._settle)

    def cancel(self) -> None:
        """End it, on the loop; if it has not begun, it never will."""
        if self._task is None:
            self.done.cancel()
        else:
            self._task.cancel()

    async def _run(self) -> R:
        return await self._work()

    def _settle(self, task: asyncio.Task[R]) -> None:
        if task.cancelled():
            self.done.set_exception(CancelledError())
        elif error := task.exception():
            self.done.set_exception(error)
        else:
            self.done.set_result(task.result())


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
