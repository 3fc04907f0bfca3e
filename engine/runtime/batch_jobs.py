"""The jobs that aflow has in a queue of AWS Batch, whoever drives them, or drove them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from engine.aws.rates import bucket_of
from engine.aws.sessions import AwsSession
from engine.config import Config
from engine.executors import batch_limits
from engine.executors.batch_client import BatchClient, Listed
from engine.runtime.batch_needs import Queues

SERVICE = "batch"


@asynccontextmanager
async def batch_client(config: Config) -> AsyncIterator[tuple[BatchClient, AwsSession]]:
    """A client within the process's rate of calls, and the session that it is of."""
    session = AwsSession(config)
    bucket = bucket_of(SERVICE, batch_limits.OUR_CALLS_S, batch_limits.OUR_CALLS_S)
    try:
        yield BatchClient(lambda: session.client(SERVICE), bucket), session
    finally:
        await session.aclose()


class BatchJobs:
    """The jobs of one queue.

    Args:
        client: speaks to Batch.
        queue: its name; "" for the one of the settings, else the only one.
        config: the settings.
    """

    def __init__(self, client: BatchClient, queue: str, config: Config) -> None:
        self._client = client
        self._queue = queue or config.batch_queue or ""

    async def active(self, run: str = "") -> list[Listed]:
        """Those that have not ended, the oldest first.

        Args:
            run: the beginning of a run's id; "" for all runs.

        Raises:
            ExecutorError: Batch does not answer, or there is no such queue.
        """
        queue = self._queue or await Queues(self._client).only_queue()
        found = [job async for job in self._client.active(queue)]
        return sorted((j for j in found if j.run_id.startswith(run)), key=lambda j: j.created_us)

    async def kill(self, jobs: Sequence[Listed], reason: str) -> None:
        """Have them ended.

        Raises:
            ExecutorError: Batch does not answer.
        """
        for job in jobs:
            await self._client.terminate(job.job_id, reason)
