"""R-20 in an object store: what is needed stays, whoever begins, stops or dies meanwhile."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.errors import RunHeldError
from engine.runtime.stores import Stores
from engine.scheduler.journal import manifests_in
from engine.stores.base import BlobInfo
from engine.stores.gc import Collected, Request, RunName
from engine.stores.memory import MemoryBlobStore
from engine.stores.metadata.base import RunRecord
from engine.stores.remote.collection import collect
from engine.stores.remote.keys import GATES, gate_key, status_key
from engine.stores.remote.standing import ALIVE_US, Heartbeat, pack_status
from tests.unit.runtime.shared_flows import Fan, Listed
from tests.unit.runtime.test_shipping import run_on
from tests.unit.stores.remote.machines import machine

HOUR_US = 3_600_000_000


class Clock:
    """The object store's clock, which passes when a test says so."""

    def __init__(self) -> None:
        self.now_us = 1_790_000_000_000_000

    def __call__(self) -> int:
        return self.now_us


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def blobs(clock: Clock) -> MemoryBlobStore:
    return MemoryBlobStore(clock)


@pytest.fixture
async def there(tmp_path: Path, blobs: MemoryBlobStore) -> AsyncIterator[Stores]:
    """Another machine, which collects."""
    stores = machine(tmp_path / "there", blobs)
    yield stores
    await stores.aclose()


async def collected(there: Stores, clock: Clock, *runs: RunName, dry: bool = False) -> Collected:
    assert there.replica is not None
    request = Request(manifests_in, clock.now_us, HOUR_US, runs, dry)
    return await collect(there.replica, request)


def running(run_id: str) -> RunRecord:
    return RunRecord("Fan", run_id, "running", 1, host="elsewhere", pid=7)


async def finished(tmp_path: Path, blobs: MemoryBlobStore) -> RunName:
    done = await run_on(tmp_path / "here", blobs, Fan)
    return RunName(done.flow, done.run_id)


def kept(blobs: MemoryBlobStore, prefix: str) -> list[str]:
    return [key for key in blobs.blobs if key.startswith(prefix)]


async def test_r20_what_no_run_needs_goes_after_the_time_of_grace(
    tmp_path: Path, blobs: MemoryBlobStore, clock: Clock, there: Stores
) -> None:
    await finished(tmp_path, blobs)
    needed = kept(blobs, "blobs/")
    await blobs.put("blobs/ab/" + "ab" * 32, (b"nobody's",))
    clock.now_us += HOUR_US // 2
    assert (await collected(there, clock)).blobs == 0, "it may be of a run that is to commit"
    clock.now_us += HOUR_US
    assert (await collected(there, clock, dry=True)).blobs == 1
    assert (await collected(there, clock)).blobs == 1
    assert kept(blobs, "blobs/") == needed
    assert kept(blobs, GATES) == []


async def test_r20_a_run_that_is_alive_keeps_every_blob_where_it_is(
    tmp_path: Path, blobs: MemoryBlobStore, clock: Clock, there: Stores
) -> None:
    await blobs.put("blobs/ab/" + "ab" * 32, (b"of a run that stopped before its commit",))
    clock.now_us += 2 * HOUR_US
    await blobs.put(status_key("Fan", "R1"), (pack_status(running("R1")),))
    done = await collected(there, clock)
    assert [str(alive.run) for alive in done.alive] == ["Fan/R1"]
    assert done.alive[0].holder.host == "elsewhere"
    assert len(kept(blobs, "blobs/")) == 1
    assert kept(blobs, "runs/") == [], "it is not fenced"
    clock.now_us += ALIVE_US  # its driver is silent: it has died
    assert (await collected(there, clock)).blobs == 1


async def test_r20_lists_of_items_are_read_from_where_they_are(
    tmp_path: Path, blobs: MemoryBlobStore, clock: Clock, there: Stores
) -> None:
    await run_on(tmp_path / "here", blobs, Listed)
    needed = kept(blobs, "blobs/")
    assert len(needed) == 2
    clock.now_us += 2 * HOUR_US
    done = await collected(there, clock)
    assert (done.is_complete, done.unreadable, done.blobs) == (True, {}, 0)
    assert kept(blobs, "blobs/") == needed


