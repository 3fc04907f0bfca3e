"""Awaits that belong together."""

import asyncio

import pytest

from engine.s3.joined import both, together


async def fail() -> None:
    raise ValueError("so")


async def test_the_first_failure_ends_the_others_and_is_raised_as_itself() -> None:
    ended: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("the other")

    with pytest.raises(ValueError, match="so"):
        await together([wait(), fail()])
    with pytest.raises(ValueError, match="so"):
        await both(wait(), fail())

    assert ended == ["the other", "the other"]


async def test_two_results_come_together() -> None:
    async def one() -> int:
        return 1

    async def two() -> str:
        return "2"

    assert await both(one(), two()) == (1, "2")
