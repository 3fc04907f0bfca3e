"""A BlobStore in S3: blobs as sequences of requests. What a request costs in patience is pacing's.

A large blob goes up in parts and comes down in ranges, several at once. Its parts hold room in
memory from the moment they are read until they are sent or placed, so whatever is stored, no more
than the configured bytes are on their way.
"""

import asyncio
import secrets
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import contextmanager, suppress
from itertools import count, islice
from typing import TypeVar

from engine.aws.sessions import AwsSession
from engine.config import Config
from engine.errors import (
    BlobChangedError,
    BlobNotFoundError,
    LimitExceededError,
    StoreDeniedError,
    StoreError,
    StoreSettingError,
    UploadConflictError,
)
from engine.stores.base import BlobInfo, Buffer, Upload
from engine.stores.s3 import requests as ask
from engine.stores.s3.bodies import (
    BuffersSource,
    BytesTarget,
    FileSource,
    FileTarget,
    Source,
    Target,
    joined,
)
from engine.stores.s3.pacing import Pace, PacedSender
from engine.stores.s3.parts import PartSender
from engine.stores.s3.place import S3Place
from engine.stores.s3.received import RangeReceiver
from engine.stores.s3.room import Room
from engine.stores.s3.rust import RustSender, is_lost
from engine.stores.s3.sdk import SdkSender

T = TypeVar("T")
MIB = 1 << 20
SINGLE_BYTES = 16 * MIB
"""What is put in one request. Parts cost two requests more, and pay from about here on."""

PART_BYTES = 8 * MIB
FIRST_BYTES = 2 * MIB
"""What is asked for of a blob of unknown size: one request for most of them."""

RANGE_BYTES, RANGE_MAX_BYTES = 8 * MIB, 32 * MIB
"""Ranges of a large blob; longer ones of longer blobs, which the server has less work with. Their
memory is a piece each, whatever their length."""

UPLOADS, DOWNLOADS = 4, 4
"""Parts and ranges of one blob on their way at once."""

_DELETES = 8

_TRIES = 4  # of what another writer of the same key may undo
_ABORT_S = 0.5  # Ctrl-C waits for it, too; what is left is found by `aflow gc`


def open_s3(
    url: str,
    config: Config,
    *,
    session: AwsSession | None = None,
    room: Room | None = None,
    pace: Pace | None = None,
) -> "S3BlobStore":
    """The store at `url`, `s3://bucket/prefix`. Asks nothing of S3 yet; see `check`.

    Args:
        url: where it is.
        config: the s3_... settings.
        session: one to share with others, closed by its owner; default: one of the store's own.
        room: memory to share with others; default: s3_memory_mib of the store's own.
        pace: how hard to try; default: by the settings.

    Raises:
        ConfigError: `url` is no place in S3.
    """
    place = S3Place.parse(url)
    aws = session or AwsSession(config)
    sender = bulk_sender(place, aws, config, SdkSender(place, aws, config))
    paced = PacedSender(sender, pace or Pace.of(config))
    store = S3BlobStore(paced, place, room or Room(config.s3_memory_mib * MIB))
    if session is None:
        store.on_close = aws.aclose
    return store


def bulk_sender(place: S3Place, session: AwsSession, config: Config, sdk: ask.Sender) -> ask.Sender:
    """Sends what moves bytes by the clients that s3_client chose, and all else by `sdk`.

    So does a process that was forked by one that had used obstore, whose threads it lacks.
    """
    if config.s3_client == "aioboto3" or is_lost():
        return sdk
    parts = PartSender(place, session, config, sdk)
    return RustSender(place, session, config, RangeReceiver(place, session, config, parts))


