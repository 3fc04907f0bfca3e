"""What is known of a gang's nodes in AWS Batch: of each by itself, for one may die alone."""

import asyncio

from msgspec.structs import replace

from engine.executors.base import Exit, ExitKind, GangPlace, Job, JobEnded
from engine.executors.batch_fleet import Fleet
from engine.executors.batch_requests import Needs, Submission
from engine.executors.batch_states import FAILED, RUNNING, SUCCEEDED, Seen
from engine.testing import virtual_time
from engine.testing.executor_contract import watched
from tests.unit.executors.batch_world import BatchWorld, job

NAMES = ["a-0", "a-1", "a-2"]


def flying() -> Fleet:
    fleet = Fleet()
    fleet.add(Job(name, b"", gang=GangPlace("a-0", i, 3)) for i, name in enumerate(NAMES))
    fleet.accept(Submission("p", NAMES, Needs("q", "image"), is_gang=True), "job", 0.0)
    return fleet


def test_each_node_that_has_not_ended_is_asked_for() -> None:
    fleet = flying()
    assert fleet.to_ask() == ["job#0", "job#1", "job#2"]
    fleet.remove("a-1")
    assert fleet.to_ask() == ["job#0", "job#2"]
    assert fleet.flights["a-2"].job_id == "job#2"


def test_a_container_that_has_ended_has_though_the_job_runs_on() -> None:
    fleet = flying()
    found = fleet.observe(
        [
            Seen("job#0", RUNNING, started_us=7),
            Seen("job#1", RUNNING, started_us=7, exit_code=137),
            Seen("job#2", RUNNING, started_us=7, exit_code=0),
        ]
    )
    assert found.ended == ["a-1", "a-2"]
    assert found.running == [("a-0", 7)]
    states = [fleet.flights[name].seen for name in NAMES]
    assert [seen and seen.state for seen in states] == [RUNNING, FAILED, SUCCEEDED]


def test_nodes_that_batch_forgets_are_gone() -> None:
    fleet = flying()
    gone: list[str] = []
    for at_s in (10.0, 20.0, 30.0):
        gone = fleet.miss(fleet.to_ask(), [], at_s)
    assert sorted(gone) == NAMES


async def _ends_of_a_gang(world: BatchWorld, specs: dict[str, bytes]) -> list[ExitKind]:
    async with watched(world.executor()) as seen:
        jobs = [
            replace(job(name, spec), gang=GangPlace("a-0", index, len(specs)))
            for index, (name, spec) in enumerate(specs.items())
        ]
        await seen.executor.submit(jobs)
        return [ended.exit.kind for ended in await seen.until_ended(*specs)]


def test_a_main_node_is_not_left_to_wait_for_one_that_died_when_nobody_else_is_left() -> None:
    async def story() -> None:
        world = BatchWorld()
        kinds = await _ends_of_a_gang(world, {"a-0": b"stays", "a-1": b"exits"})
        assert kinds == [ExitKind.RETURNED, ExitKind.CODE]
        assert world.running() == []
        assert world.calls["terminate_job"] == 1

    virtual_time.run(story())


def test_a_gang_whose_nodes_have_all_said_how_they_ended_is_not_terminated() -> None:
    async def story() -> None:
        world = BatchWorld()
        kinds = await _ends_of_a_gang(world, {"a-0": b"stays", "a-1": b"returns"})
        assert kinds == [ExitKind.RETURNED, ExitKind.RETURNED]
        assert world.calls["terminate_job"] == 0

    virtual_time.run(story())


def ends_when_the_first_has_failed(*specs: bytes) -> tuple[list[JobEnded], float]:
    """How the others of a gang end that are cancelled then, and how long it takes."""

    async def story() -> tuple[list[JobEnded], float]:
        world = BatchWorld()
        async with watched(world.executor()) as seen:
            names = [f"a-{index}" for index in range(len(specs) + 1)]
            await seen.executor.submit(
                [
                    replace(job(name, spec), gang=GangPlace("a-0", index, len(names)))
                    for index, (name, spec) in enumerate(
                        zip(names, (b"stays", *specs), strict=True)
                    )
                ]
            )
            await seen.until_ended("a-0")
            began_s = asyncio.get_running_loop().time()
            await seen.executor.cancel(names[1:], reason="a-0 failed")
            ends = await seen.until_ended(*names[1:])
            assert world.calls["terminate_job"] == 1
            return ends, asyncio.get_running_loop().time() - began_s

    return virtual_time.run(story())


