"""What a run could not ship: kept on its machine, and shipped by whoever goes on from it there."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from engine.config import Config
from engine.errors import NotFoundError, RunFencedError, StoreAccessError, StoreUnavailableError
from engine.runtime import Engine, RunOptions
from engine.runtime.stores import Stores
from engine.scheduler.journal import manifests_in
from engine.scheduler.progress import RunDone, RunEvent
from engine.stores.base import Buffer
from engine.stores.gc import Collected, Request, RunName
from engine.stores.memory import MemoryBlobStore
from engine.stores.remote.collection import collect
from engine.stores.remote.keys import status_key
from engine.stores.remote.standing import ALIVE_US, pack_status
from tests.unit.runtime.flows import Naps
from tests.unit.runtime.shared_flows import Fan
from tests.unit.runtime.test_shipping import CountedStore, run_on
from tests.unit.stores.remote.machines import machine, now_us


async def listed(stores: Stores) -> list[tuple[str, str]]:
    """What a machine lists now: id and status of each run, oldest first."""
    assert stores.replica is not None
    await stores.replica.pulling.runs()
    return [(run.run_id, run.status) async for run in stores.metadata.runs()][::-1]


async def seen_from(folder: Path, blobs: MemoryBlobStore) -> list[tuple[str, str]]:
    stores = machine(folder, blobs)
    try:
        return await listed(stores)
    finally:
        await stores.aclose()


def run_ids(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "runs" / "Fan").iterdir())


async def test_r06_what_the_store_never_took_is_not_forgotten_by_a_list(tmp_path: Path) -> None:
    blobs = CountedStore()
    blobs.refuses = "status/"
    with pytest.raises(StoreUnavailableError, match="status/Fan"):
        await run_on(tmp_path / "a", blobs, Fan)
    (run_id,) = run_ids(tmp_path / "a")
    assert [run for run, _ in await seen_from(tmp_path / "a", blobs)] == [run_id]
    assert (tmp_path / "a" / "runs" / "Fan" / run_id / "journal").exists()


async def test_r06_a_resume_ships_and_lists_what_the_store_did_not_take(tmp_path: Path) -> None:
    blobs = CountedStore()
    blobs.refuses = "/log/"  # put a second after the run began, when all tasks are done
    with pytest.raises(StoreUnavailableError, match="/log/"):
        await run_on(tmp_path / "a", blobs, Fan)
    (first,) = run_ids(tmp_path / "a")
    blobs.refuses = ""
    second = await run_on(tmp_path / "a", blobs, Fan, resume=first)
    assert second.status == "succeeded"
    expected = [(first, "succeeded"), (second.run_id, "succeeded")]
    assert await seen_from(tmp_path / "b", blobs) == expected
    assert await seen_from(tmp_path / "a", blobs) == expected


async def test_r05_a_run_that_is_cancelled_as_it_ships_is_listed_as_interrupted_at_once(
    tmp_path: Path,
) -> None:
    class Stuck(CountedStore):
        async def put(self, key: str, parts: Sequence[Buffer], *, if_absent: bool = False) -> bool:
            if "/journal/" in key and self.refuses:
                await asyncio.Event().wait()
            return await super().put(key, parts, if_absent=if_absent)

    blobs = Stuck()
    blobs.refuses = "stuck"
    ended = asyncio.Event()
    engine = Engine(Config(datastore=str(tmp_path / "a"), package_suffixes="none"))
    engine._stores = machine(tmp_path / "a", blobs)

    def watch(event: RunEvent) -> None:
        if isinstance(event, RunDone):
            ended.set()

    async with engine:
        run = asyncio.create_task(engine.execute(Fan, RunOptions(), observers=(watch,)))
        await ended.wait()
        await asyncio.sleep(0)
        run.cancel()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await run
    (first,) = run_ids(tmp_path / "a")
    assert [f"aflow resume {first}" in note for note in cancelled.value.__notes__] == [True]
    blobs.refuses = ""
    assert await seen_from(tmp_path / "b", blobs) == [(first, "interrupted")]
    assert await seen_from(tmp_path / "a", blobs) == [(first, "succeeded")], "it knows better"
    second = await run_on(tmp_path / "a", blobs, Fan, resume=first)
    assert await seen_from(tmp_path / "b", blobs) == [
        (first, "succeeded"),
        (second.run_id, "succeeded"),
    ]


async def test_r06_tasks_are_told_that_the_store_ends_them(tmp_path: Path) -> None:
    blobs = CountedStore()
    blobs.refuses = "status/"
    done: list[RunDone] = []
    engine = Engine(Config(datastore=str(tmp_path / "a"), package_suffixes="none"))
    engine._stores = machine(tmp_path / "a", blobs)

    def watch(event: RunEvent) -> None:
        if isinstance(event, RunDone):
            done.append(event)

    async with engine:
        with pytest.raises(StoreUnavailableError, match="was not taken"):
            await engine.execute(Naps, RunOptions(), observers=(watch,))
    assert [event.status for event in done] == ["interrupted"]
    assert "the datastore failed: status/Naps" in str(done[0].reason)


@pytest.mark.parametrize("name", ["journal", "log"])
async def test_r08_a_run_whose_cache_is_removed_is_not_listed_as_if_it_were_whole(
    tmp_path: Path, name: str
) -> None:
    class Removing(CountedStore):
        async def put(self, key: str, parts: Sequence[Buffer], *, if_absent: bool = False) -> bool:
            if key.startswith("status/") and not self.requests["put status"]:
                (run,) = run_ids(tmp_path / "a")
                (tmp_path / "a" / "runs" / "Fan" / run / name).unlink()
            return await super().put(key, parts, if_absent=if_absent)

    blobs = Removing()
    with pytest.raises(StoreAccessError, match=rf"cannot read .*{name}: "):
        await run_on(tmp_path / "a", blobs, Fan)
    (run_id,) = run_ids(tmp_path / "a")
    there = machine(tmp_path / "b", blobs)
    await listed(there)
    record = await there.metadata.run("Fan", run_id)
    await there.aclose()
    assert record is not None
    assert record.status == "running", "others take it for dead when it is silent"


async def test_two_that_go_on_from_one_killed_run_at_once_both_do(tmp_path: Path) -> None:
    blobs = CountedStore()
    first = await run_on(tmp_path / "a", blobs, Fan, parameters={"fails": True})
    await blobs.delete([key for key in blobs.blobs if "/journal/" in key])
    (tmp_path / "a" / "runs" / "Fan" / first.run_id / "unshipped").touch()
    stores = [machine(tmp_path / "a", blobs) for _ in range(2)]
    async with asyncio.TaskGroup() as group:
        for each in stores:
            group.create_task(each.settle("Fan", first.run_id))
    for each in stores:
        await each.aclose()
    there = machine(tmp_path / "b", blobs)
    await there.settle("Fan", first.run_id)
    await there.aclose()
    here = tmp_path / "a" / "runs" / "Fan" / first.run_id / "journal"
    copy = tmp_path / "b" / "runs" / "Fan" / first.run_id / "journal"
    assert copy.read_bytes() == here.read_bytes()


async def test_a_resume_lists_what_a_killed_driver_did_not(
    tmp_path: Path,
) -> None:
    blobs = CountedStore()
    first = await run_on(tmp_path / "a", blobs, Fan, parameters={"fails": True})
    (tmp_path / "a" / "runs" / "Fan" / first.run_id / "unshipped").touch()
    stores = machine(tmp_path / "a", blobs)
    before = [task async for task in stores.metadata.tasks("Fan", first.run_id)]
    behind = [replace(task, status="running", result=None, ended_us=None) for task in before]
    await stores.metadata.put_tasks(behind)
    await stores.settle("Fan", first.run_id)
    after = [task async for task in stores.metadata.tasks("Fan", first.run_id)]
    await stores.aclose()
    assert {t.task_id: t.result for t in after} == {t.task_id: t.result for t in before}


class Sleepy(CountedStore):
    """A store whose clock jumps, and which collects, before the journal's `at`-th segment is put:
    as if the driver had slept between its blobs and its commit."""

    def __init__(self, folder: Path, at: int) -> None:
        super().__init__()
        self._folder, self._at, self._puts = folder, at, 0
        self._skew_us = 0
        self._now_us = lambda: now_us() + self._skew_us
        self.collected: Collected | None = None

    async def put(self, key: str, parts: Sequence[Buffer], *, if_absent: bool = False) -> bool:
        self._puts += "/journal/" in key and self.collected is None
        if self._puts == self._at and self.collected is None:
            self.collected = Collected()
            self._skew_us += ALIVE_US + 1
            there = machine(self._folder, self)
            assert there.replica is not None
            request = Request(manifests_in, self._now_us(), 0)
            self.collected = await collect(there.replica, request)
            await there.aclose()
        return await super().put(key, parts, if_absent=if_absent)


async def test_r20_a_driver_that_slept_through_a_collection_names_no_blob_that_went(
    tmp_path: Path,
) -> None:
    blobs = Sleepy(tmp_path / "c", at=2)
    with pytest.raises(RunFencedError, match="taken for dead") as fenced:
        await run_on(tmp_path / "a", blobs, Fan)
    assert blobs.collected is not None
    assert blobs.collected.is_complete
    assert blobs.collected.blobs == 1, "the blob of the task that was to be committed"
    (first,) = run_ids(tmp_path / "a")
    assert fenced.value.hint == f"aflow resume {first}"
    second = await run_on(tmp_path / "a", blobs, Fan, resume=first)
    assert second.status == "succeeded"
    there = machine(tmp_path / "b", blobs)
    assert there.replica is not None
    done = await collect(there.replica, Request(manifests_in, blobs._now_us() + 2 * ALIVE_US, 0))
    await there.aclose()
    assert (done.is_complete, done.blobs) == (True, 0)
    assert len([key for key in blobs.blobs if key.startswith("blobs/")]) == 1
    assert {status for _, status in await seen_from(tmp_path / "b", blobs)} <= {
        "succeeded",
        "interrupted",
    }


async def test_r20_a_driver_that_commits_as_it_is_fenced_is_alive(tmp_path: Path) -> None:
    class Waking(MemoryBlobStore):
        async def put(self, key: str, parts: Sequence[Buffer], *, if_absent: bool = False) -> bool:
            if "/journal/" in key and not parts:
                return False  # the driver has put that stretch meanwhile
            return await super().put(key, parts, if_absent=if_absent)

    blobs = Waking(now_us)
    done = await run_on(tmp_path / "a", blobs, Fan)
    key = status_key("Fan", done.run_id)
    stores = machine(tmp_path / "b", blobs)
    await listed(stores)
    record = await stores.metadata.run("Fan", done.run_id)
    await stores.aclose()
    assert record is not None
    asleep = pack_status(replace(record, status="running", ended_us=None))
    blobs.blobs[key] = asleep, now_us() - 2 * ALIVE_US
    await blobs.put("blobs/ab/" + "ab" * 32, (b"of a task that is to be committed",))
    there = machine(tmp_path / "c", blobs)
    assert there.replica is not None
    told = await collect(there.replica, Request(manifests_in, now_us(), 0))
    await there.aclose()
    assert ([alive.run for alive in told.alive], told.blobs) == ([RunName("Fan", done.run_id)], 0)


async def test_r20_a_run_whose_origin_is_deleted_as_it_begins_ends(tmp_path: Path) -> None:
    class Deleting(CountedStore):
        async def put(self, key: str, parts: Sequence[Buffer], *, if_absent: bool = False) -> bool:
            if self.refuses and key.startswith("status/"):
                await self.delete([status_key("Fan", self.refuses)])
            return await super().put(key, parts, if_absent=if_absent)

    blobs = Deleting()
    first = await run_on(tmp_path / "a", blobs, Fan, parameters={"fails": True})
    blobs.refuses = first.run_id
    with pytest.raises(NotFoundError, match="was deleted as this one began"):
        await run_on(tmp_path / "a", blobs, Fan, resume=first.run_id)
    assert not [key for key in blobs.blobs if key.startswith("runs/") and first.run_id not in key]