def ranges_of(begin: int, end: int, most: int) -> Iterator[range]:
    """Cut begin <= i < end where parts of RANGE_BYTES may have been joined, into some four for each
    download at once; none is longer than `most`, or than RANGE_BYTES if that is more.
    """
    fair = (end - begin) // (4 * DOWNLOADS)
    step = max(min(fair, most) // RANGE_BYTES, 1) * RANGE_BYTES
    while begin < end:
        next_begin = min(begin - begin % step + step, end)
        yield range(begin, next_begin)
        begin = next_begin


async def _nothing() -> None:
    pass


class S3BlobStore:
    """Blobs in a bucket under a prefix. Laws: `engine.stores.base.BlobStore`."""

    def __init__(self, sender: ask.Sender, place: S3Place, room: Room) -> None:
        self.place = place
        self.on_close: Callable[[], Awaitable[None]] = _nothing
        self._sender = sender
        self.room = room
        self._token = secrets.token_hex(16)
        self._writes = count()

    async def check(self) -> None:
        """Ask S3 for anything at all.

        Raises:
            StoreDeniedError, StoreSettingError, StoreUnreachableError: within seconds, with a hint.
        """
        await self._sender.send(ask.List(key="aflow-check"))

    async def get(self, key: str) -> bytes:
        first = await self._small(self.place.checked(key), 0, FIRST_BYTES)
        if len(first) < FIRST_BYTES:
            return first
        del first  # it may go on, and nothing tells of which version this was
        target = BytesTarget()
        await self._download(key, 0, None, target)
        return target.finish()

    async def get_range(self, key: str, start: int, length: int) -> bytes:
        if length <= 0:
            if await self.stat(key) is None:
                raise BlobNotFoundError(key)
            return b""
        if length <= FIRST_BYTES:
            return await self._small(self.place.checked(key), start, length)
        target = BytesTarget()
        await self._download(self.place.checked(key), start, length, target)
        return target.finish()

    async def get_to_file(self, key: str, fd: int) -> int:
        return await self._download(self.place.checked(key), 0, None, FileTarget(fd))

    async def put(self, key: str, parts: Sequence[Buffer], *, if_absent: bool = False) -> bool:
        size = sum(memoryview(part).nbytes for part in parts)
        if not self._is_single(size):
            return await self._upload(self.place.checked(key), BuffersSource(parts), if_absent)
        await self.room.enter(size)
        try:
            request = ask.Put(
                key=self.place.checked(key),
                body=joined(parts),
                writer=self._new_writer(),
                if_absent=if_absent,
            )
            return await self._sender.send(request)
        finally:
            self.room.leave(size)

    async def put_file(self, key: str, fd: int, *, if_absent: bool = False) -> bool:
        source = FileSource(fd)
        size = source.size_bytes
        if not self._is_single(size):
            return await self._upload(self.place.checked(key), source, if_absent)
        async with self.room.take(size), source.cut(0, size) as body:
            request = ask.Put(
                key=self.place.checked(key),
                body=body,
                writer=self._new_writer(),
                if_absent=if_absent,
            )
            return await self._sender.send(request)

    async def stat(self, key: str) -> BlobInfo | None:
        try:
            found = await self._sender.send(ask.Head(key=self.place.checked(key)))
        except (StoreDeniedError, StoreSettingError):
            await self.check()  # the answer to a HEAD has no body that says why
            raise
        return found.info if found else None

    async def list(self, prefix: str = "") -> AsyncIterator[BlobInfo]:
        page = await self._sender.send(ask.List(key=prefix))
        while True:
            for info in page.infos:
                yield info
            if page.after is None:
                return
            page = await self._sender.send(ask.List(key=prefix, after=page.after))

    async def delete(self, keys: Collection[str]) -> None:
        each = iter([self.place.checked(key) for key in keys])
        pages = iter(lambda: tuple(islice(each, ask.DELETE_MAX)), ())
        await _spread(pages, lambda page: self._sender.send(ask.Delete(keys=page)), _DELETES)

    async def unfinished_uploads(self, prefix: str = "") -> AsyncIterator[Upload]:
        """Uploads in parts that killed writers left, and those that are under way."""
        page = await self._sender.send(ask.ListUploads(key=prefix))
        while True:
            for upload in page.uploads:
                yield upload
            if page.after is None:
                return
            page = await self._sender.send(ask.ListUploads(key=prefix, after=page.after))

    async def abort_uploads(self, uploads: Iterable[Upload]) -> None:
        """Drop what they hold. A writer that still lives fails."""
        aborts = (ask.AbortUpload(key=u.key, upload_id=u.upload_id) for u in uploads)
        await _spread(aborts, self._sender.send, _DELETES)

    async def aclose(self) -> None:
        await self._sender.aclose()
        await self.on_close()

    async def _download(self, key: str, start: int, length: int | None, target: Target) -> int:
        """Bring what exists of the range to `target`; return how much that was."""
        for tries_left in reversed(range(_TRIES)):
            try:
                return await self._download_once(key, start, length, target)
            except BlobChangedError:
                if not tries_left:
                    raise
        raise AssertionError  # the loop returns or raises

    async def _download_once(self, key: str, start: int, length: int | None, target: Target) -> int:
        first_bytes = FIRST_BYTES if length is None else min(length, RANGE_BYTES)
        async with self.room.take(first_bytes):
            first = await self._sender.send(ask.Get(key=key, start=start, length=first_bytes))
            end = max(first.size_bytes, start)
            if length is not None:
                end = min(end, start + length)
            target.reserve(end - start)
            await target.place(0, first.body)
            begin = start + memoryview(first.body).nbytes
            size_bytes, etag = first.size_bytes, first.etag
            del first

        def write(at: int, body: Buffer) -> None:
            target.write(at - start, body)

        async def fetch(reach: range) -> None:
            request = ask.Get(key=key, start=reach.start, length=len(reach), etag=etag, sink=write)
            async with self.room.take(request.held_bytes):
                reply = await self._sender.send(request)
            # A server may not heed the etag. Behind the end of a shorter blob nothing has come.
            if (reply.size_bytes, reply.etag) != (size_bytes, etag):
                raise BlobChangedError(f"cannot read {key}: it was replaced meanwhile")

        await _spread(ranges_of(begin, end, RANGE_MAX_BYTES), fetch, DOWNLOADS)
        return end - start

    async def _small(self, key: str, start: int, length: int) -> bytes:
        """What exists of a range that one request brings; `length` is at most FIRST_BYTES."""
        request = ask.Get(key=key, start=start, length=length, needs_facts=False)
        await self.room.enter(length)
        try:
            body = (await self._sender.send(request)).body
            return body if isinstance(body, bytes) else bytes(body)
        finally:
            self.room.leave(length)

    def _is_single(self, size_bytes: int) -> bool:
        return size_bytes <= min(SINGLE_BYTES, self.room.size_bytes)

    async def _upload(self, key: str, source: Source, if_absent: bool) -> bool:
        part_bytes = max(PART_BYTES, -(-source.size_bytes // ask.PARTS_MAX))
        if part_bytes > self.room.size_bytes:
            raise LimitExceededError(
                f"a blob of {source.size_bytes:,} bytes has parts of {part_bytes:,} bytes",
                hint="raise s3_memory_mib (AFLOW_S3_MEMORY_MIB)",
            )
        for tries_left in reversed(range(_TRIES)):
            try:
                return await self._upload_once(key, source, part_bytes, if_absent)
            except UploadConflictError:
                if not tries_left:
                    raise
        raise AssertionError  # the loop returns or raises

    async def _upload_once(
        self, key: str, source: Source, part_bytes: int, if_absent: bool
    ) -> bool:
        writer = self._new_writer()
        upload_id = await self._sender.send(ask.BeginUpload(key=key, writer=writer))
        starts = range(0, source.size_bytes, part_bytes)
        parts = [""] * len(starts)

        async def put(index: int) -> None:
            length = min(part_bytes, source.size_bytes - starts[index])
            async with self.room.take(length), source.cut(starts[index], length) as body:
                parts[index] = await self._sender.send(
                    ask.PutPart(key=key, upload_id=upload_id, number=index + 1, body=body)
                )

        stored = False
        try:
            await _spread(range(len(starts)), put, UPLOADS)
            stored = await self._sender.send(
                ask.FinishUpload(
                    key=key,
                    upload_id=upload_id,
                    parts=tuple(parts),
                    writer=writer,
                    if_absent=if_absent,
                )
            )
        finally:
            if not stored:
                await self._abort(ask.AbortUpload(key=key, upload_id=upload_id))
        return stored

    def _new_writer(self) -> str:
        """A token that no other write has, of this store or of any."""
        return f"{self._token}-{next(self._writes)}"

    async def _abort(self, request: ask.AbortUpload) -> None:
        """What cannot be aborted now is among `unfinished_uploads`."""
        with suppress(StoreError, TimeoutError):
            async with asyncio.timeout(_ABORT_S):
                await self._sender.send(request)


async def _spread(items: Iterable[T], work: Callable[[T], Awaitable[object]], width: int) -> None:
    """Work on `items`, `width` at once; the first failure ends the others and is raised."""
    left = iter(items)
    chosen = list(islice(left, width))
    if len(chosen) <= 1:
        for only in chosen:
            await work(only)
        return

    async def work_on(item: T) -> None:
        await work(item)
        for another in left:
            await work(another)

    with _unwrapped():
        async with asyncio.TaskGroup() as group:
            for item in chosen:
                group.create_task(work_on(item))


@contextmanager
def _unwrapped() -> Iterator[None]:
    try:
        yield
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from group.exceptions[0].__cause__
