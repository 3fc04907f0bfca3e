"""Runs, collections and readers of several machines that meet in one object store."""

import asyncio
from collections.abc import Collection, Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import pytest

from engine.client.audit import Audit
from engine.errors import NotFoundError, StoreError, StoreUnavailableError
from engine.ids import new_run_id
from engine.runtime.result import FinishedRun
from engine.runtime.shipping import Freight, shipped
from engine.scheduler.facts import fact_of
from engine.scheduler.journal import manifests_in
from engine.scheduler.progress import RunDone
from engine.stores.base import Buffer
from engine.stores.gc import Collected, Request, RunName
from engine.stores.journals import JOURNAL_MAGIC
from engine.stores.logs import LOG_MAGIC
from engine.stores.memory import MemoryBlobStore
from engine.stores.metadata.base import RunRecord, TaskRecord
from engine.stores.metadata.local import LocalMetadata
from engine.stores.remote.checking import record_damages
from engine.stores.remote.collection import collect
from engine.stores.remote.keys import status_key
from engine.stores.remote.pulling import Pulling
from engine.stores.remote.shipper import Growing
from engine.stores.remote.standing import ALIVE_US, Heartbeat, pack_status, unpack_status
from tests.unit.runtime.flows import Quick
from tests.unit.runtime.shared_flows import Fan, Wide
from tests.unit.runtime.test_shipping import CountedStore, run_on
from tests.unit.stores.remote.machines import machine, now_us

HOUR_US = 3_600_000_000
OLD = "blobs/ab/" + "ab" * 32


class Clock:
    """The object store's clock, which passes when a test says so."""

    def __init__(self) -> None:
        self.ahead_us = 0

    def __call__(self) -> int:
        return now_us() + self.ahead_us


