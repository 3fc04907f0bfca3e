"""Servers for tests: one of each kind for the whole session, with a bucket; started when first
asked for."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from engine.aws.sessions import AwsSession
from engine.config import Config
from engine.errors import BlobNotFoundError
from engine.stores.s3.store import open_s3
from engine.testing.servers import ACCESS_KEY, SECRET_KEY, ServerAddress, shared_server

BUCKET = "aflow-tests"
QUEUE = "aflow-tests"
BATCH_OPTIONS = (
    *("--queue", QUEUE, "--delay", "0.01", "--time-scale", "0.01", "--rate", "100000"),
    *("--env", f"AWS_ACCESS_KEY_ID={ACCESS_KEY}", "--env", f"AWS_SECRET_ACCESS_KEY={SECRET_KEY}"),
)
"""A minute of Batch's, its shortest time-out, takes 0.6 s; a job passes its states in 0.05 s."""


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerAddress]:
    with _server("seaweedfs", tmp_path_factory) as address:
        yield address


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerAddress]:
    with _server("moto", tmp_path_factory) as address:
        yield address


@pytest.fixture(scope="session")
def batch_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerAddress]:
    """AWS Batch whose jobs run, with the queue QUEUE, and the rest of AWS, with the bucket BUCKET.

    Whoever wants faults has to name jobs of its own in them: others share this emulator.
    """
    # Containers that share a file system unpack aflow once.
    cache = f"AFLOWJOB_CACHE={_shared_folder(tmp_path_factory)}"
    with _server("batch", tmp_path_factory, (*BATCH_OPTIONS, "--env", cache)) as address:
        yield address


@pytest.fixture
def s3_url(tmp_path: Path) -> str:
    """A place of the test's own in the bucket that each server has."""
    return f"s3://{BUCKET}/{tmp_path.parent.name}/{tmp_path.name}"


@contextmanager
def _server(
    kind: str, factory: pytest.TempPathFactory, options: Sequence[str] = ()
) -> Iterator[ServerAddress]:
    with shared_server(kind, _shared_folder(factory), options=options) as address:
        asyncio.run(make_bucket(address))
        yield address


def _shared_folder(factory: pytest.TempPathFactory) -> Path:
    """The session's: the workers of pytest-xdist have folders of their own below it."""
    base = factory.getbasetemp()
    return base.parent if base.name.startswith("popen-") else base


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
