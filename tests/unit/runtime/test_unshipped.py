"""What a run could not ship: kept on its machine, and shipped by whoever goes on from it there."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from engine.errors import StoreUnavailableError
from engine.runtime.stores import Stores
from engine.scheduler.journal import manifests_in
from engine.stores.base import Buffer
from engine.stores.gc import Collected, Request
from engine.stores.memory import MemoryBlobStore
from engine.stores.remote.collection import collect
from engine.stores.remote.standing import ALIVE_US
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