class Hooked(MemoryBlobStore):
    """Lets something happen before the next put, or deletion, of a key."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.hooks: dict[str, Any] = {}  # Any: async functions

    async def _happens(self, what: str) -> None:
        for part in list(self.hooks):
            if part in what and (hook := self.hooks.pop(part, None)):
                await hook()

    async def put(self, key: str, parts: Sequence[Buffer], *, if_absent: bool = False) -> bool:
        await self._happens(f"put {key}")
        return await super().put(key, parts, if_absent=if_absent)

    async def delete(self, keys: Any) -> None:
        for key in keys:
            await self._happens(f"delete {key}")
        await super().delete(keys)


def record(run_id: str, status: str = "running") -> RunRecord:
    return RunRecord("Fan", run_id, status, 1, host="elsewhere", pid=7)


async def collected(folder: Path, blobs: MemoryBlobStore, at_us: int, *runs: RunName) -> Collected:
    async with aclosing(machine(folder, blobs)) as there:
        assert there.replica is not None
        return await collect(there.replica, Request(manifests_in, at_us, HOUR_US, runs))


async def test_r20_two_collections_at_once_open_no_gate_but_their_own(tmp_path: Path) -> None:
    clock = Clock()
    blobs = Hooked(clock)
    await blobs.put(OLD, (b"found by the run that begins",))
    clock.ahead_us += 2 * HOUR_US
    begun = asyncio.Event()

    async def meanwhile() -> None:
        """While one removes, another comes and goes, and a run wants to begin."""
        await collected(tmp_path / "second", blobs, clock())
        heart = Heartbeat(blobs, record("R1"), clock)
        beginning = asyncio.create_task(heart.begin())
        await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)
        assert not beginning.done(), "a run began while blobs were being removed"
        waiting.append(beginning)
        begun.set()

    waiting: list[asyncio.Task[None]] = []
    blobs.hooks[f"delete {OLD}"] = meanwhile
    await collected(tmp_path / "first", blobs, clock())
    assert begun.is_set()
    await waiting[0]


@pytest.mark.slow
async def test_r20_what_a_wide_foreach_names_is_known_on_other_machines(tmp_path: Path) -> None:
    clock = Clock()
    blobs = Hooked(clock)
    await run_on(tmp_path / "here", blobs, Wide, max_workers=8)
    needed = [key for key in blobs.blobs if key.startswith("blobs/")]
    await blobs.put(OLD, (b"nobody's",))
    clock.ahead_us += 2 * HOUR_US
    done = await collected(tmp_path / "there", blobs, clock())
    assert done.unreadable == {}
    assert done.blobs == 1
    assert [key for key in blobs.blobs if key.startswith("blobs/")] == needed


async def test_r20_a_journal_with_a_gap_keeps_every_blob_and_is_told_of(tmp_path: Path) -> None:
    clock = Clock()
    blobs = Hooked(clock)
    done = await run_on(tmp_path / "here", blobs, Fan)
    (key,) = [key for key in blobs.blobs if "/journal/" in key]
    data = await blobs.get(key)
    await blobs.put(key, (data[:100],))
    await blobs.put(f"{key[:-16]}{200:016d}", (data[200:],))
    clock.ahead_us += 2 * HOUR_US
    there = await collected(tmp_path / "there", blobs, clock())
    assert "byte 100" in there.unreadable[f"Fan/{done.run_id}"]
    assert [key for key in blobs.blobs if key.startswith("blobs/")]
    async with aclosing(machine(tmp_path / "there", blobs)) as stores:
        assert stores.replica is not None
        (damage,) = await record_damages(stores.replica, read_data=False)
    assert "byte 100" in damage.detail


async def killed(folder: Path, blobs: MemoryBlobStore, *, unshipped: bool = True) -> FinishedRun:
    """A run whose driver died before it shipped its journal, or before its last word."""
    done = await run_on(folder, blobs, Fan, parameters={"fails": True})
    if unshipped:
        await blobs.delete([key for key in blobs.blobs if "/journal/" in key])
    key = status_key(done.flow, done.run_id)
    said = unpack_status(await blobs.get(key), key)
    said = RunRecord("Fan", done.run_id, "running", said.created_us, host=said.host, pid=said.pid)
    await blobs.put(key, (pack_status(said),))
    return done


async def test_r20_a_collection_ends_when_a_dead_run_is_shipped_meanwhile(tmp_path: Path) -> None:
    clock = Clock()
    blobs = Hooked(clock)
    run = await killed(tmp_path / "here", blobs)
    clock.ahead_us += 2 * HOUR_US

    async def meanwhile() -> None:
        """The run is found dead, its blobs nobody's: now its machine ships the rest."""
        async with aclosing(machine(tmp_path / "here", blobs)) as here:
            await here.settle("Fan", run.run_id)

    async def second() -> None:
        blobs.hooks["put gate"] = meanwhile

    blobs.hooks["put gate"] = second
    done = await collected(tmp_path / "there", blobs, clock())
    assert done.began == RunName("Fan", run.run_id)
    assert [key for key in blobs.blobs if key.startswith("blobs/")]


async def test_r20_what_a_dead_run_took_over_is_looked_for_before_it_is_shipped(
    tmp_path: Path,
) -> None:
    clock = Clock()
    blobs = Hooked(clock)
    first = await run_on(tmp_path / "there", blobs, Fan, parameters={"fails": True})
    second = await run_on(tmp_path / "here", blobs, Fan, resume=first.run_id)
    await blobs.delete([key for key in blobs.blobs if f"{second.run_id}/journal/" in key])
    clock.ahead_us += 2 * HOUR_US
    await collected(tmp_path / "there", blobs, clock(), RunName("Fan", first.run_id))
    async with aclosing(machine(tmp_path / "here", blobs)) as here:
        with pytest.raises(StoreError):
            await here.settle("Fan", second.run_id)
    assert not [key for key in blobs.blobs if f"{second.run_id}/journal/" in key]


async def test_a_dead_run_is_shipped_by_two_who_go_on_from_it_at_once(tmp_path: Path) -> None:
    blobs = Hooked(Clock())
    run = await killed(tmp_path / "here", blobs)
    async with (
        aclosing(machine(tmp_path / "here", blobs)) as one,
        aclosing(machine(tmp_path / "here", blobs)) as two,
    ):
        await asyncio.gather(one.settle("Fan", run.run_id), two.settle("Fan", run.run_id))
    (key,) = [key for key in blobs.blobs if "/journal/" in key]
    journal = tmp_path / "here" / "runs" / "Fan" / run.run_id / "journal"
    assert await blobs.get(key) == journal.read_bytes()


