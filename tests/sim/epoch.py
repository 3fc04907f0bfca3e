"""One epoch of a story: a driver with everything around it, and what became of it."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3
from msgspec import to_builtins

from engine.errors import StoreUnavailableError
from engine.flow.graph import Graph
from engine.ids import new_run_id, next_run_us
from engine.runtime.clock import Clocks
from engine.runtime.recorder import Recorder, run_recorded
from engine.scheduler.jobs import RunFacts
from engine.scheduler.journal import RunBeganRecord
from engine.scheduler.machine import OnFailure, Scheduler
from engine.scheduler.progress import RunEvent, TaskOutput
from engine.stores.manifest import Manifest
from engine.stores.metadata.base import RunRecord
from engine.testing import virtual_time
from engine.testing.fakes import MemoryBlobs
from tests.sim.cast import Cast
from tests.sim.faults import Epoch
from tests.sim.oracle import Journal, demand
from tests.sim.stores import DiskJournal, FaultyBlobs, FaultyMetadata, Life, open_journal
from tests.sim.verdict import Lived, ObserverError, ending_of, judge, judge_metadata
from tests.sim.world import FaultyExecutor, Worker

TURNS_MAX = 100_000  # of the event loop; a story takes hundreds
PARAMETERS = Manifest("Flow", "r", "_parameters", "0", 0).pack()


@dataclass(frozen=True)
class Stage:
    """What all epochs of a story share."""

    graph: Graph
    slots: int
    on_failure: OnFailure
    blobs: MemoryBlobs
    folder: Path
    cast: Cast

    def machine(self) -> Scheduler:
        return Scheduler(self.graph, slots=self.slots, on_failure=self.on_failure)


class _Killed(BaseException):
    """The driver's process is gone."""


