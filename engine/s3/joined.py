"""Waiting for several at once. The first failure ends the others, and is raised as itself."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

A = TypeVar("A")
B = TypeVar("B")


async def together(works: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Wait until all are done.

    Raises:
        BaseException: what the first one that failed raised.
    """
    if len(works) == 1:
        await works[0]
        return
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(work)
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from failures.exceptions[0].__cause__


async def both(first: Coroutine[Any, Any, A], second: Coroutine[Any, Any, B]) -> tuple[A, B]:
    """The results of two."""
    got_first: list[A] = []
    got_second: list[B] = []

    async def keep_first() -> None:
        got_first.append(await first)

    async def keep_second() -> None:
        got_second.append(await second)

    await together([keep_first(), keep_second()])
    return got_first[0], got_second[0]
