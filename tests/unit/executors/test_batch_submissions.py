"""What is submitted together: gangs whole, beside jobs that share containers."""

import asyncio

import pytest
from msgspec.structs import replace

from engine.aws.rates import TokenBucket
from engine.errors import ExecutorError
from engine.executors.base import GangPlace, Job
from engine.executors.batch_client import BatchClient
from engine.executors.batch_submit import Submitter
from engine.testing import virtual_time
from tests.unit.executors.batch_world import BatchWorld, job


def gang(name: str, size: int) -> list[Job]:
    return [
        replace(job(f"{name}-{index}", group="train"), gang=GangPlace(name, index, size))
        for index in range(size)
    ]


def submitter(world: BatchWorld) -> Submitter:
    async def client() -> BatchWorld:
        return world

    bucket = TokenBucket(1000.0, 1000.0, clock=asyncio.get_running_loop().time)
    return Submitter(BatchClient(client, bucket, jitter=lambda: 0.1), world, ("true",), 10_000)


def test_a_gang_beside_packed_jobs_has_a_container_for_each_of_its_own() -> None:
    async def scenario() -> None:
        packed = [job(f"s-{number}", pack=2, group="s") for number in range(5)]
        jobs = [packed[0], *gang("g", 3), *packed[1:], *gang("h", 2)]
        found, waiting = submitter(BatchWorld()).submissions(jobs, 0.0)
        gangs = [what for what in found if what.is_gang]
        assert [(what.names, what.size, what.pack) for what in gangs] == [
            (["g-0", "g-1", "g-2"], 3, 1),
            (["h-0", "h-1"], 2, 1),
        ]
        [others] = [what for what in found if not what.is_gang]
        assert (others.size, others.pack) == (2, 2)
        assert [each.name for each in waiting] == ["s-4"]

    virtual_time.run(scenario())


def test_a_gang_that_has_lost_a_part_is_refused_and_nothing_is_sent() -> None:
    async def scenario() -> None:
        world = BatchWorld()
        given = submitter(world)
        [what], _ = given.submissions(gang("g", 3), 0.0)
        with pytest.raises(ExecutorError, match="a part of a gang was cancelled"):
            await given.submit(what, gang("g", 3)[:2])
        assert not world.jobs
        assert not world.parcels

    virtual_time.run(scenario())
