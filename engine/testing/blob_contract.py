"""The laws of blob stores as tests. Subclass the contract and give it your store.

    class TestMyStore(BlobStoreContract):
        async def make(self, tmp_path):
            return MyBlobStore(...)

The tests are coroutines: run them with pytest-asyncio in its auto mode.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.errors import BlobNotFoundError, UnsafeNameError
from engine.stores.base import BlobStore

UNSAFE_KEYS = (
    "",
    "/",
    "/etc/passwd",
    "..",
    "a/../b",
    "../../etc/passwd",
    "a//b",
    "a/",
    "./a",
    "a\\..\\b",
    "%2e%2e/a",
    "%252e%252e/a",
    "a\0b",
    "a\nb",
    "a b",
    "\u2025/a",
    "\uff0e\uff0e/a",
    ".hidden",
    "-rf",
    "x" * 129,
    "a/" * 600 + "a",
)
"""Names that lead, or led somebody once, out of a store."""


class BlobStoreContract(ABC):
    """The laws in `engine.stores.base.BlobStore`."""

    @abstractmethod
    async def make(self, tmp_path: Path) -> BlobStore:
        """An empty store."""

    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[BlobStore]:
        store = await self.make(tmp_path)
        yield store
        await store.aclose()

    async def test_what_was_put_is_what_one_gets(self, store: BlobStore) -> None:
        assert await store.put("a/b", (b"one ", bytearray(b"two "), memoryview(b"three")))
        assert await store.get("a/b") == b"one two three"

    async def test_a_later_put_replaces_an_earlier_one(self, store: BlobStore) -> None:
        await store.put("a", (b"first, and longer",))
        await store.put("a", (b"second",))
        assert await store.get("a") == b"second"

    @pytest.mark.parametrize("size", [0, 1, 65_536, 5 << 20])
    async def test_blobs_of_any_size_come_back(self, store: BlobStore, size: int) -> None:
        data = bytes(i % 251 for i in range(min(size, 4096))) * (size // 4096 or 1)
        await store.put("big", (data,))
        assert await store.get("big") == data
        info = await store.stat("big")
        assert info is not None
        assert info.size_bytes == len(data)

    async def test_buffers_of_wide_elements_are_taken_as_bytes(self, store: BlobStore) -> None:
        await store.put("wide", (memoryview(bytes(16)).cast("I"), b"!"))
        assert await store.get("wide") == bytes(16) + b"!"

    async def test_the_callers_buffer_may_change_after_the_put(self, store: BlobStore) -> None:
        buffer = bytearray(b"before")
        await store.put("a", (buffer,))
        buffer[:] = b"after!"
        assert await store.get("a") == b"before"

    async def test_a_range_is_cut_at_the_end(self, store: BlobStore) -> None:
        await store.put("a", (b"0123456789",))
        assert await store.get_range("a", 2, 3) == b"234"
        assert await store.get_range("a", 8, 100) == b"89"
        assert await store.get_range("a", 10, 5) == b""
        assert await store.get_range("a", 3, 0) == b""

    async def test_getting_what_is_not_there_names_the_key(self, store: BlobStore) -> None:
        await store.put("a/b", (b"x",))
        for key in ("a", "a/c", "a/b/c", "z"):
            with pytest.raises(BlobNotFoundError) as caught:
                await store.get(key)
            assert caught.value.key == key
            with pytest.raises(BlobNotFoundError):
                await store.get_range(key, 0, 1)
            assert await store.stat(key) is None

    async def test_if_absent_keeps_what_was_there(self, store: BlobStore) -> None:
        assert await store.put("a", (b"first",), if_absent=True)
        assert not await store.put("a", (b"second",), if_absent=True)
        assert await store.get("a") == b"first"

    async def test_of_many_writers_of_an_absent_key_one_wins(self, store: BlobStore) -> None:
        async with asyncio.TaskGroup() as group:
            puts = [
                group.create_task(store.put("the/key", (b"writer %d" % n,), if_absent=True))
                for n in range(32)
            ]
        winners = [n for n, put in enumerate(puts) if put.result()]
        assert len(winners) == 1
        assert await store.get("the/key") == b"writer %d" % winners[0]

    @pytest.mark.parametrize("size", [0, 1, 100_000, 19 << 20])
    async def test_files_go_in_and_out_whole(
        self, store: BlobStore, tmp_path: Path, size: int
    ) -> None:
        data = bytes(n % 253 for n in range(1 << 16)) * (1 + (size >> 16))
        (tmp_path / "in").write_bytes(data[:size])
        with (tmp_path / "in").open("rb") as given, (tmp_path / "out").open("wb") as taken:
            given.seek(min(size, 10))
            assert await store.put_file("the/file", given.fileno())
            assert not await store.put_file("the/file", given.fileno(), if_absent=True)
            assert await store.get_to_file("the/file", taken.fileno()) == size
        assert (tmp_path / "out").read_bytes() == data[:size]
        assert await store.get("the/file") == data[:size]
        assert await store.get_range("the/file", size // 2, 10 << 20) == data[size // 2 : size]

    async def test_a_file_of_a_blob_that_is_not_there_names_the_key(
        self, store: BlobStore, tmp_path: Path
    ) -> None:
        with (tmp_path / "out").open("wb") as taken, pytest.raises(BlobNotFoundError) as caught:
            await store.get_to_file("not/there", taken.fileno())
        assert caught.value.key == "not/there"

    async def test_of_many_writers_of_a_large_blob_one_wins(self, store: BlobStore) -> None:
        blobs = [bytes([n]) * (17 << 20) for n in range(3)]
        async with asyncio.TaskGroup() as group:
            puts = [group.create_task(store.put("big", (b,), if_absent=True)) for b in blobs]
        winners = [n for n, put in enumerate(puts) if put.result()]
        assert len(winners) == 1
        assert await store.get("big") == blobs[winners[0]]

    async def test_a_reader_sees_a_whole_blob_or_none(self, store: BlobStore) -> None:
        blobs = {bytes([n]) * 300_000 for n in range(8)}
        seen: set[bytes] = set()

        async def read() -> None:
            for _ in range(40):
                try:
                    seen.add(await store.get("k"))
                except BlobNotFoundError:
                    await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            group.create_task(read())
            for blob in blobs:
                group.create_task(store.put("k", (blob,)))
        assert seen <= blobs

    async def test_a_list_is_in_order_of_key(self, store: BlobStore) -> None:
        keys = ["a", "a-b", "a.b/x", "a/b", "a/b-c/d", "a/b/c", "b", "c/1", "c/10", "c/2", "A/z"]
        keys = [k for k in keys if k not in ("a", "a/b")]  # a key is no folder of others
        for key in keys:
            await store.put(key, (key.encode(),))
        assert [info.key async for info in store.list()] == sorted(keys)
        assert [info.key async for info in store.list("c/1")] == ["c/1", "c/10"]
        assert [info.key async for info in store.list("a/")] == ["a/b-c/d", "a/b/c"]
        assert [info.key async for info in store.list("nothing/here")] == []
        assert [i.size_bytes async for i in store.list("b")] == [1]

    async def test_a_list_longer_than_a_page_is_whole(self, store: BlobStore) -> None:
        async with asyncio.TaskGroup() as group:
            for n in range(1100):
                group.create_task(store.put(f"n/{n:04}", (b"",)))
        assert [i.key async for i in store.list("n/")] == [f"n/{n:04}" for n in range(1100)]

    async def test_deleting_is_idempotent(self, store: BlobStore) -> None:
        await store.put("a", (b"1",))
        await store.put("b", (b"2",))
        await store.delete(["a", "not-there", "a/b"])
        await store.delete(["a"])
        assert [info.key async for info in store.list()] == ["b"]

    @pytest.mark.parametrize("key", UNSAFE_KEYS)
    async def test_a_key_cannot_leave_the_store(self, store: BlobStore, key: str) -> None:
        with pytest.raises(UnsafeNameError):
            await store.put(key, (b"x",))
        with pytest.raises(UnsafeNameError):
            await store.get(key)
        with pytest.raises(UnsafeNameError):
            await store.stat(key)
        with pytest.raises(UnsafeNameError):
            await store.delete([key])
