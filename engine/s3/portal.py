"""An event loop in a thread, for callers that do not await."""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from threading import Lock
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Portal:
    """Runs coroutines, one after the other, on one loop. Made at the first call; close it.

    It may be used from any thread, with or without a running loop.
    """

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(1, name)
        self._runner: asyncio.Runner | None = None

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` to its end and return its result, or raise what it raises.

        An interrupt of the caller (Ctrl-C) cancels it, and is raised once it has ended; a second
        one is raised at once.
        """
        call = _Call(work)
        try:
            self._pool.submit(self._run, call)
            return call.future.result()
        except BaseException:
            if not call.future.done():
                call.cancel()
            raise

    def close(self) -> None:
        """End the loop and its thread. May be called again."""
        with suppress(RuntimeError):  # it is closed
            self._pool.submit(self._close).result()
        self._pool.shutdown()

    def _run(self, call: "_Call[T]") -> None:
        if self._runner is None:
            self._runner = asyncio.Runner()
        call.run(self._runner)

    def _close(self) -> None:
        if self._runner is not None:
            self._runner.close()
            self._runner = None


class _Call(Generic[T]):
    """A coroutine that one thread runs and another may cancel, at any moment."""

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self.future: Future[T] = Future()
        self._work = work
        self._lock = Lock()
        self._has_begun = False
        self._is_cancelled = False
        self._task: asyncio.Task[Any] | None = None

    def run(self, runner: asyncio.Runner) -> None:
        with self._lock:
            self._has_begun = not self._is_cancelled
        if not self._has_begun:
            self._work.close()
            return
        try:
            self.future.set_result(runner.run(self._noted()))
        except BaseException as error:  # noqa: BLE001 - raised where the result is waited for
            self.future.set_exception(error)

    async def _noted(self) -> T:
        with self._lock:
            self._task = asyncio.current_task()
            if self._is_cancelled and self._task is not None:
                self._task.cancel()
        return await self._work

    def cancel(self) -> None:
        """Cancel it and wait until it has ended; if it has not begun, it never will."""
        with self._lock:
            self._is_cancelled = True
            if not self._has_begun:
                return
            if self._task is not None:
                with suppress(RuntimeError):  # the loop has ended meanwhile
                    self._task.get_loop().call_soon_threadsafe(self._task.cancel)
        wait([self.future])
