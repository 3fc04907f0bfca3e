"""What a run could not ship: kept on its machine, and shipped by whoever goes on from it there."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from engine.config import Config
from engine.errors import StoreAccessError, StoreUnavailableError
from engine.runtime import Engine, RunOptions
from engine.runtime.stores import Stores
from engine.scheduler.progress import RunDone, RunEvent
from engine.stores.base import Buffer
from engine.stores.memory import MemoryBlobStore
from tests.unit.runtime.flows import Naps
from tests.unit.runtime.shared_flows import Fan
from tests.unit.runtime.test_shipping import CountedStore, run_on
from tests.unit.stores.remote.machines import machine


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


async def test_r05_a_run_that_is_cancelled_as_it_ships_says_how_the_rest_gets_there(
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
