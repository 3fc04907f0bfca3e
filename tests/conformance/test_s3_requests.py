"""What goes over the wire to S3: what is asked for in the settings, and checksums."""

import base64
import hashlib

import pytest

from engine.config import Config
from engine.errors import StoreDeniedError
from engine.stores.s3.store import open_s3
from engine.testing.fault_proxy import Faults, fault_proxy
from engine.testing.servers import ServerAddress

CLIENTS = pytest.mark.parametrize("client", ["obstore", "aioboto3"])


async def heads_of(config: Config, server: ServerAddress, size: int = 1) -> list[str]:
    """The heads of the requests of a put and a get; all are refused."""
    faults = Faults(1.0, ("403:AccessDenied",))
    async with fault_proxy(server.endpoint_url, faults) as url:
        store = open_s3("s3://bucket-of-others/p", config.replace(s3_endpoint_url=url))
        with pytest.raises(StoreDeniedError):
            await store.put("k", (bytes(size),), if_absent=True)
        with pytest.raises(StoreDeniedError):
            await store.get("k")
        await store.aclose()
    return faults.heads


@pytest.fixture(autouse=True)
def _credentials(seaweedfs: ServerAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in seaweedfs.variables.items():
        monkeypatch.setenv(name, value)


@CLIENTS
async def test_a_plain_put_is_conditional_signed_and_has_a_checksum(
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
        assert "x-amz-checksum-crc64nvme: " in put
    assert f"x-amz-content-sha256: {sha256.hexdigest()}" in put
    assert "range: bytes=0-" in get


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