async def test_r20_a_run_that_died_before_it_shipped_anything_keeps_nothing(
    blobs: MemoryBlobStore, clock: Clock, there: Stores
) -> None:
    await blobs.put("blobs/ab/" + "ab" * 32, (b"nobody's",))
    await blobs.put(status_key("Fan", "R1"), (pack_status(running("R1")),))
    assert (await collected(there, clock)).unreadable == {}
    clock.now_us += 2 * HOUR_US
    done = await collected(there, clock)
    assert (done.is_complete, done.unreadable, done.blobs) == (True, {}, 1)


async def test_r20_a_run_that_begins_meanwhile_ends_the_collection(
    tmp_path: Path, blobs: MemoryBlobStore, clock: Clock, there: Stores
) -> None:
    class Beginning(MemoryBlobStore):
        """A run is listed as soon as the gate was shut a second time."""

        shut = 0

        async def put(self, key, parts, *, if_absent=False):  # type: ignore[no-untyped-def]
            done = await super().put(key, parts, if_absent=if_absent)
            self.shut += key.startswith(GATES)
            if key.startswith(GATES) and self.shut == 2:
                await super().put(status_key("Fan", "R9"), (pack_status(running("R9")),))
            return done

    store = Beginning(clock)
    await store.put("blobs/ab/" + "ab" * 32, (b"x",))
    clock.now_us += 2 * HOUR_US
    place = machine(tmp_path / "beginning", store)
    done = await collected(place, clock)
    await place.aclose()
    assert str(done.began) == "Fan/R9"
    assert len(kept(store, "blobs/")) == 1
    assert kept(store, GATES) == []


async def test_r20_a_run_that_begins_waits_while_the_gate_is_shut(
    blobs: MemoryBlobStore, clock: Clock
) -> None:
    await blobs.put(gate_key("1"), (b"",))
    looks = 0

    class Opening(MemoryBlobStore):
        async def list(self, prefix: str = "") -> AsyncIterator[BlobInfo]:
            nonlocal looks
            looks += prefix == GATES
            if looks == 2:
                await self.delete([gate_key("1")])
            async for info in super().list(prefix):
                yield info

    opening = Opening(clock)
    opening.blobs = blobs.blobs
    heart = Heartbeat(opening, running("R1"), clock)
    await heart.begin()
    assert looks >= 2
    assert status_key("Fan", "R1") in blobs.blobs


async def test_a_gate_that_a_dead_collection_left_is_passed(
    blobs: MemoryBlobStore, clock: Clock
) -> None:
    await blobs.put(gate_key("1"), (b"",))
    clock.now_us += ALIVE_US
    await Heartbeat(blobs, running("R1"), clock).begin()


async def test_a_deleted_run_takes_along_what_only_it_needed(
    tmp_path: Path, blobs: MemoryBlobStore, clock: Clock, there: Stores
) -> None:
    run = await finished(tmp_path, blobs)
    clock.now_us += ALIVE_US
    done = await collected(there, clock, run)
    assert done.runs == [run]
    assert done.blobs == 1
    assert done.is_complete
    assert list(blobs.blobs) == []


async def test_a_run_that_is_alive_is_not_deleted(
    blobs: MemoryBlobStore, clock: Clock, there: Stores
) -> None:
    await blobs.put(status_key("Fan", "R1"), (pack_status(running("R1")),))
    with pytest.raises(RunHeldError, match="elsewhere/7"):
        await collected(there, clock, RunName("Fan", "R1"))
    assert status_key("Fan", "R1") in blobs.blobs


async def test_what_a_deletion_that_died_left_goes_with_the_next_collection(
    tmp_path: Path, blobs: MemoryBlobStore, clock: Clock, there: Stores
) -> None:
    run = await finished(tmp_path, blobs)
    await blobs.delete([status_key(run.flow, run.run_id)])
    clock.now_us += 2 * HOUR_US
    await collected(there, clock)
    assert list(blobs.blobs) == []
