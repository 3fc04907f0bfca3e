"""An event loop in a thread, for callers that do not await."""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


class Portal:
    """Runs coroutines, one after the other, on one loop. Made at the first call; close it.

    It may be used from any thread, with or without a running loop.
    """

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(1, name)
        self._runner: asyncio.Runner | None = None
        self._task: asyncio.Task[Any] | None = None  # Any: of whatever is running

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` to its end and return its result, or raise what it raises.

        An interrupt of the caller (Ctrl-C) cancels it, and is raised once it has ended.
        """
        running: Future[T] = self._pool.submit(self._run, work)
        try:
            return running.result()
        except BaseException:
            self._cancel(running)
            raise

    def close(self) -> None:
        """End the loop and its thread. May be called again."""
        with suppress(RuntimeError):  # it is closed
            self._pool.submit(self._close).result()
        self._pool.shutdown()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        if self._runner is None:
            self._runner = asyncio.Runner()

        async def noted() -> T:
            self._task = asyncio.current_task()
            try:
                return await work
            finally:
                self._task = None

        return self._runner.run(noted())

    def _cancel(self, running: "Future[T]") -> None:
        while not running.done():
            task = self._task
            if task is not None:
                with suppress(RuntimeError):  # the loop has ended meanwhile
                    task.get_loop().call_soon_threadsafe(task.cancel)
            with suppress(BaseException):
                running.exception(timeout=0.05)

    def _close(self) -> None:
        if self._runner is not None:
            self._runner.close()
            self._runner = None
