"""R-06 at the store: S3 that fails, is slow, cuts off or says nothing; and wrong settings."""

import asyncio
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import Struct

from engine.config import Config
from engine.errors import (
    StoreDeniedError,
    StoreError,
    StoreGaveUpError,
    StoreSettingError,
    StoreUnreachableError,
)
from engine.stores.s3.pacing import Pace
from engine.stores.s3.store import S3BlobStore, open_s3
from engine.testing.fault_proxy import KINDS, Faults, fault_proxy
from engine.testing.s3 import FaultySender, MemorySender
from engine.testing.servers import READER_KEY, READER_SECRET, ServerAddress
from engine.testing.virtual_time import run
from tests.unit.stores.s3.stores import MIB, store_over

CLIENTS = pytest.mark.parametrize("client", ["obstore", "aioboto3"])
FATAL = tuple(kind for kind in KINDS if kind != "slow")
QUICK = Pace(concurrency=16, backoff_s=0.001, backoff_max_s=0.02, retries_s=2000, burst=500)
"""Tries as often as the real pace, with less waiting in between."""


@pytest.fixture(autouse=True)
def _credentials(seaweedfs: ServerAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in seaweedfs.variables.items():
        monkeypatch.setenv(name, value)


async def _write_and_read(store: S3BlobStore, count: int, outcomes: list[str]) -> None:
    """Store blobs and read each back whole."""
    content = random.Random(0).randbytes(4096 + count)

    async def one(n: int) -> None:
        data = content[n : n + 4096]
        assert await store.put(f"k/{n}", (data,), if_absent=True)
        assert await store.get(f"k/{n}") == data
        outcomes.append("whole")

    async with asyncio.TaskGroup() as group:
        for n in range(count):
            group.create_task(one(n))


@CLIENTS
@pytest.mark.parametrize("percent", [0, 10, 50, 90])
async def test_r06_no_result_is_partial_whatever_share_of_the_requests_fails(
    client: str,
    percent: int,
    s3_url: str,
    seaweedfs: ServerAddress,
    record_property: Callable[[str, object], None],
) -> None:
    faults = Faults(percent / 100, seed=percent)
    outcomes: list[str] = []
    count = 150 if percent < 90 else 25
    async with fault_proxy(seaweedfs.endpoint_url, faults) as url:
        store = open_s3(s3_url, Config(s3_client=client, s3_endpoint_url=url), pace=QUICK)
        await _write_and_read(store, count, outcomes)
        await store.aclose()
    record_property("requests", faults.requests)
    record_property("faults", sum(faults.by_kind.values()))
    assert outcomes == ["whole"] * count
    if percent == 0:
        assert faults.requests == 2 * count
    if percent == 10:
        assert len(faults.by_kind) > len(KINDS) / 2
        assert faults.requests <= 1.3 * 2 * count


@CLIENTS
async def test_r06_a_large_blob_survives_failing_parts(
    client: str, s3_url: str, seaweedfs: ServerAddress, tmp_path: Path
) -> None:
    data = random.Random(1).randbytes(21 * MIB)
    faults = Faults(0.3, seed=4)
    async with fault_proxy(seaweedfs.endpoint_url, faults) as url:
        store = open_s3(s3_url, Config(s3_client=client, s3_endpoint_url=url), pace=QUICK)
        assert await store.put("big", (data,), if_absent=True)
        with (tmp_path / "copy").open("wb") as copy:
            assert await store.get_to_file("big", copy.fileno()) == len(data)
        assert [upload async for upload in store.unfinished_uploads()] == []
        await store.aclose()
    assert (tmp_path / "copy").read_bytes() == data
    assert sum(faults.by_kind.values()) > 0


@CLIENTS
async def test_r06_of_many_conditional_puts_one_wins_though_replies_are_lost(
    client: str, s3_url: str, seaweedfs: ServerAddress
) -> None:
    faults = Faults(0.4, kinds=("lost", "truncated", "reset"), seed=7)
    async with fault_proxy(seaweedfs.endpoint_url, faults) as url:
        store = open_s3(s3_url, Config(s3_client=client, s3_endpoint_url=url), pace=QUICK)
        async with asyncio.TaskGroup() as group:
            puts = [
                group.create_task(store.put("k", (b"same for all",), if_absent=True))
                for _ in range(16)
            ]
        await store.aclose()
    assert sum(put.result() for put in puts) == 1


@CLIENTS
async def test_r06_when_all_fails_the_error_names_the_key_and_the_time(
    client: str, s3_url: str, seaweedfs: ServerAddress
) -> None:
    pace = Pace(deadline_s=0.5, patience=0.01, backoff_s=0.01, slowest_bytes_s=1e9)
    async with fault_proxy(seaweedfs.endpoint_url, Faults(1.0, (*FATAL, "silent"))) as url:
        store = open_s3(s3_url, Config(s3_client=client, s3_endpoint_url=url), pace=pace)
        with pytest.raises(StoreGaveUpError) as caught:
            await store.put("the/key", (b"x",))
        with pytest.raises(StoreGaveUpError):
            await store.get("the/key")
        await store.aclose()
    assert "the/key" in caught.value.message
    assert f"in {caught.value.elapsed_s:.1f} s" in caught.value.message


def test_r06_a_brown_out_of_a_minute_delays_and_loses_nothing(
    record_property: Callable[[str, object], None],
) -> None:
    memory = MemorySender(latency_s=0.05)
    during = 0

    def share() -> float:
        nonlocal during
        is_out = 10 <= asyncio.get_running_loop().time() < 70
        during += is_out
        return 1.0 if is_out else 0.0

    async def scenario() -> float:
        store = store_over(FaultySender(memory, share, seed=1))

        async def one(n: int) -> None:
            await asyncio.sleep(n / 10)
            assert await store.put(f"k/{n}", (b"%d" % n,), if_absent=True)
            assert await store.get(f"k/{n}") == b"%d" % n

        async with asyncio.TaskGroup() as group:
            for n in range(900):
                group.create_task(one(n))
        return asyncio.get_running_loop().time()

    ended_s = run(scenario())
    record_property("requests_during", during)
    assert ended_s < 120
    # 600 first tries come in that minute; retries are 10 a second and a burst of 50 beside them.
    assert during <= 600 + 10 * 60 + 50


@pytest.mark.parametrize("seed", range(3))
def test_r06_a_tenth_of_failures_costs_less_than_three_tenths_more_requests(
    seed: int, record_property: Callable[[str, object], None]
) -> None:
    sender = FaultySender(MemorySender(latency_s=0.01), lambda: 0.1, seed=seed)

    async def scenario() -> list[str]:
        outcomes: list[str] = []
        await _write_and_read(store_over(sender), 1000, outcomes)
        return outcomes

    assert run(scenario()) == ["whole"] * 1000
    record_property("requests", sender.sends)
    assert sender.sends <= 1.3 * 2000


class Wrong(Struct, frozen=True):
    """A fault of the settings or the credentials, and what has to be said of it."""

    variables: dict[str, str]
    error: type[StoreError]
    says: str
    hint: str


WRONG_SETTINGS = [
    Wrong({"AWS_SECRET_ACCESS_KEY": "no"}, StoreDeniedError, "SignatureDoesNotMatch", "secret key"),
    Wrong({"AWS_ACCESS_KEY_ID": "no"}, StoreDeniedError, "InvalidAccessKeyId", "access key"),
    Wrong({"AWS_PROFILE": "nobody"}, StoreSettingError, "nobody", "~/.aws"),
    Wrong(
        {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"},
        StoreUnreachableError,
        "127.0.0.1:9",
        "s3_endpoint_url",
    ),
    Wrong(
        {"AWS_ACCESS_KEY_ID": READER_KEY, "AWS_SECRET_ACCESS_KEY": READER_SECRET},
        StoreDeniedError,
        "AccessDenied",
        "s3:PutObject",
    ),
]
WRONG_ANSWERS = [
    Wrong({"403": "ExpiredToken"}, StoreDeniedError, "ExpiredToken", "log in again"),
    Wrong({"301": "PermanentRedirect"}, StoreSettingError, "PermanentRedirect", "s3_region"),
    Wrong({"400": "AuthorizationHeaderMalformed"}, StoreSettingError, "Malformed", "s3_region"),
    Wrong({"404": "NoSuchBucket"}, StoreSettingError, "NoSuchBucket", "create the bucket"),
    Wrong({"404": ""}, StoreSettingError, "404", "s3_endpoint_url"),
]


async def _write_error(store: S3BlobStore) -> StoreError:
    """What the first write ends with. That it takes seconds at most: see tests of pacing."""
    try:
        with pytest.raises(StoreError) as caught:
            await store.put("k", (b"x",))
    finally:
        await store.aclose()
    return caught.value


@CLIENTS
@pytest.mark.parametrize("wrong", WRONG_SETTINGS, ids=lambda wrong: wrong.says)
async def test_r06_wrong_settings_are_told_with_what_to_do(
    client: str, wrong: Wrong, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in wrong.variables.items():
        monkeypatch.setenv(name, value)
    error = await _write_error(open_s3(s3_url, Config(s3_client=client)))
    assert isinstance(error, wrong.error)
    assert wrong.says in error.message
    assert wrong.hint in str(error.hint)


@CLIENTS
@pytest.mark.parametrize("wrong", WRONG_ANSWERS, ids=lambda wrong: wrong.says)
async def test_r06_what_trying_again_cannot_mend_takes_one_request(
    client: str, wrong: Wrong, s3_url: str, seaweedfs: ServerAddress
) -> None:
    [(status, code)] = wrong.variables.items()
    faults = Faults(1.0, (f"{status}:{code}",))
    async with fault_proxy(seaweedfs.endpoint_url, faults) as url:
        error = await _write_error(open_s3(s3_url, Config(s3_client=client, s3_endpoint_url=url)))
    assert isinstance(error, wrong.error)
    assert wrong.says in error.message
    assert wrong.hint in str(error.hint)
    assert faults.requests == 1


@CLIENTS
async def test_r10_a_clock_that_is_off_is_told_with_what_to_do(
    client: str, s3_url: str, seaweedfs: ServerAddress
) -> None:
    faults = Faults(1.0, ("403:RequestTimeTooSkewed",))
    async with fault_proxy(seaweedfs.endpoint_url, faults) as url:
        error = await _write_error(open_s3(s3_url, Config(s3_client=client, s3_endpoint_url=url)))
    assert isinstance(error, StoreDeniedError)
    assert "clock" in str(error.hint)
    assert faults.requests == 1


WRITER = """
import asyncio, os, sys
from engine.config import load
from engine.stores.s3.store import open_s3

async def main():
    file = os.open(sys.argv[2], os.O_RDONLY)
    await open_s3(sys.argv[1], load()).put_file("blobs/big", file, if_absent=True)

asyncio.run(main())
"""


async def test_r06_a_writer_killed_in_an_upload_leaves_no_blob_but_an_upload_to_drop(
    s3_url: str, seaweedfs: ServerAddress, tmp_path: Path
) -> None:
    (tmp_path / "big").write_bytes(bytes(100 * MIB))
    faults = Faults(0.0)
    async with fault_proxy(seaweedfs.endpoint_url, faults) as url:
        environment = {**os.environ, "AFLOW_S3_ENDPOINT_URL": url, "AFLOW_S3_CONCURRENCY": "1"}
        writer = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", WRITER, s3_url, str(tmp_path / "big")), env=environment
        )
        while not any("partnumber=3" in head for head in faults.heads):
            assert writer.returncode is None
            await asyncio.sleep(0.01)
        writer.kill()
        await writer.wait()
    store = open_s3(s3_url, Config())
    assert await store.stat("blobs/big") is None
    left = [upload async for upload in store.unfinished_uploads("blobs/")]
    assert [upload.key for upload in left] == ["blobs/big"]
    await store.abort_uploads(left)
    assert [upload async for upload in store.unfinished_uploads()] == []
    assert [info async for info in store.list()] == []
    await store.aclose()


@CLIENTS
async def test_r06_a_look_that_is_refused_says_why_though_its_answer_has_no_body(
    client: str, s3_url: str, seaweedfs: ServerAddress
) -> None:
    faults = Faults(1.0, ("400:ExpiredToken",))
    async with fault_proxy(seaweedfs.endpoint_url, faults) as url:
        store = open_s3(s3_url, Config(s3_client=client, s3_endpoint_url=url))
        with pytest.raises(StoreDeniedError, match="ExpiredToken"):
            await store.stat("k")
        await store.aclose()
    assert faults.requests == 2


@CLIENTS
async def test_r06_a_bucket_that_is_not_there_is_told_by_the_first_read(client: str) -> None:
    store = open_s3("s3://no-such-bucket", Config(s3_client=client))
    with pytest.raises(StoreSettingError, match="NoSuchBucket"):
        await store.get("k")
    with pytest.raises(StoreSettingError, match="NoSuchBucket"):
        await store.check()
    await store.aclose()


async def test_r06_no_credentials_at_all_are_told_as_that(
    s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    error = await _write_error(open_s3(s3_url, Config()))
    assert isinstance(error, StoreDeniedError)
    assert "aws sso login" in str(error.hint)
