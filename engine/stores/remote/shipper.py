"""Ships a run to the object store while it is driven: blobs, then the journal that names them.

The scheduler does not wait for this. It goes on from the journal in the cache; what the object
store has of the journal, always a prefix, is what is committed there. A segment is put when all
blobs that its frames name are durable, so nothing remote refers to what is not there. If the driver
and its machine are lost, what was not shipped was in flight.
"""

import asyncio
import os
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress

from msgspec import Struct

from engine import crashpoints
from engine.errors import NotFoundError, RunFencedError, StoreAccessError
from engine.groups import unwrapped
from engine.stores.access import access_error
from engine.stores.artifacts import PACKED, read_entry
from engine.stores.base import BlobStore
from engine.stores.directory import BlobDirectory
from engine.stores.journals import JournalReader
from engine.stores.manifest import Entry, Manifest
from engine.stores.packed import PackedList
from engine.stores.remote.keys import JOURNAL, LOG, segment_key
from engine.stores.remote.named import Named, There
from engine.stores.remote.segments import Merging, Segment
from engine.stores.remote.uploads import Uploads, Wanted
from engine.stores.threads import in_thread

SEGMENT_MAX_BYTES = 8 << 20
FLUSH_EVERY_S = 0.05
"""A commit waits at most this long for others to share its request."""
LOG_EVERY_S = 1.0
UPLOADS_AT_ONCE = 64
"""Blobs of one stretch that are seen to at once; more would only wait for the store's turn."""

_FRAMES_A_TURN = 200
_STRETCHES_MAX = 8  # whose blobs are on their way; frames behind them wait in the journal


class Growing(Struct, frozen=True):
    """A file of frames in the cache, and how much of it is whole now, in bytes."""

    path: str
    end: Callable[[], int]


class Shipment(Struct, frozen=True):
    """What a run ships.

    `renew` is asked beside each segment whether the run may have been held for dead meanwhile; what
    only it refers to may be gone then. `done` says how much of journal and log is remote already,
    in bytes. With `is_sure`, what the runs name that it goes on from is there.
    """

    flow: str
    run_id: str
    journal: Growing
    log: Growing
    renew: Callable[[], Awaitable[bool]]
    done: tuple[int, int] = (0, 0)
    is_sure: bool = True


class FileShipping:
    """Puts what was appended to one file as segments. `done` is where the next one begins."""

    def __init__(self, blobs: BlobStore, shipment: Shipment, name: str) -> None:
        is_journal = name == JOURNAL
        self._blobs = blobs
        self._shipment = shipment
        self._name = name
        self.file = shipment.journal if is_journal else shipment.log
        self._merging = Merging()
        self._starts: list[int] = []  # of what was put, but the first
        self.done = shipment.done[0 if is_journal else 1]

    async def ship(self, end: int) -> None:
        """Put the file up to `end`.

        Raises:
            RunFencedError: another writer has put the same stretch.
            StoreUnavailableError: the store does not take it.
        """
        while self.done < end:
            segment = Segment(self.done, min(end - self.done, SEGMENT_MAX_BYTES))
            crashpoints.SEGMENT_BEFORE_PUT.passed()
            if not await self._put(segment, if_absent=True):
                raise RunFencedError(f"{self._shipment.flow}/{self._shipment.run_id}")
            crashpoints.SEGMENT_AFTER_PUT.passed()
            self.done = segment.end
            if segment.start:
                self._starts.append(segment.start)
            if merged := self._merging.add(segment):
                await self._put(merged)

    async def unite(self) -> None:
        """Make one object of a file that has ended, if it is small enough and of several."""
        if self._merging.count > 1 and self.done <= SEGMENT_MAX_BYTES:
            await self._put(Segment(0, self.done))
            flow, run_id = self._shipment.flow, self._shipment.run_id
            keys = [segment_key(flow, run_id, self._name, start) for start in self._starts]
            await self._blobs.delete(keys)

    async def _put(self, segment: Segment, *, if_absent: bool = False) -> bool:
        shipment = self._shipment
        key = segment_key(shipment.flow, shipment.run_id, self._name, segment.start)
        data = await in_thread(_read, self.file.path, segment)
        return await self._blobs.put(key, (data,), if_absent=if_absent)


def _opened(path: str) -> JournalReader:
    try:
        return JournalReader(path)
    except NotFoundError as error:
        raise StoreAccessError(
            path,
            doing="read",
            problem="it was removed",
            hint="`aflow resume` goes on from what was uploaded",
        ) from error


def _read(path: str, segment: Segment) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            return os.pread(fd, segment.size_bytes, segment.start)
        finally:
            os.close(fd)
    except OSError as error:  # somebody has removed the cache, for one
        raise access_error(error, path, "read") from error


class _Stretch(Struct):
    """Frames whose blobs are on their way. The journal up to `end` may go when `blobs` is done."""

    end: int
    blobs: "asyncio.Task[None]"


