"""Writes what a run reports to the metadata store and the log, in batches.

The journal is the truth; what is written here can be made again from it. So the recorder may lag
by a moment, and a task that starts and ends within one batch costs one row, not two.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

import msgpack
from msgspec.structs import replace

from engine.errors import StoreError
from engine.ids import TaskKey
from engine.runtime.groups import unwrapped
from engine.scheduler.driver import Driver
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
        self._log_error: StoreError | None = None
        self._wake = asyncio.Event()
        self._closing = asyncio.Event()

    def observe(self, event: RunEvent) -> None:
        match event:
            case TaskOutput():
                if not self._lines:
                    asyncio.get_running_loop().call_soon(self._flush_lines_now)
                self._lines.append(event)
                return
            case TaskLaunched() | TaskDone() | TaskAttemptFailed():
                self._note_task(event)
            case RunBegan():
                self._run_changed = True
            case RunDone(status, at_us, reason):
                self._record = replace(self._record, status=status, ended_us=at_us, reason=reason)
                self._run_changed = True
        self._wake.set()

    def close(self) -> None:
        """Let `run` write what is left and return."""
        self._closing.set()
        self._wake.set()

    async def run(self, give_up: Callable[[str], object]) -> None:
        """Write batches, at most one every FLUSH_EVERY_S seconds, until closed.

        Args:
            give_up: told why, once, if something cannot be written. The error is raised when
                closed: until then the run's tasks end, and what can be written of that is.

        Raises:
            StoreError: the log or the metadata store could not be written.
        """
        try:
            await self._write()
        except StoreError as error:
            give_up(f"the run could not be recorded: {error.message}")
            await self._closing.wait()
            with suppress(StoreError):
                await self._flush()
            raise

    async def _write(self) -> None:
        while not self._closing.is_set():
            await self._wake.wait()
            self._wake.clear()
            if self._log_error is not None:
                raise self._log_error
            await self._flush()
            with suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_EVERY_S):
                    await self._closing.wait()
        self._flush_lines()
        await self._flush()
        if self._log_error is not None:
            raise self._log_error

    async def _flush(self) -> None:
        """Write the run and its tasks; what cannot be written is kept for the next time."""
        if self._run_changed:
            self._run_changed = False
            try:
                await self._store.put_runs([self._record])
            except BaseException:
                self._run_changed = True
                raise
        if self._tasks:
            batch, self._tasks = self._tasks, {}
            try:
                await self._store.put_tasks(list(batch.values()))
            except BaseException:
                self._tasks = batch | self._tasks
                raise

    def _flush_lines_now(self) -> None:
        # The loop would log what is raised here, and nobody would miss the lines.
        try:
            self._flush_lines()
        except StoreError as error:
            self._log_error = self._log_error or error
            self._wake.set()

    def _flush_lines(self) -> None:
        if self._lines:
            lines, self._lines = self._lines, []
            self._write_log(lines)

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


async def run_recorded(driver: Driver, recorder: Recorder) -> RunDone:
    """Run to the end while `recorder`, one of the driver's observers, writes.

    Raises:
        StoreError: the journal, the log or the metadata store could not be written.
        CancelledError: the caller was cancelled; by then the end is journaled and recorded.
    """
    with unwrapped():
        async with asyncio.TaskGroup() as group:
            recording = group.create_task(recorder.run(driver.cancel), name="recorder")
            try:
                return await driver.run()
            finally:
                recorder.close()
                # A group whose body is cancelled cancels its tasks: the end would go unwritten.
                try:
                    await asyncio.wait({recording})
                except asyncio.CancelledError:  # it came after the run's end, which is still due
                    await asyncio.wait({recording})
                    raise
