"""R-10: the clock is set by an hour or a day, forward and back, in the middle of what is timed."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from itertools import cycle
from pathlib import Path

import pytest

from engine import client
from engine.cli import times
from engine.cli.status import StepSum
from engine.errors import RunHeldError
from engine.runtime import Engine, RunOptions
from engine.runtime.clock import Clocks, wall_us
from engine.scheduler.journal import decode, manifests_in
from engine.scheduler.progress import RunEvent, TaskDone
from engine.stores.gc import Request, collect, survey
from engine.stores.journals import JournalReader
from engine.stores.layout import open_layout
from engine.stores.leases import Lease, holder_of
from engine.stores.metadata.base import TaskRecord
from engine.stores.metadata.local import LocalMetadataSync
from engine.stores.retention import Rules, chosen
from tests.unit.runtime.flows import Large, Quick

HOUR_US, DAY_US = 3_600_000_000, 86_400_000_000
AFLOW = [sys.executable, "-P", "-c", "from engine.cli.main import main; main()"]
JUMPS = (0, DAY_US, -DAY_US, 0, HOUR_US, -HOUR_US, -DAY_US)

pytestmark = pytest.mark.usefixtures("datastore")

Record = Callable[[str, object], None]


class JumpingWall:
    """A wall clock that is set anew before each time it is read."""

    def __init__(self) -> None:
        self._jumps: Iterator[int] = cycle(JUMPS)
        self.reads = 0

    def __call__(self) -> int:
        self.reads += 1
        return wall_us() + next(self._jumps)


async def test_r10_run_ids_are_unique_and_in_order_whatever_the_clock_does(
    datastore: Path, record_property: Record
) -> None:
    async with Engine(clocks=Clocks(JumpingWall())) as engine:
        ids = [(await engine.execute(Quick, RunOptions())).run_id for _ in JUMPS]
        resumed = await engine.execute(Quick, RunOptions(resume=""))
    assert ids == sorted(set(ids))
    assert resumed.origin_run_id == ids[-1]
    assert resumed.run_id > ids[-1]
    with closing(LocalMetadataSync(open_layout(datastore).metadata)) as metadata:
        newest_first = [run.run_id for run in metadata.runs("Quick")]
    assert newest_first == [resumed.run_id, *reversed(ids)]
    record_property("jumps", len(JUMPS))


async def test_r10_no_duration_is_negative_and_no_time_goes_back_in_a_run(
    datastore: Path, record_property: Record
) -> None:
    seen: list[RunEvent] = []
    wall = JumpingWall()
    async with Engine(clocks=Clocks(wall)) as engine:
        for _ in JUMPS:
            await engine.execute(Quick, RunOptions(), observers=(seen.append,))
    ends = [event for event in seen if isinstance(event, TaskDone)]
    assert ends
    assert all(0 <= e.ended_us - e.started_us < HOUR_US for e in ends)
    assert wall.reads == len(JUMPS)  # a run reads the wall once, and times itself by what passes
    layout = open_layout(datastore)
    for run_id in layout.run_ids("Quick"):
        with JournalReader(str(layout.journal("Quick", run_id))) as journal:
            at = [decode(payload).at_us for _, payload in journal.scan()]
        assert at == sorted(at)
        assert at[-1] - at[0] < HOUR_US
    record_property("durations", len(ends))


async def test_r10_the_client_and_the_command_line_show_no_negative_duration() -> None:
    async with Engine(clocks=Clocks(JumpingWall())) as engine:
        for _ in JUMPS:
            (await engine.execute(Quick, RunOptions())).raise_for_status()
    runs = await asyncio.to_thread(lambda: list(client.Flow("Quick")))
    assert len(runs) == len(JUMPS)
    for run in runs:
        assert run.created_at <= run.finished_at < run.created_at + timedelta(hours=1)
        tasks = await asyncio.to_thread(lambda run=run: [step.task for step in run])
        for task in tasks:
            assert run.created_at <= task.created_at <= task.finished_at <= run.finished_at
    listed = json.loads(await aflow("list", "Quick", "--json"))["runs"]
    assert [run["run_id"] for run in listed] == [run.id for run in runs]
    assert all(run["created_at"] <= run["ended_at"] for run in listed)
    status = json.loads(await aflow("status", f"Quick/{runs[0].id}", "--json"))
    assert all(0 <= step["slowest_s"] <= step["task_time_s"] < 3600 for step in status["steps"])


async def aflow(*words: str) -> str:
    process = await asyncio.create_subprocess_exec(*AFLOW, *words, stdout=PIPE)
    printed, _ = await process.communicate()
    assert process.returncode == 0
    return printed.decode()


def test_r10_a_span_that_an_earlier_aflow_wrote_backward_is_shown_as_none() -> None:
    assert times.duration(-DAY_US) == "0 ms"
    assert times.age(wall_us() + DAY_US, now_us=wall_us()) == "0 s ago"
    backward = TaskRecord("F", "r", "s", "0", 0, 0, "succeeded", DAY_US, DAY_US - HOUR_US)
    told = StepSum()
    told.add(backward)
    assert (told.busy_us, told.slowest_us) == (0, 0)


@pytest.mark.parametrize("jump_us", [-DAY_US, -HOUR_US, HOUR_US, DAY_US])
def test_r10_a_lease_holds_however_the_clock_is_set(tmp_path: Path, jump_us: int) -> None:
    path, now_us = str(tmp_path / "lock"), wall_us()
    with Lease.acquire(path, run="Flow/r", since_us=now_us):
        with pytest.raises(RunHeldError):
            Lease.acquire(path, run="Flow/r", since_us=now_us + jump_us)
        assert holder_of(path) is not None
    Lease.acquire(path, run="Flow/r", since_us=now_us + jump_us).release()


@pytest.mark.parametrize("jump_us", [-DAY_US, -HOUR_US, HOUR_US, DAY_US])
async def test_r10_gc_removes_nothing_that_is_needed_however_the_clock_is_set(
    datastore: Path, jump_us: int
) -> None:
    async with Engine() as engine:
        finished = await engine.execute(Large, RunOptions())
    layout, now_us = open_layout(datastore), wall_us() + jump_us
    needed = sorted(path.name for path in layout.blobs.glob("??/*"))
    with closing(LocalMetadataSync(layout.metadata)) as metadata:
        rules = Rules(ended_before_us=times.parse_instant("2d", now_us=now_us))
        assert not list(chosen(metadata.runs(), rules))  # younger than that by every clock
    lock = str(layout.lock("Large", finished.run_id))
    with Lease.acquire(lock, run=f"Large/{finished.run_id}", since_us=now_us):
        alive = survey(layout).alive
        assert [str(a.run) for a in alive] == [f"Large/{finished.run_id}"]
    done = collect(layout, Request(manifests_in, now_us=now_us, grace_us=0))
    assert done.blobs == 0
    assert needed
    assert sorted(path.name for path in layout.blobs.glob("??/*")) == needed