class Shipper:
    """Ships one run until it is closed. `wake` tells that there may be something new.

    Args:
        blobs: the object store.
        shipment: the run.
        uploads: what carries the blobs.
        directory: the blobs of the cache; brings those that it lacks.
        named: see Named.
    """

    def __init__(
        self,
        blobs: BlobStore,
        shipment: Shipment,
        uploads: Uploads,
        directory: BlobDirectory,
        named: Named,
    ) -> None:
        self._uploads = uploads
        self._directory = directory
        self._named = named
        self._journal = FileShipping(blobs, shipment, JOURNAL)
        self._log = FileShipping(blobs, shipment, LOG)
        self._looked_to = self._journal.done
        self._renew = shipment.renew
        self._is_sure = shipment.is_sure
        self._going: deque[_Stretch] = deque()
        self._wake = asyncio.Event()
        self._closing = asyncio.Event()
        self._moved = asyncio.Condition()

    @property
    def uploads(self) -> Uploads:
        """What carries the blobs, and knows which ones are there."""
        return self._uploads

    @property
    def shipped(self) -> int:
        """How far the journal is committed in the object store, in bytes."""
        return self._journal.done

    def wake(self) -> None:
        self._wake.set()

    def close(self) -> None:
        """Let `run` ship what is left and return."""
        self._closing.set()
        self._wake.set()

    async def until(self, offset: int) -> None:
        """Return when the journal is committed up to and with the frame at `offset`.

        To be used beside `run`: if that fails, whoever runs both ends this.
        """
        self._wake.set()
        async with self._moved:
            await self._moved.wait_for(lambda: self._journal.done > offset)

    async def run(self) -> None:
        """Ship what there is, again and again, until closed; then all that is left.

        Raises:
            RunFencedError: another writer ships this run, too.
            StoreError: the object store does not take it, or a blob is gone from the cache.
        """
        with unwrapped():
            async with asyncio.TaskGroup() as group:
                await self._run(group)

    async def _run(self, group: asyncio.TaskGroup) -> None:
        logging = group.create_task(self._ship_logs(), name="log segments")
        while not self._closing.is_set():
            await self._wake.wait()
            self._wake.clear()
            await self._ship(group)
            with suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_EVERY_S):
                    await self._closing.wait()
        while self._going or min(self._journal.done, self._looked_to) < self._journal.file.end():
            await self._ship(group)
            if self._going:
                await asyncio.wait([self._going[0].blobs])
        await self._journal.unite()
        await logging

    async def _ship(self, group: asyncio.TaskGroup) -> None:
        """Look at new frames, start what they need, and put what is ready."""
        end = self._journal.done
        while self._going and self._going[0].blobs.done():
            self._going[0].blobs.result()
            end = self._going.popleft().end
        if len(self._going) < _STRETCHES_MAX and self._looked_to < self._journal.file.end():
            await self._look(group)
            self._wake.set()  # there may be more than one look takes
        if self._going:  # the first one that is not ready wakes us
            self._going[0].blobs.add_done_callback(lambda _: self._wake.set())
        begin = self._journal.done
        if end > begin and not await self._is_renewed(begin):
            await self._journal.ship(end)
            async with self._moved:
                self._moved.notify_all()
            await self._is_renewed(begin)

    async def _is_renewed(self, begin: int) -> bool:
        """Whether all blobs of the journal from `begin` on have to be looked for again."""
        if not await self._renew():
            return False
        self._uploads.forget()
        self._is_sure = False
        self._going.clear()  # what they upload is waited for by those that want the same
        self._looked_to = begin
        self._wake.set()
        return True

    async def _look(self, group: asyncio.TaskGroup) -> None:
        wanted, end = await in_thread(self._wants)
        self._looked_to = end
        self._going.append(_Stretch(end, group.create_task(self._upload(wanted))))

    def _wants(self) -> tuple[dict[bytes, Wanted], int]:
        """The blobs that new frames name, and where those frames end."""
        found: dict[There, dict[bytes, Wanted]] = {there: {} for there in There}
        with _opened(self._journal.file.path) as reader:
            for number, (_, payload) in enumerate(reader.scan(self._looked_to), 1):
                for packed, there in self._named(payload):
                    if there is There.CERTAIN and not self._is_sure:
                        there = There.LIKELY
                    for entry in entries_of(packed):
                        self._add(entry, found[there], there)
                if number == _FRAMES_A_TURN:
                    break
            self._uploads.note(found[There.CERTAIN])
            return found[There.UNKNOWN] | found[There.LIKELY], reader.position

    def _add(self, entry: Entry, into: dict[bytes, Wanted], there: There) -> None:
        if entry.digest is not None:
            digest = bytes.fromhex(entry.digest)
            # What another machine has put, it has put with all that it names.
            if digest in into or self._uploads.knows(digest):
                return
            into[digest] = Wanted(entry.identity, is_likely_there=there is There.LIKELY)
        if entry.serializer == PACKED and not (there is There.CERTAIN and entry.digest):
            for item in PackedList(read_entry(entry, self._directory)):
                self._add(Entry.unpack(item), into, there)

    async def _upload(self, wanted: dict[bytes, Wanted]) -> None:
        with unwrapped():
            await self._ensure_all(wanted)

    async def _ensure_all(self, wanted: dict[bytes, Wanted]) -> None:
        left = iter(wanted.items())

        async def work_off() -> None:
            for digest, what in left:
                await self._uploads.ensure(digest, what)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(len(wanted), UPLOADS_AT_ONCE)):
                group.create_task(work_off())

    async def _ship_logs(self) -> None:
        is_last = False
        while not is_last:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOG_EVERY_S):
                    await self._closing.wait()
            is_last = self._closing.is_set()
            await self._log.ship(self._log.file.end())
        await self._log.unite()


def entries_of(packed: bytes) -> Iterator[Entry]:
    """All entries of a packed manifest."""
    manifest = Manifest.unpack(packed)
    yield from manifest.artifacts.values()
    if manifest.items:
        yield manifest.items
