"""S3 servers for tests: one of each kind for the whole session, with a bucket; started when first
asked for."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from engine.aws.sessions import AwsSession
from engine.config import Config
from engine.errors import BlobNotFoundError
from engine.stores.s3.store import open_s3
from engine.testing.servers import ServerAddress, shared_server

BUCKET = "aflow-tests"


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerAddress]:
    with _server("seaweedfs", tmp_path_factory) as address:
        yield address


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerAddress]:
    with _server("moto", tmp_path_factory) as address:
        yield address


@pytest.fixture
def s3_url(tmp_path: Path) -> str:
    """A place of the test's own in the bucket that each server has."""
    return f"s3://{BUCKET}/{tmp_path.parent.name}/{tmp_path.name}"


@contextmanager
def _server(kind: str, factory: pytest.TempPathFactory) -> Iterator[ServerAddress]:
    base = factory.getbasetemp()
    # The workers of pytest-xdist have folders of their own below that of the session.
    folder = base.parent if base.name.startswith("popen-") else base
    with shared_server(kind, folder) as address:
        asyncio.run(make_bucket(address))
        yield address


async def make_bucket(address: ServerAddress) -> None:
    """Also starts the threads of obstore, which stay as long as the process."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in address.variables.items():
            patch.setenv(name, value)
        session = AwsSession(Config())
        try:
            client = await session.client("s3")
            with suppress(client.exceptions.ClientError):  # another worker has made it
                await client.create_bucket(Bucket=BUCKET)
            store = open_s3(f"s3://{BUCKET}", Config(), session=session)
            with pytest.raises(BlobNotFoundError):
                await store.get("nothing")
            await store.aclose()
        finally:
            await session.aclose()
