"""Stores that fail as an epoch says: the journal, its lease, the blobs, the metadata.

A killed driver's stores take nothing more and say nothing of it: what is left of the process goes
on in memory for a moment, and has no effect.
"""

import asyncio
import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from engine.errors import RunHeldError, StoreUnavailableError
from engine.stores.frames import pack_frame
from engine.stores.journals import JournalReader, JournalWriter
from engine.stores.leases import Lease
from engine.stores.metadata.base import RunRecord, TaskRecord
from engine.stores.metadata.memory import MemoryMetadata
from engine.testing.fakes import MemoryBlobs, MemoryJournal
from tests.sim.faults import Epoch, Faults


class Life:
    """Whether the driver still lives. `die` is the kill; the loop is stopped at its next turn."""

    def __init__(self) -> None:
        self.is_over = False

    def die(self) -> None:
        self.is_over = True


class DiskJournal:
    """The real journal under the real lease, in a directory of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()
        self.lease = self._acquire()
        self._writer = JournalWriter(str(folder / "journal"), self.lease)
        self._reader = JournalReader(str(folder / "journal"))
        self._thief: Lease | None = None

    def append(self, payload: bytes) -> int:
        return self._writer.append(payload)

    def read(self, offset: int) -> bytes:
        return self._reader.read(offset)

    def scan(self, start: int = 0) -> Iterator[tuple[int, bytes]]:
        return self._reader.scan(start)

    def tear(self, payload: bytes) -> None:
        """Leave half a frame, as a kill in the middle of a write does."""
        with open(self._folder / "journal", "ab") as file:
            frame = pack_frame(payload)
            file.write(frame[: len(frame) // 2])

    def refuses_a_rival(self) -> bool:
        try:
            self._acquire().release()
        except RunHeldError as error:
            return error.pid == os.getpid() and bool(error.since)
        return False

    def lose_lease(self) -> None:
        """Let somebody else take the run over."""
        self.lease.release()
        self._thief = self._acquire()

    def end(self) -> None:
        """What the end of the process does."""
        for lease in (self.lease, self._thief):
            if lease is not None:
                lease.release()
        self._writer.close()

    def close(self) -> None:
        self._reader.close()

    def _acquire(self) -> Lease:
        return Lease.acquire(str(self._folder / "lock"), run="Flow/r", since_us=0)


class FaultyJournal:
    """A journal, in memory or on disk, that fails when it is told to."""

    def __init__(self, inner: MemoryJournal | DiskJournal, faults: Faults, life: Life) -> None:
        self.inner = inner
        self.appends = 0
        self.failures = 0
        self._faults = faults
        self._life = life

    def append(self, payload: bytes) -> int:
        if self._life.is_over:
            return 0
        self.appends += 1
        if self._faults.lease_lost_at == self.appends and isinstance(self.inner, DiskJournal):
            self.inner.lose_lease()
        if self._faults.kill_at_append and self._faults.kill_at_append[0] == self.appends:
            return self._killed(payload, self._faults.kill_at_append[1])
        if self._faults.disk_full:
            first, count = self._faults.disk_full
            if first <= self.appends < first + count:
                self.failures += 1
                raise StoreUnavailableError("no space is left for the journal")
        return self.inner.append(payload)

    def read(self, offset: int) -> bytes:
        return self.inner.read(offset)

    def scan(self, start: int = 0) -> Iterator[tuple[int, bytes]]:
        return self.inner.scan(start)

    def _killed(self, payload: bytes, moment: str) -> int:
        self._life.die()
        if moment == "after":
            return self.inner.append(payload)
        if moment == "half" and isinstance(self.inner, DiskJournal):
            self.inner.tear(payload)
        return 0


class FaultyBlobs:
    """The store that all epochs of a story share, with the faults of one of them."""

    def __init__(self, shared: MemoryBlobs, epoch: Epoch, life: Life) -> None:
        self.shared = shared
        self._rng = epoch.rng("blobs")
        self._rate = epoch.faults.blobs
        self._life = life

    async def put(self, data: bytes | bytearray) -> str:
        await self._trouble("no space is left for the blob")
        return "" if self._life.is_over else await self.shared.put(data)

    async def get(self, digest: str) -> bytes:
        await self._trouble("the blob cannot be read")
        return await self.shared.get(digest)

    async def _trouble(self, what: str) -> None:
        if self._rate and self._rng.random() < self._rate:
            await asyncio.sleep(self._rng.choice((0.0, 0.3)))
            if self._rng.random() < 0.5:
                raise StoreUnavailableError(what)


class FaultyMetadata(MemoryMetadata):
    """Takes its time, and is down for as many writes as the epoch says."""

    def __init__(self, epoch: Epoch) -> None:
        super().__init__()
        self._down = epoch.faults.metadata_down or (0, 0)
        self._rng = epoch.rng("metadata")
        self._writes = 0
        self.failures = 0
        self.is_down = False  # since the last write

    async def put_runs(self, runs: Collection[RunRecord]) -> None:
        await self._write()
        await super().put_runs(runs)

    async def put_tasks(self, tasks: Collection[TaskRecord]) -> None:
        await self._write()
        await super().put_tasks(tasks)

    async def _write(self) -> None:
        self._writes += 1
        first, count = self._down
        self.is_down = first <= self._writes < first + count
        if self._rng.random() < 0.3:
            await asyncio.sleep(0.05)
        if self.is_down:
            self.failures += 1
            raise StoreUnavailableError("the metadata store is down")


def open_journal(epoch: Epoch, folder: Path, life: Life) -> FaultyJournal:
    """The journal of an epoch; `folder` is the story's, and is made when there is need."""
    inner: MemoryJournal | DiskJournal = MemoryJournal()
    if epoch.is_on_disk:
        with suppress(FileExistsError):
            folder.mkdir()
        inner = DiskJournal(folder / str(epoch.number))
    return FaultyJournal(inner, epoch.faults, life)