def test_who_failed_by_itself_says_so_though_its_gang_has_been_ended() -> None:
    [late, cancelled], _ = ends_when_the_first_has_failed(b"lastly", b"waits")
    assert (late.exit.kind, late.outcome) == (ExitKind.RETURNED, b"failed")
    assert cancelled.exit == Exit(ExitKind.CANCELLED, detail="a-0 failed")


def test_who_died_without_a_word_was_not_cancelled_though_its_gang_has_been_ended() -> None:
    [died, cancelled], _ = ends_when_the_first_has_failed(b"died", b"waits")
    assert (died.exit.kind, died.exit.code) == (ExitKind.CODE, 3)
    assert cancelled.exit == Exit(ExitKind.CANCELLED, detail="a-0 failed")


def test_a_broken_gang_is_waited_for_no_longer_than_until_batch_says_that_it_has_ended() -> None:
    ends, took_s = ends_when_the_first_has_failed(b"waits", b"waits")
    assert {each.exit.kind for each in ends} == {ExitKind.CANCELLED}
    assert took_s < 0.2


def test_a_gang_of_which_none_has_ended_is_not_waited_for() -> None:
    async def story() -> None:
        world = BatchWorld()
        async with watched(world.executor(last_words_s=1e6)) as seen:
            gang = [replace(job(f"a-{n}", b"died"), gang=GangPlace("a-0", n, 2)) for n in (0, 1)]
            await seen.executor.submit(gang)
            await seen.until_started("a-0")
            await seen.executor.cancel(["a-0", "a-1"], reason="by SIGINT")
            ends = await seen.until_ended("a-0", "a-1")
            assert {each.exit.kind for each in ends} == {ExitKind.CANCELLED}

    virtual_time.run(story())


def test_a_broken_gang_of_which_nothing_more_is_heard_has_ended_after_a_while() -> None:
    async def story() -> float:
        world = BatchWorld()
        async with watched(world.executor(last_words_s=7.0)) as seen:
            gang = [
                replace(job(name, spec), gang=GangPlace("a-0", index, 2))
                for index, (name, spec) in enumerate({"a-0": b"stays", "a-1": b"died"}.items())
            ]
            await seen.executor.submit(gang)
            await seen.until_ended("a-0")
            world.step_s = 1e6
            began_s = asyncio.get_running_loop().time()
            await seen.executor.cancel(["a-1"], reason="a-0 failed")
            await seen.until_ended("a-1")
            return asyncio.get_running_loop().time() - began_s

    assert 7.0 <= virtual_time.run(story()) < 8.0


def test_a_gang_is_not_left_when_others_are_for_nobody_can_take_it_over() -> None:
    async def story() -> None:
        world = BatchWorld()
        executor = world.executor()
        async with watched(executor) as seen:
            gang = [replace(job(f"a-{n}", b"waits"), gang=GangPlace("a-0", n, 2)) for n in (0, 1)]
            await executor.submit([*gang, job("b", b"waits")])
            async with asyncio.timeout(60.0):
                while len(world.running()) < 3:  # noqa: ASYNC110 - time is virtual
                    await asyncio.sleep(0.05)
            assert executor.detach() == ["b"]
            await executor.cancel(["a-0", "a-1", "b"], reason="by SIGINT")
            await seen.until_ended("a-0", "a-1", "b")
        ended = {each.name for each in world.jobs.values() if each.terminated}
        assert ended == {each.name for each in world.jobs.values() if each.is_gang}
        assert len(world.running()) == 1

    virtual_time.run(story())


def test_a_gang_that_batch_takes_after_all_is_not_left_either() -> None:
    async def story() -> None:
        world = BatchWorld()
        executor = world.executor()
        async with watched(executor) as seen:
            gang = [replace(job(f"a-{n}", b"waits"), gang=GangPlace("a-0", n, 2)) for n in (0, 1)]
            await executor.submit(gang)
            while not world.parcels:  # noqa: ASYNC110 - time is virtual
                await asyncio.sleep(0)
            assert executor.detach() == []
            await executor.cancel(["a-0", "a-1"], reason="by SIGINT")
            await seen.until_ended("a-0", "a-1")
            await asyncio.sleep(1.0)
        assert world.running() == []

    virtual_time.run(story())
