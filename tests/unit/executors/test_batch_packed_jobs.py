"""Jobs that share containers, by an executor in virtual time."""

import asyncio

from engine.executors.base import ExitKind, JobEnded
from engine.executors.batch import BatchExecutor
from engine.executors.batch_fleet import Fleet, ids_to_end
from engine.executors.batch_requests import Needs, Submission
from engine.testing import virtual_time
from tests.unit.executors.batch_world import BatchWorld, job


async def ends(executor: BatchExecutor, count: int) -> dict[str, JobEnded]:
    found: dict[str, JobEnded] = {}
    async with asyncio.timeout(60.0):
        async for updates in executor.updates():
            for update in updates:
                if isinstance(update, JobEnded):
                    assert update.name not in found
                    found[update.name] = update
            if len(found) == count:
                break
    return found


def test_five_jobs_of_two_to_a_container_are_one_array_and_one_that_waited() -> None:
    async def scenario() -> tuple[BatchWorld, dict[str, JobEnded]]:
        world = BatchWorld()
        executor = world.executor()
        await executor.submit([job(f"r-s-{n}-0", pack=2, group="s") for n in range(5)])
        found = await ends(executor, 5)
        await executor.aclose()
        return world, found

    world, found = virtual_time.run(scenario())
    assert [body.get("arrayProperties", {}).get("size", 1) for body in world.bodies] == [2, 1]
    assert all(end.outcome == b"done" for end in found.values())


def test_batch_is_asked_about_containers_and_its_word_ends_all_their_jobs() -> None:
    async def scenario() -> tuple[BatchWorld, dict[str, JobEnded]]:
        world = BatchWorld()
        world.is_mute = True
        executor = world.executor()
        specs = (b"silent", b"exits", b"silent", b"silent")
        jobs = [job(f"r-s-{n}-0", spec, pack=2, group="s") for n, spec in enumerate(specs)]
        await executor.submit(jobs)
        found = await ends(executor, 4)
        await executor.aclose()
        return world, found

    world, found = virtual_time.run(scenario())
    assert {i.partition(":")[2] for i in world.described} <= {"", "0", "1"}
    # What was committed counts, whatever became of the container.
    assert [found[f"r-s-{n}-0"].outcome for n in range(4)] == [b"done", None, b"done", b"done"]
    assert found["r-s-1-0"].exit.code == 3


def test_a_job_that_is_cancelled_leaves_its_container_to_the_others() -> None:
    async def scenario() -> tuple[BatchWorld, dict[str, JobEnded]]:
        world = BatchWorld()
        executor = world.executor()
        await executor.submit([job(f"r-s-{n}-0", b"waits", pack=2, group="s") for n in range(4)])
        async with asyncio.timeout(60.0):
            while len(world.running()) < 2:  # noqa: ASYNC110 - time is virtual
                await asyncio.sleep(0.05)
        await executor.cancel(["r-s-0-0"], reason="not needed")
        one = await ends(executor, 1)
        terminated = dict(world.jobs["id-0"].terminated)
        await executor.cancel(["r-s-1-0"], reason="nor this")
        found = one | await ends(executor, 1)
        assert not terminated, "siblings were ended, too"
        assert set(world.jobs["id-0"].terminated) == {0}
        await executor.aclose()
        assert not world.running()
        return world, found

    _, found = virtual_time.run(scenario())
    assert {end.exit.kind for end in found.values()} == {ExitKind.CANCELLED}


def test_a_driver_that_starts_again_adopts_containers_with_all_their_jobs() -> None:
    async def scenario() -> BatchWorld:
        world = BatchWorld()
        world.step_s = 1.0
        jobs = [job(f"r-s-{n}-0", pack=2, group="s") for n in range(4)]
        first = world.executor(is_detached=True)
        await first.submit(jobs)
        async with asyncio.timeout(60.0):
            while not world.running():  # noqa: ASYNC110 - time is virtual
                await asyncio.sleep(0.05)
        await first.aclose()
        second = world.executor()
        await second.submit(jobs)
        found = await ends(second, 4)
        await second.aclose()
        assert all(end.outcome == b"done" for end in found.values())
        return world

    assert virtual_time.run(scenario()).calls["submit_job"] == 1


