"""The jobs of a queue, whoever drives them: whose they are, and which of them wait."""

import asyncio
from collections.abc import Mapping
from typing import Any

from engine.aws.rates import TokenBucket
from engine.executors.batch_client import BatchClient
from engine.executors.batch_requests import Needs
from engine.executors.batch_waiting import Why
from engine.runtime.batch_jobs import BatchJobs, Waiting
from engine.runtime.batch_queues import QueueScout

CONTAINER = {
    "environment": [{"name": "AFLOW_USER", "value": "ada"}],
    "resourceRequirements": [{"type": "VCPU", "value": "8"}, {"type": "MEMORY", "value": "2048"}],
}
GANG = {
    "jobId": "gang",
    "jobName": "R-train-0-0-x3-abc",
    "jobDefinition": "arn:aws:batch:::job-definition/aflow_1:1",
    "status": "RUNNABLE",
    "createdAt": 5,
    "nodeProperties": {"numNodes": 3},
}


class Sdk:
    """A queue with one job: a gang that waits."""

    async def list_jobs(self, *, jobStatus: str, **_: object) -> Mapping[str, Any]:
        return {"jobSummaryList": [GANG] if jobStatus == "RUNNABLE" else []}

    async def describe_jobs(self, *, jobs: list[str]) -> Mapping[str, Any]:
        nodes = {"numNodes": 3, "nodeRangeProperties": [{"container": CONTAINER}]}
        return {"jobs": [{**GANG, "nodeProperties": nodes}]}


class Scout(QueueScout):
    async def why(self, needs: Needs, told: str) -> Why:
        return Why(f"{needs.cpu:g} vCPUs, {needs.memory_mib} MiB")


def jobs_of_queue() -> BatchJobs:
    async def sdk() -> Sdk:
        return Sdk()

    async def sizes(_: object) -> None:
        return None

    clock = asyncio.get_running_loop().time
    client = BatchClient(sdk, TokenBucket(100.0, 100.0, clock=clock))
    return BatchJobs(client, Scout(client, sizes), "queue")


async def test_a_gang_is_of_who_has_started_its_run() -> None:
    jobs = jobs_of_queue()
    [job] = await jobs.active(user="ada")
    assert (job.job_id, job.user, job.size) == ("gang", "ada", 3)
    assert await jobs.active(user="bob") == []


async def test_a_gang_that_waits_is_as_many_tasks_as_it_has_nodes() -> None:
    why = Why("8 vCPUs, 2048 MiB")
    assert await jobs_of_queue().waiting("R") == [Waiting(3, 5000, why)]
