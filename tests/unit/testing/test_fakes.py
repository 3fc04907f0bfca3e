"""The fakes keep the contracts of what they stand in for."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing

import pytest

from engine.errors import BlobNotFoundError, StoreError, StoreUnavailableError
from engine.executors.base import ExitKind, Job, JobEnded, JobOutput, JobStarted, JobUpdate
from engine.testing import virtual_time
from engine.testing.fakes import MemoryBlobs, MemoryJournal, Play, ScriptedExecutor


def collect(script: dict[str, Play], *, cancel: str = "", close: bool = False) -> list[JobUpdate]:
    """Run one job a play; return every update until all have ended."""

    async def scenario() -> list[JobUpdate]:
        executor = ScriptedExecutor(lambda job: script[job.name])
        seen: list[JobUpdate] = []
        await executor.submit([Job(name, b"", deadline_s=100.0) for name in script])
        await executor.submit([Job(name, b"") for name in script])
        if cancel:
            for _ in range(2):
                await executor.cancel([cancel, "unknown"], reason="ctrl-c")
        if close:
            await executor.aclose()
            assert executor.in_flight == 0
        async with aclosing(executor.updates()) as batches:
            async for batch in batches:
                seen += batch
                if sum(isinstance(update, JobEnded) for update in seen) == len(script):
                    break
        return seen

    return virtual_time.run(scenario())


def ends(updates: Sequence[JobUpdate]) -> dict[str, JobEnded]:
    found = [update for update in updates if isinstance(update, JobEnded)]
    assert len({end.name for end in found}) == len(found)
    return {end.name: end for end in found}


def test_each_job_ends_once_at_its_time_after_its_output() -> None:
    updates = collect({"a": Play(5.0, b"done", stdout=("hello",)), "b": Play(2.0)})
    assert [type(u) for u in updates if u.name == "a"] == [JobStarted, JobOutput, JobEnded]
    end = ends(updates)["a"]
    assert end.ended_us - end.started_us == 5_000_000
    assert end.outcome == b"done"


def test_a_cancelled_job_ends_once_and_says_so() -> None:
    end = ends(collect({"a": Play(50.0, b"done"), "b": Play(1.0)}, cancel="a"))["a"]
    assert end.exit.kind is ExitKind.CANCELLED
    assert end.exit.detail == "ctrl-c"
    assert end.outcome is None


def test_a_job_over_its_deadline_is_timed_out() -> None:
    end = ends(collect({"a": Play(1_000.0, b"done")}))["a"]
    assert end.exit.kind is ExitKind.TIMED_OUT
    assert end.ended_us - end.started_us == 100_000_000


def test_closing_ends_every_job_and_the_updates() -> None:
    assert ends(collect({"a": Play(50.0)}, close=True))["a"].exit.kind is ExitKind.CANCELLED

    async def closed() -> list[Sequence[JobUpdate]]:
        executor = ScriptedExecutor(lambda job: Play())
        await executor.aclose()
        return [batch async for batch in executor.updates()]

    assert virtual_time.run(closed()) == []


def test_a_journal_gives_back_its_frames_by_offset_and_in_order() -> None:
    journal = MemoryJournal()
    offsets = [journal.append(payload) for payload in (b"a", b"bb", b"ccc")]
    assert offsets == sorted(set(offsets))
    assert [journal.read(offset) for offset in offsets] == [b"a", b"bb", b"ccc"]
    assert list(journal.scan()) == list(zip(offsets, (b"a", b"bb", b"ccc"), strict=True))
    assert list(journal.scan(offsets[1])) == list(zip(offsets[1:], (b"bb", b"ccc"), strict=True))
    assert len(journal.prefix(2)) == 2


@pytest.mark.parametrize("offset", [0, 5, 10_000])
def test_a_journal_has_no_frame_where_none_begins(offset: int) -> None:
    journal = MemoryJournal()
    journal.append(b"a")
    with pytest.raises(StoreError, match=f"no frame begins at {offset}"):
        journal.read(offset)


def test_a_full_journal_takes_nothing_more_and_keeps_what_it_has() -> None:
    journal = MemoryJournal(room_bytes=20)
    offset = journal.append(b"x" * 10)
    with pytest.raises(StoreUnavailableError):
        journal.append(b"x" * 10)
    assert journal.read(offset) == b"x" * 10
    assert len(journal) == 1


def test_blobs_are_found_by_what_is_in_them() -> None:
    blobs = MemoryBlobs()
    digest = asyncio.run(blobs.put(bytearray(b"weights")))
    assert asyncio.run(blobs.put(b"weights")) == digest
    assert asyncio.run(blobs.get(digest)) == b"weights"
    with pytest.raises(BlobNotFoundError):
        asyncio.run(blobs.get("absent"))
