"""Several executors as one: each job goes to the one that its route names."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import Protocol, runtime_checkable

from msgspec import Struct

from engine.executors.base import Executor, Job, JobEnded, JobUpdate

Route = Callable[[Job], str]


@runtime_checkable
class Detachable(Protocol):
    """An executor whose jobs can do without it."""

    def detach(self) -> list[str]: ...


class Detached(Struct, frozen=True):
    """Names of jobs: those that go on by themselves, and those that cannot."""

    left: Sequence[str]
    lost: Sequence[str]


class HybridExecutor:
    """Owns `parts` from now on.

    Args:
        parts: executors by name.
        route: which of them runs a job.
    """

    def __init__(self, parts: Mapping[str, Executor], route: Route) -> None:
        self._parts = parts
        self._route = route
        self._flying: set[str] = set()

    async def submit(self, jobs: Sequence[Job]) -> None:
        routed: dict[str, list[Job]] = {}
        self._flying.update(job.name for job in jobs)
        for job in jobs:
            routed.setdefault(self._route(job), []).append(job)
        for name, share in routed.items():
            await self._parts[name].submit(share)

    async def updates(self) -> AsyncIterator[Sequence[JobUpdate]]:
        """See `base.Executor`. Ends when all parts have; an error of one is raised."""
        loop = asyncio.get_running_loop()
        # A task of each part's next batch: they end with this generator, in its `finally`. A group
        # around a `yield` could be left in another task than it was entered in.
        waiting = {}
        for part in self._parts.values():
            stream = part.updates()
            waiting[loop.create_task(_next(stream))] = stream
        try:
            while waiting:
                done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    stream = waiting.pop(task)
                    if (batch := task.result()) is not None:
                        waiting[loop.create_task(_next(stream))] = stream
                        ended = [update.name for update in batch if isinstance(update, JobEnded)]
                        self._flying.difference_update(ended)
                        yield batch
        finally:
            for task in waiting:
                task.cancel()

    async def cancel(self, names: Collection[str], *, reason: str) -> None:
        for part in self._parts.values():
            await part.cancel(names, reason=reason)

    def detach(self) -> Detached:
        """Have jobs that can go on by themselves do so when they are cancelled."""
        parts = [part for part in self._parts.values() if isinstance(part, Detachable)]
        left = {name for part in parts for name in part.detach()}
        return Detached(sorted(left), sorted(self._flying - left))

    async def aclose(self) -> None:
        for part in self._parts.values():
            await part.aclose()


async def _next(stream: AsyncIterator[Sequence[JobUpdate]]) -> Sequence[JobUpdate] | None:
    return await anext(stream, None)
