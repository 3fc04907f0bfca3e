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
from engine.groups import unwrapped
from engine.ids import TaskKey
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
LAST_TRIES = 3
REFUSED_MAX_S = 30.0
"""A disk may have room again after so long; beyond it the run ends, and says why."""
WAITING_MAX = 100_000
"""Tasks and pieces of output that wait for a store that refuses them."""


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
        self._run_changed = False  # a run whose journal has no beginning is not listed
        self._write_log = write_log
        self._ordinals: dict[TaskKey, int] = {}
        self._next_ordinal = 0
        self._tasks: dict[TaskKey, TaskRecord] = {}
        self._lines: list[TaskOutput] = []
        self._refusal: StoreError | None = None
        self._refused_s = 0.0  # since when, by the loop's clock; 0 if nothing is refused
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

    async def run(self, give_up: Callable[[str], object]) -> None:
        """Write batches, at most one every FLUSH_EVERY_S seconds, until closed.

        What is refused is tried again with the next batch, for a full disk may have room again; but
        the first facts must be taken, and in the end all.

        Args:
            give_up: told why, once, if something cannot be written. The error is raised when
                closed: until then the run's tasks end, and what can be written of that is.

        Raises:
            StoreError: the metadata store does not take a batch, or the log a line.
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
        await self._wake.wait()
        self._wake.clear()
        await self._flush_facts()
        while not self._closing.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_EVERY_S):
                    await self._closing.wait()
            await self._wake.wait()
            self._wake.clear()
            await self._try_to_flush()
        for _ in range(LAST_TRIES - 1):
            if await self._try_to_flush():
                return
            await asyncio.sleep(FLUSH_EVERY_S)
        await self._flush()

    def flush_lines(self) -> None:
        """Write the lines that are pending, or keep them; `run` tries again, and raises."""
        lines, self._lines = self._lines, []
        try:
            if lines:
                self._write_log(lines)
            self._refusal = None
        except StoreError as error:
            self._lines = lines
            self._refusal = error
            self._wake.set()

    async def _try_to_flush(self) -> bool:
        """Whether all was written; what was not is kept.

        Raises:
            StoreError: to try again is of no use, or too much is waiting.
        """
        now_s = asyncio.get_running_loop().time()
        try:
            await self._flush()
        except StoreError as error:
            self._refused_s = self._refused_s or now_s
            is_long = now_s - self._refused_s > REFUSED_MAX_S
            is_much = len(self._lines) + len(self._tasks) > WAITING_MAX
            if not error.retryable or is_long or is_much:
                raise
            self._wake.set()
            return False
        self._refused_s = 0.0
        return True

    async def _flush(self) -> None:
        await self._flush_facts()
        self.flush_lines()
        if self._refusal is not None:
            raise self._refusal

    async def _flush_facts(self) -> None:
        run = self._record if self._run_changed else None
        batch, self._tasks, self._run_changed = self._tasks, {}, False
        try:
            # The run last: one that is said to have ended has all of its tasks.
            if batch:
                await self._store.put_tasks(list(batch.values()))
            if run:
                await self._store.put_runs([run])
        except BaseException:  # a cancellation, too: what was not written is still due
            self._tasks = {**batch, **self._tasks}
            self._run_changed = self._run_changed or run is not None
            raise

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
