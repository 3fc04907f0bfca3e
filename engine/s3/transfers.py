"""Moves objects between S3 and local files: one bucket at a time, one object at a time."""

import asyncio
import io
import itertools
import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any, BinaryIO

from msgspec import Struct

from engine.aws.sessions import AwsSession
from engine.config import Config
from engine.errors import BlobNotFoundError
from engine.s3.errors import S3ContentError, S3RangeError
from engine.s3.joined import both
from engine.s3.objects import Content, Facts, Found, RangeInfo, S3GetObject, S3PutObject, Traits
from engine.s3.roots import Bucket, Location
from engine.s3.sender import Describe, ListFolder, ObjectSender, WithTraits
from engine.stores.s3.pacing import Pace, PacedSender
from engine.stores.s3.room import Room
from engine.stores.s3.store import S3BlobStore

MIB = 1 << 20
_CHUNK_BYTES = 64 * MIB
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")
_NAME_MAX = 60


def _remove_own(directory: str, pid: int) -> None:
    """Remove a directory, but not in a fork of the process that has made it, and may use it."""
    if os.getpid() == pid:
        shutil.rmtree(directory, ignore_errors=True)


class _Opened(Struct):
    """A bucket in use."""

    place: Bucket
    sender: PacedSender
    store: S3BlobStore


