"""Who is alive in an object store: an object for each run, which its driver writes again and again.

It holds the run's record, so that a list of runs needs no journal. Times are the object store's: a
run is alive if its object was written less than two minutes before another one.
"""

import asyncio
from contextlib import suppress

import msgspec

from engine.errors import StoreError
from engine.stores.base import BlobInfo, BlobStore
from engine.stores.metadata.base import RunRecord
from engine.stores.remote.keys import GATE, status_key

BEAT_EVERY_S = 30.0
ALIVE_US = 120_000_000
"""Four beats: one that is late, or lost and tried again, does not make a run seem dead."""

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


class Heartbeat:
    """Keeps the object of one run fresh, from `begin` to `end`."""

    def __init__(self, blobs: BlobStore, record: RunRecord) -> None:
        self._blobs = blobs
        self._key = status_key(record.flow, record.run_id)
        self.record = record

    async def begin(self) -> None:
        """List the run, then wait until no blobs are being removed.

        A collection shuts the gate and then looks who is alive, so of two that begin at once at
        least one sees the other.

        Raises:
            StoreUnavailableError: the store does not take it.
        """
        await self._beat()
        while gate := await self._blobs.stat(GATE):
            await self._beat()
            mine = await self._blobs.stat(self._key)
            if mine is not None and mine.modified_us - gate.modified_us >= ALIVE_US:
                return  # who shut it is dead
            await asyncio.sleep(_GATE_POLL_S)

    async def run(self) -> None:
        """Write the object every 30 s, until cancelled. What fails once is tried with the next."""
        while True:
            await asyncio.sleep(BEAT_EVERY_S)
            with suppress(StoreError):
                await self._beat()

    async def end(self, record: RunRecord) -> None:
        """Write the run's last word.

        Raises:
            StoreUnavailableError: the store does not take it.
        """
        self.record = record
        await self._beat()

    async def _beat(self) -> None:
        await self._blobs.put(self._key, (pack_status(self.record),))
