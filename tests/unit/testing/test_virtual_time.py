"""Time that jumps is exact, ordered and ends."""

import asyncio
import time

import pytest

from engine.testing import virtual_time
from engine.testing.virtual_time import EPOCH_US, StuckError


def test_an_hour_takes_no_time_and_is_an_hour() -> None:
    async def scenario() -> float:
        await asyncio.sleep(3_600.0)
        return asyncio.get_running_loop().time()

    began = time.perf_counter()
    assert virtual_time.run(scenario()) == 3_600.0
    assert time.perf_counter() - began < 1.0


def test_sleepers_wake_in_the_order_of_their_times() -> None:
    async def scenario() -> list[int]:
        woken: list[int] = []

        async def sleeper(seconds: int) -> None:
            await asyncio.sleep(seconds)
            woken.append(seconds)

        async with asyncio.TaskGroup() as group:
            for seconds in (30, 10, 20):
                group.create_task(sleeper(seconds))
        return woken

    assert virtual_time.run(scenario()) == [10, 20, 30]


def test_a_time_out_is_a_time_like_any_other() -> None:
    async def scenario() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60.0):
                await asyncio.sleep(3_600.0)
        return asyncio.get_running_loop().time()

    assert virtual_time.run(scenario()) == 60.0


def test_the_clock_counts_microseconds_with_the_loop() -> None:
    async def scenario() -> tuple[int, int]:
        before = virtual_time.clock()
        await asyncio.sleep(1.5)
        return before, virtual_time.clock()

    assert virtual_time.run(scenario()) == (EPOCH_US, EPOCH_US + 1_500_000)


@pytest.mark.unguarded  # it stops a loop with a task in it: that is the test
def test_waiting_for_what_never_comes_is_noticed() -> None:
    async def scenario() -> None:
        await asyncio.Event().wait()

    with pytest.raises(StuckError):
        virtual_time.run(scenario(), stuck_s=0.01)


def test_a_thread_may_take_real_time() -> None:
    async def scenario() -> str:
        return await asyncio.to_thread(lambda: "done")

    assert virtual_time.run(scenario()) == "done"


@pytest.mark.unguarded  # it stops a loop with a task in it: that is the test
def test_the_loop_can_be_stopped_dead_at_any_turn() -> None:
    class Crash(BaseException):
        pass

    turns = 0
    reached: list[int] = []

    def crash() -> None:
        nonlocal turns
        turns += 1
        if turns == 5:
            raise Crash

    async def scenario() -> None:
        for step in range(100):
            reached.append(step)
            await asyncio.sleep(1.0)

    with pytest.raises(Crash):
        virtual_time.run(scenario(), on_turn=crash)
    assert 0 < len(reached) < 6