def test_an_array_is_adopted_in_parts_as_its_jobs_are_submitted() -> None:
    async def scenario() -> dict[str, JobEnded]:
        world = BatchWorld()
        world.step_s = 1.0
        specs = (b"returns", b"vanishes", b"exits", b"returns")
        jobs = [job(f"r-s-{n}-0", spec) for n, spec in enumerate(specs)]
        first = world.executor(is_detached=True)
        await first.submit(jobs)
        async with asyncio.timeout(60.0):
            while not world.running():  # noqa: ASYNC110 - time is virtual
                await asyncio.sleep(0.05)
        await first.aclose()
        world.is_mute = True  # Batch alone says how they end
        second = world.executor()
        found: dict[str, JobEnded] = {}
        for part in (jobs[:2], jobs[2:]):
            await second.submit(part)
            await asyncio.sleep(0.2)
        assert world.calls["submit_job"] == 1
        found |= await ends(second, 4)
        await second.aclose()
        return found

    assert len(virtual_time.run(scenario())) == 4


def test_what_was_not_submitted_after_all_is_no_longer_counted_as_in_batch() -> None:
    async def scenario() -> float:
        world = BatchWorld()
        world.faults["submit_job"] = ["refused"]
        executor = world.executor()
        await executor.submit([job(f"r-s-{n}-0", pack=2, group="s") for n in range(2)])
        await ends(executor, 2)
        before_s = asyncio.get_running_loop().time()
        await executor.submit([job("r-s-2-0", pack=2, group="s")])
        while not world.jobs:  # noqa: ASYNC110 - time is virtual
            await asyncio.sleep(0.05)
        await executor.aclose()
        return asyncio.get_running_loop().time() - before_s

    assert virtual_time.run(scenario()) < 1.0, "it waited for jobs that are not there"


def test_what_was_cancelled_before_batch_had_it_is_no_longer_counted_as_in_batch() -> None:
    async def scenario() -> float:
        world = BatchWorld()
        executor = world.executor()
        jobs = [job(f"r-s-{n}-0", pack=2, group="s") for n in range(2)]
        await executor.submit(jobs)
        async with asyncio.timeout(60.0):
            while not world.parcels:  # noqa: ASYNC110 - time is virtual
                await asyncio.sleep(0)
        await executor.cancel([each.name for each in jobs], reason="not needed")
        await ends(executor, 2)
        before_s = asyncio.get_running_loop().time()
        await executor.submit([job("r-s-2-0", pack=2, group="s")])
        while "r-s-2-0" not in world.parcels:  # noqa: ASYNC110 - time is virtual
            await asyncio.sleep(0.05)
        await executor.aclose()
        return asyncio.get_running_loop().time() - before_s

    assert virtual_time.run(scenario()) < 1.0, "it waited for jobs that are not there"


def test_packed_jobs_whose_machine_is_taken_away_go_on_and_wake_those_that_wait() -> None:
    async def scenario() -> tuple[BatchWorld, dict[str, JobEnded]]:
        world = BatchWorld()
        executor = world.executor()
        more = {"pack": 2, "group": "s", "on_demand": Needs("od", "image", pack=2, group="s")}
        await executor.submit([job(f"r-s-{n}-0", b"reclaimed", **more) for n in range(3)])
        found = await ends(executor, 3)
        await executor.submit([job("r-s-3-0", **more)])
        before_s = asyncio.get_running_loop().time()
        found |= await ends(executor, 1)
        assert asyncio.get_running_loop().time() - before_s < 1.0, "it waited for nobody"
        await executor.aclose()
        return world, found

    world, found = virtual_time.run(scenario())
    assert all(end.outcome == b"done" for end in found.values())
    assert [body["jobQueue"] for body in world.bodies].count("od") == 3


def test_a_container_ends_when_the_last_of_its_jobs_is_to_though_others_are_yet_ending() -> None:
    fleet, names = Fleet(), ["a", "b", "c", "d"]
    fleet.add(job(name) for name in names)
    fleet.accept(Submission("p", names, Needs("queue", "image"), pack=2), "job", 0.0)
    a, b, _, _ = (fleet.flights[name] for name in names)
    assert ids_to_end([a]) == []
    assert ids_to_end([b]) == ["job:0"]
