"""The store in S3 as sequences of requests, in virtual time."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from engine.errors import (
    BlobChangedError,
    LimitExceededError,
    StoreGaveUpError,
    StoreUnavailableError,
    UploadConflictError,
)
from engine.stores.s3 import requests as ask
from engine.stores.s3.pacing import Pace
from engine.stores.s3.store import ranges_of
from engine.testing.s3 import FaultySender, MemorySender
from engine.testing.virtual_time import run
from tests.unit.stores.s3.stores import MIB, store_over

BIG = bytes(range(256)) * (20 * MIB // 256)


def test_a_blob_of_a_few_bytes_takes_one_request_each_way() -> None:
    sender = MemorySender()

    async def scenario() -> None:
        store = store_over(sender)
        assert await store.put("a", (b"one", b"two"), if_absent=True)
        assert await store.get("a") == b"onetwo"
        assert await store.get_range("a", 1, 2) == b"ne"

    run(scenario())
    assert [type(request) for request in sender.sent] == [ask.Put, ask.Get, ask.Get]


def test_a_large_blob_goes_in_parts_and_comes_in_ranges() -> None:
    sender = MemorySender()

    async def scenario() -> None:
        store = store_over(sender)
        assert await store.put("a", (BIG[:100], BIG[100:]))
        assert await store.get("a") == BIG
        assert await store.get_range("a", 3 * MIB, 9 * MIB) == BIG[3 * MIB : 12 * MIB]

    run(scenario())
    assert sender.count(ask.PutPart) == 3
    assert sender.count(ask.Get) == 1 + (1 + 3) + 2  # the first tells of no version to go on with
    assert not sender.uploads


def test_no_more_than_the_configured_bytes_are_on_their_way(tmp_path: Path) -> None:
    sender = MemorySender(latency_s=0.1, bytes_s=MIB)
    (tmp_path / "big").write_bytes(BIG)

    async def scenario() -> int:
        store = store_over(sender, room_mib=24)
        with (tmp_path / "big").open("rb") as file:
            async with asyncio.TaskGroup() as group:
                for n in range(3):
                    group.create_task(store.put(f"buffer/{n}", (BIG,)))
                    group.create_task(store.put_file(f"file/{n}", file.fileno()))
                    group.create_task(store.put(f"small/{n}", (BIG[: 10 * MIB],)))
            kinds = ("file", "buffer")
            gets: list[asyncio.Task[bytes]] = []
            async with asyncio.TaskGroup() as group:
                for n in range(3):
                    # Not to files: the clock would jump while a thread writes within a request.
                    gets += [group.create_task(store.get(f"{kind}/{n}")) for kind in kinds]
        assert all(get.result() == BIG for get in gets)
        return store.room.most_taken

    most_taken = run(scenario())
    assert most_taken <= 24 * MIB
    assert 16 * MIB <= sender.most_held_bytes <= 24 * MIB


def test_a_blob_whose_parts_do_not_fit_is_refused_with_the_setting_to_raise() -> None:
    async def scenario() -> None:
        await store_over(MemorySender(), room_mib=4).put("a", (BIG,))

    with pytest.raises(LimitExceededError) as caught:
        run(scenario())
    assert "s3_memory_mib" in str(caught.value.hint)


def test_an_upload_that_fails_is_aborted() -> None:
    class NoParts(MemorySender):
        def _putpart(self, request: ask.PutPart) -> str:
            raise StoreUnavailableError("cannot write part: InternalError")

    sender = NoParts()

    async def scenario() -> None:
        await store_over(sender, pace=Pace(deadline_s=5)).put("a", (BIG,))

    with pytest.raises(StoreGaveUpError):
        run(scenario())
    assert sender.count(ask.BeginUpload) == 1
    assert not sender.uploads


def test_an_upload_that_is_cancelled_is_aborted() -> None:
    sender = MemorySender(latency_s=0.2)

    async def scenario() -> None:
        store = store_over(sender)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await store.put("a", (BIG,))
        assert await store.stat("a") is None

    run(scenario())
    assert sender.count(ask.AbortUpload) == 1
    assert not sender.uploads


def test_uploads_of_killed_writers_are_listed_and_dropped() -> None:
    sender = MemorySender()

    async def scenario() -> list[str]:
        store = store_over(sender)
        for key in ("blobs/a", "blobs/b", "other"):
            await sender.send(ask.BeginUpload(key=key, writer="killed"))
        found = [upload async for upload in store.unfinished_uploads("blobs/")]
        await store.abort_uploads(found)
        return [upload.key for upload in found]

    assert run(scenario()) == ["blobs/a", "blobs/b"]
    assert [key for key, _, _ in sender.uploads.values()] == ["other"]


def test_an_upload_that_another_writer_came_across_is_begun_again() -> None:
    class Conflicting(MemorySender):
        conflicts = 2

        def _finishupload(self, request: ask.FinishUpload) -> bool:
            if self.conflicts:
                self.conflicts -= 1
                raise UploadConflictError
            return super()._finishupload(request)

    sender = Conflicting()

    async def scenario() -> bytes:
        store = store_over(sender)
        assert await store.put("a", (BIG,), if_absent=True)
        return await store.get("a")

    assert run(scenario()) == BIG
    assert sender.count(ask.BeginUpload) == 3
    assert not sender.uploads


def test_a_blob_that_is_replaced_while_it_is_read_is_read_anew() -> None:
    other = BIG[::-1][: 18 * MIB]

    class Replaced(MemorySender):
        reads = 0

        def _get(self, request: ask.Get) -> ask.Fetched:
            self.reads += 1
            if self.reads == 3:
                self.write("a", other)
            return super()._get(request)

    sender = Replaced()

    async def scenario() -> bytes:
        store = store_over(sender)
        await store.put("a", (BIG,))
        return await store.get("a")

    assert run(scenario()) == other


@pytest.mark.parametrize("size", [18 * MIB, 5 * MIB, 20 * MIB])
def test_a_blob_that_is_replaced_is_read_anew_though_the_server_heeds_no_version(size: int) -> None:
    other = BIG[::-1][:size]

    class Heedless(MemorySender):
        reads = 0

        def _get(self, request: ask.Get) -> ask.Fetched:
            self.reads += 1
            if self.reads == 3:
                self.write("a", other)
            reply = super()._get(structs.replace(request, etag=None))
            # That of a range behind the end, which is refused, has no facts.
            return reply if reply.body else ask.Fetched(b"", -1, "")

    async def scenario() -> bytes:
        store = store_over(Heedless())
        await store.put("a", (BIG,))
        return await store.get("a")

    assert run(scenario()) == other


def test_a_blob_that_is_replaced_all_the_time_is_an_error() -> None:
    class Restless(MemorySender):
        def _get(self, request: ask.Get) -> ask.Fetched:
            reply = super()._get(request)
            self.write("a", BIG)
            return reply

    async def scenario() -> bytes:
        store = store_over(Restless())
        await store.put("a", (BIG,))
        return await store.get("a")

    with pytest.raises(BlobChangedError):
        run(scenario())


@pytest.mark.parametrize("size", [5, 20 * MIB])
def test_a_conditional_put_whose_reply_was_lost_knows_that_it_won(size: int) -> None:
    class Lossy(MemorySender):
        async def send(self, request: ask.Request[ask.R]) -> ask.R:
            reply = await super().send(request)
            if isinstance(request, ask.Put | ask.FinishUpload) and self.count(type(request)) == 1:
                raise StoreUnavailableError("cannot write: connection reset")
            return reply

    async def scenario() -> list[bool]:
        store = store_over(Lossy())
        first = await store.put("a", (BIG[:size],), if_absent=True)
        return [first, await store.put("a", (BIG[:size],), if_absent=True)]

    assert run(scenario()) == [True, False]


@pytest.mark.parametrize("size", [5, 17 * MIB])
@pytest.mark.parametrize("seed", range(5))
def test_of_many_conditional_puts_one_wins_however_many_replies_are_lost(
    size: int, seed: int
) -> None:
    memory = MemorySender(latency_s=0.01)
    sender = FaultySender(memory, lambda: 0.3, seed=seed, kinds=["lost", "refused"])

    async def scenario() -> tuple[list[int], bytes]:
        store = store_over(sender)
        async with asyncio.TaskGroup() as group:
            puts = [
                group.create_task(store.put("k", (bytes([n]) * size,), if_absent=True))
                for n in range(6)
            ]
        return [n for n, put in enumerate(puts) if put.result()], await store.get("k")

    winners, data = run(scenario())
    assert len(winners) == 1
    assert data == bytes([winners[0]]) * size


def test_deletes_are_sent_a_thousand_at_a_time() -> None:
    sender = MemorySender()
    run(store_over(sender).delete([f"k{n}" for n in range(2500)]))
    sizes = [len(r.keys) for r in sender.sent if isinstance(r, ask.Delete)]
    assert sorted(sizes) == [500, 1000, 1000]


@given(
    begin=st.integers(0, 200 * MIB),
    length=st.integers(0, 3000 * MIB),
    most=st.integers(1, 64 * MIB),
)
def test_ranges_join_to_the_whole_and_end_where_parts_may_end(
    begin: int, length: int, most: int
) -> None:
    end = begin + length
    cuts = list(ranges_of(begin, end, most))
    assert sum(len(cut) for cut in cuts) == length
    assert [cut.start for cut in cuts] == [begin, *(cut.stop for cut in cuts)][: len(cuts)]
    assert all(0 < len(cut) <= max(most, 8 * MIB) for cut in cuts)
    assert all(cut.stop % (8 * MIB) == 0 for cut in cuts[:-1])


def test_a_large_blob_comes_in_long_ranges_and_a_smaller_one_over_all_connections() -> None:
    assert {len(cut) for cut in ranges_of(0, 2048 * MIB, 64 * MIB)} == {64 * MIB}
    assert len(list(ranges_of(2 * MIB, 2048 * MIB, 32 * MIB))) == 64
    assert len(list(ranges_of(2 * MIB, 32 * MIB, 32 * MIB))) == 4


async def test_a_view_of_nothing_is_put() -> None:
    nothing = memoryview(bytes(3)).cast("B", (1, 3))[:0]
    store = store_over(MemorySender())
    assert await store.put("k", (nothing,))
    assert await store.get("k") == b""
