"""A task asks for a blob that its machine lacks; a killed driver leaves no socket."""

import asyncio
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import BlobNotFoundError, StoreUnavailableError
from engine.stores.remote.ask import asker
from engine.stores.remote.broker import PREFIX, SOCKET, broker

DIGEST = "ab" * 32


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What the machine calls its directory for temporary files; short, as it mostly is."""
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


async def asked(outcome: Exception | None) -> None:
    async def fetch(digest: str) -> None:
        assert digest == DIGEST
        if outcome:
            raise outcome

    async with broker(fetch) as path:
        await asyncio.to_thread(asker(path), DIGEST)


async def test_who_asks_is_told_how_it_went() -> None:
    await asked(None)
    with pytest.raises(BlobNotFoundError):
        await asked(BlobNotFoundError(DIGEST))
    with pytest.raises(StoreUnavailableError, match="the bucket is on fire"):
        await asked(StoreUnavailableError("the bucket is on fire"))


async def test_a_long_name_of_the_temporary_directory_is_in_nobodys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("long" * 30)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    await asked(None)


async def test_the_socket_of_a_killed_driver_is_removed_and_that_of_another_is_not(
    temporary: Path,
) -> None:
    dead = temporary / f"{PREFIX}dead"
    dead.mkdir()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(os.fspath(dead / SOCKET))
    beginning = temporary / f"{PREFIX}beginning"
    beginning.mkdir()
    os.utime(dead, (0, 0))
    async with broker(_nothing) as alive:
        os.utime(os.path.dirname(alive), (0, 0))
        await asked(None)
        assert os.path.basename(os.path.dirname(alive)) in os.listdir(temporary)
    assert os.listdir(temporary) == [beginning.name]


async def _nothing(digest: str) -> None:
    pass
