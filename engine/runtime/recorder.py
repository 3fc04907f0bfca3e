"""Writes what a run reports to the metadata store and the log, in batches.

The journal is the truth; what is written here can be made again from it. So the recorder may lag
by a moment, and a task that starts and ends within one batch costs one row, not two.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence

import msgpack
from msgspec.structs import replace

from engine.errors import StoreError
from engine.ids import TaskKey
from engine.scheduler.progress import (
    RunBegan,
    RunDone,
    RunEvent,
    TaskAttemptFailed,
    TaskDone,
    TaskLaunched,
    TaskOutput,
)
from engine.stores.metadata.base import MetadataStore, RunRecord, TaskRecord

FLUSH_EVERY_S = 0.1


class Recorder:
    """An observer of one run. `observe` is called on the loop; `run` writes until `close`."""

    def __init__(
        self,
        store: MetadataStore,
        record: RunRecord,
        write_log: Callable[[Sequence[TaskOutput]], None],
    ) -> None:
        self._store = store
        self._record = record
        self._run_changed = True
        self._write_log = write_log
        self._ordinals: dict[TaskKey, int] = {}
        self._next_ordinal = 0
        self._tasks: dict[TaskKey, TaskRecord] = {}
        self._lines: list[TaskOutput] = []
        self._broken: StoreError | None = None
        self._wake = asyncio.Event()
        self._closing = asyncio.Event()

    def observe(self, event: RunEvent) -> None:
        match event:
            case TaskOutput():
                if not self._lines:
                    asyncio.get_running_loop().call_soon(self.flush_lines)
                self._lines.append(event)
                return
            case TaskLaunched() | TaskDone() | TaskAttemptFailed():
                self._note_task(event)
            case RunBegan():
                self._run_changed = True
            case RunDone(is_journaled=False):
                pass  # readers ask whether somebody drives it, and find that nobody does
            case RunDone(status, at_us, reason):
                self._record = replace(self._record, status=status, ended_us=at_us, reason=reason)
                self._run_changed = True
        self._wake.set()

    def close(self) -> None:
        """Let `run` write what is left and return."""
        self._closing.set()
        self._wake.set()

    async def run(self) -> None:
        """Write batches, at most one every FLUSH_EVERY_S seconds, until closed.

        Raises:
            StoreError: the metadata store does not take a batch, or the log a line.
        """
        while not self._closing.is_set():
            await self._wake.wait()
            self._wake.clear()
            await self._flush()
            self._raise_broken()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_EVERY_S):
                    await self._closing.wait()
        self.flush_lines()
        await self._flush()
        self._raise_broken()

    def flush_lines(self) -> None:
        """Write the lines that are pending; what that raises is raised by `run`."""
        if self._lines:
            lines, self._lines = self._lines, []
            try:
                self._write_log(lines)
            except StoreError as error:
                self._broken = self._broken or error
                self._wake.set()

    async def _flush(self) -> None:
        # The run last: one that is said to have ended has all of its tasks.
        run = self._record if self._run_changed else None
        self._run_changed = False
        if self._tasks:
            batch, self._tasks = self._tasks, {}
            await self._store.put_tasks(list(batch.values()))
        if run:
            await self._store.put_runs([run])

    def _raise_broken(self) -> None:
        if self._broken is not None:
            raise self._broken

    def _note_task(self, event: TaskLaunched | TaskDone | TaskAttemptFailed) -> None:
        key = event.task
        ordinal = self._ordinals.get(key)
        if ordinal is None:
            ordinal = self._ordinals[key] = self._next_ordinal
            self._next_ordinal += 1
        record = TaskRecord(
            flow=self._record.flow,
            run_id=self._record.run_id,
            step=key.step,
            task_id=key.task_id,
            ordinal=ordinal,
            attempt=event.attempt,
            status="running",
        )
        match event:
            case TaskLaunched():
                record = replace(record, started_us=event.at_us)
            case TaskDone():
                del self._ordinals[key]  # a finished task costs the driver nothing
                record = replace(
                    record,
                    status="succeeded",
                    started_us=event.started_us,
                    ended_us=event.ended_us,
                    result=event.result,
                    reused=event.reused,
                    caught=event.caught,
                )
            case TaskAttemptFailed():
                record = replace(
                    record,
                    status="failed" if event.retry_in_s is None else "retrying",
                    started_us=event.started_us,
                    ended_us=event.ended_us,
                    failure=msgpack.packb(event.failure.to_dict()),
                )
        self._tasks[key] = record
