"""A run whose datastore is an object store, seen from two machines."""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from engine.config import Config
from engine.errors import RunFencedError, StoreUnavailableError
from engine.runtime import Engine, FinishedRun, RunOptions
from engine.stores.base import BlobInfo, Buffer
from engine.stores.journals import JournalReader
from engine.stores.memory import MemoryBlobStore
from engine.stores.remote.shipper import UPLOADS_AT_ONCE
from tests.unit.runtime.flows import Naps, Quick
from tests.unit.runtime.shared_flows import Fan, Many, Wide
from tests.unit.stores.remote.machines import machine, now_us


class CountedStore(MemoryBlobStore):
    """Counts requests, and refuses what `refuses` names."""

    def __init__(self) -> None:
        super().__init__(now_us)
        self.requests: Counter[str] = Counter()
        self.refuses = ""

    async def get(self, key: str) -> bytes:
        self.requests["get"] += 1
        return await super().get(key)

    async def put(self, key: str, parts: Sequence[Buffer], *, if_absent: bool = False) -> bool:
        self.requests["put"] += 1
        self.requests[f"put {key.partition('/')[0]}"] += 1
        if self.refuses and self.refuses in key:
            raise StoreUnavailableError(f"{key} was not taken")
        return await super().put(key, parts, if_absent=if_absent)

    async def put_file(self, key: str, fd: int, *, if_absent: bool = False) -> bool:
        return await self.put(key, (os.pread(fd, 2**30, 0),), if_absent=if_absent)

    async def stat(self, key: str) -> Any:  # Any: as there
        self.requests["stat"] += 1
        return await super().stat(key)

    async def list(self, prefix: str = "") -> AsyncIterator[BlobInfo]:
        self.requests["list"] += 1
        async for info in super().list(prefix):
            yield info

    async def delete(self, keys: Collection[str]) -> None:
        self.requests["delete"] += 1
        await super().delete(keys)


async def run_on(
    folder: Path,
    blobs: MemoryBlobStore,
    flow: Any,
    **options: Any,  # Any: of RunOptions
) -> FinishedRun:
    code, clock = options.pop("code", "none"), options.pop("clock", now_us)
    engine = Engine(Config(datastore=str(folder), package_suffixes=code))
    engine._stores = machine(folder, blobs, clock)
    async with engine:
        return await engine.execute(flow, RunOptions(**options))


async def test_a_run_is_in_the_object_store_when_it_is_done(tmp_path: Path) -> None:
    blobs = CountedStore()
    done = await run_on(tmp_path / "a", blobs, Quick)
    assert done.status == "succeeded"
    there = machine(tmp_path / "b", blobs)
    assert there.replica is not None
    await there.replica.pulling.runs()
    runs = [run async for run in there.metadata.runs()]
    assert [(run.run_id, run.status) for run in runs] == [(done.run_id, "succeeded")]
    assert await there.replica.pulling.run("Quick", done.run_id)
    here = tmp_path / "a" / "runs" / "Quick" / done.run_id
    copy = tmp_path / "b" / "runs" / "Quick" / done.run_id
    assert (copy / "journal").read_bytes() == (here / "journal").read_bytes()
    assert (copy / "log").read_bytes() == (here / "log").read_bytes()
    assert [t.step async for t in there.metadata.tasks("Quick", done.run_id)] == ["start", "end"]
    await there.aclose()


async def test_another_machine_goes_on_from_a_run_without_what_it_made(tmp_path: Path) -> None:
    blobs = CountedStore()
    first = await run_on(tmp_path / "a", blobs, Fan, parameters={"fails": True})
    assert first.status == "failed"
    before = Counter(blobs.requests)
    second = await run_on(tmp_path / "b", blobs, Fan, resume=first.run_id)
    assert second.status == "failed"  # its parameters are those of the first
    assert (blobs.requests - before)["put blobs"] == 0, "what was reused was uploaded again"


async def test_equal_blobs_of_many_tasks_are_put_once_and_never_asked_for(tmp_path: Path) -> None:
    blobs = CountedStore()
    done = await run_on(tmp_path / "a", blobs, Fan)
    assert done.status == "succeeded"
    assert blobs.requests["put blobs"] == 1
    assert blobs.requests["stat"] == 0


@pytest.mark.slow
async def test_a_thousand_tasks_put_far_fewer_objects_than_two_a_task(tmp_path: Path) -> None:
    blobs = CountedStore()
    done = await run_on(tmp_path / "a", blobs, Wide, max_workers=16)
    assert done.status == "succeeded"
    assert blobs.requests["put blobs"] == 3  # the items as a list and as items, and what is shared
    # One for each stretch of time in which tasks end, so the more the slower they are: 100 to 400.
    assert blobs.requests["put"] < 1000, "tasks put objects of their own"
    assert blobs.requests["stat"] == 0


