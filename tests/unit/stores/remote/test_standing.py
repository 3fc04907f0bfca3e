"""Who is alive in an object store is told by its clock, whatever that of the reader says."""

from collections.abc import Callable, Sequence
from contextlib import aclosing
from pathlib import Path

import pytest

from engine.errors import StoreDeniedError
from engine.stores.base import Buffer
from engine.stores.memory import MemoryBlobStore
from engine.stores.metadata.base import RunRecord
from engine.stores.remote.keys import CLOCK, status_key
from engine.stores.remote.standing import ALIVE_US, pack_status
from tests.unit.stores.remote.machines import machine

NOON_US = 1_790_000_000_000_000
MINUTE_US = 60_000_000


class Shelf(MemoryBlobStore):
    """Has a clock, and counts who asks what time it is."""

    def __init__(self) -> None:
        super().__init__(lambda: self.clock_us)
        self.clock_us = NOON_US
        self.asked = 0
        self.is_read_only = False
        self.beats_meanwhile = ""

    async def put(self, key: str, parts: Sequence[Buffer], *, if_absent: bool = False) -> bool:
        self.asked += key == CLOCK
        if self.is_read_only:
            raise StoreDeniedError(f"{key} may not be written")
        if key == CLOCK and self.beats_meanwhile:
            await self.beat(self.beats_meanwhile)
        return await super().put(key, parts, if_absent=if_absent)

    async def beat(self, run_id: str) -> None:
        said = RunRecord("Fan", run_id, "running", 1, host="elsewhere", pid=7)
        await self.put(status_key("Fan", run_id), (pack_status(said),))


@pytest.fixture
def blobs() -> Shelf:
    return Shelf()


async def states(
    folder: Path, blobs: Shelf, clock: Callable[[], int], *, times: int = 1, name: str = ""
) -> dict[str, str]:
    """The status of each run as a machine with this clock reads it: all, or the one of a name."""
    async with aclosing(machine(folder, blobs, clock)) as there:
        assert there.replica is not None
        for _ in range(times):
            if name:
                await there.replica.pulling.run("Fan", name)
            else:
                await there.replica.pulling.runs()
        return {run.run_id: run.status async for run in there.metadata.runs()}


@pytest.mark.parametrize("name", ["", "R1"])
async def test_a_living_run_is_alive_for_a_machine_whose_clock_is_ahead(
    tmp_path: Path, blobs: Shelf, name: str
) -> None:
    await blobs.beat("R1")
    blobs.clock_us += MINUTE_US
    found = await states(tmp_path, blobs, lambda: blobs.clock_us + 2 * MINUTE_US, name=name)
    assert found == {"R1": "running"}


@pytest.mark.parametrize("name", ["", "R1"])
async def test_a_silent_run_is_dead_and_the_store_is_asked_for_the_time_once(
    tmp_path: Path, blobs: Shelf, name: str
) -> None:
    await blobs.beat("R1")
    blobs.clock_us += ALIVE_US
    found = await states(tmp_path, blobs, lambda: blobs.clock_us, times=3, name=name)
    assert found == {"R1": "interrupted"}
    assert blobs.asked == 1


async def test_many_silent_runs_need_the_time_once(tmp_path: Path, blobs: Shelf) -> None:
    for number in range(40):
        await blobs.beat(f"R{number}")
    blobs.clock_us += ALIVE_US
    found = await states(tmp_path, blobs, lambda: blobs.clock_us)
    assert set(found.values()) == {"interrupted"}
    assert blobs.asked == 1


async def test_nobody_asks_for_the_time_while_a_run_looks_alive(
    tmp_path: Path, blobs: Shelf
) -> None:
    await blobs.beat("R1")
    assert await states(tmp_path, blobs, lambda: blobs.clock_us) == {"R1": "running"}
    assert blobs.asked == 0


async def test_another_run_tells_a_machine_whose_clock_is_behind_what_time_it_is(
    tmp_path: Path, blobs: Shelf
) -> None:
    await blobs.beat("R1")
    blobs.clock_us += ALIVE_US
    await blobs.beat("R2")
    found = await states(tmp_path, blobs, lambda: NOON_US - MINUTE_US, times=2)
    assert found == {"R1": "interrupted", "R2": "running"}
    assert blobs.asked == 0


@pytest.mark.parametrize("name", ["", "R1"])
async def test_a_driver_that_beats_while_the_time_is_asked_for_is_alive(
    tmp_path: Path, blobs: Shelf, name: str
) -> None:
    await blobs.beat("R1")
    blobs.clock_us += ALIVE_US
    blobs.beats_meanwhile = "R1"
    assert await states(tmp_path, blobs, lambda: blobs.clock_us, name=name) == {"R1": "running"}


async def test_who_may_not_write_asks_for_the_time_once(tmp_path: Path, blobs: Shelf) -> None:
    for number in range(5):
        await blobs.beat(f"R{number}")
    blobs.is_read_only = True
    found = await states(tmp_path, blobs, lambda: NOON_US + ALIVE_US, times=2)
    assert set(found.values()) == {"interrupted"}
    assert blobs.asked == 1


async def test_who_may_only_read_goes_by_his_own_clock(tmp_path: Path, blobs: Shelf) -> None:
    await blobs.beat("R1")
    blobs.is_read_only = True
    assert await states(tmp_path, blobs, lambda: NOON_US + ALIVE_US) == {"R1": "interrupted"}
