"""R-18: tasks that print more than anybody reads, and what becomes of every byte of it.

python -m tests.faults.storms [--tasks N] [--mib N] [--record FILE]

Each task prints so many MiB, in its own way: lines, one line without an end, bytes that are no
text, NULs, both streams at once; none ends its last line. What the observers of the run were told,
and what lies in its log, must be what was printed, to the character. The driver's memory and how
late its loop is are measured meanwhile. Everything printed is kept, so the whole of the row (64
times 1,024 MiB) takes 64 GiB of disk.
"""

import argparse
import asyncio
import os
import resource
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from engine import Engine, FlowSpec, Parameter, step
from engine.runtime import RunOptions
from engine.scheduler.progress import RunEvent, TaskOutput
from engine.stores.layout import open_layout
from engine.stores.logs import LogQuery, LogReader
from tests.faults.loop_lag import ticks
from tests.reliability.record import add_record_option, write_record

MIB = 1 << 20
BLOCK_BYTES = 60_000  # of one write
MEMORY_BAR_MIB = 256  # more than before the run, however much is printed
LAG_BAR_S = 1.0


class Way(NamedTuple):
    """A way to print: `block` over and over, read as so many characters, on these streams."""

    block: bytes
    characters: int
    fds: tuple[int, ...] = (1,)


WAYS = {
    "lines": Way(b"a line of a hundred bytes".ljust(99, b".") + b"\n", 99),
    "short lines": Way(b"0123456789012345678\n", 19),
    "one line": Way(b"x" * 100, 100),
    "no text": Way(bytes(range(0x80, 0x100)), 4 * 0x80),  # shown as \xNN
    "NULs": Way(bytes(100), 100),
    "both streams": Way("é".encode() * 49 + b"\n", 49, (1, 2)),
}


class Storm(FlowSpec):
    tasks = Parameter("tasks", default=6)
    mib = Parameter("mib", default=1)

    @step
    def start(self) -> None:
        self.numbers = list(range(self.tasks))
        self.next(self.print_much, foreach="numbers")

    @step
    def print_much(self) -> None:
        way = WAYS[way_of(self.input)]
        repeated = BLOCK_BYTES // len(way.block)
        block, left = way.block * repeated, self.mib * MIB // len(way.block)
        while left > 0:
            for fd in way.fds:
                write_all(fd, block if left >= repeated else way.block * left)
            left -= repeated
        for fd in way.fds:
            write_all(fd, b"the end")  # and no newline
        self.next(self.join)

    @step
    def join(self, inputs: "list[Storm]") -> None:
        self.next(self.end)

    @step
    def end(self) -> None:
        pass


def write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def way_of(number: int) -> str:
    return list(WAYS)[number % len(WAYS)]


Characters = Counter[tuple[str, str]]
"""How many, by task id and stream."""


def expected(tasks: int, mib: int) -> Characters:
    found: Characters = Counter()
    for number in range(tasks):
        way = WAYS[way_of(number)]
        for fd in way.fds:
            stream = "stdout" if fd == 1 else "stderr"
            count = mib * MIB // len(way.block) * way.characters + len("the end")
            found[str(number), stream] = count
    return found


class Weathered(NamedTuple):
    """What became of a storm: characters as told and as kept, memory in MiB, ticks late in s."""

    told: Characters
    kept: Characters
    memory_mib: float
    lags: list[float]
    longest: int


async def weather(tasks: int, mib: int, slots: int | None = None) -> Weathered:
    """Run a storm in this process."""
    told: Characters = Counter()
    longest = 0

    def observe(event: RunEvent) -> None:
        nonlocal longest
        if isinstance(event, TaskOutput):
            sizes = [len(text) for _, text in event.lines]
            longest = max(longest, *sizes)
            told[event.task.task_id, event.stream] += sum(sizes)

    before = peak_mib()
    async with Engine() as engine:
        options = RunOptions(parameters={"tasks": tasks, "mib": mib}, max_workers=slots)
        async with ticks() as late:
            done = await engine.execute(Storm, options, observers=(observe,))
        assert done.status == "succeeded", done.reason
        memory = peak_mib() - before
        kept = await asyncio.to_thread(read_back, Path(engine.config.datastore), done.run_id)
    return Weathered(told, kept, memory, sorted(late), longest)


def peak_mib() -> float:
    """The most memory that this process has had, so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def read_back(store: Path, run_id: str) -> Characters:
    found: Characters = Counter()
    log = open_layout(store).log("Storm", run_id)
    reader = LogReader(str(log), LogQuery())
    position = 0
    while (page := reader.page(position)).records:
        for record in page.records:
            found[record.task_id, record.stream] += len(record.text)
        position = page.position
    reader.close()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=64)
    parser.add_argument("--mib", type=int, default=32, help="printed by each task")
    parser.add_argument("--at-once", type=int, default=64, help="tasks that run at once")
    add_record_option(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        os.environ["AFLOW_DATASTORE"] = f"{name}/store"
        seen = asyncio.run(weather(options.tasks, options.mib, options.at_once))
    due = expected(options.tasks, options.mib)
    p99 = seen.lags[int(len(seen.lags) * 0.99)]
    counts = {
        "tasks": options.tasks,
        "MiB printed": options.tasks * options.mib,
        "characters told": seen.told.total(),
        "characters kept": seen.kept.total(),
        "characters lost": (due - seen.told).total() + (due - seen.kept).total(),
        "MiB more memory": round(seen.memory_mib),
        "ms late (p99)": round(p99 * 1000),
    }
    print(", ".join(f"{value:,} {what}" for what, value in counts.items()))  # noqa: T201
    is_whole = seen.told == due and seen.kept == due
    passed = is_whole and seen.memory_mib < MEMORY_BAR_MIB and p99 < LAG_BAR_S
    write_record(options.record, "R-18", counts, passed=passed)
    return int(not passed)


if __name__ == "__main__":
    sys.exit(main())
