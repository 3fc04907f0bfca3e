"""A driver with fakes around it, in virtual time."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from engine.flow.graph import Graph
from engine.ids import TaskKey
from engine.scheduler.driver import Driver, DriverParts
from engine.scheduler.jobs import JobFactory, RunFacts
from engine.scheduler.journal import Record, RunBeganRecord, decode
from engine.scheduler.machine import OnFailure, Scheduler
from engine.scheduler.memo import Memo
from engine.scheduler.progress import Observer, RunDone, RunEvent
from engine.stores.manifest import Manifest
from engine.testing import virtual_time
from engine.testing.fakes import (
    GraphScript,
    MemoryBlobs,
    MemoryJournal,
    Play,
    Script,
    ScriptedExecutor,
)
from tests.unit.scheduler.flows import FANNED, item

T = TypeVar("T")

PARAMETERS = Manifest("Flow", "r1", "_parameters", "0", 0).pack()


@dataclass
class Rig:
    """Everything a run needs. What is not given is made: a script that does all well, a journal."""

    graph: Graph
    script: Script | None = None
    slots: int = 4
    on_failure: OnFailure = "finish"
    run_id: str = "r1"
    origin: MemoryJournal | None = None
    memo: Memo | None = None
    journal: MemoryJournal = field(default_factory=MemoryJournal)
    observers: list[Observer] = field(default_factory=list)
    executor_class: type[ScriptedExecutor] = ScriptedExecutor
    free_port: Callable[[str], int] | None = None

    def __post_init__(self) -> None:
        self.seen: list[RunEvent] = []
        self.blobs = MemoryBlobs()
        self.scheduler = Scheduler(self.graph, slots=self.slots, on_failure=self.on_failure)
        self.executor = self.executor_class(self.script or GraphScript(self.graph))
        facts = RunFacts("Flow", self.run_id, "/store", PARAMETERS, free_port=self.free_port)
        if self.origin is not None and self.memo is None:
            self.memo = Memo(self.origin)
        self.driver = Driver(
            DriverParts(
                scheduler=self.scheduler,
                executor=self.executor,
                journal=self.journal,
                jobs=JobFactory(self.graph, facts, self.journal, self.blobs.put),
                began=RunBeganRecord(virtual_time.EPOCH_US, "Flow", self.run_id, PARAMETERS),
                clock=virtual_time.clock,
                get_blob=self.blobs.get,
                observers=[self.seen.append, *self.observers],
                memo=self.memo,
            )
        )

    def run(self) -> RunDone:
        """Run to the end, check the machine, and see that nothing is left in flight."""
        return self.play(lambda: self.driver.run())

    def play(self, scenario: Callable[[], Awaitable[T]]) -> T:
        async def whole() -> T:
            try:
                return await scenario()
            finally:
                self.ended_s = asyncio.get_running_loop().time()

        result = virtual_time.run(whole())
        self.scheduler.check()
        return result

    def records(self) -> list[Record]:
        return [decode(payload) for _, payload in self.journal.scan()]

    def events(self, *kinds: type) -> list[RunEvent]:
        return [event for event in self.seen if isinstance(event, kinds)]

    def started(self, step: str) -> list[str]:
        """Names of the jobs of a step, without the run, in the order of their start."""
        names = [name.removeprefix(f"{self.run_id}-") for name in self.executor.started]
        return [name for name in names if name.startswith(f"{step}-")]


def child(index: int, total: int) -> TaskKey:
    return item("work", ("start", index, total))


def wide(width: int, seconds: float = 1.0) -> GraphScript:
    return GraphScript(FANNED, seconds, fanout=lambda task: width)


def instead(plays: dict[str, Play], script: GraphScript) -> Script:
    """The script, but for the jobs whose names without the run are in `plays`."""
    return lambda job: plays.get(job.name.removeprefix("r1-")) or script(job)
