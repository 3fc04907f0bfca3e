"""A MetadataStore in memory: for tests, and for runs that leave nothing behind."""

from collections.abc import AsyncIterator, Collection, Sequence

from msgspec.structs import replace

from engine.errors import NotFoundError
from engine.stores.metadata.base import RunRecord, TaskRecord
from engine.stores.metadata.tags import merged_tags


class MemoryMetadata:
    def __init__(self) -> None:
        self._runs: dict[tuple[str, str], RunRecord] = {}
        self._tasks: dict[tuple[str, str], dict[tuple[str, str], TaskRecord]] = {}

    async def put_runs(self, runs: Collection[RunRecord]) -> None:
        for run in runs:
            key = run.flow, run.run_id
            known = self._runs.get(key)
            self._runs[key] = replace(run, tags=known.tags) if known else run

    async def put_tasks(self, tasks: Collection[TaskRecord]) -> None:
        for task in tasks:
            of_run = self._tasks.setdefault((task.flow, task.run_id), {})
            of_run[task.step, task.task_id] = task

    async def flows(self) -> Sequence[str]:
        return sorted({flow for flow, _ in self._runs})

    async def run(self, flow: str, run_id: str) -> RunRecord | None:
        return self._runs.get((flow, run_id))

    async def runs(
        self,
        flow: str | None = None,
        *,
        status: str | None = None,
        since_us: int | None = None,
        tags: Collection[str] = (),
    ) -> AsyncIterator[RunRecord]:
        for run in sorted(
            self._runs.values(), key=lambda r: (r.created_us, r.run_id, r.flow), reverse=True
        ):
            if (
                flow in (None, run.flow)
                and status in (None, run.status)
                and (since_us is None or run.created_us >= since_us)
                and {*run.tags, *run.system_tags}.issuperset(tags)
            ):
                yield run

    async def steps(self, flow: str, run_id: str) -> Sequence[str]:
        return list(dict.fromkeys(task.step for task in self._ordered(flow, run_id)))

    async def task(self, flow: str, run_id: str, step: str, task_id: str) -> TaskRecord | None:
        return self._tasks.get((flow, run_id), {}).get((step, task_id))

    async def tasks(
        self, flow: str, run_id: str, step: str | None = None, *, status: str | None = None
    ) -> AsyncIterator[TaskRecord]:
        for task in self._ordered(flow, run_id):
            if step in (None, task.step) and status in (None, task.status):
                yield task

    async def change_tags(
        self, flow: str, run_id: str, *, add: Collection[str], remove: Collection[str]
    ) -> RunRecord:
        run = self._runs.get((flow, run_id))
        if run is None:
            raise NotFoundError(f"there is no run {flow}/{run_id}")
        changed = replace(run, tags=merged_tags(run.tags, add, remove))
        self._runs[flow, run_id] = changed
        return changed

    async def delete_run(self, flow: str, run_id: str) -> None:
        self._runs.pop((flow, run_id), None)
        self._tasks.pop((flow, run_id), None)

    async def aclose(self) -> None:
        """Nothing is open."""

    def _ordered(self, flow: str, run_id: str) -> list[TaskRecord]:
        found = self._tasks.get((flow, run_id), {}).values()
        return sorted(found, key=lambda task: (task.ordinal, task.step, task.task_id))
