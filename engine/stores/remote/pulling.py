"""Pulls what other machines wrote: the list of runs, and the journal and log of one.

A run's files are append-only on both sides, so what is here is a prefix of what is there or, where
this machine drove the run, the other way round; only what is missing is asked for.
"""

import asyncio
import fcntl
import os
import shutil
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from engine.errors import BlobNotFoundError, StoreError
from engine.groups import unwrapped
from engine.stores.base import BlobInfo, BlobStore
from engine.stores.directory import access_error, pwrite_all
from engine.stores.journals import run_holder
from engine.stores.layout import Layout
from engine.stores.metadata.base import MetadataStore, RunRecord
from engine.stores.metadata.rebuild import Decoder, rebuilt_of
from engine.stores.remote.keys import (
    JOURNAL,
    LOG,
    STATUS,
    TAGS,
    run_prefix,
    segment_key,
    status_key,
    tags_key,
)
from engine.stores.remote.segments import Segment, cover, segment_start
from engine.stores.remote.standing import ALIVE_US, unpack_status
from engine.stores.threads import in_thread

STATUSES_AT_ONCE = 32
_BATCH = 500
_TRIES = 3  # segments may be united in between a list and what it says
_ENDED = frozenset(("succeeded", "failed", "interrupted"))


class Pulling:
    """Pulls into one directory.

    Args:
        blobs: the object store.
        layout: the directory.
        metadata: its list of runs and tasks.
        decode: what a journal's frame says to metadata.
        now_us: the wall clock; it should agree with the object store's within a minute.
    """

    def __init__(
        self,
        blobs: BlobStore,
        layout: Layout,
        metadata: MetadataStore,
        decode: Decoder,
        now_us: Callable[[], int],
    ) -> None:
        self._blobs = blobs
        self._layout = layout
        self._metadata = metadata
        self._decode = decode
        self._now_us = now_us

    # -- the list of runs ----------------------------------------------------------------------

    async def runs(self, flow: str | None = None) -> None:
        """Bring the list of runs up to date: a request for 1,000, and one for each that is new.

        Raises:
            StoreError: the object store does not answer.
        """
        infos: dict[tuple[str, str], BlobInfo] = {}
        async for info in self._blobs.list(f"{STATUS}{flow}/" if flow else STATUS):
            _, name, run_id = info.key.split("/")
            infos[name, run_id] = info
        at_once = asyncio.Semaphore(STATUSES_AT_ONCE)

        async def pull(info: BlobInfo) -> None:
            async with at_once:
                await self._status(info)

        with unwrapped():
            async with asyncio.TaskGroup() as group:
                for (name, run_id), info in infos.items():
                    known = await self._metadata.run(name, run_id)
                    if known is None or not _is_over(known):
                        group.create_task(pull(info))
        async for info in self._blobs.list(f"{TAGS}{flow}/" if flow else TAGS):
            _, name, run_id = info.key.split("/")
            await self._tags(name, run_id)
        await self._forget(flow, infos)

    def listed(self) -> AsyncIterator[RunRecord]:
        """The runs that are listed now, newest first."""
        return self._metadata.runs()

    async def put_tags(self, record: RunRecord) -> None:
        """Tell others the tags that a run has now. Of two who do so at once, the later one wins."""
        data = msgspec.json.encode(sorted(record.tags))
        await self._blobs.put(tags_key(record.flow, record.run_id), (data,))

    async def _tags(self, flow: str, run_id: str) -> None:
        key = tags_key(flow, run_id)
        try:
            wanted = frozenset(msgspec.json.decode(await self._blobs.get(key), type=list[str]))
            has = await self._metadata.run(flow, run_id)
        except BlobNotFoundError:
            return  # nobody has changed them
        except msgspec.DecodeError as error:
            raise StoreError(f"{key} cannot be read: {error}") from error
        if has is not None and (now := frozenset(has.tags)) != wanted:
            add, remove = wanted - now, now - wanted
            await self._metadata.change_tags(flow, run_id, add=add, remove=remove)

    async def _status(self, info: BlobInfo) -> None:
        """Take over what a run's driver says of it; nothing if it is driven here."""
        try:
            record = unpack_status(await self._blobs.get(info.key), info.key)
        except BlobNotFoundError:
            return  # deleted meanwhile
        lock = self._layout.lock(record.flow, record.run_id)
        if run_holder(str(lock)) is not None or self._knows_better(record.flow, record.run_id):
            return
        # Who has driven it here, and drives it no more, is dead; of others only silence tells.
        is_silent = lock.exists() or self._now_us() - info.modified_us >= ALIVE_US
        if record.status not in _ENDED and is_silent:
            record = replace(record, status="interrupted", ended_us=info.modified_us)
        await self._metadata.put_runs([record])

    def _knows_better(self, flow: str, run_id: str) -> bool:
        """Whether a run was driven here, and not all that happened was shipped."""
        return self._layout.unshipped(flow, run_id).exists()

    async def _forget(self, flow: str | None, infos: Mapping[tuple[str, str], BlobInfo]) -> None:
        """Forget runs that were deleted elsewhere: they had ended, and are listed no more."""
        gone = [
            (run.flow, run.run_id)
            async for run in self._metadata.runs(flow)
            if run.status in _ENDED
            and (run.flow, run.run_id) not in infos
            and not self._knows_better(run.flow, run.run_id)
        ]
        for name, run_id in gone:
            await self._metadata.delete_run(name, run_id)
            await in_thread(shutil.rmtree, self._layout.run(name, run_id), ignore_errors=True)

    # -- one run -------------------------------------------------------------------------------

    async def run(self, flow: str, run_id: str) -> bool:
        """Bring a run's record, journal and log up to date; False if there is no such run.

        Raises:
            StoreError: the object store does not answer.
        """
        if run_holder(str(self._layout.lock(flow, run_id))) is not None:
            return True
        for tries_left in reversed(range(_TRIES)):
            try:
                await self._files(flow, run_id)
                break
            except BlobNotFoundError:
                if not tries_left:
                    raise
        info = await self._blobs.stat(status_key(flow, run_id))
        if info is not None:
            await self._status(info)
            await self._tags(flow, run_id)
        return info is not None or self._layout.journal(flow, run_id).exists()

    async def _files(self, flow: str, run_id: str) -> None:
        segments = await self.segments(flow, run_id)
        if any(segments.values()):
            self._layout.create_run(flow, run_id)
            await self._file(flow, run_id, LOG, segments[LOG])
            if await self._file(flow, run_id, JOURNAL, segments[JOURNAL]):
                await self.index(flow, run_id)

    async def segments(self, flow: str, run_id: str) -> dict[str, list[Segment]]:
        """The segments there are of a run's journal and log."""
        found: dict[str, list[Segment]] = {JOURNAL: [], LOG: []}
        prefix = run_prefix(flow, run_id)
        async for info in self._blobs.list(prefix):
            name, _, part = info.key.removeprefix(prefix).partition("/")
            start = segment_start(part)
            if name in found and start is not None:
                found[name].append(Segment(start, info.size_bytes))
        return found

    async def _file(self, flow: str, run_id: str, name: str, segments: Sequence[Segment]) -> bool:
        """Append what is missing of a file; True if there was something."""
        path = str(self._layout.run(flow, run_id) / name)
        here = await in_thread(_size, path)
        if extent(segments) <= here:
            return False
        with unwrapped():
            await self._append(flow, run_id, name, cover(segments, here))
        return True

    async def _append(self, flow: str, run_id: str, name: str, segments: Sequence[Segment]) -> None:
        path = str(self._layout.run(flow, run_id) / name)
        async with asyncio.TaskGroup() as group:
            parts = [
                (segment, group.create_task(self._bytes(flow, run_id, name, segment)))
                for segment in segments
            ]
        for segment, part in parts:
            await in_thread(_extend, path, part.result(), segment.start)

    async def _bytes(self, flow: str, run_id: str, name: str, segment: Segment) -> bytes:
        data = await self._blobs.get(segment_key(flow, run_id, name, segment.start))
        return data[: segment.size_bytes]  # it may have been merged into a longer one meanwhile

    async def index(self, flow: str, run_id: str) -> RunRecord | None:
        """Write what the journal here says to metadata, and return the run; None if it never began.

        Tags are the status object's matter.

        Raises:
            StoreError: the journal is damaged, or metadata takes nothing.
        """
        found = await in_thread(rebuilt_of, self._layout, flow, run_id, self._decode)
        if found is None:
            return None
        await self._metadata.put_runs([found.run])
        for start in range(0, len(found.tasks), _BATCH):
            await self._metadata.put_tasks(found.tasks[start : start + _BATCH])
        return found.run


def _is_over(record: RunRecord) -> bool:
    """Whether a run has ended for sure: "interrupted" without a reason is a guess."""
    is_guess = record.status == "interrupted" and record.reason is None
    return record.status in _ENDED and not is_guess


def extent(segments: Sequence[Segment]) -> int:
    """How far a file's segments reach without a gap, in bytes."""
    chosen = cover(segments)
    return chosen[-1].end if chosen else 0


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _extend(path: str, data: bytes, start: int) -> None:
    """Append what of `data`, which begins at `start`, lies behind the file's end.

    Several processes may pull one run at once: each appends only what is still missing.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            size = os.fstat(fd).st_size
            if start <= size < start + len(data):
                pwrite_all(fd, memoryview(data)[size - start :], size)
        finally:
            os.close(fd)
    except OSError as error:
        raise access_error(error, path, "append to", len(data)) from error
