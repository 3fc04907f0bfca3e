"""Pulls what other machines wrote: the list of runs, and the journal and log of one.

A run's files are append-only on both sides, so what is here is a prefix of what is there or, where
this machine drove the run, the other way round; only what is missing is asked for.
"""

import asyncio
import fcntl
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from engine.errors import BlobNotFoundError, StoreError
from engine.groups import unwrapped
from engine.stores.access import access_error
from engine.stores.base import BlobInfo, BlobStore
from engine.stores.directory import pwrite_all
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
from engine.stores.remote.segments import Segment, cover, extent, gap_in, segment_start
from engine.stores.remote.standing import ALIVE_US, Silence, unpack_status
from engine.stores.threads import in_thread

STATUSES_AT_ONCE = 32
SEGMENTS_AT_ONCE = 8
_BATCH = 500
_TRIES = 3  # segments may be united in between a list and what it says
_Write = Callable[[str, bytes, int], None]  # to the file of a path, at an offset
_ENDED = frozenset(("succeeded", "failed", "interrupted"))


class Pulled(Struct, frozen=True):
    """What is here of a run now.

    `is_there` is false if there is no such run. `is_whole` says that its driver had had its last
    word before the files were pulled. `gap` is where bytes of the journal are missing in the
    object store that others follow.
    """

    is_there: bool
    is_whole: bool = False
    gap: int | None = None


