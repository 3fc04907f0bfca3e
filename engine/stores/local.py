"""A BlobStore in a local directory: keys are paths. Every call runs in a thread.

A blob is written under a temporary name in blobs/tmp and renamed, or, `if_absent`, linked, which
fails when the name is taken; so a reader sees a whole blob or none. Temporary names are no keys.
"""

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path

from engine import crashpoints
from engine.errors import BlobNotFoundError, StoreError
from engine.stores.access import access_error
from engine.stores.base import BlobInfo, Buffer
from engine.stores.directory import byte_views, sync_directory, write_all
from engine.stores.keys import checked_key
from engine.stores.temporary import new_file

PAGE = 500
_TEMPORARY = "blobs/tmp"


class LocalBlobStore:
    """Blobs under `root`, the root of a datastore."""

    def __init__(self, root: Path, *, durability: str = "process") -> None:
        self._root = str(root)
        self._temporary = os.path.join(self._root, _TEMPORARY)
        self._power = durability == "power"

    async def get(self, key: str) -> bytes:
        return await asyncio.to_thread(self._get, key, 0, None)

    async def get_range(self, key: str, start: int, length: int) -> bytes:
        return await asyncio.to_thread(self._get, key, start, length)

    async def put(self, key: str, parts: Sequence[Buffer], *, if_absent: bool = False) -> bool:
        views = byte_views(parts)
        size = sum(view.nbytes for view in views)
        fill = partial(write_all, views=views)
        return await asyncio.to_thread(self._put, key, fill, size, if_absent)

    async def get_to_file(self, key: str, fd: int) -> int:
        return await asyncio.to_thread(self._get_to_file, key, fd)

    async def put_file(self, key: str, fd: int, *, if_absent: bool = False) -> bool:
        size = os.fstat(fd).st_size
        fill = partial(_copy, fd, size)
        return await asyncio.to_thread(self._put, key, fill, size, if_absent)

    async def stat(self, key: str) -> BlobInfo | None:
        return await asyncio.to_thread(self._stat, key)

    async def list(self, prefix: str = "") -> AsyncIterator[BlobInfo]:
        found = self._walk("", prefix)
        while page := await asyncio.to_thread(lambda: list_page(found)):
            for info in page:
                yield info

    async def delete(self, keys: Collection[str]) -> None:
        await asyncio.to_thread(self._delete, keys)

    async def aclose(self) -> None:
        """Nothing stays open between calls."""

    def _path(self, key: str) -> str:
        return os.path.join(self._root, checked_key(key))

    def _get(self, key: str, start: int, length: int | None) -> bytes:
        path = self._path(key)
        with _errors(path, "read", key):
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                size = os.fstat(fd).st_size
                os.lseek(fd, start, os.SEEK_SET)
                return _read_up_to(fd, size if length is None else length)
            finally:
                os.close(fd)

    def _get_to_file(self, key: str, fd: int) -> int:
        path = self._path(key)
        with _errors(path, "read", key):
            source = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                size = os.fstat(source).st_size
                os.lseek(fd, 0, os.SEEK_SET)
                _copy(source, size, fd)
                return size
            finally:
                os.close(source)

    def _put(self, key: str, fill: Callable[[int], None], size: int, if_absent: bool) -> bool:
        """`fill` writes the blob, of `size` bytes, to a descriptor."""
        path = self._path(key)
        with _errors(path, "write", key, size):
            if if_absent and os.path.lexists(path):
                return False
            self._make_folders(os.path.dirname(path))
            self._make_folders(self._temporary)
            with new_file(self._temporary) as (fd, name):
                fill(fd)
                if self._power:
                    os.fsync(fd)
                crashpoints.BLOB_BEFORE_RENAME.passed()
                if if_absent:
                    try:
                        os.link(name, path, follow_symlinks=False)
                    except FileExistsError:
                        return False
                else:
                    os.rename(name, path)
                crashpoints.BLOB_AFTER_RENAME.passed()
            if self._power:
                sync_directory(os.path.dirname(path))
            return True

    def _make_folders(self, folder: str) -> None:
        if os.path.isdir(folder):
            return
        self._make_folders(os.path.dirname(folder))
        with suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        if self._power:
            sync_directory(os.path.dirname(folder))

    def _stat(self, key: str) -> BlobInfo | None:
        path = self._path(key)
        try:
            found = os.stat(path, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise access_error(error, path, "read") from error
        if not stat.S_ISREG(found.st_mode):
            return None
        return BlobInfo(key, found.st_size, found.st_mtime_ns // 1000)

    def _delete(self, keys: Collection[str]) -> None:
        for key in keys:
            path = self._path(key)
            try:
                os.unlink(path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise access_error(error, path, "delete") from error

    def _walk(self, folder: str, prefix: str) -> Iterator[BlobInfo]:
        """Keys in order: a directory sorts as its name with a slash, as its keys do."""
        path = os.path.join(self._root, folder)
        try:
            with os.scandir(path) as entries:
                names = sorted(
                    (f"{folder}{e.name}/" if e.is_dir(follow_symlinks=False) else folder + e.name)
                    for e in entries
                )
        except FileNotFoundError:
            return
        except OSError as error:
            raise access_error(error, path, "list") from error
        for name in names:
            if name.endswith("/"):
                if name != f"{_TEMPORARY}/" and (
                    name.startswith(prefix) or prefix.startswith(name)
                ):
                    yield from self._walk(name, prefix)
            elif name.startswith(prefix) and (info := self._stat(name)):
                yield info


def list_page(found: Iterator[BlobInfo]) -> list[BlobInfo]:
    return list(islice(found, PAGE))


def _read_up_to(fd: int, length: int) -> bytes:
    parts = []
    while length > 0 and (data := os.read(fd, length)):
        parts.append(data)
        length -= len(data)
    return b"".join(parts)


def _copy(source: int, size: int, fd: int) -> None:
    """Write all of one file to where another's descriptor stands."""
    start = 0
    while start < size:
        copied = os.sendfile(fd, source, start, size - start)
        if not copied:
            raise StoreError("a file became shorter while it was stored")
        start += copied


@contextmanager
def _errors(path: str, doing: str, key: str, need_bytes: int | None = None) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        if need_bytes is None:
            raise BlobNotFoundError(key) from error
        raise access_error(error, path, doing, need_bytes) from error
    except OSError as error:
        raise access_error(error, path, doing, need_bytes) from error
