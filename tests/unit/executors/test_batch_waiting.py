"""Why jobs wait: the decision, and how often it is told."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.executors.base import JobEnded, JobOutput, JobUpdate
from engine.executors.batch import BatchExecutor
from engine.executors.batch_errors import BatchDeniedError
from engine.executors.batch_fleet import Fleet
from engine.executors.batch_requests import Needs, Submission
from engine.executors.batch_states import RUNNABLE, Seen
from engine.executors.batch_submit import needs_of
from engine.executors.batch_waiting import (
    Environment,
    Machine,
    Queue,
    Why,
    environment_names,
    machine_patterns,
    memory,
    misfit,
    read_environment,
    unusable,
    why_waiting,
)
from engine.executors.batch_watch import WaitWatch
from engine.testing import virtual_time
from tests.unit.executors.batch_world import BatchWorld, job

LARGE = Machine("r5.2xlarge", 8, 64 * 1024)
WITH_GPU = Machine("g5.xlarge", 4, 16 * 1024, 1)
QUEUE = Queue("ml", environments=[Environment("ce", machines=[LARGE, WITH_GPU], max_cpu=64)])


def needs(cpu: float = 1, memory_gib: int = 1, gpu: int = 0) -> Needs:
    return Needs("ml", "image", cpu=cpu, memory_mib=memory_gib * 1024, gpu=gpu)


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (needs(memory_gib=128), "needs 128 GiB, and the largest machine of queue 'ml' has 64 GiB"),
        (needs(cpu=16), "needs 16 vCPUs, and the largest machine of queue 'ml' has 8 vCPUs"),
        (needs(gpu=4), "needs 4 GPUs, and the largest machine of queue 'ml' has 1 GPU (g5"),
        (needs(cpu=100), "needs 100 vCPUs, and queue 'ml' may have 64 in all"),
        (needs(memory_gib=32, gpu=1), "no machine of queue 'ml' has all at once: 1 GPU, 32 GiB"),
    ],
)
def test_what_no_machine_of_the_queue_can_take_is_told_with_the_largest(
    wanted: Needs, told: str
) -> None:
    found = misfit(wanted, QUEUE)
    assert found is not None
    assert told in found.message
    assert found.hint
    assert why_waiting(wanted, QUEUE, "Batch's word").message == found.message


@given(st.floats(0.25, 16), st.integers(1, 128), st.integers(0, 2))
def test_a_job_fits_if_and_only_if_one_machine_has_all_that_it_needs(
    cpu: float, memory_gib: int, gpu: int
) -> None:
    wanted = needs(cpu, memory_gib, gpu)
    fits = any(
        m.cpu >= cpu and m.memory_mib >= wanted.memory_mib and m.gpu >= gpu
        for m in (LARGE, WITH_GPU)
    )
    assert (misfit(wanted, QUEUE) is None) == fits


def test_where_the_machines_are_not_known_nothing_is_refused() -> None:
    queue = Queue("ml", environments=[Environment("ce", max_cpu=1000)])
    assert misfit(needs(500, 5000, 8), queue) is None


@pytest.mark.parametrize(
    ("queue", "told"),
    [
        (Queue("q", state="DISABLED"), "it is DISABLED and VALID"),
        (Queue("q", status="INVALID", reason="no role"), "ENABLED and INVALID: no role"),
        (Queue("q", environments=[Environment("ce", state="DISABLED")]), "ce is DISABLED"),
        (
            Queue("q", environments=[Environment("ce", status="INVALID", reason="gone")]),
            "ce is ENABLED and INVALID: gone",
        ),
        (Queue("q"), "it has none"),
    ],
)
def test_a_queue_that_starts_nothing_is_why(queue: Queue, told: str) -> None:
    found = unusable(queue)
    assert found is not None
    assert told in found.message
    assert why_waiting(needs(), queue) == found


def test_else_it_is_what_batch_says_or_capacity() -> None:
    assert why_waiting(needs(), QUEUE, "MISCONFIGURATION:X").message == "MISCONFIGURATION:X"
    plain = why_waiting(needs(), QUEUE)
    assert plain.message == "waiting for capacity: queue 'ml' may have 64 vCPUs in all"
    spot = Queue("ml", environments=[Environment("ce", platform="SPOT")])
    assert "spot" in why_waiting(needs(), spot).hint


def test_descriptions_are_read_as_batch_writes_them() -> None:
    order = [
        {"order": 2, "computeEnvironment": "b"},
        {"order": 1, "computeEnvironment": "a"},
    ]
    assert environment_names({"computeEnvironmentOrder": order}) == ["a", "b"]
    resources = {"type": "SPOT", "maxvCpus": 8, "instanceTypes": ["m5", "c5.large"]}
    wire = {"computeEnvironmentName": "a", "computeResources": resources, "state": "ENABLED"}
    assert machine_patterns(wire) == ["m5.*", "c5.large"]
    assert machine_patterns({"computeResources": {"instanceTypes": ["optimal", "m5"]}}) == []
    assert machine_patterns({"computeResources": {**resources, "type": "FARGATE"}}) == []
    read = read_environment(wire, None)
    assert (read.platform, read.max_cpu, read.status) == ("SPOT", 8.0, "")
    assert (memory(1536), memory(1000), memory(131072)) == ("1.5 GiB", "1,000 MiB", "128 GiB")


# -- in the executor ------------------------------------------------------------------------------


async def heard(executor: BatchExecutor, updates: list[JobUpdate]) -> None:
    async for batch in executor.updates():
        updates += batch


def test_a_job_that_waits_long_says_why_once_for_all_that_wait_for_the_same() -> None:
    asked: list[str] = []

    async def why(needs: Needs, told: str) -> Why:
        asked.append(needs.queue)
        return Why("waiting for capacity", "see the doctor")

    async def scenario() -> list[JobUpdate]:
        world = BatchWorld()
        executor = world.executor(why=why, waits_s=60.0, ask_min_s=1.0, ask_max_s=30.0)
        updates: list[JobUpdate] = []
        async with asyncio.TaskGroup() as group:
            listening = group.create_task(heard(executor, updates))
            await executor.submit([job(f"r-s-{n}-0", b"stuck") for n in range(5)])
            await executor.submit([job("r-t-0-0")])
            await asyncio.sleep(50.0)
            assert not any(isinstance(u, JobOutput) and "waits" in u.lines[0][1] for u in updates)
            await asyncio.sleep(600.0)
            await executor.aclose()
            await listening
        return updates

    updates = virtual_time.run(scenario())
    lines = [u.lines[0][1] for u in updates if isinstance(u, JobOutput) and u.stream == "stderr"]
    told = [line for line in lines if line.startswith("aflow: ")]
    assert len(told) == 1, told
    assert "5 tasks wait in AWS Batch for" in told[0]
    assert told[0].endswith("waiting for capacity; see the doctor")
    assert asked


def test_tasks_that_wait_are_counted_and_not_their_containers() -> None:
    async def why(needs: Needs, told: str) -> Why:
        return Why("waiting for capacity")

    async def scenario() -> list[tuple[str, str]]:
        fleet, watch = Fleet(), WaitWatch(why, 60.0)
        jobs = [job(f"r-s-{n}-0", pack=10) for n in range(15)]
        gang = [job(f"r-t-{n}-0", cpu=8.0) for n in range(3)]
        fleet.add([*jobs, *gang])
        packed = Submission("p", [j.name for j in jobs], needs_of(jobs[0]), pack=10)
        nodes = Submission("q", [j.name for j in gang], needs_of(gang[0]), is_gang=True)
        fleet.accept(packed, "a", 0.0)
        fleet.accept(nodes, "b", 0.0)
        fleet.observe(Seen(each, RUNNABLE, summary={RUNNABLE: 2}) for each in fleet.to_ask())
        assert await watch.look(fleet, 0.0) == []
        return await watch.look(fleet, 90.0)

    lines = [line for _, line in virtual_time.run(scenario())]
    assert lines[0].startswith("15 tasks wait in AWS Batch for 90 s")
    assert lines[1].startswith("3 tasks wait in AWS Batch for 90 s")


def test_why_a_job_waits_need_not_be_known_for_it_to_go_on() -> None:
    async def why(needs: Needs, told: str) -> Why:
        raise BatchDeniedError("cannot look at the queue's compute environments")

    async def scenario() -> list[JobUpdate]:
        world = BatchWorld()
        world.step_s = 100.0
        executor = world.executor(why=why, waits_s=1.0, ask_min_s=1.0, patience_s=10.0)
        updates: list[JobUpdate] = []
        async with asyncio.TaskGroup() as group:
            listening = group.create_task(heard(executor, updates))
            await executor.submit([job("r-s-0-0")])
            await asyncio.sleep(500.0)
            await executor.aclose()
            await listening
        return updates

    [end] = [u for u in virtual_time.run(scenario()) if isinstance(u, JobEnded)]
    assert end.outcome == b"done"


def test_r14_a_job_whose_machines_are_taken_away_too_often_goes_on_on_demand() -> None:
    async def scenario() -> tuple[BatchWorld, list[JobUpdate]]:
        world = BatchWorld()
        executor = world.executor()
        updates: list[JobUpdate] = []
        on_demand = Needs("od", "image")
        async with asyncio.TaskGroup() as group:
            listening = group.create_task(heard(executor, updates))
            jobs = [job(f"r-s-{n}-0", b"reclaimed", on_demand=on_demand) for n in range(3)]
            await executor.submit(jobs)
            async with asyncio.timeout(60.0):
                while sum(isinstance(u, JobEnded) for u in updates) < 3:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            await executor.aclose()
            await listening
        return world, updates

    world, updates = virtual_time.run(scenario())
    ends = [u for u in updates if isinstance(u, JobEnded)]
    assert [u.outcome for u in ends] == [b"done"] * 3, "a reclaim came to the user"
    assert [s.queue for s in world.jobs.values()] == ["queue", "od", "od", "od"]
    assert len({s.name for s in world.jobs.values()}) == 4
    lines = [u.lines[0][1] for u in updates if isinstance(u, JobOutput)]
    assert sum("goes on in queue od" in line for line in lines) == 3


def test_r14_without_an_on_demand_queue_batch_tries_ten_times() -> None:
    async def scenario() -> list[JobUpdate]:
        world = BatchWorld()
        executor = world.executor()
        updates: list[JobUpdate] = []
        async with asyncio.TaskGroup() as group:
            listening = group.create_task(heard(executor, updates))
            await executor.submit([job("r-s-0-0", b"reclaimed")])
            await asyncio.sleep(10.0)
            await executor.aclose()
            await listening
        assert world.bodies[0]["retryStrategy"]["attempts"] == 10
        return updates

    [end] = [u for u in virtual_time.run(scenario()) if isinstance(u, JobEnded)]
    assert end.exit.failure is not None
    assert (end.exit.failure.code, end.exit.failure.retryable) == ("host-lost", True)
