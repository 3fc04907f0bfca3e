"""The metadata seam: searchable facts of runs and tasks, all rebuildable from journals."""

from collections.abc import AsyncIterator, Collection, Sequence
from typing import Protocol

from msgspec import Struct


class RunRecord(Struct, frozen=True):
    """A run. `status`: "running", "succeeded", "failed", "interrupted". Times in us, UTC."""

    flow: str
    run_id: str
    status: str
    created_us: int
    ended_us: int | None = None
    user: str = ""
    tags: tuple[str, ...] = ()
    system_tags: tuple[str, ...] = ()
    origin_run_id: str | None = None
    reason: str | None = None
    host: str = ""
    pid: int | None = None


class TaskRecord(Struct, frozen=True):
    """The latest attempt of a task.

    `status`: "running", "retrying", "succeeded", "failed". `result` is the offset of its manifest's
    frame in the run's journal, when it succeeded; `failure` a packed `errors.Failure` otherwise.
    `ordinal` counts a run's tasks in the order in which they were launched.
    """

    flow: str
    run_id: str
    step: str
    task_id: str
    ordinal: int
    attempt: int
    status: str
    started_us: int | None = None
    ended_us: int | None = None
    result: int | None = None
    reused: bool = False
    caught: bool = False
    failure: bytes | None = None


class RunEnd(Struct, frozen=True):
    """A run's last word."""

    status: str
    at_us: int
    reason: str | None = None


Fact = RunRecord | TaskRecord | RunEnd
"""What one frame of a journal says: a run began, an attempt ended, a run ended."""


class Rebuilt(Struct, frozen=True):
    """A run and its tasks, as its journal tells of them."""

    run: RunRecord
    tasks: tuple[TaskRecord, ...]


class MetadataStore(Protocol):
    """Laws, checked by `engine.testing.contracts.MetadataContract`.

    Writers call `put_runs` and `put_tasks` with batches; a later record of the same key replaces an
    earlier one. Lists are newest first for runs, by ordinal for tasks, and are fetched by page.
    """

    async def put_runs(self, runs: Collection[RunRecord]) -> None: ...

    async def put_tasks(self, tasks: Collection[TaskRecord]) -> None: ...

    async def flows(self) -> Sequence[str]: ...

    async def run(self, flow: str, run_id: str) -> RunRecord | None: ...

    def runs(
        self,
        flow: str | None = None,
        *,
        status: str | None = None,
        since_us: int | None = None,
        tags: Collection[str] = (),
    ) -> AsyncIterator[RunRecord]: ...

    async def steps(self, flow: str, run_id: str) -> Sequence[str]: ...

    async def task(self, flow: str, run_id: str, step: str, task_id: str) -> TaskRecord | None: ...

    def tasks(
        self, flow: str, run_id: str, step: str | None = None, *, status: str | None = None
    ) -> AsyncIterator[TaskRecord]: ...

    async def change_tags(
        self, flow: str, run_id: str, *, add: Collection[str], remove: Collection[str]
    ) -> RunRecord: ...

    async def delete_run(self, flow: str, run_id: str) -> None: ...

    async def aclose(self) -> None: ...
