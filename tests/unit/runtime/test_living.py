"""A run that somebody drives is not gone on from: who asks for it is told who drives it."""

import asyncio
import os
import socket
import sys
from pathlib import Path

import pytest

from engine.client import Flow
from engine.errors import RunHeldError
from engine.runtime import Engine, FinishedRun
from engine.scheduler.progress import RunEvent
from engine.stores.leases import Lease
from engine.stores.memory import MemoryBlobStore
from engine.stores.metadata.base import RunRecord
from engine.stores.remote.keys import status_key
from engine.stores.remote.standing import ALIVE_US, pack_status, unpack_status
from tests.unit.runtime.flows import Naps, Quick
from tests.unit.runtime.shared_flows import Fan
from tests.unit.runtime.test_engine import asleep
from tests.unit.runtime.test_shipping import run_on
from tests.unit.stores.remote.machines import now_us


async def test_r13_a_living_run_is_not_resumed_and_its_plan_can_be_seen(datastore: Path) -> None:
    events: asyncio.Queue[RunEvent] = asyncio.Queue()
    async with Engine() as engine:
        run = asyncio.create_task(engine.execute(Naps, observers=(events.put_nowait,)))
        await asleep(events)
        with pytest.raises(RunHeldError, match=f"held by {socket.gethostname()}/{os.getpid()}"):
            await Engine.resume(Naps)
        assert (await Engine.plan_resume(Naps)).reused == 0
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
    assert len(await asyncio.to_thread(lambda: list(Flow("Naps").runs()))) == 1


async def test_a_run_that_has_ended_is_resumed_while_its_driver_puts_it_away(
    datastore: Path,
) -> None:
    first = await Engine.run(Quick)
    lock = datastore / "runs" / "Quick" / first.run_id / "lock"
    with Lease.acquire(str(lock), run="Quick/R1", since_us=1):
        assert (await Engine.resume(Quick, first)).status == "succeeded"


class Clock:
    ahead_us = 0

    def __call__(self) -> int:
        return now_us() + self.ahead_us


async def left(folder: Path, blobs: MemoryBlobStore, host: str, pid: int) -> FinishedRun:
    """A failed run, of which the object store says that a process of a host drives it."""
    done = await run_on(folder, blobs, Fan, parameters={"fails": True})
    key = status_key("Fan", done.run_id)
    created_us = unpack_status(await blobs.get(key), key).created_us
    said = RunRecord("Fan", done.run_id, "running", created_us, host=host, pid=pid)
    await blobs.put(key, (pack_status(said),))
    return done


async def test_r13_a_run_that_another_machine_drives_is_resumed_two_minutes_after_its_last_word(
    tmp_path: Path,
) -> None:
    clock = Clock()
    blobs = MemoryBlobStore(clock)
    first = await left(tmp_path / "a", blobs, "elsewhere", 7)
    with pytest.raises(RunHeldError, match="held by elsewhere/7 since") as refused:
        await run_on(tmp_path / "b", blobs, Fan, resume=first.run_id, clock=clock)
    assert "kill -INT 7" in str(refused.value.hint)
    clock.ahead_us += ALIVE_US
    second = await run_on(tmp_path / "b", blobs, Fan, resume=first.run_id, clock=clock)
    assert second.status == "failed"  # its parameters are those of the first


async def test_a_run_of_another_cache_of_this_machine_is_resumed_once_its_driver_is_gone(
    tmp_path: Path,
) -> None:
    blobs = MemoryBlobStore(now_us)
    gone = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await gone.wait()
    first = await left(tmp_path / "a", blobs, socket.gethostname(), gone.pid)
    second = await run_on(tmp_path / "b", blobs, Fan, resume=first.run_id)
    assert second.origin_run_id == first.run_id