async def test_a_deleted_run_is_not_brought_back_by_a_copy_of_it(tmp_path: Path) -> None:
    clock = Clock()
    blobs = Hooked(clock)
    run = await run_on(tmp_path / "here", blobs, Fan, parameters={"fails": True})
    clock.ahead_us += ALIVE_US
    await collected(tmp_path / "there", blobs, clock(), RunName("Fan", run.run_id))
    async with aclosing(machine(tmp_path / "here", blobs)) as here:
        with pytest.raises(NotFoundError):
            await here.settle("Fan", run.run_id)
    assert list(blobs.blobs) == []


async def test_a_run_that_was_never_listed_is_kept_where_it_was_driven(tmp_path: Path) -> None:
    blobs = CountedStore()
    blobs.refuses = "status/"
    with pytest.raises(StoreUnavailableError):
        await run_on(tmp_path / "here", blobs, Fan)
    blobs.refuses = ""
    assert (await run_on(tmp_path / "here", blobs, Fan, resume="")).status == "succeeded"


async def test_a_run_whose_origin_is_deleted_as_it_begins_ends_and_says_so(tmp_path: Path) -> None:
    clock = Clock()
    blobs = Hooked(clock)
    first = await run_on(tmp_path / "here", blobs, Fan, parameters={"fails": True})
    clock.ahead_us += 2 * HOUR_US

    async def meanwhile() -> None:
        await collected(tmp_path / "there", blobs, clock(), RunName("Fan", first.run_id))

    blobs.hooks["put status/"] = meanwhile
    with pytest.raises(NotFoundError, match=first.run_id):
        await run_on(tmp_path / "here", blobs, Fan, resume=first.run_id)
    assert not [key for key in blobs.blobs if "/journal/" in key]


async def test_r20_a_run_that_was_held_for_dead_looks_for_its_blobs_again(tmp_path: Path) -> None:
    clock = Clock()
    blobs = Hooked(clock)

    async def asleep() -> None:
        """Its blobs are there, and the journal is not: now the machine sleeps for two hours."""
        clock.ahead_us += 2 * HOUR_US
        done = await collected(tmp_path / "there", blobs, clock())
        assert done.blobs == 1

    async def first() -> None:
        blobs.hooks["/journal/"] = asleep

    blobs.hooks["put blobs/"] = first
    done = await run_on(tmp_path / "here", blobs, Fan, clock=clock)
    assert done.status == "succeeded"
    assert [key for key in blobs.blobs if key.startswith("blobs/")]


@pytest.mark.parametrize("how", ["by the list", "by its name"])
async def test_the_journal_says_how_a_run_ended_whose_driver_had_no_last_word(
    tmp_path: Path, how: str
) -> None:
    clock = Clock()
    blobs = Hooked(clock)
    run = await killed(tmp_path / "here", blobs, unshipped=False)
    clock.ahead_us += HOUR_US
    async with aclosing(machine(tmp_path / "there", blobs, clock)) as there:
        assert there.replica is not None
        if how == "by the list":
            await there.replica.pulling.runs()
        else:
            await there.replica.pulling.run("Fan", run.run_id)
        found = await there.metadata.run("Fan", run.run_id)
        assert found is not None
        assert found.status == "failed"
        audit = Audit(there.layout, there.layout.metadata)
        assert [d for d in audit.damages() if not d.digest] == []


async def test_a_run_that_is_silent_and_comes_back_is_listed_as_it_is(tmp_path: Path) -> None:
    clock = Clock()
    blobs = MemoryBlobStore(clock)
    run_id = new_run_id(1, 1)
    await blobs.put(status_key("Fan", run_id), (pack_status(record(run_id)),))

    async def listed() -> str:
        async with aclosing(machine(tmp_path / "there", blobs, clock)) as at:
            assert at.replica is not None
            await at.replica.pulling.runs()
            found = await at.metadata.run("Fan", run_id)
            assert found is not None
            return found.status

    clock.ahead_us += HOUR_US
    assert await listed() == "interrupted"
    await blobs.put(status_key("Fan", run_id), (pack_status(record(run_id)),))
    assert await listed() == "running"