class EpochRun:
    """A driver and its world, from the taking of the run to the judge's word on it.

    Args:
        stage: what the story has.
        epoch: what goes wrong.
        before: the journals that earlier epochs left, the latest first.
        run_ids: of the runs before.
    """

    def __init__(
        self, stage: Stage, epoch: Epoch, before: Sequence[Journal], run_ids: Sequence[str]
    ) -> None:
        self.lines: list[str] = []
        self.is_success = False
        self._stage = stage
        self._epoch = epoch
        self._before = before
        self._life = Life()
        self._turn = 0
        self._is_stopped = False
        self._caller: asyncio.Task[None] | None = None

        self._created_us = next_run_us(epoch.wall_us(0.0), run_ids)
        self.run_id = new_run_id(self._created_us // 1000, epoch.rng("run id").getrandbits(30))
        demand(all(other < self.run_id for other in run_ids), "run ids are not in order")
        self._metadata = FaultyMetadata(epoch)
        self.journal = open_journal(epoch, stage.folder, self._life)
        self._lived = Lived(epoch, self.journal, stage.machine())
        self.worker = Worker(stage.graph, epoch, stage.blobs)

    # -- the scenario --------------------------------------------------------------------------

    def play(self) -> str:
        """Run to the end or the kill, and judge; return what became of it.

        Raises:
            ViolationError: the guarantee was broken.
        """
        try:
            ending = virtual_time.run(self._scenario(), on_turn=self._on_turn, stuck_s=0.0)
        except _Killed:
            ending = "killed"
        finally:
            if isinstance(self.journal.inner, DiskJournal):
                self.journal.inner.end()
                demand(not self.journal.inner.refuses_a_rival(), "a lock was left")
        self.lines.append(ending)
        self.lines.append(blake3(b"".join(p for _, p in self.journal.scan())).hexdigest())
        judge(self._lived, ending, twin=self._stage.machine(), before=self._before)
        self.is_success = self._lived.is_success
        return ending

    async def _scenario(self) -> str:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._on_stray)
        parts = self._parts(Clocks(self._wall_us, _passed_us).steady(self._created_us))
        driver = self._stage.cast.driver.Driver(parts)
        async with asyncio.TaskGroup() as group:
            self._caller = group.create_task(self._drive(driver))
            for at_s in self._epoch.faults.cancel_at_s:
                loop.call_later(at_s, self._cancel)
            await asyncio.wait({self._caller})
        self._is_stopped = True  # what the loop does from here on is no part of the story
        demand(asyncio.all_tasks() == {asyncio.current_task()}, "a task was left on the loop")
        await judge_metadata(self._lived, self._metadata, self.run_id)
        self._lived.metadata_failures = self._metadata.failures
        self._lived.is_metadata_down = self._metadata.is_down
        return ending_of(self._lived, was_cancelled=self._caller.cancelled())

    async def _drive(self, driver: Any) -> None:  # Any: of one of several casts
        try:
            await run_recorded(driver, self._recorder)
        except Exception as error:  # noqa: BLE001 - the judge says whether it may be
            self._lived.raised = error

    def _parts(self, clock: Any) -> Any:  # Any: of one of several casts
        stage, epoch, cast = self._stage, self._epoch, self._stage.cast
        executor_clock = self._wall_us if epoch.skewed else clock
        executor = FaultyExecutor(self.worker, epoch, executor_clock, self._life)
        self._lived.executor = executor
        blobs = FaultyBlobs(stage.blobs, epoch, self._life)
        journal = cast.journal(self.journal)
        began = RunBeganRecord(
            self._created_us,
            "Flow",
            self.run_id,
            PARAMETERS,
            graph=to_builtins(stage.graph),
            slots=stage.slots,
            on_failure=stage.on_failure,
        )
        record = RunRecord("Flow", self.run_id, "running", self._created_us)
        self._recorder = Recorder(self._metadata, record, self._write_log)
        return cast.driver.DriverParts(
            scheduler=self._lived.machine,
            executor=executor,
            journal=journal,
            jobs=cast.jobs.JobFactory(
                stage.graph,
                RunFacts("Flow", self.run_id, "/store", PARAMETERS),
                journal,
                blobs.put,
            ),
            began=began,
            clock=clock,
            get_blob=blobs.get,
            observers=[self._recorder.observe, self._watch, self._stumble],
            memo=self._memo() if self._before else None,
        )

    def _memo(self) -> Any:  # Any: of one of several casts
        gangs = [node.name for node in self._stage.graph.nodes.values() if node.is_parallel]
        memo = self._stage.cast.memo.Memo
        return memo(self._before[0], older=self._before[1:], gangs=gangs)

    def _wall_us(self) -> int:
        return self._epoch.wall_us(asyncio.get_running_loop().time())

    # -- what comes upon it --------------------------------------------------------------------

    def _on_turn(self) -> None:
        """Called before each turn of the event loop, outside of every task."""
        if self._is_stopped:
            return
        self._turn += 1
        demand(self._turn < TURNS_MAX, "the driver turns in circles")
        if self._turn == self._epoch.faults.kill_at_turn:
            self._life.die()
        if self._life.is_over:
            self._is_stopped = True
            for task in asyncio.all_tasks():
                task.cancel()  # so that they can be collected; they have no effect any more
            raise _Killed
        if self._turn in self._epoch.faults.cancel_at_turns and self._caller is not None:
            self._caller.get_loop().call_soon_threadsafe(self._cancel)
        if self._turn == self._epoch.rival_at_turn and isinstance(self.journal.inner, DiskJournal):
            demand(self.journal.inner.refuses_a_rival(), "two drivers have one run")

    def _cancel(self) -> None:
        if self._caller is not None and not self._caller.done():
            if self._lived.cancelled_at_s is None:
                self._lived.cancelled_at_s = asyncio.get_running_loop().time()
            self._caller.cancel()

    def _watch(self, event: RunEvent) -> None:
        if self._life.is_over:
            return
        self._lived.told.append(event)
        self._lived.told_at_s = asyncio.get_running_loop().time()
        said = str(event).replace(str(self._stage.folder), "")  # the one name that chance gave
        self.lines.append(f"{self._lived.told_at_s:9.3f} {said}")

    def _stumble(self, event: RunEvent) -> None:
        self._lived.heard += 1
        if self._lived.heard == self._epoch.faults.observer_raises_at:
            raise ObserverError("a watcher stumbled")

    def _write_log(self, lines: Sequence[TaskOutput]) -> None:
        self._lived.logs += 1
        if self._lived.logs == self._epoch.faults.log_full_at:
            raise StoreUnavailableError("no space is left for the log")
        self._lived.lines_kept += len(lines)

    def _on_stray(self, loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
        if not self._life.is_over and not self._is_stopped:
            self._lived.strays.append(f"{context.get('message')}: {context.get('exception')!r}")


def _passed_us() -> int:
    return round(asyncio.get_running_loop().time() * 1_000_000)
