"""Equal bytes are stored once, and read back only if intact."""

import asyncio
from collections.abc import Sequence

import pytest
from blake3 import blake3

from engine.errors import BlobCorruptError, BlobNotFoundError, StoreError, StoreUnavailableError
from engine.stores.base import Buffer
from engine.stores.cas import ContentAddressedStore, blob_key
from engine.stores.memory import MemoryBlobStore


class SlowBlobStore(MemoryBlobStore):
    """Puts wait for `go`; the first `failures` of them fail."""

    def __init__(self, failures: int = 0) -> None:
        super().__init__()
        self.puts = 0
        self.go = asyncio.Event()
        self._failures = failures

    async def put(self, key: str, parts: Sequence[Buffer], *, if_absent: bool = False) -> bool:
        self.puts += 1
        await self.go.wait()
        if self.puts <= self._failures:
            raise StoreUnavailableError("no answer")
        return await super().put(key, parts, if_absent=if_absent)


@pytest.mark.parametrize("size", [0, 5, 3 << 20])
async def test_bytes_come_back_by_their_digest(size: int) -> None:
    blobs = MemoryBlobStore()
    store = ContentAddressedStore(blobs)
    data = bytes(size)
    digest = await store.put([data[:2], data[2:]])
    assert digest == blake3(data).hexdigest()
    assert await store.get(digest) == data
    assert await store.exists(digest)
    assert list(blobs.blobs) == [blob_key(digest)]


async def test_equal_puts_at_once_write_once() -> None:
    blobs = SlowBlobStore()
    store = ContentAddressedStore(blobs)
    async with asyncio.TaskGroup() as group:
        puts = [group.create_task(store.put([b"weights"])) for _ in range(32)]
        await asyncio.sleep(0)
        blobs.go.set()
    assert len({put.result() for put in puts}) == 1
    assert blobs.puts == 1


async def test_a_put_of_what_is_there_writes_nothing() -> None:
    blobs = SlowBlobStore()
    blobs.go.set()
    await ContentAddressedStore(blobs).put([b"x"])
    await ContentAddressedStore(blobs).put([b"x"])
    assert blobs.puts == 1


async def test_when_the_writer_is_cancelled_another_writes() -> None:
    blobs = SlowBlobStore()
    store = ContentAddressedStore(blobs)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(store.put([b"x"]))
        await asyncio.sleep(0)
        second = group.create_task(store.put([b"x"]))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        blobs.go.set()
    assert first.cancelled()
    assert await store.get(second.result()) == b"x"


async def test_when_a_waiter_is_cancelled_the_writer_goes_on() -> None:
    blobs = SlowBlobStore()
    store = ContentAddressedStore(blobs)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(store.put([b"x"]))
        await asyncio.sleep(0)
        second = group.create_task(store.put([b"x"]))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.sleep(0)
        blobs.go.set()
    assert second.cancelled()
    assert await store.exists(first.result())


async def test_when_the_writer_fails_those_who_wait_try_for_themselves() -> None:
    blobs = SlowBlobStore(failures=1)
    store = ContentAddressedStore(blobs)
    outcomes: list[object] = []

    async def put() -> None:
        try:
            outcomes.append(await store.put([b"x"]))
        except StoreUnavailableError as error:
            outcomes.append(error.message)

    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(put())
        await asyncio.sleep(0)
        blobs.go.set()
    digest = blake3(b"x").hexdigest()
    assert outcomes == ["no answer", digest, digest]


async def test_damage_is_found() -> None:
    blobs = MemoryBlobStore()
    store = ContentAddressedStore(blobs)
    digest = await store.put([b"right"])
    await blobs.put(blob_key(digest), [b"wrong"])
    with pytest.raises(BlobCorruptError) as caught:
        await store.get(digest)
    assert (caught.value.expected, caught.value.actual) == (digest, blake3(b"wrong").hexdigest())
    await blobs.delete([blob_key(digest)])
    with pytest.raises(BlobNotFoundError):
        await store.get(digest)


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "A" * 64])
async def test_what_is_no_digest_is_no_key(digest: str) -> None:
    with pytest.raises(StoreError, match="not a digest"):
        await ContentAddressedStore(MemoryBlobStore()).get(digest)
