"""The jobs that aflow has in a queue of AWS Batch, whoever drives them, or drove them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from msgspec import Struct
from msgspec.structs import replace

from engine.aws.rates import bucket_of
from engine.aws.sessions import AwsSession
from engine.config import Config
from engine.executors import batch_limits
from engine.executors.batch_client import BatchClient, Listed, size_of
from engine.executors.batch_requests import Needs, describe_pages
from engine.executors.batch_waiting import Why, Wire
from engine.runtime.batch_queues import QueueScout, sizes_of

SERVICE = "batch"
USER = "AFLOW_USER"
"""The variable by which a container knows whose run it is of."""

_WAITING = ("RUNNABLE", "PENDING")


class Waiting(Struct, frozen=True):
    """`count` tasks of a run that need the same and wait for a machine, since the first did."""

    count: int
    since_us: int
    why: Why


@asynccontextmanager
async def batch_client(config: Config) -> AsyncIterator[tuple[BatchClient, AwsSession]]:
    """A client within the process's rate of calls, and the session that it is of."""
    session = AwsSession(config)
    bucket = bucket_of(SERVICE, batch_limits.OUR_CALLS_S, batch_limits.OUR_CALLS_S)
    try:
        yield BatchClient(lambda: session.client(SERVICE), bucket), session
    finally:
        await session.aclose()


@asynccontextmanager
async def batch_jobs(config: Config, queue: str = "") -> AsyncIterator["BatchJobs"]:
    """The jobs of a queue; "" for the one of the settings, else the only one."""
    async with batch_client(config) as (client, session):
        scout = QueueScout(client, sizes_of(session))
        yield BatchJobs(client, scout, queue or config.batch_queue or "")


class BatchJobs:
    """The jobs of one queue.

    Args:
        client: speaks to Batch.
        scout: looks at queues.
        queue: its name; "" for the only one.
    """

    def __init__(self, client: BatchClient, scout: QueueScout, queue: str) -> None:
        self._client = client
        self._scout = scout
        self._queue = queue

    async def active(self, run: str = "", user: str = "") -> list[Listed]:
        """Those that have not ended, the oldest first, each with its user and queue.

        Args:
            run: the beginning of a run's id; "" for all runs.
            user: whose; "" for everybody's.

        Raises:
            ExecutorError: Batch does not answer, or there is no such queue.
        """
        queue = self._queue or await self._scout.only_queue()
        found = [job async for job in self._client.active(queue) if job.run_id.startswith(run)]
        users: dict[str, str] = {}
        for page in describe_pages([job.job_id for job in found]):
            described = await self._client.details(page)
            users |= {d["jobId"]: _variables(d).get(USER, "") for d in described}
        known = [replace(job, user=users.get(job.job_id, ""), queue=queue) for job in found]
        kept = [job for job in known if not user or job.user == user]
        return sorted(kept, key=lambda job: job.created_us)

    async def kill(self, jobs: Sequence[Listed], reason: str) -> None:
        """Have them ended.

        Raises:
            ExecutorError: Batch does not answer.
        """
        for job in jobs:
            await self._client.terminate(job.job_id, reason)

    async def waiting(self, run_id: str) -> list[Waiting]:
        """What of a run waits for a machine, and why: an entry for each size of task.

        Raises:
            ExecutorError: Batch does not answer, or there is no such queue.
        """
        queue = self._queue or await self._scout.only_queue()
        listed = [job async for job in self._client.active(queue, _WAITING)]
        ids = [job.job_id for job in listed if job.run_id == run_id]
        found: dict[tuple[float, int, int], Waiting] = {}
        for page in describe_pages(ids):
            for job in await self._client.details(page):
                if not (count := _runnable(job)):
                    continue
                needs = _needs(job, queue)
                since_us = int(job.get("createdAt") or 0) * 1000
                size = needs.cpu, needs.memory_mib, needs.gpu
                known = found.get(size)
                if known is None:
                    told = str(job.get("statusReason") or "")
                    found[size] = Waiting(count, since_us, await self._scout.why(needs, told))
                else:
                    since_us = min(known.since_us, since_us)
                    found[size] = replace(known, count=known.count + count, since_us=since_us)
        return list(found.values())


def _runnable(job: Wire) -> int:
    """How many tasks of a described job, or array, wait for a machine."""
    array = job.get("arrayProperties") or {}
    if array.get("size"):
        return int((array.get("statusSummary") or {}).get("RUNNABLE", 0))
    return size_of(job) if job.get("status") == "RUNNABLE" else 0


def _container(job: Wire) -> Wire:
    """What a described job's containers are; of a gang those of its first nodes, for all are alike.

    Source: API Reference, JobDetail: `container`, or `nodeProperties` of a multi-node job.
    """
    ranges: Sequence[Wire] = (job.get("nodeProperties") or {}).get("nodeRangeProperties") or ({},)
    found: Wire = job.get("container") or ranges[0].get("container") or {}
    return found


def _variables(job: Wire) -> dict[str, str]:
    pairs = _container(job).get("environment") or ()
    return {str(pair["name"]): str(pair.get("value", "")) for pair in pairs}


def _needs(job: Wire, queue: str) -> Needs:
    """The size of a described job."""
    asked = _container(job).get("resourceRequirements") or ()
    sizes = {str(each["type"]): float(each["value"]) for each in asked}
    return Needs(
        queue=queue,
        image="",
        cpu=sizes.get("VCPU", 1.0),
        memory_mib=int(sizes.get("MEMORY", 0)),
        gpu=int(sizes.get("GPU", 0)),
    )