class Transfers:
    """Objects of any bucket. What is fetched lies in files, which `close` removes.

    Args:
        config: the s3_... settings.
        tmproot: the directory to make the temporary one in; None for the system's.
    """

    def __init__(self, config: Config, tmproot: str | None) -> None:
        self._config = config
        self._session = AwsSession(config)
        self._room = Room(config.s3_memory_mib * MIB)
        self._buckets: dict[str, _Opened] = {}
        self._tmproot = tmproot
        self._directory: str | None = None
        self._remove: Callable[[], object] = lambda: None
        self._numbers = itertools.count()

    async def close(self) -> None:
        """End the connections and remove the files."""
        if self._directory is not None:
            self._directory = None
            try:
                await asyncio.to_thread(self._remove)
            except RuntimeError:  # the program is at its end, and starts no thread any more
                self._remove()
        opened, self._buckets = self._buckets, {}
        for bucket in opened.values():
            await bucket.store.aclose()
        await self._session.aclose()

    def _open(self, bucket: str) -> _Opened:
        opened = self._buckets.get(bucket)
        if opened is None:
            place = Bucket(bucket, "")
            sender = PacedSender(
                ObjectSender(place, self._session, self._config), Pace.of(self._config)
            )
            store = S3BlobStore(sender, place, self._room)
            opened = self._buckets[bucket] = _Opened(place, sender, store)
        return opened

    async def describe(self, at: Location) -> Facts | None:
        """What S3 says of an object; None if there is none."""
        opened = self._open(at.bucket)
        return await opened.sender.send(Describe(key=opened.place.checked(at.key)))

    # -- reading --------------------------------------------------------------------------------

    async def fetch(self, at: Location, prefix: str | None, *, with_info: bool) -> Found:
        """Bring an object to a file.

        Raises:
            BlobNotFoundError: there is none.
        """
        path = self._new_path(at)
        facts: Facts | None = None
        try:
            with open(path, "xb") as file:  # noqa: ASYNC230  # only opened here
                getting = self._open(at.bucket).store.get_to_file(at.key, file.fileno())
                if with_info:
                    size, facts = await both(getting, self.describe(at))
                else:
                    size = await getting
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(path)
            raise
        return Found(at.url, prefix, path, size, facts)

    async def fetch_part(self, at: Location, prefix: str | None, part: S3GetObject) -> Found:
        """Bring a part of an object to a file.

        Raises:
            BlobNotFoundError: there is no such object.
            S3RangeError: it has no such part.
        """
        facts = await self.describe(at)
        if facts is None:
            raise BlobNotFoundError(at.key)
        total = facts.size_bytes
        start = part.offset if part.offset >= 0 else max(0, total + part.offset)
        end = total if part.length < 0 else min(total, start + part.length)
        if end <= start:
            raise S3RangeError(at.url, offset=part.offset, length=part.length, size_bytes=total)
        store, path = self._open(at.bucket).store, self._new_path(at)
        with open(path, "xb") as file:  # noqa: ASYNC230  # only opened here
            for begin in range(start, end, _CHUNK_BYTES):
                data = await store.get_range(at.key, begin, min(_CHUNK_BYTES, end - begin))
                await asyncio.to_thread(file.write, data)
        return Found(at.url, prefix, path, total, facts, RangeInfo(total, start, end - start))

    def _new_path(self, at: Location) -> str:
        if self._directory is None:
            self._directory = tempfile.mkdtemp(prefix="aflow-s3-", dir=self._tmproot)
            # At the latest when nobody has this any more: people forget to close.
            self._remove = weakref.finalize(self, _remove_own, self._directory, os.getpid())
        name = _UNSAFE.sub("_", at.key.rpartition("/")[2])[-_NAME_MAX:]
        return os.path.join(self._directory, f"{next(self._numbers)}-{name}")

    # -- listing --------------------------------------------------------------------------------

    async def list_folder(self, folder: Location) -> list[Found]:
        """Objects and directories directly in a directory, by url; directories have no size."""
        found: list[Found] = []
        request = ListFolder(key=folder.key)
        while True:
            page = await self._open(folder.bucket).sender.send(request)
            found += [_listed(folder, i.key, i.size_bytes) for i in page.infos]
            found += [_listed(folder, name, None) for name in page.folders]
            if page.after is None:
                return sorted((f for f in found if f.url != folder.url), key=lambda f: f.url)
            request = ListFolder(key=folder.key, after=page.after)

    async def list_below(self, folder: Location) -> list[Found]:
        """Objects below a directory, at any depth."""
        return [
            _listed(folder, info.key, info.size_bytes)
            async for info in self._open(folder.bucket).store.list(folder.key)
            if info.key != folder.key  # what some tools write to show an empty directory
        ]

    # -- writing --------------------------------------------------------------------------------

    async def put(
        self, at: Location, item: S3PutObject, content: Content | None, *, overwrite: bool
    ) -> None:
        """Write an object.

        Raises:
            S3ContentError: `content` is nothing that can be written.
        """
        opened = self._open(at.bucket)
        traits = Traits(item.content_type, item.encryption, item.metadata)
        store = opened.store
        if traits != Traits():
            store = S3BlobStore(WithTraits(opened.sender, traits), opened.place, self._room)
        if isinstance(content, str):
            content = content.encode()
        if isinstance(content, bytes | bytearray | memoryview):
            await store.put(at.key, (content,), if_absent=not overwrite)
        elif isinstance(content, io.BytesIO):
            with content.getbuffer() as view, view[content.tell() :] as rest:
                await store.put(at.key, (rest,), if_absent=not overwrite)
        elif content is not None and hasattr(content, "read"):
            await self._put_file(store, at, content, overwrite)
        else:
            raise S3ContentError(item.key, problem=f"is a {type(content).__name__}")

    async def _put_file(
        self, store: S3BlobStore, at: Location, file: IO[bytes], overwrite: bool
    ) -> None:
        """A file that stands at its beginning is sent as it lies; another is copied first."""
        if isinstance(file, io.FileIO | io.BufferedReader) and _is_whole(file):
            await store.put_file(at.key, file.fileno(), if_absent=not overwrite)
            return
        with tempfile.TemporaryFile(dir=self._tmproot) as copy:
            await asyncio.to_thread(_copy, file, copy, at.key)
            await store.put_file(at.key, copy.fileno(), if_absent=not overwrite)


def _listed(folder: Location, key: str, size: int | None) -> Found:
    return Found(Location(folder.bucket, key).url, folder.url.rstrip("/"), size_bytes=size)


def _is_whole(file: io.FileIO | io.BufferedReader) -> bool:
    try:
        return file.seekable() and file.tell() == 0
    except OSError:
        return False


def _copy(file: IO[Any], copy: BinaryIO, key: str) -> None:
    while chunk := file.read(MIB):
        if isinstance(chunk, str):
            raise S3ContentError(key, problem="is a file of text, not opened with 'rb'")
        copy.write(chunk)
    copy.flush()
