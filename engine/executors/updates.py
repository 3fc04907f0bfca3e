"""Updates on their way from an executor to its one consumer."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from engine.errors import ExecutorError
from engine.executors.base import JobUpdate


class Updates:
    """What happened and was not taken yet, in order."""

    def __init__(self) -> None:
        self._waiting: list[JobUpdate] = []
        self._waiter: asyncio.Future[None] | None = None
        self._is_closed = False
        self.error: ExecutorError | None = None

    def tell(self, update: JobUpdate) -> None:
        self._waiting.append(update)
        self._wake()

    def fail(self, error: ExecutorError) -> None:
        """No more will come: the consumer gets what there is, then `error`."""
        self.error = error
        self._wake()

    def close(self) -> None:
        """No more will come."""
        self._is_closed = True
        self._wake()

    async def batches(self) -> AsyncIterator[Sequence[JobUpdate]]:
        """What `Executor.updates` yields.

        Raises:
            ExecutorError: what `fail` was given.
        """
        while True:
            if self._waiting:
                batch, self._waiting = self._waiting, []
                yield batch
            elif self.error:
                raise self.error
            elif self._is_closed:
                return
            else:
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
