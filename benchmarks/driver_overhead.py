"""What one task costs the driver: machine, journal, spec and observers, with tasks that do nothing.

    .venv/bin/python -m benchmarks.driver_overhead [widths...]

A foreach of each width runs on 64 slots, each in a fresh process. The executor answers at once; the
time that it spends making reports is taken off. The journal is a real file. Bars: 150 us of the
processor a task, flat within 20 %, at most 1 KB of peak resident memory a task at 100,000.
"""

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Collection, Sequence
from pathlib import Path

from blake3 import blake3

from engine.executors.base import Exit, ExitKind, Job, JobEnded, JobUpdate
from engine.flow.graph import Graph, Kind, Node, Transition
from engine.scheduler.driver import Driver, DriverParts
from engine.scheduler.jobs import JobFactory, RunFacts
from engine.scheduler.journal import RunBeganRecord
from engine.scheduler.machine import Scheduler
from engine.scheduler.progress import RunEvent, TaskDone
from engine.stores.journals import JournalReader, JournalWriter
from engine.stores.leases import Lease
from engine.stores.manifest import Entry, Manifest
from engine.stores.packed import pack_list
from engine.stores.taskspec import Report

RUN = "01JBENCHBENCHBEN"
SLOTS = 64
REPEATS = 3
WARM_UP = 300  # a width run first: imports and specialised bytecode are not a task's cost
GRAPH = Graph(
    "Bench",
    {
        "start": Node("start", Kind.FOREACH, ("work",), foreach="items"),
        "work": Node("work", Kind.LINEAR, ("join",), split_parents=("start",)),
        "join": Node("join", Kind.LINEAR, ("end",), is_join=True, join_of="start"),
        "end": Node("end", Kind.END),
    },
)


def entry(value: int) -> Entry:
    return Entry("json", "builtins.int", 8, "0" * 64, inline=str(value).encode(), preview="1")


class NoOpExecutor:
    """Ends each job when it is submitted, and counts the time that this takes."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._ended: asyncio.Queue[Sequence[JobUpdate]] = asyncio.Queue()
        self.wall_s = self.cpu_s = 0.0
        self._artifacts = {f"a{i}": entry(i) for i in range(3)}

    async def submit(self, jobs: Sequence[Job]) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        self._ended.put_nowait([self._end(job) for job in jobs])
        self.wall_s += time.perf_counter() - wall
        self.cpu_s += time.process_time() - cpu

    async def updates(self) -> AsyncIterator[Sequence[JobUpdate]]:
        while True:
            yield await self._ended.get()

    async def cancel(self, names: Collection[str], *, reason: str) -> None: ...

    async def aclose(self) -> None: ...

    def _end(self, job: Job) -> JobEnded:
        _, step, task_id, attempt = job.name.rsplit("-", 3)
        is_split, items = step == "start", None
        if is_split:
            one = entry(7).pack()
            data = pack_list([one] * self._width)
            is_small = len(data) <= 8192
            items = Entry(
                "packed",
                "builtins.list",
                len(data),
                "0" * 64,
                inline=data if is_small else None,
                digest=None if is_small else "0" * 64,
            )
        moved = Transition(GRAPH[step].next, self._width if is_split else None)
        manifest = Manifest(
            "Bench", RUN, step, task_id, int(attempt), self._artifacts, moved, items
        )
        report = Report(manifest=manifest.pack()).pack()
        return JobEnded(job.name, Exit(ExitKind.RETURNED), 0, 0, report)


async def drop_blob(data: bytes | bytearray) -> str:
    return blake3(data).hexdigest()


async def no_blob(digest: str) -> bytes:
    raise KeyError(digest)


def resident_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def measure(width: int, directory: str) -> tuple[float, float, float]:
    """Run one foreach; return the driver's microseconds of the processor and of the clock, and its
    bytes at peak, each a task.
    """
    done = 0

    def count(event: RunEvent) -> None:
        nonlocal done
        done += isinstance(event, TaskDone)

    parameters = Manifest("Bench", RUN, "_parameters", "0", 0, {"p": entry(1)}).pack()
    journal_path, lock_path = f"{directory}/journal", f"{directory}/lock"
    lease = Lease.acquire(lock_path, run=f"Bench/{RUN}", since_us=0)
    writer = JournalWriter(journal_path, lease)
    facts = RunFacts("Bench", RUN, directory, parameters, username="bench")
    executor = NoOpExecutor(width)
    parts = DriverParts(
        scheduler=Scheduler(GRAPH, slots=SLOTS),
        executor=executor,
        journal=writer,
        jobs=JobFactory(GRAPH, facts, JournalReader(journal_path), drop_blob),
        began=RunBeganRecord(0, "Bench", RUN, parameters, slots=SLOTS),
        clock=lambda: time.time_ns() // 1000,
        get_blob=no_blob,
        observers=[count],
    )
    before = resident_bytes("VmRSS")
    wall, cpu = time.perf_counter(), time.process_time()
    outcome = asyncio.run(Driver(parts).run())
    wall_s = time.perf_counter() - wall - executor.wall_s
    cpu_s = time.process_time() - cpu - executor.cpu_s
    assert outcome.status == "succeeded", outcome
    assert done == width + 3, done
    peak = resident_bytes("VmHWM") - before
    return cpu_s / done * 1e6, wall_s / done * 1e6, peak / done


def main(widths: list[int]) -> None:
    print(f"{'width':>9} {'cpu us':>8} {'wall us':>8} {'bytes':>6}   a task; medians of {REPEATS}")
    for width in widths:
        rows = []
        for _ in range(REPEATS):
            command = [sys.executable, "-m", "benchmarks.driver_overhead", "--one", str(width)]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            rows.append(tuple(float(word) for word in out.split()))
        cpu, wall, size = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"{width:>9,} {cpu:>8.1f} {wall:>8.1f} {size:>6,.0f}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        for width in (WARM_UP, int(sys.argv[2])):
            with tempfile.TemporaryDirectory() as directory:
                measured = measure(width, directory)
        print(*measured)
    else:
        main([int(word) for word in sys.argv[1:]] or [1_000, 10_000, 100_000])
