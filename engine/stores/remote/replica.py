"""The two halves of a datastore in an object store, and what moves between them.

`layout` is the directory on this machine: a run that is driven here writes there first, and what
was driven elsewhere is pulled there before it is read. `blobs` is the object store, the truth.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress

from msgspec import Struct
from msgspec.structs import replace

from engine.errors import (
    JournalDamagedError,
    NotFoundError,
    RunHeldError,
    StoreAccessError,
    StoreError,
)
from engine.groups import unwrapped
from engine.stores.base import BlobStore
from engine.stores.directory import BlobDirectory
from engine.stores.frames import FrameReader
from engine.stores.journals import JOURNAL_MAGIC, run_holder
from engine.stores.layout import Layout
from engine.stores.leases import Holder, Lease, is_gone
from engine.stores.logs import LOG_MAGIC
from engine.stores.metadata.base import MetadataStore, RunRecord
from engine.stores.metadata.rebuild import Decoder, rebuilt_of
from engine.stores.remote.cache import is_unshipped, mark_shipped, mark_unshipped, trim
from engine.stores.remote.downloads import Downloads
from engine.stores.remote.keys import JOURNAL, LOG
from engine.stores.remote.named import Named
from engine.stores.remote.pulling import Pulling
from engine.stores.remote.segments import extent
from engine.stores.remote.shipper import Growing, Shipment, Shipper
from engine.stores.remote.standing import Heartbeat, driver_of
from engine.stores.remote.uploads import Uploads
from engine.stores.threads import in_thread

_MAGICS = {JOURNAL: JOURNAL_MAGIC, LOG: LOG_MAGIC}


class _Left(Struct, frozen=True):
    """A run as its journal tells of it, and where the last sound frame of each file ends."""

    run: RunRecord
    ends: Mapping[str, int]


class Terms(Struct, frozen=True):
    """What the two halves agree on.

    Args:
        decode: what a journal's frame says to metadata.
        named: what blobs it names.
        now_us: the wall clock.
        cache_max_bytes: the most bytes of blobs that the directory keeps.
        owns_list: whether the list of runs is this datastore's alone.
    """

    decode: Decoder
    named: Named
    now_us: Callable[[], int]
    cache_max_bytes: int = 20 << 30
    owns_list: bool = True


class Replica:
    """One object store and its directory.

    Args:
        blobs: the object store.
        layout: the directory.
        metadata: the list of runs and tasks of the directory.
        terms: see Terms.
    """

    def __init__(
        self, blobs: BlobStore, layout: Layout, metadata: MetadataStore, terms: Terms
    ) -> None:
        self.blobs = blobs
        self.layout = layout
        self.now_us = terms.now_us
        self._terms = terms
        self._directory = BlobDirectory(str(layout.blobs))  # fetches nothing by itself
        self.downloads = Downloads(blobs, self._directory)
        self.pulling = Pulling(
            blobs, layout, metadata, terms.decode, terms.now_us, owns_list=terms.owns_list
        )

    async def aclose(self) -> None:
        await self.blobs.aclose()

    def fetching(self) -> Layout:
        """The directory for threads of the running loop, which fetch what they lack."""
        loop = asyncio.get_running_loop()

        def fetch(digest: str) -> None:
            asyncio.run_coroutine_threadsafe(self.downloads.fetch(digest), loop).result()

        return replace(self.layout, fetch=fetch)

    def shipper(self, shipment: Shipment) -> Shipper:
        """What ships a run. Made on the loop that will run it."""
        uploads = Uploads(self.blobs, self._directory)
        readable = self.fetching().blob_directory()
        return Shipper(self.blobs, shipment, uploads, readable, self._terms.named)

    def mark_unshipped(self, flow: str, run_id: str) -> None:
        """Say that a run that begins has what is nowhere else. To be called inside the gate."""
        mark_unshipped(self.layout, flow, run_id)

    async def trim(self) -> None:
        """Let go of blobs that are cached beyond the bound."""
        await in_thread(trim, self.layout, self._terms.cache_max_bytes)

    async def settle(self, flow: str, run_id: str) -> bool:
        """Bring a run that nobody drives up to date on both sides.

        A driver of this machine that was killed may have left what it had no time to ship; what
        another machine shipped may not be here.

        Returns:
            Whether all that its journal here names is sure to be in the object store. It is not
            while this machine drives the run, nor if what was left is damaged.

        Raises:
            NotFoundError: there is no such run.
            StoreError: the object store does not answer, or does not take it.
        """
        lock = self.layout.lock(flow, run_id)
        if run_holder(str(lock)) is None:
            await self._mend(flow, run_id)
        if not (await self.pulling.run(flow, run_id)).is_there:
            raise NotFoundError(
                f"there is no run {flow}/{run_id}", hint=f"`aflow list {flow}` lists its runs"
            )
        if run_holder(str(lock)) is not None:
            return False
        if is_unshipped(self.layout, flow, run_id):  # a killed driver leaves its list behind, too
            with suppress(JournalDamagedError):
                await self.pulling.index(flow, run_id)
        there = await self._there(flow, run_id)
        here = [await in_thread(_size, str(self.layout.run(flow, run_id) / n)) for n in _MAGICS]
        if not lock.exists() or (there[0] >= here[0] and there[1] >= here[1]):
            await in_thread(mark_shipped, self.layout, flow, run_id)
            return True
        try:
            left = await in_thread(self._left, flow, run_id)
            if left is not None:
                with Lease.acquire(str(lock), run=f"{flow}/{run_id}", since_us=self.now_us()):
                    await self._ship_rest(left)
        except (JournalDamagedError, RunHeldError):
            return False
        return True

    def driver(self, record: RunRecord) -> Holder | None:
        """Who drives a run that is said to be alive, as `settle` has left its record.

        A process of this machine, be it with another directory, is seen to be gone at once. Of
        another machine's two minutes of silence tell.
        """
        said = driver_of(record)
        return None if is_gone(said) else said

    async def _mend(self, flow: str, run_id: str) -> None:
        """Pull again what is damaged here; what the object store has not stays as it is."""
        for name, magic in _MAGICS.items():
            path = str(self.layout.run(flow, run_id) / name)
            at = await in_thread(_damaged_at, path, magic)
            if at is not None:
                await self.pulling.mend(flow, run_id, name, at)

    def _left(self, flow: str, run_id: str) -> _Left | None:
        """What a dead driver left; None if its run never began."""
        found = rebuilt_of(self.layout, flow, run_id, self._terms.decode)
        ends = {name: self._sound_end(flow, run_id, name) for name in _MAGICS}
        return _Left(found.run, ends) if found else None

    async def _there(self, flow: str, run_id: str) -> tuple[int, int]:
        segments = await self.pulling.segments(flow, run_id)
        return extent(segments[JOURNAL]), extent(segments[LOG])

    async def _ship_rest(self, left: _Left) -> None:
        """Ship what a dead driver left, as one that is alive: a collection must see it."""
        flow, run_id = left.run.flow, left.run.run_id
        me = replace(left.run, status="running", host=socket.gethostname(), pid=os.getpid())
        heart = Heartbeat(self.blobs, me, self.now_us)
        await heart.begin()
        self.layout.listed(flow, run_id).touch(0o600)
        shipment = Shipment(
            flow,
            run_id,
            Growing(str(self.layout.journal(flow, run_id)), lambda: left.ends[JOURNAL]),
            Growing(str(self.layout.log(flow, run_id)), lambda: left.ends[LOG]),
            heart.renew,
            done=await self._there(flow, run_id),
            is_sure=False,
        )
        shipper = self.shipper(shipment)
        shipper.close()
        with unwrapped():
            async with asyncio.TaskGroup() as group:
                beating = group.create_task(heart.run(), name=f"heartbeat of {run_id}")
                await shipper.run()
                await heart.end(left.run)
                beating.cancel()
        await in_thread(mark_shipped, self.layout, flow, run_id)

    def _sound_end(self, flow: str, run_id: str, name: str) -> int:
        try:
            with FrameReader(str(self.layout.run(flow, run_id) / name), _MAGICS[name]) as reader:
                return reader.end()
        except NotFoundError:
            return 0


def _damaged_at(path: str, magic: bytes) -> int | None:
    """Where the first frame of a file begins that is not sound; None if all are."""
    try:
        with FrameReader(path, magic) as reader:
            try:
                end = reader.end()
            except JournalDamagedError as error:
                return error.offset
            return end if reader.torn else None
    except (NotFoundError, StoreAccessError):
        return None  # it will be pulled; or told of where it is read
    except StoreError:
        return 0  # even its magic is not right


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0
