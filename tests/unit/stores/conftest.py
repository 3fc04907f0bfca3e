"""A datastore for each store test, and damage to do to it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from engine.stores.directory import BlobDirectory
from engine.stores.layout import Layout, create_layout

settings.register_profile("files", deadline=None)  # an example waits for a disk; tests have limits
settings.load_profile("files")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return create_layout(tmp_path / "store")


@pytest.fixture
def directory(layout: Layout) -> BlobDirectory:
    return layout.blob_directory()


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _empty(path: Path) -> None:
    os.truncate(path, 0)


def _grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0")


def _swap(path: Path) -> None:
    """The bytes of another blob, sound in itself."""
    path.write_bytes(b"another blob" * 10_000)


DAMAGE: dict[str, Callable[[Path], None]] = {
    "truncated": _truncate,
    "flipped": _flip,
    "emptied": _empty,
    "grown": _grow,
    "swapped": _swap,
    "removed": os.unlink,
}


@pytest.fixture(params=DAMAGE)
def damage(request: pytest.FixtureRequest) -> Callable[[Path], None]:
    def do(path: Path) -> None:
        DAMAGE[request.param](path)
        if path.exists():  # before Linux 6.13 a change within a tick (10 ms) left the times alone
            os.utime(path, ns=(0, path.stat().st_mtime_ns + 10_000_000))

    return do


def blob_files(layout: Layout) -> list[Path]:
    return sorted(p for p in layout.blobs.glob("??/*") if p.is_file())
