"""Blobs in a local directory: whole or not there, and what is read is what was written."""

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import (
    BlobCorruptError,
    BlobNotFoundError,
    StoreAccessError,
    StoreError,
)
from engine.stores import directory as directory_module
from engine.stores.directory import BlobDirectory
from engine.stores.layout import Layout
from engine.stores.manifest import FileIdentity
from tests.unit.stores.conftest import blob_files
from tests.unit.stores.faulty import FaultyCalls, small_disk

LARGE = directory_module.PIPELINE_MIN_BYTES + 12_345
MAPPED = directory_module.MAP_MIN_BYTES


def large(seed: int = 0) -> bytes:
    return blake3(b"%d" % seed).digest(LARGE)


def temporary(layout: Layout) -> list[str]:
    return os.listdir(layout.blobs / "tmp")


@pytest.mark.parametrize("size", [0, 1, 4096, MAPPED - 1, MAPPED, MAPPED + 1, LARGE])
def test_bytes_come_back_by_their_digest(directory: BlobDirectory, size: int) -> None:
    data = blake3(b"seed").digest(size) if size else b""
    digest, identity = directory.write([data])
    assert digest == blake3(data).hexdigest()
    assert identity.size_bytes == size
    assert directory.read(digest) == data
    assert directory.map(digest, identity) == data
    assert directory.map(digest) == data
    assert directory.exists(digest)
    assert directory.size(digest) == size


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_parts_are_stored_as_their_concatenation(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes]
) -> None:
    root = tmp_path_factory.mktemp("blobs")
    (root / "tmp").mkdir()
    store = BlobDirectory(str(root))
    digest, _ = store.write(parts)
    assert store.read(digest) == b"".join(parts)
    assert digest == blake3(b"".join(parts)).hexdigest()


