"""What a wide foreach costs the scheduler (FAULTS R-17).

`python -m tests.sim.width [--machine 1000000] [--driver 100000]` prints it. Work is counted in
lines of the scheduler's source that run, which is the same on every machine; the CPU seconds beside
them would tell of a rescan in C, which is one line.
"""

import argparse
import asyncio
import gc
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from engine.executors.base import Exit, ExitKind, Job, JobEnded, JobUpdate
from engine.flow.graph import Kind, Transition
from engine.scheduler.commands import FinishRun, Launch
from engine.scheduler.driver import Driver, DriverParts
from engine.scheduler.events import ResultRef, RunStarted, TaskSucceeded
from engine.scheduler.jobs import JobFactory, RunFacts
from engine.scheduler.journal import RunBeganRecord
from engine.scheduler.machine import Scheduler
from engine.stores.journals import JournalReader, JournalWriter
from engine.stores.leases import Lease
from engine.stores.manifest import Manifest
from engine.stores.taskspec import TaskSpec
from engine.testing import virtual_time
from engine.testing.fakes import MemoryBlobs, committed
from tests.unit.scheduler.flows import Foreach, Step, flow

GRAPH = flow(Foreach("start", (Step("work"),)))
SLOTS = 100
WIDTHS = (1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000)
SCHEDULER = str(Path("engine") / "scheduler")


def run_machine(width: int, machine: Scheduler) -> int:
    """Feed the machine a foreach of `width` tasks; return the number of events."""
    waiting: list[Launch] = []
    events = 1
    done = False
    commands = machine.handle(RunStarted(ResultRef(0)))
    while not done:
        for command in commands:
            if isinstance(command, Launch):
                waiting.append(command)
            done = done or isinstance(command, FinishRun)
        if waiting:
            task = waiting.pop()
            fanout = width if GRAPH[task.task.step].kind is Kind.FOREACH else None
            transition = Transition(GRAPH[task.task.step].next, fanout)
            commands = machine.handle(TaskSucceeded(task.task, 0, transition, ResultRef(events)))
            events += 1
    return events


def lines_run(width: int, machine: Scheduler) -> int:
    """How many lines of the scheduler's source a foreach of `width` tasks runs."""
    count = 0

    def local(frame: FrameType, event: str, argument: Any) -> Any:  # Any: as sys.settrace has it
        nonlocal count
        count += event == "line"
        return local

    def trace(frame: FrameType, event: str, argument: Any) -> Any:  # Any: as sys.settrace has it
        return local if SCHEDULER in frame.f_code.co_filename else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run_machine(width, machine)
    finally:
        sys.settrace(before)
    return count


def r_squared(xs: Sequence[float], ys: Sequence[float]) -> float:
    """How much of `ys` a straight line over `xs` explains; 1.0 is all."""
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    both = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    return both**2 / (sum((x - mean_x) ** 2 for x in xs) * sum((y - mean_y) ** 2 for y in ys))


class InstantExecutor:
    """Every job has ended before it is asked for, and nothing is remembered of it."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._news: asyncio.Queue[Sequence[JobUpdate] | None] = asyncio.Queue()

    async def submit(self, jobs: Sequence[Job]) -> None:
        self._news.put_nowait([self._end(job) for job in jobs])

    async def updates(self) -> AsyncIterator[Sequence[JobUpdate]]:
        while batch := await self._news.get():
            yield batch

    async def cancel(self, names: Collection[str], *, reason: str) -> None:
        raise AssertionError("nothing is cancelled here")

    async def aclose(self) -> None:
        self._news.put_nowait(None)

    def _end(self, job: Job) -> JobEnded:
        spec = TaskSpec.unpack(job.spec)
        node = GRAPH[spec.step]
        width = self._width if node.kind is Kind.FOREACH else None
        report = committed(spec, node.next, fanout=width)
        return JobEnded(job.name, Exit(ExitKind.RETURNED), 1, 2, report)


class DroppedBlobs(MemoryBlobs):
    """Takes blobs as a disk does: they are no memory of ours."""

    async def put(self, data: bytes | bytearray) -> str:
        return "0" * 64


def run_driver(width: int, folder: Path) -> str:
    """Drive a foreach of `width` no-ops with the real journal; return how the run ended."""
    parameters = Manifest("Flow", "r1", "_parameters", "0", 0).pack()
    lock, path = str(folder / "lock"), str(folder / "journal")
    blobs = DroppedBlobs()

    async def scenario(journal: JournalWriter, reader: JournalReader) -> str:
        facts = RunFacts("Flow", "r1", "/store", parameters)
        parts = DriverParts(
            scheduler=Scheduler(GRAPH, slots=SLOTS),
            executor=InstantExecutor(width),
            journal=journal,
            jobs=JobFactory(GRAPH, facts, reader, blobs.put),
            began=RunBeganRecord(virtual_time.EPOCH_US, "Flow", "r1", parameters),
            clock=virtual_time.clock,
            get_blob=blobs.get,
        )
        return (await Driver(parts).run()).status

    with (
        Lease.acquire(lock, run="Flow/r1", since_us=0) as lease,
        JournalWriter(path, lease) as journal,
        JournalReader(path) as reader,
    ):
        return virtual_time.run(scenario(journal, reader))


@dataclass(frozen=True)
class Grown:
    """How far the memory of this process had grown when it was largest."""

    peak_bytes: int
    cpu_s: float

    @classmethod
    def by(cls, work: Any) -> "Grown":  # Any: its result is of no interest
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
        before, began = _status_kib("VmRSS"), time.process_time()
        work()
        cpu_s = time.process_time() - began
        return cls((_status_kib("VmHWM") - before) * 1024, cpu_s)


def _status_kib(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machine", type=int, default=1_000_000, help="width, of the machine")
    parser.add_argument("--driver", type=int, default=100_000, help="width, of the driver")
    options = parser.parse_args(arguments)
    say = sys.stdout.write
    lines = []
    for width in WIDTHS:
        lines.append(lines_run(width, Scheduler(GRAPH, slots=SLOTS)))
        say(f"{width:>9,} wide: {lines[-1]:>12,} lines, {lines[-1] / width:.2f} a task\n")
    fit = r_squared(WIDTHS, lines)
    say(f"R^2 {fit:.9f}\n")

    def machine() -> None:
        run_machine(options.machine, Scheduler(GRAPH, slots=SLOTS))

    def driver() -> None:
        with tempfile.TemporaryDirectory(prefix="aflow-width-") as folder:
            status = run_driver(options.driver, Path(folder))
            if status != "succeeded":
                raise AssertionError(f"the run {status}")

    worst = 0.0
    for name, work, width in (
        ("machine", machine, options.machine),
        ("driver", driver, options.driver),
    ):
        grown = Grown.by(work)
        worst = max(worst, grown.peak_bytes / width)
        say(
            f"{name}, {width:,} wide: {grown.peak_bytes / 2**20:.1f} MiB more at its peak, "
            f"{grown.peak_bytes / width:.0f} B a task; {grown.cpu_s:.1f} CPU s, "
            f"{1e6 * grown.cpu_s / width:.1f} us a task\n"
        )
    return 0 if fit > 0.99 and worst <= 1024 else 1


if __name__ == "__main__":
    sys.exit(main())
