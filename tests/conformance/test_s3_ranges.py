"""Ranges of large blobs on the wire: signed whole, through TLS and proxies, and stopped at once."""

import asyncio
import random
import threading
from pathlib import Path

import pytest

from engine.config import Config
from engine.stores.s3.store import open_s3
from engine.testing.fault_proxy import Faults, fault_proxy
from engine.testing.servers import ServerAddress
from tests.conformance.wires import proxied, secured

MIB = 1 << 20
DATA = random.Random(5).randbytes(21 * MIB)


@pytest.fixture(autouse=True)
def _credentials(seaweedfs: ServerAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in seaweedfs.variables.items():
        monkeypatch.setenv(name, value)


async def fetched(s3_url: str, config: Config, folder: Path) -> bytes:
    """What comes of the blob "big", by a file."""
    store = open_s3(s3_url, config)
    try:
        with (folder / "copy").open("wb") as copy:
            assert await store.get_to_file("big", copy.fileno()) == len(DATA)
    finally:
        await store.aclose()
    return (folder / "copy").read_bytes()


@pytest.fixture
async def big(s3_url: str, seaweedfs: ServerAddress) -> str:
    """The store with a blob of DATA, "big"."""
    store = open_s3(s3_url, Config())
    await store.put("big", (DATA,))
    await store.aclose()
    return s3_url


async def test_a_range_is_signed_with_its_reach_its_version_and_who_pays(
    big: str, seaweedfs: ServerAddress, tmp_path: Path
) -> None:
    faults = Faults(0.0)
    async with fault_proxy(seaweedfs.endpoint_url, faults) as url:
        config = Config(s3_endpoint_url=url, s3_requester_pays=True)
        assert await fetched(big, config, tmp_path) == DATA
    first, *ranges = faults.heads
    assert "range: bytes=0-2097151\r\n" in first
    assert len(ranges) == 3
    for head in ranges:
        assert "host%3bif-match%3brange%3bx-amz-request-payer&" in head
        assert "if-match: " in head
        assert "x-amz-request-payer: requester\r\n" in head
    assert sum("range: bytes=2097152-8388607\r\n" in head for head in ranges) == 1


async def test_a_blob_in_memory_is_put_together_of_ranges_that_come_in_any_order(
    big: str, seaweedfs: ServerAddress
) -> None:
    store = open_s3(big, Config())
    assert await store.get("big") == DATA
    assert await store.get_range("big", 3 * MIB, 17 * MIB) == DATA[3 * MIB : 20 * MIB]
    await store.aclose()


class SilentRanges(Faults):
    """Answers the first request and no other; `all_wait` is set when three have none."""

    def __post_init__(self) -> None:
        self.all_wait = asyncio.Event()

    def choose(self, line: str = "") -> str:
        self.requests += 1
        if self.requests > 3:
            self.all_wait.set()
        return "silent" if self.requests > 1 else ""


async def test_a_download_that_is_cancelled_leaves_no_thread_that_writes(
    big: str, seaweedfs: ServerAddress, tmp_path: Path
) -> None:
    faults = SilentRanges(0.0)
    async with fault_proxy(seaweedfs.endpoint_url, faults) as url:
        store = open_s3(big, Config(s3_endpoint_url=url))
        with (tmp_path / "copy").open("wb") as copy:
            getting = asyncio.ensure_future(store.get_to_file("big", copy.fileno()))
            await faults.all_wait.wait()
            getting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await getting
        await store.aclose()
    for thread in threading.enumerate():
        if thread.name.startswith("aflow-s3"):
            thread.join(5.0)
            assert not thread.is_alive()


async def test_tls_is_checked_with_the_bundle_that_is_set(
    big: str, seaweedfs: ServerAddress, tmp_path: Path
) -> None:
    async with secured(seaweedfs, tmp_path) as (url, bundle):
        config = Config(s3_endpoint_url=url, s3_ca_bundle=str(bundle))
        assert await fetched(big, config, tmp_path) == DATA


@pytest.mark.parametrize("is_secured", [False, True])
async def test_ranges_come_through_the_proxy_that_is_set(
    is_secured: bool, big: str, seaweedfs: ServerAddress, tmp_path: Path
) -> None:
    heads: list[str] = []
    async with secured(seaweedfs, tmp_path) as (url, bundle), proxied(heads) as proxy:
        config = Config(
            s3_endpoint_url=url if is_secured else seaweedfs.endpoint_url,
            s3_ca_bundle=str(bundle),
            s3_proxy=proxy,
        )
        assert await fetched(big, config, tmp_path) == DATA
    if is_secured:
        assert all(head.startswith("CONNECT 127.0.0.1:") for head in heads)
    else:
        ranges = [head for head in heads if "X-Amz-Signature=" in head.partition("\r\n")[0]]
        assert len(ranges) == 3
        assert all(head.startswith(f"GET {seaweedfs.endpoint_url}/") for head in ranges)