@pytest.mark.slow
async def test_a_thousand_finished_tasks_are_gone_on_from_with_20_requests(tmp_path: Path) -> None:
    blobs = CountedStore()
    first = await run_on(tmp_path / "a", blobs, Wide, max_workers=16, parameters={"fails": True})
    assert first.status == "failed"
    before = Counter(blobs.requests)
    async with aclosing(machine(tmp_path / "b", blobs)) as there:
        await there.settle("Wide", first.run_id)
    spent = blobs.requests - before
    assert sum(n for kind, n in spent.items() if " " not in kind) <= 20, spent


async def test_code_that_is_there_already_costs_one_request(tmp_path: Path) -> None:
    blobs = CountedStore()
    await run_on(tmp_path / "a", blobs, Quick, code=".md")
    first = blobs.requests["put blobs"]
    assert first == 1
    asked = blobs.requests["stat"]
    await run_on(tmp_path / "b", blobs, Quick, code=".md")
    assert blobs.requests["put blobs"] == first
    assert blobs.requests["stat"] - asked == 1


async def test_a_store_that_takes_no_blobs_ends_the_run_and_nothing_names_them(
    tmp_path: Path,
) -> None:
    blobs = CountedStore()
    blobs.refuses = "blobs/"
    with pytest.raises(StoreUnavailableError, match="was not taken") as told:
        await run_on(tmp_path / "a", blobs, Fan)
    assert "aflow resume" in str(told.value.hint)
    assert not [key for key in blobs.blobs if key.startswith("blobs/")]
    blobs.refuses = ""
    resumed = await run_on(tmp_path / "a", blobs, Fan, resume="")
    assert resumed.status == "succeeded"


async def test_r13_a_run_whose_segment_another_has_put_is_fenced(tmp_path: Path) -> None:
    class Stolen(CountedStore):
        async def put(self, key: str, parts: Sequence[Buffer], *, if_absent: bool = False) -> bool:
            if "/journal/" in key and if_absent:
                return False
            return await super().put(key, parts, if_absent=if_absent)

    with pytest.raises(RunFencedError):
        await run_on(tmp_path / "a", Stolen(), Quick)


async def test_a_cancelled_run_says_so_in_the_object_store(tmp_path: Path) -> None:
    blobs = CountedStore()
    began = asyncio.Event()
    engine = Engine(Config(datastore=str(tmp_path / "a")))
    engine._stores = machine(tmp_path / "a", blobs)
    async with engine:
        run = asyncio.create_task(
            engine.execute(Naps, observers=(lambda event: began.set() if event else None,))
        )
        await began.wait()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
    there = machine(tmp_path / "b", blobs)
    assert there.replica is not None
    await there.replica.pulling.runs()
    assert [run.status async for run in there.metadata.runs()] == ["interrupted"]
    await there.aclose()


async def test_what_a_killed_driver_left_is_shipped_by_a_resume_of_its_machine(
    tmp_path: Path,
) -> None:
    blobs = CountedStore()
    first = await run_on(tmp_path / "a", blobs, Fan, parameters={"fails": True})
    journals = [key for key in blobs.blobs if "/journal/" in key]
    await blobs.delete(journals)  # as if the driver had died before
    (tmp_path / "a" / "runs" / "Fan" / first.run_id / "unshipped").touch()
    await run_on(tmp_path / "a", blobs, Fan, resume=first.run_id)
    there = machine(tmp_path / "b", blobs)
    assert there.replica is not None
    assert await there.replica.pulling.run("Fan", first.run_id)
    with (
        JournalReader(str(there.layout.journal("Fan", first.run_id))) as copy,
        JournalReader(str(tmp_path / "a" / "runs" / "Fan" / first.run_id / "journal")) as here,
    ):
        assert list(copy.scan()) == list(here.scan())
    await there.aclose()


async def test_a_task_of_many_blobs_has_them_uploaded_by_few(tmp_path: Path) -> None:
    class Watched(CountedStore):
        most_tasks = 0

        async def put_file(self, key: str, fd: int, *, if_absent: bool = False) -> bool:
            self.most_tasks = max(self.most_tasks, len(asyncio.all_tasks()))
            return await super().put_file(key, fd, if_absent=if_absent)

    blobs = Watched()
    done = await run_on(tmp_path / "a", blobs, Many)
    assert done.status == "succeeded"
    assert blobs.requests["put blobs"] == 300
    # Both tasks of the flow name them all, so two stretches of the journal are seen to.
    assert blobs.most_tasks < 3 * UPLOADS_AT_ONCE, "a task waited for each blob"
