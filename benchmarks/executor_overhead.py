"""What a task costs above a bare fork: floor, executor with an empty worker, executor with a task.

    python benchmarks/executor_overhead.py [--jobs 200] [--rounds 15] [--wide 64]

The three take turns round by round, so that a busy machine slows all of them alike; the ratios are
medians of the rounds' own ratios. The floor is fork, `os._exit` and reap in a process with the same
modules loaded, as many at a time as the others have.
"""

import argparse
import gc
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import click  # noqa: F401  (the command line has it loaded when it forks the zygote)

from engine.executors.base import Job, JobEnded
from engine.executors.process import ReportChannel
from engine.executors.zygote import Zygote, fork_zygote
from engine.flow.spec import FlowSpec, step
from engine.ids import Frame
from engine.stores.artifacts import save_values
from engine.stores.layout import create_layout
from engine.stores.manifest import Manifest
from engine.stores.taskspec import InputRef, TaskSpec
from engine.worker.main import program_of, task_target
from engine.worker.warmup import warm_up

FLOOR = "fork and reap"
Args = argparse.Namespace


class Wide(FlowSpec):
    @step
    def start(self) -> None:
        self.items = list(range(1000))
        self.next(self.work, foreach="items")

    @step
    def work(self) -> None:
        self.x = self.input * 2
        self.next(self.join)

    @step
    def join(self, inputs) -> None:  # type: ignore[no-untyped-def]  # as users write it
        self.next(self.end)

    @step
    def end(self) -> None:
        pass


def empty_worker(spec: bytes, report: ReportChannel) -> int:
    report(b"")
    return 0


def specs(datastore: Path) -> Iterator[bytes]:
    layout = create_layout(datastore)
    item = save_values({"item": 7}, layout.blob_directory(), step="start")["item"]
    parameters = Manifest("Wide", "run", "_parameters", "0", 0).pack()
    start = Manifest("Wide", "run", "start", "0", 0).pack()
    number = 0
    while True:
        yield TaskSpec(
            flow="Wide",
            run_id="run",
            step="work",
            task_id=str(number),
            attempt=0,
            datastore=str(layout.root),
            frames=(Frame("start", number, 1_000_000),),
            parameters=parameters,
            inputs=[InputRef("start", "0", start)],
            items=[item.pack()],
            items_whole=[False],
        ).pack()
        number += 1


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one job: seconds of wall time; CPU seconds and page faults by process."""

    wall_s: float
    driver_s: float = 0.0
    zygote_s: float = 0.0
    task_s: float = 0.0
    task_faults: float = 0.0


@dataclass(frozen=True, slots=True)
class Usage:
    """What /proc tells of a process and of its reaped children, so far."""

    own_s: float
    children_s: float
    children_faults: int

    @classmethod
    def of(cls, pid: int) -> "Usage":
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        tick = os.sysconf("SC_CLK_TCK")
        user, system, of_users, of_systems = (int(f) / tick for f in fields[11:15])
        return cls(user + system, of_users + of_systems, int(fields[8]))


def fork_floor(jobs: int, wide: int) -> Cost:
    """Measured in a process of its own that has nothing else to do."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        gc.collect()
        gc.freeze()
        begun = time.perf_counter()
        for number in range(jobs):
            if number >= wide:
                os.wait()
            if os.fork() == 0:
                os._exit(0)
        for _ in range(min(jobs, wide)):
            os.wait()
        wall_s = time.perf_counter() - begun
        used = Usage.of(os.getpid())
        numbers = wall_s, 0.0, used.own_s, used.children_s, used.children_faults
        os.write(write_end, " ".join(str(n / jobs) for n in numbers).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    cost = Cost(*map(float, os.read(read_end, 1000).split()))
    os.close(read_end)
    os.close(write_end)
    return cost


async def run_jobs(executor: object, spec: Callable[[], bytes], jobs: int, wide: int) -> None:
    from engine.executors.local import LocalExecutor

    assert isinstance(executor, LocalExecutor)
    begun = time.monotonic_ns()
    waiting = [Job(f"{begun}-{number}", spec()) for number in range(jobs)]
    await executor.submit([waiting.pop() for _ in range(min(wide, len(waiting)))])
    left = jobs
    updates = executor.updates()
    async for batch in updates:
        ended = sum(isinstance(update, JobEnded) for update in batch)
        left -= ended
        if not left:
            break
        await executor.submit([waiting.pop() for _ in range(min(ended, len(waiting)))])
    await updates.aclose()  # type: ignore[attr-defined]  # LocalExecutor's are a generator


async def cost_of(executor: object, zygote: int, spec: Callable[[], bytes], args: Args) -> Cost:
    before, driver, wall = Usage.of(zygote), time.process_time(), time.perf_counter()
    await run_jobs(executor, spec, args.jobs, args.wide)
    wall, driver = time.perf_counter() - wall, time.process_time() - driver
    after = Usage.of(zygote)
    numbers = (
        *(wall, driver, after.own_s - before.own_s, after.children_s - before.children_s),
        after.children_faults - before.children_faults,
    )
    return Cost(*(number / args.jobs for number in numbers))


async def measure(empty: Zygote, full: Zygote, args: Args, folder: Path) -> dict[str, list[Cost]]:
    from engine.executors.local import LocalExecutor

    spec = specs(folder / "store")
    kinds = {
        "executor, empty worker": (LocalExecutor(empty), empty.pid, lambda: b""),
        "executor and worker": (LocalExecutor(full), full.pid, lambda: next(spec)),
    }
    costs: dict[str, list[Cost]] = {FLOOR: [], **{name: [] for name in kinds}}
    for _ in range(args.rounds):
        costs[FLOOR].append(fork_floor(args.jobs, args.wide))
        for name, (executor, zygote, make) in kinds.items():
            costs[name].append(await cost_of(executor, zygote, make, args))
    for executor, _, _ in kinds.values():
        await executor.aclose()
    return costs


def show(costs: dict[str, list[Cost]]) -> None:
    columns = ("wall us", "x floor", "driver us", "zygote us", "task us", "faults")
    print(f"{'medians of one job':24}", *(f"{c:>10}" for c in columns))
    for name, found in costs.items():
        ratio = median(c.wall_s / f.wall_s for c, f in zip(found, costs[FLOOR], strict=True))
        numbers = (
            1e6 * median(c.wall_s for c in found),
            ratio,
            1e6 * median(c.driver_s for c in found),
            1e6 * median(c.zygote_s for c in found),
            1e6 * median(c.task_s for c in found),
            median(c.task_faults for c in found),
        )
        print(f"{name:24}", *(f"{n:10.2f}" if n < 10 else f"{n:10.0f}" for n in numbers))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--wide", type=int, default=64)
    parser.add_argument("--uvloop", action="store_true")
    args = parser.parse_args()
    # Both before asyncio is imported, as the command line does it.
    empty = fork_zygote(lambda: empty_worker)
    full = fork_zygote(lambda: task_target(program_of(Wide)), warm_up)
    import asyncio

    with tempfile.TemporaryDirectory() as folder:
        if args.uvloop:
            import uvloop

            show(uvloop.run(measure(empty, full, args, Path(folder))))
        else:
            show(asyncio.run(measure(empty, full, args, Path(folder))))


if __name__ == "__main__":
    main()