async def test_files_are_whole_when_a_run_is_said_to_have_ended(tmp_path: Path) -> None:
    blobs = Hooked(Clock())
    done = await run_on(tmp_path / "here", blobs, Quick)
    key = status_key("Quick", done.run_id)
    last = await blobs.get(key)
    said = RunRecord("Quick", done.run_id, "running", 1, host="elsewhere", pid=7)
    await blobs.put(key, (pack_status(said),))

    class Ending(MemoryBlobStore):
        """The run ends, and has its last word, while its files are being pulled."""

        async def get(self, key: str) -> bytes:
            data = await super().get(key)
            if "/journal/" in key:
                await self.put(status_key("Quick", done.run_id), (last,))
                return data[:-30]
            return data

    ending = Ending(now_us)
    ending.blobs = blobs.blobs
    async with aclosing(machine(tmp_path / "there", ending)) as there:
        assert there.replica is not None
        assert not (await there.replica.pulling.run("Quick", done.run_id)).is_whole


async def test_no_late_beat_follows_the_last_word_of_a_run() -> None:
    blobs = Hooked(Clock())
    beating, may_beat = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        beating.set()
        await may_beat.wait()

    blobs.hooks["put status/"] = slow
    heart = Heartbeat(blobs, record("R1"), now_us)
    async with asyncio.TaskGroup() as group:
        group.create_task(heart.begin())
        await beating.wait()
        ending = group.create_task(heart.end(record("R1", "succeeded")))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not ending.done()
        may_beat.set()
    key = status_key("Fan", "R1")
    assert unpack_status(await blobs.get(key), key).status == "succeeded"


@pytest.mark.parametrize("is_journaled", [True, False])
async def test_a_run_has_the_last_word_that_its_journal_has(
    tmp_path: Path, is_journaled: bool
) -> None:
    blobs = Hooked(Clock())
    async with aclosing(machine(tmp_path / "here", blobs)) as here:
        assert here.replica is not None
        folder = here.layout.create_run("Fan", "R1")
        for name, magic in (("journal", JOURNAL_MAGIC), ("log", LOG_MAGIC)):
            (folder / name).write_bytes(magic)
        files = [Growing(str(folder / name), lambda: 4) for name in ("journal", "log")]
        async with shipped(here.replica, Freight(record("R1"), *files)) as beside:
            beside.observe(RunDone("failed", 2, is_journaled=is_journaled))
    key = status_key("Fan", "R1")
    said = unpack_status(await blobs.get(key), key)
    assert said.status == ("failed" if is_journaled else "running")


async def test_a_run_that_was_deleted_while_its_machine_slept_ends_and_says_so(
    tmp_path: Path,
) -> None:
    clock = Clock()
    blobs = Hooked(clock)

    async def asleep() -> None:
        clock.ahead_us += 2 * HOUR_US
        (run_id,) = [key.split("/")[2] for key in blobs.blobs if key.startswith("status/")]
        await collected(tmp_path / "there", blobs, clock(), RunName("Fan", run_id))

    async def first() -> None:
        blobs.hooks["/journal/"] = asleep

    blobs.hooks["put blobs/"] = first
    with pytest.raises(NotFoundError, match="was deleted while it ran"):
        await run_on(tmp_path / "here", blobs, Fan, clock=clock)
    assert not [key for key in blobs.blobs if key.startswith("status/")]


async def test_a_pull_that_was_killed_before_it_listed_the_tasks_is_made_good(
    tmp_path: Path,
) -> None:
    blobs = Hooked(Clock())
    done = await run_on(tmp_path / "here", blobs, Quick)

    class KilledError(Exception):
        pass

    class Dying(LocalMetadata):
        async def put_tasks(self, tasks: Collection[TaskRecord]) -> None:
            raise KilledError

    for list_of_tasks in (Dying, LocalMetadata):
        async with aclosing(machine(tmp_path / "there", blobs)) as there:
            listed = list_of_tasks(there.layout.metadata)
            pulling = Pulling(blobs, there.layout, listed, fact_of, now_us)
            with suppress(KilledError):
                await pulling.run("Quick", done.run_id)
            tasks = [task.step async for task in listed.tasks("Quick", done.run_id)]
            await listed.aclose()
    assert tasks == ["start", "end"]
