"""The laws of the executor seam as tests: subclass, say how to make one and what its jobs do."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from engine.executors.base import (
    Executor,
    ExitKind,
    Job,
    JobEnded,
    JobOutput,
    JobStarted,
    JobUpdate,
)

U = TypeVar("U", JobStarted, JobOutput, JobEnded)

PATIENCE_S = 10.0
"""How long any one thing may take before the test gives up."""


class Watched:
    """An executor whose updates are collected, by the name of the job."""

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self.updates: dict[str, list[JobUpdate]] = {}
        self._stream = executor.updates()

    async def until_ended(self, *names: str) -> list[JobEnded]:
        """Collect until each of the jobs has ended; return their ends, in order of the names."""
        async with asyncio.timeout(PATIENCE_S):
            while not all(self.ends(name) for name in names):
                await self._collect()
        return [self.ends(name)[0] for name in names]

    async def until_started(self, name: str) -> JobStarted:
        async with asyncio.timeout(PATIENCE_S):
            while not (found := self.of(name, JobStarted)):
                await self._collect()
        return found[0]

    async def until_printed(self, name: str, text: str) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while text not in self.text(name):
                await self._collect()

    def of(self, name: str, kind: type[U]) -> list[U]:
        """The updates of a job that are of one kind."""
        return [u for u in self.updates.get(name, ()) if isinstance(u, kind)]

    def ends(self, name: str) -> list[JobEnded]:
        return self.of(name, JobEnded)

    def text(self, name: str, stream: str = "stdout") -> str:
        """What the job printed so far, its lines joined."""
        outputs = (u for u in self.of(name, JobOutput) if u.stream == stream)
        return "\n".join(text for output in outputs for _, text in output.lines)

    async def _collect(self) -> None:
        for update in await anext(self._stream):
            self.updates.setdefault(update.name, []).append(update)


@asynccontextmanager
async def watched(executor: Executor) -> AsyncIterator[Watched]:
    """Close the executor at the end of the block."""
    try:
        yield Watched(executor)
    finally:
        await executor.aclose()


class ExecutorContract(ABC):
    """Subclass in tests/conformance and say how jobs of these kinds are written."""

    @abstractmethod
    async def make(self, tmp_path: Path) -> Executor: ...

    @abstractmethod
    def returns(self, name: str) -> Job:
        """A job that prints `out` and `err` to the two streams and reports b"done"."""

    @abstractmethod
    def exits(self, name: str) -> Job:
        """A job whose process ends with code 3 and reports nothing."""

    @abstractmethod
    def waits(self, name: str) -> Job:
        """A job that prints `waiting` and would end after an hour."""

    async def test_a_job_ends_once_and_after_all_of_its_output(self, tmp_path: Path) -> None:
        async with watched(await self.make(tmp_path)) as seen:
            await seen.executor.submit([self.returns("a")])
            (end,) = await seen.until_ended("a")
            kinds = [type(update) for update in seen.updates["a"]]
            assert (end.exit.kind, end.outcome) == (ExitKind.RETURNED, b"done")
            assert end.started_us <= end.ended_us
            assert kinds[0] is JobStarted
            assert kinds[-1] is JobEnded
            assert (seen.text("a"), seen.text("a", "stderr")) == ("out", "err")

    async def test_many_jobs_at_once_end_once_each(self, tmp_path: Path) -> None:
        names = [f"job-{number}" for number in range(20)]
        async with watched(await self.make(tmp_path)) as seen:
            await seen.executor.submit([self.returns(name) for name in names])
            await seen.until_ended(*names)
            assert [len(seen.ends(name)) for name in names] == [1] * 20
            assert {len(seen.of(name, JobStarted)) for name in names} == {1}

    async def test_submitting_a_name_again_starts_nothing(self, tmp_path: Path) -> None:
        async with watched(await self.make(tmp_path)) as seen:
            await seen.executor.submit([self.returns("a"), self.returns("a")])
            await seen.until_ended("a")
            await seen.executor.submit([self.returns("a"), self.returns("b")])
            await seen.until_ended("b")
            assert len(seen.of("a", JobStarted)) == len(seen.ends("a")) == 1

    async def test_a_job_that_reports_nothing_ends_with_its_exit_code(self, tmp_path: Path) -> None:
        async with watched(await self.make(tmp_path)) as seen:
            await seen.executor.submit([self.exits("a")])
            (end,) = await seen.until_ended("a")
            assert (end.exit.kind, end.exit.code, end.outcome) == (ExitKind.CODE, 3, None)

    async def test_a_cancelled_job_ends_once_however_often_it_is_cancelled(
        self, tmp_path: Path
    ) -> None:
        async with watched(await self.make(tmp_path)) as seen:
            await seen.executor.submit([self.waits("a"), self.returns("b")])
            await seen.until_printed("a", "waiting")
            for _ in range(2):
                await seen.executor.cancel(["a"], reason="not needed")
            (end, _) = await seen.until_ended("a", "b")
            await seen.executor.cancel(["a", "never submitted"], reason="again")
            await seen.executor.submit([self.returns("c")])
            await seen.until_ended("c")
            assert (end.exit.kind, end.exit.detail) == (ExitKind.CANCELLED, "not needed")
            assert len(seen.ends("a")) == 1

    async def test_a_job_can_be_cancelled_before_it_started(self, tmp_path: Path) -> None:
        async with watched(await self.make(tmp_path)) as seen:
            await seen.executor.submit([self.waits("a")])
            await seen.executor.cancel(["a"], reason="at once")
            (end,) = await seen.until_ended("a")
            assert end.exit.kind is ExitKind.CANCELLED

    async def test_closing_ends_what_runs_and_ends_the_updates(self, tmp_path: Path) -> None:
        executor = await self.make(tmp_path)
        async with watched(executor) as seen:
            await executor.submit([self.waits("a"), self.waits("b")])
            await seen.until_printed("a", "waiting")
        await executor.aclose()
        rest = [update async for batch in executor.updates() for update in batch]
        assert not [u for u in rest if isinstance(u, JobEnded) and u.exit.kind is ExitKind.RETURNED]

    async def test_closing_what_was_never_used_leaves_nothing(self, tmp_path: Path) -> None:
        await (await self.make(tmp_path)).aclose()
