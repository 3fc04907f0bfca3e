"""R-13: of those who take over a run that its driver has left, one becomes its driver."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from engine.errors import RunTakenOverError
from engine.runtime import FinishedRun
from engine.stores.base import Buffer
from engine.stores.memory import MemoryBlobStore
from engine.stores.remote.standing import ALIVE_US
from tests.unit.runtime.shared_flows import Fan
from tests.unit.runtime.test_living import Clock, left, say_driven
from tests.unit.runtime.test_shipping import run_on


class Meeting(MemoryBlobStore):
    """Whoever wants to be an heir waits until so many do."""

    def __init__(self, clock: Clock, count: int) -> None:
        super().__init__(clock)
        self._all_there = asyncio.Barrier(count)

    async def put(self, key: str, parts: Sequence[Buffer], *, if_absent: bool = False) -> bool:
        if key.endswith("/heirs/1"):
            await self._all_there.wait()
        return await super().put(key, parts, if_absent=if_absent)


async def taken_over(folder: Path, blobs: MemoryBlobStore, clock: Clock, run: str) -> FinishedRun:
    return await run_on(folder, blobs, Fan, resume=run, takes_over=True, clock=clock)


@pytest.mark.parametrize("machines", ["bc", "bb"], ids=["two machines", "one machine"])
async def test_r13_of_two_who_take_a_run_over_at_once_one_is_told_of_the_other(
    tmp_path: Path, machines: str
) -> None:
    clock = Clock()
    blobs = Meeting(clock, 2)
    first = await left(tmp_path / "a", blobs, "elsewhere", 7)
    clock.ahead_us += ALIVE_US
    found = await asyncio.gather(
        *(taken_over(tmp_path / name, blobs, clock, first.run_id) for name in machines),
        return_exceptions=True,
    )
    (heir,) = [run for run in found if isinstance(run, FinishedRun)]
    (refused,) = [error for error in found if isinstance(error, RunTakenOverError)]
    assert f"run Fan/{first.run_id} goes on as run Fan/{heir.run_id}" in str(refused)
    assert f"aflow attach {heir.run_id}" in str(refused.hint)
    listed = {key.rpartition("/")[2] for key in blobs.blobs if key.startswith("status/")}
    assert listed == {first.run_id, heir.run_id}, "a run that never began is listed"
    kept = await asyncio.to_thread(lambda: list(tmp_path.glob("*/runs/Fan/*/unshipped")))
    assert not kept, "a cache would grow for ever"


async def test_an_heir_that_was_left_is_taken_over_itself_and_one_that_has_ended_has_a_successor(
    tmp_path: Path,
) -> None:
    clock = Clock()
    blobs = MemoryBlobStore(clock)
    first = await left(tmp_path / "a", blobs, "elsewhere", 7)
    clock.ahead_us += ALIVE_US
    second = await taken_over(tmp_path / "b", blobs, clock, first.run_id)
    assert second.status == "failed"  # its parameters are those of the first
    third = await taken_over(tmp_path / "c", blobs, clock, first.run_id)
    await say_driven(blobs, third.run_id, "elsewhere", 8)
    with pytest.raises(RunTakenOverError, match=f"goes on as run Fan/{third.run_id}"):
        await taken_over(tmp_path / "d", blobs, clock, first.run_id)
