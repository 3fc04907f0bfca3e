"""Which puts of blobs are conditional, and that none of them replaces a sound blob by another."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from engine.errors import BlobCorruptError
from engine.stores.base import Buffer
from engine.stores.cas import blob_key
from engine.stores.directory import BlobDirectory, digest_of
from engine.stores.memory import MemoryBlobStore
from engine.stores.remote.uploads import SMALL_BYTES, Uploads, Wanted
from tests.unit.stores.remote.machines import now_us

SMALL, LARGE = bytes(SMALL_BYTES), bytes(SMALL_BYTES + 1)


class WatchedStore(MemoryBlobStore):
    """Remembers of each put whether it was conditional."""

    def __init__(self) -> None:
        super().__init__(now_us)
        self.conditional: list[bool] = []

    async def put(self, key: str, parts: Sequence[Buffer], *, if_absent: bool = False) -> bool:
        self.conditional.append(if_absent)
        return await super().put(key, parts, if_absent=if_absent)


def cached(folder: Path, data: bytes) -> tuple[BlobDirectory, str]:
    """A directory that holds `data`, and its digest."""
    digest = digest_of([data])
    directory = BlobDirectory(str(folder))
    path = Path(directory.path(digest))
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    return directory, digest


@pytest.mark.parametrize(("data", "is_conditional"), [(SMALL, False), (LARGE, True)])
async def test_only_a_blob_that_is_read_by_ranges_is_put_on_condition(
    tmp_path: Path, data: bytes, is_conditional: bool
) -> None:
    directory, digest = cached(tmp_path, data)
    store = WatchedStore()
    uploads = Uploads(store, directory)
    await uploads.ensure(bytes.fromhex(digest), Wanted())
    await uploads.ensure(bytes.fromhex(digest), Wanted())  # known: not put again
    assert store.conditional == [is_conditional]
    assert await store.get(blob_key(digest)) == data


async def test_a_damaged_small_blob_is_mended_by_who_has_it(tmp_path: Path) -> None:
    directory, digest = cached(tmp_path, SMALL)
    store = WatchedStore()
    await store.put(blob_key(digest), (b"damaged",))
    await Uploads(store, directory).ensure(bytes.fromhex(digest), Wanted())
    assert await store.get(blob_key(digest)) == SMALL


def rot(path: str) -> None:
    """Change a file's first byte, and none of its times that can be set."""
    times = os.stat(path)
    with open(path, "r+b") as file:
        file.write(b"1")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


async def test_a_file_that_rotted_replaces_no_sound_blob(tmp_path: Path) -> None:
    directory, digest = cached(tmp_path, SMALL)
    directory.check(digest)  # what this process remembers of the file must not count
    rot(directory.path(digest))
    store = WatchedStore()
    await store.put(blob_key(digest), (SMALL,))
    with pytest.raises(BlobCorruptError):
        await Uploads(store, directory).ensure(bytes.fromhex(digest), Wanted())
    assert await store.get(blob_key(digest)) == SMALL
