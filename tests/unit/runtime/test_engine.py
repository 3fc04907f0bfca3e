"""R-21: a run inside of a program: cancelled, watched, left early, started by a script."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Collection
from contextlib import aclosing, closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from engine import client
from engine.errors import StoreUnavailableError, UsageError
from engine.runtime import Engine, RunOptions
from engine.runtime.stores import open_stores
from engine.runtime.zygotes import spawn_for
from engine.scheduler.journal import RunBeganRecord, decode
from engine.scheduler.progress import RunDone, RunEvent, TaskOutput
from engine.stores.journals import JournalReader
from engine.stores.metadata.base import TaskRecord
from engine.stores.metadata.local import LocalMetadata
from tests.faults.jobs import is_alive
from tests.unit.runtime.flows import Large, Naps, Quick

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.usefixtures("datastore")


async def asleep(events: "asyncio.Queue[RunEvent]") -> None:
    while not isinstance(await events.get(), TaskOutput):
        pass


async def test_a_cancelled_run_is_put_away_as_interrupted() -> None:
    events: asyncio.Queue[RunEvent] = asyncio.Queue()
    async with Engine() as engine:
        run = asyncio.create_task(engine.execute(Naps, observers=(events.put_nowait,)))
        await asleep(events)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        records = [record async for record in engine._stores.metadata.runs("Naps")]  # type: ignore[union-attr]  # open
        tasks = [t async for t in engine._stores.metadata.tasks("Naps", records[0].run_id)]  # type: ignore[union-attr]  # open
    assert [record.status for record in records] == ["interrupted"]
    assert [task.status for task in tasks] == ["failed"]


async def test_leaving_a_stream_early_ends_the_run() -> None:
    async with Engine() as engine, aclosing(engine.stream(Naps)) as events:
        async for event in events:
            if isinstance(event, TaskOutput):
                break
    (run,) = await asyncio.to_thread(lambda: list(client.Flow("Naps")))
    assert run.finished
    assert not run.successful


class FullMetadata(LocalMetadata):
    async def put_tasks(self, tasks: Collection[TaskRecord]) -> None:
        raise StoreUnavailableError("the disk is full")


async def watch_slowly(engine: Engine, seen: list[RunEvent]) -> None:
    """Take the first event, be busy until the run is over, and take the others."""
    async for event in engine.stream(Naps):
        if not seen:
            (run,) = (t for t in asyncio.all_tasks() if t.get_name() == "run of Naps")
            await asyncio.wait({run})
        seen.append(event)


async def test_a_run_that_breaks_does_not_cancel_what_its_watcher_waits_for() -> None:
    seen: list[RunEvent] = []
    async with Engine() as engine:
        stores = open_stores(engine.config, create=True)
        engine._stores = replace(stores, metadata=FullMetadata(stores.layout.metadata))
        with pytest.raises(StoreUnavailableError, match="the disk is full"):
            await watch_slowly(engine, seen)
        await stores.aclose()
    assert isinstance(seen[-1], RunDone)


async def test_a_stream_ends_with_the_end_of_the_run() -> None:
    async with Engine() as engine:
        events = [event async for event in engine.stream(Quick)]
    assert isinstance(events[-1], RunDone)
    assert events[-1].status == "succeeded"


async def test_large_parameters_and_constants_go_to_tasks_by_digest() -> None:
    """They are in the spec of every task, of which there may be 100,000."""
    async with Engine() as engine:
        options = RunOptions(parameters={"text": "x" * 2**20})
        done = await engine.execute(Large, options)
        path = engine._stores.layout.journal("Large", done.run_id)  # type: ignore[union-attr]  # open
    with closing(JournalReader(str(path))) as journal:
        _, payload = next(iter(journal.scan()))
    began = decode(payload)
    assert isinstance(began, RunBeganRecord)
    assert len(began.parameters) < 2048
    assert done.data.sizes == (2**20, 2**20)


@pytest.mark.unguarded  # to wait for a zygote's end blocks, shortly; nothing runs yet
async def test_a_run_that_cannot_begin_ends_the_zygote_it_was_given() -> None:
    zygote = spawn_for(Quick)
    async with Engine() as engine:
        with pytest.raises(UsageError):
            await engine.execute(Quick, RunOptions(decorators=("nonesuch",)), zygote=zygote)
    assert not is_alive(zygote.pid)


INTERRUPTED = """
import asyncio, os, signal, sys, threading
from engine import Engine
from tests.unit.runtime.flows import Naps


async def cell():
    threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        Engine.run_sync(Naps)
    except KeyboardInterrupt:
        print("interrupted")


signal.signal(signal.SIGINT, signal.default_int_handler)
loop = asyncio.new_event_loop()
loop.run_until_complete(cell())
"""


def test_a_notebook_that_is_interrupted_ends_its_run(tmp_path: Path) -> None:
    done = script(tmp_path, INTERRUPTED, PYTHONPATH=str(ROOT))
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr
    (run,) = client.Flow("Naps")
    assert run.finished


SCRIPT = """
import asyncio, sys
from engine import Engine, FlowSpec, step


class Point:
    def __init__(self, x):
        self.x = x


class Made(FlowSpec):
    @step
    def start(self):
        self.point = Point(7)
        self.next(self.end)

    @step
    def end(self):
        self.is_ours = type(self.point) is Point


print("executed")
"""
GUARDED = """
if __name__ == "__main__":
    run = asyncio.run(Engine.run(Made))
    print(run.data.is_ours, type(run.data.point) is Point)
"""
UNGUARDED = """
print(Engine.run_sync(Made).data.is_ours)
"""


def script(folder: Path, source: str, **env: str) -> "subprocess.CompletedProcess[str]":
    path = folder / "host.py"
    path.write_text(source)
    return subprocess.run(
        [sys.executable, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **env},
    )


def test_a_script_and_its_tasks_know_its_classes_by_one_name(tmp_path: Path) -> None:
    done = script(tmp_path, SCRIPT + GUARDED)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "executed\nTrue True\n"


def test_a_script_without_a_guard_is_told_so_instead_of_running_itself_for_ever(
    tmp_path: Path,
) -> None:
    done = script(tmp_path, SCRIPT + UNGUARDED)
    assert done.returncode == 1
    assert 'if __name__ == "__main__"' in done.stderr
    assert "host.py" in done.stderr
