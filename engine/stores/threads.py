"""Runs a blocking call of a local store in a thread of the caller's loop.

Readers without a loop use the synchronous half of the same modules, and must not pay for the import
of asyncio, 30 ms: so it is imported here, by the first call that has a loop.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    import asyncio

P = ParamSpec("P")
R = TypeVar("R")


async def in_thread(function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Call `function` in a thread and wait for it; its context is the caller's."""
    import asyncio  # noqa: PLC0415  # a running loop has imported it already

    return await asyncio.to_thread(function, *args, **kwargs)


async def to_its_end(function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """As `in_thread`; who is cancelled meanwhile waits for the thread first.

    For a thread that writes to a descriptor: closed under it, that would soon be another file's.
    """
    import asyncio  # noqa: PLC0415  # as there

    working = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        await ended(working)
        raise


async def ended(working: "asyncio.Future[R]") -> None:
    """Wait until a thread has ended, however often the waiting is cancelled."""
    import asyncio  # noqa: PLC0415  # as there

    while not working.done():
        # What is swallowed is of a task that was cancelled before, and ends by that.
        with suppress(asyncio.CancelledError):
            await asyncio.wait([working])