def test_large_parts_of_any_format_are_hashed_while_written(directory: BlobDirectory) -> None:
    data = large()
    even = memoryview(data[: LARGE // 8 * 8]).cast("d")
    digest, _ = directory.write([b"head", even, b"", memoryview(b"tail").toreadonly()])
    assert directory.read(digest) == b"head" + bytes(even.cast("B")) + b"tail"


def test_a_digest_that_is_given_is_not_computed(directory: BlobDirectory) -> None:
    data = large()
    digest = blake3(data).hexdigest()
    assert directory.write([data], digest)[0] == digest
    directory.verify(digest)


def test_equal_bytes_are_written_once(layout: Layout) -> None:
    for data in (b"small" * 100, large()):
        first, identity = layout.blob_directory().write([data])
        again, found = layout.blob_directory().write([data])
        assert (first, identity) == (again, found)
    assert len(blob_files(layout)) == 2
    assert temporary(layout) == []


def test_writing_replaces_a_damaged_blob(layout: Layout, damage: Callable[[Path], None]) -> None:
    for data in (b"small" * 100, large()):
        digest, _ = layout.blob_directory().write([data])
        damage(layout.blobs / digest[:2] / digest)
        _, identity = layout.blob_directory().write([data])
        assert layout.blob_directory().map(digest, identity) == data


@pytest.mark.parametrize("size", [1000, MAPPED * 2])
def test_damage_is_found_before_the_bytes_are_used(
    layout: Layout, damage: Callable[[Path], None], size: int
) -> None:
    digest, identity = layout.blob_directory().write([blake3(b"x").digest(size)])
    damage(layout.blobs / digest[:2] / digest)
    for read in ("read", "map", "verify", "check"):
        with pytest.raises((BlobCorruptError, BlobNotFoundError)) as caught:
            getattr(layout.blob_directory(), read)(digest)
        assert digest[:12] in str(caught.value)
    with pytest.raises((BlobCorruptError, BlobNotFoundError)):
        layout.blob_directory().map(digest, identity)
    with pytest.raises((BlobCorruptError, BlobNotFoundError)):
        layout.blob_directory().check(digest, identity)


def test_a_file_that_is_the_one_that_was_hashed_is_not_hashed_again(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = blake3(b"x").digest(MAPPED * 4)
    digest, identity = layout.blob_directory().write([data])
    reads: list[int] = []
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda *args: reads.append(1) or preadv(*args))
    fresh = layout.blob_directory()
    fresh.map(digest, identity)
    fresh.map(digest)
    assert not reads
    layout.blob_directory().map(digest)
    assert reads
    reads.clear()
    layout.blob_directory(verify="always").map(digest, identity)
    assert reads


def test_a_copied_blob_is_hashed_once_by_a_process(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, identity = layout.blob_directory().write([blake3(b"x").digest(MAPPED)])
    path = layout.blobs / digest[:2] / digest
    copy = path.read_bytes()
    path.unlink()
    path.write_bytes(copy)
    fresh = layout.blob_directory()
    assert fresh.map(digest, identity) == copy
    monkeypatch.setattr(os, "preadv", None)
    assert fresh.map(digest, identity) == copy


def test_changes_to_a_mapping_reach_neither_the_file_nor_others(directory: BlobDirectory) -> None:
    data = blake3(b"x").digest(MAPPED * 2)
    digest, identity = directory.write([data])
    mine = directory.map(digest, identity)
    mine[:5] = b"mine!"
    assert directory.map(digest, identity) == data
    assert directory.read(digest) == data


def test_a_mapping_outlives_its_blob(layout: Layout) -> None:
    directory = layout.blob_directory()
    data = blake3(b"x").digest(MAPPED * 2)
    digest, identity = directory.write([data])
    view = directory.map(digest, identity)
    blob_files(layout)[0].unlink()
    assert view == data


def test_more_blobs_than_file_handles_can_be_held(
    directory: BlobDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
    try:
        blobs = [directory.write([blake3(b"%d" % n).digest(MAPPED)]) for n in range(200)]
        views = [directory.map(*blob) for blob in blobs]
        with open("/dev/null"):  # the user's own files still open
            assert [view[:32] for view in views] == [
                blake3(b"%d" % n).digest(32) for n in range(200)
            ]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    "digest",
    ["", "abc", "../" * 20, "/etc/passwd", "A" * 64, "g" * 64, "ab" * 31 + "/x", "0" * 63 + "\n"],
)
def test_what_is_no_digest_is_no_path(directory: BlobDirectory, digest: str) -> None:
    for call in (directory.read, directory.map, directory.exists, directory.size):
        with pytest.raises(StoreError, match="not a digest"):
            call(digest)


def test_a_missing_blob_is_named(directory: BlobDirectory) -> None:
    digest = "0" * 64
    assert not directory.exists(digest)
    assert directory.size(digest) is None
    with pytest.raises(BlobNotFoundError, match=digest):
        directory.read(digest)
    with pytest.raises(BlobNotFoundError):
        directory.map(digest)


def test_files_are_private_to_their_owner(layout: Layout) -> None:
    old = os.umask(0)
    try:
        layout.blob_directory().write([b"secret"])
    finally:
        os.umask(old)
    (blob,) = blob_files(layout)
    assert stat.S_IMODE(blob.stat().st_mode) == 0o600
    assert stat.S_IMODE(blob.parent.stat().st_mode) == 0o700


def test_a_symbolic_link_is_not_followed(layout: Layout, tmp_path: Path) -> None:
    directory = layout.blob_directory()
    digest, identity = directory.write([b"data"])
    path = layout.blobs / digest[:2] / digest
    (tmp_path / "elsewhere").write_bytes(b"data")
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreAccessError, match="symbolic"):
        layout.blob_directory().map(digest, identity)
    with pytest.raises(StoreAccessError, match="symbolic"):
        layout.blob_directory().write([b"data"])


# -- what the file system refuses -----------------------------------------------------------------


@pytest.mark.parametrize("data", [b"small" * 1000, large()], ids=["small", "large"])
@pytest.mark.parametrize("durability", ["process", "power"])
def test_a_refusal_at_any_call_leaves_nothing_behind(
    layout: Layout, data: bytes, durability: str
) -> None:
    errors: list[StoreAccessError] = []
    written = None
    while written is None:
        directory = layout.blob_directory(durability=durability)
        with FaultyCalls(len(errors), errno.EIO).active():
            try:
                written = directory.write([data])
            except StoreAccessError as error:
                errors.append(error)
        assert temporary(layout) == []
        for path in blob_files(layout):  # whole, if the fault came after the rename
            assert path.read_bytes() == data
            if written is None:
                path.unlink()
    assert len(errors) > 4
    assert all(error.retryable and str(layout.blobs) in error.message for error in errors)
    assert layout.blob_directory().map(*written) == data


@pytest.mark.parametrize("size", [100_000, 8 << 20])
def test_a_full_disk_is_told_with_need_and_room(tmp_path: Path, size: int) -> None:
    with small_disk(tmp_path / "disk", 4 << 20) as disk:
        root = disk / "blobs"
        (root / "tmp").mkdir(parents=True)
        directory = BlobDirectory(str(root))
        kept: list[tuple[str, FileIdentity]] = []

        def fill() -> None:
            while True:
                kept.append(directory.write([blake3(b"%d" % len(kept)).digest(size)]))

        with pytest.raises(StoreAccessError) as caught:
            fill()
        error = caught.value
        assert error.need_bytes == size
        assert error.free_bytes is not None
        assert f"{size:,} bytes are needed, {error.free_bytes:,} are free" in error.message
        assert str(root) in error.message
        assert error.hint is not None
        assert "--datastore" in error.hint
        assert os.listdir(root / "tmp") == []
        for n, (digest, identity) in enumerate(kept):
            assert directory.map(digest, identity) == blake3(b"%d" % n).digest(size)
        for path in root.glob("??/*"):
            path.unlink()
        directory.write([b"room again"])


def test_too_many_open_files_are_told_with_a_hint(directory: BlobDirectory) -> None:
    digest, _ = directory.write([b"x"])
    with FaultyCalls(0, errno.EMFILE).active():
        with pytest.raises(StoreAccessError, match="Too many open files") as caught:
            directory.read(digest)
        with pytest.raises(StoreAccessError, match="Too many open files"):
            directory.write([b"y"])
    assert caught.value.hint is not None
    assert "ulimit" in caught.value.hint


def test_a_file_size_limit_is_told(layout: Layout) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(StoreAccessError, match="File too large"):
            layout.blob_directory().write([large()])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert temporary(layout) == []


def test_a_killed_writer_leaves_no_blob(layout: Layout) -> None:
    program = (
        "import os, signal, sys\n"
        "from engine.stores.directory import BlobDirectory\n"
        "rename = os.rename\n"
        "os.rename = lambda *args: os.kill(os.getpid(), signal.SIGKILL)\n"
        "BlobDirectory(sys.argv[1]).write([b'x' * 10_000_000])\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(layout.blobs)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert blob_files(layout) == []


def test_writers_of_the_same_bytes_at_once_agree(layout: Layout) -> None:
    data = large()
    results: list[str] = []

    def write() -> None:
        results.append(layout.blob_directory().write([data])[0])

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [blake3(data).hexdigest()] * 8
    assert len(blob_files(layout)) == 1
    assert temporary(layout) == []
    assert layout.blob_directory().read(results[0]) == data


@settings(max_examples=25)
@given(st.binary(max_size=3000), st.integers(0, 2**32), st.integers(1, 255))
def test_any_changed_byte_is_found(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, at: int, xor: int
) -> None:
    root = tmp_path_factory.mktemp("blobs")
    (root / "tmp").mkdir()
    data += b"."
    digest, identity = BlobDirectory(str(root)).write([data])
    path = root / digest[:2] / digest
    changed = bytearray(data)
    changed[at % len(data)] ^= xor
    path.write_bytes(changed)
    with pytest.raises(BlobCorruptError):
        BlobDirectory(str(root)).map(digest, identity)


def test_memory_of_verified_files_is_bounded(
    directory: BlobDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(10):
        directory.write([b"%d" % n])
    assert len(directory._verified) == 10
    monkeypatch.setattr(directory_module, "_VERIFIED_MAX", 10)
    directory.write([b"one more"])
    assert len(directory._verified) == 1


def test_the_workers_half_imports_no_event_loop_and_no_numpy() -> None:
    program = (
        "import sys\n"
        "before = set(sys.modules)\n"  # under coverage there are some
        "import engine.stores.artifacts, engine.stores.taskspec\n"
        "heavy = {'asyncio', 'numpy', 'pyarrow', 'cloudpickle', 'zstandard', 'sqlite3', 'click'}\n"
        "print(sorted(heavy & sys.modules.keys() - before))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == b"[]\n"
