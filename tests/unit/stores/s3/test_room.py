"""Room in memory is never oversubscribed, and everyone's turn comes."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.stores.s3.room import Room
from engine.testing.virtual_time import run


@given(st.lists(st.tuples(st.integers(0, 10), st.integers(1, 5), st.booleans()), max_size=30))
@settings(max_examples=60, deadline=None)
def test_no_more_is_taken_than_there_is_whoever_gives_up(
    claims: list[tuple[int, int, bool]],
) -> None:
    room = Room(10)

    async def hold(count: int, duration_s: int) -> None:
        async with room.take(count):
            await asyncio.sleep(duration_s)

    async def scenario() -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(hold(count, duration)) for count, duration, _ in claims]
            await asyncio.sleep(1.5)
            for task, (_, _, gives_up) in zip(tasks, claims, strict=True):
                if gives_up:
                    task.cancel()
        async with room.take(10):  # all of it is there again
            pass

    run(scenario())
    assert room.most_taken <= 10


def test_a_claim_that_can_never_be_met_is_refused() -> None:
    async def scenario() -> None:
        async with Room(10).take(11):
            pass

    with pytest.raises(ValueError, match="no room for 11 bytes"):
        run(scenario())
