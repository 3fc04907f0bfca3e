"""Who is alive in an object store: an object for each run, which its driver writes again and again.

It holds the run's record, so that a list of runs needs no journal. Times are the object store's: a
run is alive if its object was written less than two minutes before another one.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

import msgspec

from engine.errors import NotFoundError, StoreDeniedError, StoreError, StoreUnavailableError
from engine.stores.base import BlobInfo, BlobStore
from engine.stores.leases import Holder
from engine.stores.metadata.base import RunRecord
from engine.stores.remote.keys import CLOCK, GATES, status_key

BEAT_EVERY_S = 30.0
ALIVE_US = 120_000_000
"""Four beats: one that is late, or lost and tried again, does not make a run seem dead."""

LATE_US = 90_000_000
"""Who was silent for so long looks at what others may have done, half a minute early."""

_GATE_POLL_S = 0.5


def pack_status(record: RunRecord) -> bytes:
    """The record as JSON, so that a person can read it, too."""
    return msgspec.json.encode(record)


def unpack_status(data: bytes, key: str) -> RunRecord:
    """Read what `pack_status` made; fields that are not known are ignored.

    Raises:
        StoreError: it is damaged.
    """
    try:
        return msgspec.json.decode(data, type=RunRecord)
    except msgspec.DecodeError as error:
        raise StoreError(f"{key} cannot be read: {error}") from error


def is_alive(record: RunRecord, info: BlobInfo, now_us: int) -> bool:
    """Whether a run that has not ended is still driven. `now_us` is the store's time."""
    return record.status == "running" and now_us - info.modified_us < ALIVE_US


def driver_of(record: RunRecord) -> Holder:
    """Who says that he drives a run."""
    since = datetime.fromtimestamp(record.created_us / 1e6, UTC)
    return Holder(record.host, record.pid or 0, since.isoformat(timespec="seconds"))


async def store_time_us(blobs: BlobStore, key: str) -> int:
    """The store's time, as it stamps an object that is put at `key` and stays there.

    Raises:
        StoreUnavailableError: somebody has deleted it.
        StoreError: the store does not take it.
    """
    await blobs.put(key, (b"put to learn what time it is",))
    info = await blobs.stat(key)
    if info is None:
        raise StoreUnavailableError(f"{key} is gone", hint="run it again")
    return info.modified_us


class Silence:
    """Tells a reader whose driver is dead. The clock here only says when that is worth a question.

    The store's time is at least what its latest stamp says that was seen, and it only grows: who
    was silent once is not asked about again before his next beat.

    Args:
        blobs: the object store.
        now_us: the wall clock here, which may be wrong.
    """

    def __init__(self, blobs: BlobStore, now_us: Callable[[], int]) -> None:
        self._blobs = blobs
        self._now_us = now_us
        self._seen_us = 0
        self._may_ask = True
        self._one_at_once = asyncio.Lock()  # the first answer will do for many

    async def of(self, info: BlobInfo) -> bool:
        """Whether a status is so old, by the store's clock, that its driver must be dead.

        Raises:
            StoreError: the store does not answer.
        """
        self._seen_us = max(self._seen_us, info.modified_us)
        if self._is_past(info):
            return True
        if self._now_us() - info.modified_us < ALIVE_US:
            return False
        async with self._one_at_once:
            if self._may_ask and not self._is_past(info):
                try:
                    self._seen_us = max(self._seen_us, await store_time_us(self._blobs, CLOCK))
                except StoreDeniedError:
                    self._may_ask = False
        # Who may only read has no other clock than his own.
        return self._is_past(info) or not self._may_ask

    def _is_past(self, info: BlobInfo) -> bool:
        return self._seen_us - info.modified_us >= ALIVE_US


class Heartbeat:
    """Keeps the object of one run fresh, from `begin` to `end`.

    Args:
        blobs: the object store.
        record: of the run, as it begins.
        now_us: the wall clock here, which goes on while the machine sleeps.
    """

    def __init__(self, blobs: BlobStore, record: RunRecord, now_us: Callable[[], int]) -> None:
        self._blobs = blobs
        self._key = status_key(record.flow, record.run_id)
        self._now_us = now_us
        self._beaten_us = now_us()
        self._was_silent = False
        self._one_at_once = asyncio.Lock()  # or an earlier beat might come after the last word
        self.record = record

    async def begin(self) -> None:
        """List the run, then wait until no blobs are being removed.

        A collection shuts the gate and then looks who is alive, so of two that begin at once at
        least one sees the other.

        Raises:
            StoreUnavailableError: the store does not take it.
        """
        await self._beat()
        while gates := [gate async for gate in self._blobs.list(GATES)]:
            await self._beat()
            mine = await self._blobs.stat(self._key)
            latest_us = max(gate.modified_us for gate in gates)
            if mine is not None and mine.modified_us - latest_us >= ALIVE_US:
                return  # who shut them is dead
            await asyncio.sleep(_GATE_POLL_S)

    async def run(self) -> None:
        """Write the object every 30 s, until cancelled. What fails once is tried with the next.

        Raises:
            NotFoundError: the run was deleted.
        """
        while True:
            await asyncio.sleep(BEAT_EVERY_S)
            with suppress(StoreError):
                await self._look_back()
                await self._beat()

    async def renew(self) -> bool:
        """Whether others may have held the run for dead, since this was asked last.

        If so, the machine slept, or the object store was not reached. What no journal in the object
        store refers to may be gone then. Now the run is listed again, and nothing is being removed.

        Raises:
            NotFoundError: the run was deleted.
            StoreUnavailableError: the store does not take it.
        """
        await self._look_back()
        if not self._was_silent:
            return False
        await self.begin()
        self._was_silent = False
        return True

    async def _look_back(self) -> None:
        if self._now_us() - self._beaten_us >= LATE_US:
            self._was_silent = True
            if await self._blobs.stat(self._key) is None:
                name = f"{self.record.flow}/{self.record.run_id}"
                raise NotFoundError(f"{name} was deleted while it ran")

    async def end(self, record: RunRecord) -> None:
        """Write the run's last word.

        Raises:
            StoreUnavailableError: the store does not take it.
        """
        self.record = record
        await self._beat()

    async def _beat(self) -> None:
        async with self._one_at_once:
            now_us = self._now_us()
            await self._blobs.put(self._key, (pack_status(self.record),))
            self._beaten_us = now_us
