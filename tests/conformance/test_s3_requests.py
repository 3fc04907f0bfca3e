"""What goes over the wire to S3: what is asked for in the settings, and checksums."""

import base64
import errno
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from engine.aws.sessions import AwsSession
from engine.config import Config
from engine.errors import StoreDeniedError, StoreUnavailableError
from engine.stores.base import Buffer
from engine.stores.s3 import requests as ask
from engine.stores.s3.place import S3Place
from engine.stores.s3.sdk import SdkSender
from engine.stores.s3.store import bulk_sender, open_s3
from engine.testing.fault_proxy import Faults, fault_proxy
from engine.testing.servers import ServerAddress

CLIENTS = pytest.mark.parametrize("client", ["obstore", "aioboto3"])


async def heads_of(
    config: Config, server: ServerAddress, size: int = 1, *, if_absent: bool = True
) -> list[str]:
    """The heads of the requests of a put and a get; all are refused."""
    faults = Faults(1.0, ("403:AccessDenied",))
    async with fault_proxy(server.endpoint_url, faults) as url:
        store = open_s3("s3://bucket-of-others/p", config.replace(s3_endpoint_url=url))
        with pytest.raises(StoreDeniedError):
            await store.put("k", (bytes(size),), if_absent=if_absent)
        with pytest.raises(StoreDeniedError):
            await store.get("k")
        await store.aclose()
    return faults.heads


@pytest.fixture(autouse=True)
def _credentials(seaweedfs: ServerAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in seaweedfs.variables.items():
        monkeypatch.setenv(name, value)


@CLIENTS
async def test_a_plain_put_is_conditional_and_its_body_is_signed(
    client: str, seaweedfs: ServerAddress
) -> None:
    put, get = await heads_of(Config(s3_client=client), seaweedfs)
    assert put.startswith("put /bucket-of-others/p/k ")
    assert "if-none-match: *\r\n" in put
    assert "x-amz-meta-aflow-writer: " in put
    assert "authorization: aws4-hmac-sha256" in put
    sha256 = hashlib.sha256(b"\0")
    if client == "aioboto3":
        assert base64.b64encode(sha256.digest()).decode().lower() in put
    else:
        assert "x-amz-checksum" not in put  # one digest is enough
    assert f"x-amz-content-sha256: {sha256.hexdigest()}" in put
    assert "range: bytes=0-" in get


@CLIENTS
async def test_a_put_without_a_condition_says_nothing_of_its_writer(
    client: str, seaweedfs: ServerAddress
) -> None:
    put, _ = await heads_of(Config(s3_client=client), seaweedfs, if_absent=False)
    assert "if-none-match" not in put
    assert "x-amz-meta" not in put
    assert f"x-amz-content-sha256: {hashlib.sha256(bytes(1)).hexdigest()}" in put


@CLIENTS
@pytest.mark.parametrize("size", [1, 17 << 20])
async def test_encryption_and_who_pays_are_said_with_each_request(
    client: str, size: int, seaweedfs: ServerAddress
) -> None:
    config = Config(
        s3_client=client,
        s3_encryption="aws:kms",
        s3_kms_key="alias/mine",
        s3_requester_pays=True,
        s3_region="eu-west-3",
    )
    put, get = await heads_of(config, seaweedfs, size)
    assert "x-amz-server-side-encryption: aws:kms\r\n" in put
    assert "x-amz-server-side-encryption-aws-kms-key-id: alias/mine\r\n" in put
    for head in (put, get):
        assert "x-amz-request-payer: requester\r\n" in head
        assert "/eu-west-3/s3/aws4_request" in head


@asynccontextmanager
async def bare_sender(
    url: str, config: Config, session: type[AwsSession] = AwsSession
) -> AsyncIterator[ask.Sender]:
    """One that tries once."""
    place, aws = S3Place.parse(url), session(config)
    try:
        yield bulk_sender(place, aws, config, SdkSender(place, aws, config))
    finally:
        await aws.aclose()


async def test_a_part_is_signed_with_its_checksum_and_not_hashed_again(
    s3_url: str, seaweedfs: ServerAddress
) -> None:
    body = bytes(5 << 20)
    checksum = base64.b64encode(hashlib.sha256(body).digest()).decode()
    faults = Faults(0.0)
    async with fault_proxy(seaweedfs.endpoint_url, faults) as url:
        config = Config(s3_endpoint_url=url, s3_requester_pays=True)
        async with bare_sender(s3_url, config) as sender:
            upload_id = await sender.send(ask.BeginUpload(key="k", writer="w"))
            part = ask.PutPart(key="k", upload_id=upload_id, number=1, body=body)
            assert (await sender.send(part)).endswith(f" {checksum}")
            await sender.send(ask.AbortUpload(key="k", upload_id=upload_id))
    head = faults.heads[1]
    assert head.startswith("put ")
    assert "x-amz-algorithm=aws4-hmac-sha256" in head
    assert "host%3bx-amz-checksum-sha256%3bx-amz-request-payer&" in head
    assert f"x-amz-checksum-sha256: {checksum.lower()}\r\n" in head
    assert "x-amz-content-sha256" not in head
    assert f"content-length: {len(body)}\r\n" in head


async def test_a_part_that_changes_after_it_was_hashed_is_refused(
    s3_url: str, seaweedfs: ServerAddress
) -> None:
    body = bytearray(b"as it was")

    class Changing(AwsSession):
        async def client(self, service: str) -> object:  # asked for between hashing and sending
            body[0] += 1
            return await super().client(service)

    async with bare_sender(s3_url, Config(), Changing) as sender:
        upload_id = await sender.send(ask.BeginUpload(key="k", writer="w"))
        part = ask.PutPart(key="k", upload_id=upload_id, number=1, body=body)
        with pytest.raises(StoreUnavailableError, match="BadDigest"):
            await sender.send(part)
        await sender.send(ask.AbortUpload(key="k", upload_id=upload_id))


@CLIENTS
async def test_an_error_of_who_takes_the_bytes_is_no_failure_of_s3(
    client: str, s3_url: str, seaweedfs: ServerAddress
) -> None:
    def full(at: int, body: Buffer) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    faults = Faults(0.0)
    async with fault_proxy(seaweedfs.endpoint_url, faults) as url:
        store = open_s3(s3_url, Config(s3_client=client, s3_endpoint_url=url))
        await store.put("k", (bytes(3 << 20),))
        with pytest.raises(OSError, match="no space") as caught:
            await store._sender.send(ask.Get(key="k", start=0, length=3 << 20, sink=full))
        await store.aclose()
    assert caught.value.errno == errno.ENOSPC
    assert len(faults.heads) == 2