class Pulling:
    """Pulls into one directory.

    Args:
        blobs: the object store.
        layout: the directory.
        metadata: its list of runs and tasks.
        decode: what a journal's frame says to metadata.
        now_us: the wall clock. It may be wrong, unless the object store refuses what is put.
        owns_list: whether the list of runs is this datastore's alone.
    """

    def __init__(
        self,
        blobs: BlobStore,
        layout: Layout,
        metadata: MetadataStore,
        decode: Decoder,
        now_us: Callable[[], int],
        *,
        owns_list: bool = True,
    ) -> None:
        self._blobs = blobs
        self._layout = layout
        self._metadata = metadata
        self._decode = decode
        self._silence = Silence(blobs, now_us)
        self._owns_list = owns_list

    # -- the list of runs ----------------------------------------------------------------------

    async def runs(self, flow: str | None = None) -> Collection[tuple[str, str]]:
        """Bring the list of runs up to date: a request for 1,000, and one for each that is new.

        Returns:
            The flow and the id of each run that is there.

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
                await self._listed(info)

        with unwrapped():
            async with asyncio.TaskGroup() as group:
                for (name, run_id), info in infos.items():
                    if _is_open(await self._metadata.run(name, run_id), info):
                        group.create_task(pull(info))
        async for info in self._blobs.list(f"{TAGS}{flow}/" if flow else TAGS):
            _, name, run_id = info.key.split("/")
            await self._tags(name, run_id)
        if self._owns_list:
            known = [(run.flow, run.run_id) async for run in self._metadata.runs(flow)]
            for name, run_id in known:
                if (name, run_id) not in infos:
                    await self._forget(name, run_id)
        return infos

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

    async def _listed(self, info: BlobInfo) -> None:
        """Take over what a run's driver says of it; if it is silent, what its journal says."""
        record = await self._said(info.key)
        if record is None or self._is_driven(record.flow, record.run_id):
            return
        if record.status in _ENDED or not await self._is_silent(record, info):
            await self._metadata.put_runs([record])
        else:
            await self.run(record.flow, record.run_id)

    async def _said(self, key: str) -> RunRecord | None:
        """What a run's driver has said last; None if there is no such run."""
        try:
            return unpack_status(await self._blobs.get(key), key)
        except BlobNotFoundError:
            return None

    async def _is_silent(self, record: RunRecord, info: BlobInfo) -> bool:
        # Who has driven it here, and drives it no more, is dead; of others only silence tells.
        was_here = self._layout.lock(record.flow, record.run_id).exists()
        return was_here or await self._silence.of(info)

    def _is_driven(self, flow: str, run_id: str) -> bool:
        return run_holder(str(self._layout.lock(flow, run_id))) is not None

    async def _forget(self, flow: str, run_id: str) -> bool:
        """Forget a run if it was deleted elsewhere: it was listed once, and is listed no more."""
        layout = self._layout
        was_listed = layout.listed(flow, run_id).exists() or not layout.lock(flow, run_id).exists()
        if not was_listed or self._is_driven(flow, run_id):
            return False
        if not (self._owns_list or layout.run(flow, run_id).exists()):
            return False  # it may be of another datastore
        if await self._blobs.stat(status_key(flow, run_id)) is not None:
            return False
        await in_thread(shutil.rmtree, layout.run(flow, run_id), ignore_errors=True)
        await self._metadata.delete_run(flow, run_id)
        return True

    # -- one run -------------------------------------------------------------------------------

    async def run(self, flow: str, run_id: str) -> Pulled:
        """Bring a run's record, journal and log up to date. Of one that is driven here all is here.

        Raises:
            StoreError: the object store does not answer.
        """
        if self._is_driven(flow, run_id):
            return Pulled(is_there=True)
        # What it says first: if it has ended then, its files grow no more.
        key = status_key(flow, run_id)
        record = await self._said(key)
        if record is None and await self._forget(flow, run_id):
            return Pulled(is_there=False)
        gap = await self._all_files(flow, run_id)
        if record is None:
            return Pulled(self._layout.journal(flow, run_id).exists(), gap=gap)
        is_whole = record.status in _ENDED
        info = None if is_whole else await self._blobs.stat(key)
        is_silent = info is not None and await self._is_silent(record, info)
        # A driver may have beaten while the time was asked for.
        if info is not None and is_silent and await self._blobs.stat(key) == info:
            found = await in_thread(rebuilt_of, self._layout, flow, run_id, self._decode)
            record = replace(record, status="interrupted", ended_us=info.modified_us)
            record = found.run if found else record
        await self._metadata.put_runs([record])
        await self._tags(flow, run_id)
        return Pulled(is_there=True, is_whole=is_whole, gap=gap)

    async def _all_files(self, flow: str, run_id: str) -> int | None:
        for tries_left in reversed(range(_TRIES)):
            try:
                return await self._files(flow, run_id)
            except BlobNotFoundError:
                if not tries_left:
                    raise
        raise AssertionError  # the loop returns or raises

    async def _files(self, flow: str, run_id: str) -> int | None:
        segments = await self.segments(flow, run_id)
        if any(segments.values()):
            self._layout.create_run(flow, run_id)
            await self._file(flow, run_id, LOG, segments[LOG])
            has_grown = await self._file(flow, run_id, JOURNAL, segments[JOURNAL])
            # Who pulled it last may have been killed before the list had it. A driver lists itself.
            was_here = self._layout.lock(flow, run_id).exists()
            if has_grown or not (was_here or await in_thread(self._is_indexed, flow, run_id)):
                await self.index(flow, run_id)
        return gap_in(segments[JOURNAL])

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
        await self._place(flow, run_id, name, cover(segments, here), _extend)
        return True

    async def mend(self, flow: str, run_id: str, name: str, start: int) -> None:
        """Write over what the copy of a file has from `start` on, as far as the object store goes.

        Raises:
            StoreError: the object store does not answer.
        """
        segments = (await self.segments(flow, run_id))[name]
        if extent(segments) > start:
            await self._place(flow, run_id, name, cover(segments, start), _overwrite)

    async def _place(
        self, flow: str, run_id: str, name: str, segments: Sequence[Segment], write: _Write
    ) -> None:
        """Bring segments to the copy of a file, in order; some at once are held in memory."""
        path = str(self._layout.run(flow, run_id) / name)
        for first in range(0, len(segments), SEGMENTS_AT_ONCE):
            some = segments[first : first + SEGMENTS_AT_ONCE]
            with unwrapped():
                parts = await self._all_bytes(flow, run_id, name, some)
            for segment, part in zip(some, parts, strict=True):
                await in_thread(write, path, part, segment.start)

    async def _all_bytes(
        self, flow: str, run_id: str, name: str, segments: Sequence[Segment]
    ) -> list[bytes]:
        async with asyncio.TaskGroup() as group:
            parts = [
                group.create_task(self._bytes(flow, run_id, name, segment)) for segment in segments
            ]
        return [part.result() for part in parts]

    async def _bytes(self, flow: str, run_id: str, name: str, segment: Segment) -> bytes:
        # It may have been merged into a longer one meanwhile.
        key = segment_key(flow, run_id, name, segment.start)
        return await self._blobs.get_range(key, 0, segment.size_bytes)

    async def index(self, flow: str, run_id: str) -> None:
        """Write what the journal here says of tasks to metadata. The run is its driver's matter.

        Raises:
            StoreError: the journal is damaged, or metadata takes nothing.
        """
        size = await in_thread(_size, str(self._layout.journal(flow, run_id)))
        found = await in_thread(rebuilt_of, self._layout, flow, run_id, self._decode)
        if found is not None:
            for start in range(0, len(found.tasks), _BATCH):
                await self._metadata.put_tasks(found.tasks[start : start + _BATCH])
        await in_thread(self._layout.indexed(flow, run_id).write_text, str(size))

    def _is_indexed(self, flow: str, run_id: str) -> bool:
        """Whether the list of tasks has all that the journal says."""
        size = _size(str(self._layout.journal(flow, run_id)))
        try:
            return self._layout.indexed(flow, run_id).read_text() == str(size)
        except FileNotFoundError:
            return False


def _is_open(known: RunRecord | None, info: BlobInfo) -> bool:
    """Whether the driver of a run may have said more than is known here.

    One that was silent for so long that it was held for dead may have come back.
    """
    if known is None or known.status not in _ENDED:
        return True
    silent_us = info.modified_us - (known.ended_us or 0)
    return known.status == "interrupted" and silent_us >= ALIVE_US


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _extend(path: str, data: bytes, start: int) -> None:
    """Append what of `data`, which begins at `start`, lies behind the file's end.

    Several processes may pull one run at once: each appends only what is still missing.
    """
    with _locked(path, len(data)) as fd:
        size = os.fstat(fd).st_size
        if start <= size < start + len(data):
            pwrite_all(fd, memoryview(data)[size - start :], size)


def _overwrite(path: str, data: bytes, start: int) -> None:
    """Write `data` at `start`. Several processes that do so write the same."""
    with _locked(path, len(data)) as fd:
        pwrite_all(fd, memoryview(data), start)


@contextmanager
def _locked(path: str, need_bytes: int) -> Iterator[int]:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield fd
        finally:
            os.close(fd)
    except OSError as error:
        raise access_error(error, path, "append to", need_bytes) from error
