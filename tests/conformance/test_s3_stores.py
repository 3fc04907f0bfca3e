"""The store in S3 keeps the laws of its seam, whoever sends the requests, on either server."""

from pathlib import Path

import pytest

from engine.config import Config
from engine.stores.s3.store import S3BlobStore, open_s3
from engine.testing.servers import ServerAddress
from engine.testing.store_contract import BlobStoreContract


class _S3Contract(BlobStoreContract):
    client: str

    @pytest.fixture(autouse=True)
    def _at(self, s3_url: str, server: ServerAddress, monkeypatch: pytest.MonkeyPatch) -> None:
        self.url = s3_url
        for name, value in server.variables.items():
            monkeypatch.setenv(name, value)

    async def make(self, tmp_path: Path) -> S3BlobStore:
        return open_s3(self.url, Config(s3_client=self.client))


class _OnSeaweedFS(_S3Contract):
    @pytest.fixture
    def server(self, seaweedfs: ServerAddress) -> ServerAddress:
        return seaweedfs


class TestObstoreOnSeaweedFS(_OnSeaweedFS):
    client = "obstore"


class TestAioboto3OnSeaweedFS(_OnSeaweedFS):
    client = "aioboto3"


class TestObstoreOnMoto(_S3Contract):
    client = "obstore"

    @pytest.fixture
    def server(self, moto: ServerAddress) -> ServerAddress:
        return moto
