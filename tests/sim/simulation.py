"""One seed, one story: a flow is run, disturbed, cut off and resumed until it is done.

A driver that is killed at any instant leaves a prefix of its journal behind and nothing else that
lasts (its jobs die with it). So a kill is a run whose journal is cut at a random frame.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from blake3 import blake3

from engine.flow.graph import Graph
from engine.scheduler.driver import Driver, DriverParts
from engine.scheduler.jobs import JobFactory, RunFacts
from engine.scheduler.journal import ExecutorLostRecord, RunBeganRecord, RunDoneRecord
from engine.scheduler.machine import Scheduler
from engine.scheduler.memo import Memo
from engine.scheduler.progress import RunDone, RunEvent
from engine.stores.manifest import Manifest
from engine.testing import virtual_time
from engine.testing.fakes import MemoryBlobs, MemoryJournal
from tests.sim.flows import random_flow
from tests.sim.oracle import (
    commits_of,
    demand,
    judge_journal,
    judge_resume,
    judge_values,
    records_of,
)
from tests.sim.world import Epoch, FaultyExecutor, Worker

MAX_EPOCHS = 4
CANCEL_TAKES_S = 6.0  # a submit under way, the cancelling of what it started, and some
PARAMETERS = Manifest("Flow", "r", "_parameters", "0", 0).pack()


@dataclass
class Story:
    """What happened, for people and for comparing. `digest` is over every line and journal."""

    seed: int
    lines: list[str] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    tasks: int = 0

    @property
    def digest(self) -> str:
        return blake3("\n".join(self.lines).encode()).hexdigest()


def simulate(seed: int) -> Story:
    """Play a seed to its end.

    Raises:
        ViolationError: the guarantee was broken.
    """
    rng = Random(seed)
    graph, story = random_flow(rng), Story(seed)
    slots, on_failure = rng.randint(1, 6), rng.choice(("finish", "cancel"))
    story.lines.append(f"flow of {len(graph.nodes)} steps, {slots} slots, {on_failure} on failure")
    before: list[MemoryJournal] = []  # the run to go on from first, then its origin, and so on
    for number in range(MAX_EPOCHS):
        epoch = _epoch(rng, seed, number)
        run = _Run(graph, epoch, before, Scheduler(graph, slots=slots, on_failure=on_failure))
        run.play(story)
        left = run.journal
        if not epoch.is_calm and rng.random() < 0.5:
            left = left.prefix(rng.randint(0, len(left)))
            story.lines.append(f"killed: {len(left)} of {len(run.journal)} frames are left")
            story.seen["killed"] += 1
            judge_journal(left, is_whole=False)
        elif run.is_success:
            judge_values(graph, seed, left)
            story.tasks = len(commits_of(left))
            return story
        before = [left, *before]
    raise AssertionError("the calm epoch did not end in success")  # judged in _Run.play


def _epoch(rng: Random, seed: int, number: int) -> "Epoch":
    if number == MAX_EPOCHS - 1:
        return Epoch(seed, number, fault_rate=0.0)
    what = rng.random()
    return Epoch(
        seed,
        number,
        fault_rate=rng.choice((0.0, 0.05, 0.2, 0.5)),
        lost_at_s=rng.uniform(0.0, 20.0) if what < 0.1 else None,
        refuses_after=rng.randint(0, 8) if 0.1 <= what < 0.2 else None,
        cancel_at_s=_cancels(rng) if 0.2 <= what < 0.5 else (),
    )


def _cancels(rng: Random) -> tuple[float, ...]:
    first = rng.choice((0.0, rng.uniform(0.0, 20.0)))
    return (first, first + rng.uniform(0.0, 4.0)) if rng.random() < 0.3 else (first,)


class _Run:
    """One epoch: a driver with everything around it, and what became of it."""

    def __init__(
        self, graph: Graph, epoch: Epoch, before: Sequence[MemoryJournal], scheduler: Scheduler
    ) -> None:
        self.journal = MemoryJournal()
        self.is_success = False
        self._epoch = epoch
        self._before = before
        self._scheduler = scheduler
        self._events: list[RunEvent] = []
        self._lines: list[str] = []
        self._worker = Worker(graph, epoch, blobs := MemoryBlobs())
        self._executor = FaultyExecutor(self._worker, epoch, self._worker.report)
        facts = RunFacts("Flow", epoch.run_id, "/store", PARAMETERS)
        began = RunBeganRecord(virtual_time.EPOCH_US, "Flow", epoch.run_id, PARAMETERS)
        self._driver = Driver(
            DriverParts(
                scheduler=scheduler,
                executor=self._executor,
                journal=self.journal,
                jobs=JobFactory(graph, facts, self.journal, blobs.put),
                began=began,
                clock=virtual_time.clock,
                get_blob=blobs.get,
                observers=[self._watch],
                memo=Memo(before[0], older=before[1:]) if before else None,
            )
        )

    def play(self, story: Story) -> None:
        ending = virtual_time.run(self._scenario())
        story.lines += [f"-- {self._epoch}", *self._lines, ending]
        story.lines.append(blake3(b"".join(p for _, p in self.journal.scan())).hexdigest())
        story.seen.update(self._worker.fates)
        story.seen[ending] += 1
        self._judge(ending)

    async def _scenario(self) -> str:
        async with asyncio.TaskGroup() as group:
            run = group.create_task(self._driver.run())
            loop = asyncio.get_running_loop()
            for at_s in self._epoch.cancel_at_s:
                loop.call_later(at_s, run.cancel)
            await asyncio.wait({run})
        records = records_of(self.journal)
        if any(isinstance(record, ExecutorLostRecord) for record in records):
            return "executor lost"
        if run.cancelled():
            last = records[-1]
            is_hasty = isinstance(last, RunDoneRecord) and "twice" in str(last.reason)
            return "cancelled twice" if is_hasty else "cancelled"
        return run.result().status

    def _watch(self, event: RunEvent) -> None:
        self._events.append(event)
        self._lines.append(f"{asyncio.get_running_loop().time():9.3f} {event}")

    def _judge(self, ending: str) -> None:
        judge_journal(self.journal, is_whole=True)
        if self._before:
            judge_resume(self._before, self._executor.started, self.journal)
        demand(isinstance(self._events[-1], RunDone), "watchers were not told of the end")
        told = [e for e in self._events if isinstance(e, RunDone)]
        demand(len(told) == 1, "watchers were told of several ends")
        self.is_success = told[0].status == "succeeded"
        if self._epoch.cancel_at_s and ending in ("cancelled", "cancelled twice"):
            late_s = (told[0].at_us - virtual_time.EPOCH_US) / 1e6 - self._epoch.cancel_at_s[0]
            is_said = told[0].status == "interrupted" or late_s <= 0  # it ended before it heard
            demand(is_said, "a cancelled run does not say so")
            demand(late_s <= CANCEL_TAKES_S, f"a cancel took {late_s} s")
        if ending not in ("cancelled twice", "executor lost"):
            self._scheduler.check()
            demand(self._executor.in_flight == 0, "jobs were left in flight")
            demand(self._scheduler.in_flight == 0, "the machine still waits for tasks")
        if self._epoch.is_calm:
            demand(self.is_success, f"a run in a calm world ended as {ending}")
