"""Waits of one loop share a timer, and each ends at its own time, in virtual time."""

import asyncio

import pytest

from engine.stores.s3.deadlines import Deadlines
from engine.testing.virtual_time import run


def test_each_wait_ends_at_its_own_deadline_whatever_their_order() -> None:
    async def scenario() -> dict[float, float]:
        deadlines, ended = Deadlines(), dict[float, float]()

        async def wait(patience_s: float) -> None:
            with pytest.raises(TimeoutError), deadlines.within(patience_s):
                await asyncio.Event().wait()
            ended[patience_s] = asyncio.get_running_loop().time()

        async with asyncio.TaskGroup() as group:
            for patience_s in (5.0, 1.0, 9.0, 3.0):
                group.create_task(wait(patience_s))
        return ended

    assert run(scenario()) == {n: pytest.approx(n) for n in (1.0, 3.0, 5.0, 9.0)}


def test_what_ends_in_time_is_left_alone_and_so_is_what_comes_after() -> None:
    async def scenario() -> int:
        deadlines = Deadlines()
        with deadlines.within(1.0):
            await asyncio.sleep(0.5)
        await asyncio.sleep(10)
        with deadlines.within(1.0):
            await asyncio.sleep(0.9)
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    assert run(scenario()) == 0


def test_a_task_that_was_given_up_can_wait_again() -> None:
    async def scenario() -> float:
        deadlines = Deadlines()
        for _ in range(3):
            with pytest.raises(TimeoutError), deadlines.within(2.0):
                await asyncio.sleep(100)
        return asyncio.get_running_loop().time()

    assert run(scenario()) == pytest.approx(6.0)


def test_one_that_is_cancelled_is_cancelled_and_not_late() -> None:
    async def scenario() -> bool:
        deadlines = Deadlines()

        async def wait() -> None:
            with deadlines.within(5.0):
                await asyncio.Event().wait()

        task = asyncio.create_task(wait())
        await asyncio.sleep(1.0)
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    assert run(scenario())


def test_who_is_cancelled_at_the_moment_of_the_deadline_is_cancelled() -> None:
    async def scenario() -> bool:
        deadlines = Deadlines()

        async def wait() -> None:
            with deadlines.within(5.0):
                await asyncio.Event().wait()

        task = asyncio.create_task(wait())
        asyncio.get_running_loop().call_at(5.0, task.cancel)
        await asyncio.wait([task])
        return task.cancelled()

    assert run(scenario())


def test_a_failure_inside_is_raised_as_itself() -> None:
    async def scenario() -> None:
        with Deadlines().within(5.0):
            raise ValueError("so")

    with pytest.raises(ValueError, match="so"):
        run(scenario())
