"""Removes from an object store what nobody needs. What gc.py says of a directory holds here, too.

The lock on a directory is an object under `gates/` here, one for each collection, and the lease of
a run its object under `status/`. A run puts its object and then looks for gates; a collection puts
its gate and then looks for objects that are new, or were written again. So of two that begin at
once at least one sees the other: the run waits, or the collection ends. Who is alive is told by the
store's clock alone, and whoever was silent for so long that he may have been held for dead looks
for his blobs again (standing.py).
"""

import asyncio
import secrets
import shutil
from collections.abc import AsyncIterator, Iterable, Mapping, Set
from contextlib import asynccontextmanager
from typing import Protocol, runtime_checkable

from engine.errors import RunHeldError, StoreUnavailableError
from engine.stores.base import BlobInfo, BlobStore, Upload
from engine.stores.directory import DIGEST_HEX
from engine.stores.gc import BATCH, Alive, Collected, Request, RunName, mark, record_bytes
from engine.stores.remote.checking import pull_all
from engine.stores.remote.keys import GATES, STATUS, gate_key, run_prefix, status_key, tags_key
from engine.stores.remote.replica import Replica
from engine.stores.remote.standing import (
    ALIVE_US,
    driver_of,
    is_alive,
    store_time_us,
    unpack_status,
)
from engine.stores.threads import in_thread

SHUT_MAX_S = ALIVE_US / 2e6
"""How long a gate is shut at once, of the time after which runs take it for a dead one's."""


@runtime_checkable
class HasUploads(Protocol):
    """A store that can tell of uploads in parts that nobody finished."""

    def unfinished_uploads(self, prefix: str = "") -> AsyncIterator[Upload]: ...

    async def abort_uploads(self, uploads: Iterable[Upload]) -> None: ...


async def collect(replica: Replica, request: Request) -> Collected:
    """Delete the runs of the request, and remove the blobs that no run needs then.

    Raises:
        RunHeldError: one of the runs is alive; nothing is removed.
        StoreError: the object store does not answer, or refuses.
    """
    return await _Collection(replica, request).run()


async def alive_runs(replica: Replica) -> set[RunName]:
    """The runs that somebody drives, by the store's clock."""
    now_us, statuses = await _survey(replica.blobs)
    return {alive.run for alive in await _alive(replica.blobs, statuses, now_us)}


class _Collection:
    def __init__(self, replica: Replica, request: Request) -> None:
        self._replica = replica
        self._blobs = replica.blobs
        self._request = request
        self._done = Collected()
        self._now_us = 0
        self._statuses: dict[RunName, BlobInfo] = {}

    async def run(self) -> Collected:
        request, done = self._request, self._done
        self._now_us, self._statuses = await _survey(self._blobs)
        done.alive = await _alive(self._blobs, self._statuses, self._now_us)
        for alive in done.alive:
            if alive.run in request.runs:
                holder = alive.holder
                raise RunHeldError(
                    str(alive.run), host=holder.host, pid=holder.pid, since=holder.since
                )
        pulled = await pull_all(self._replica)
        theirs = await self._delete()
        kept = sorted(set(self._statuses) - set(request.runs))
        for run in kept:
            found = pulled.get((run.flow, run.run_id))
            if found is not None and found.gap is not None:
                done.unreadable[str(run)] = f"its journal lacks what is at byte {found.gap:,}"
        layout = self._replica.fetching()
        needed = await in_thread(mark, layout, kept, request.manifests_in, done)
        rubbish = await self._rubbish(needed, theirs)
        if request.is_dry_run:
            _count(rubbish, done)
        elif done.is_complete:
            await self._sweep(rubbish)
        if done.is_complete:  # an upload may be of a run that is alive
            await self._abort_uploads()
        return done

    async def _delete(self) -> frozenset[bytes]:
        """Delete the runs of the request; return what they referred to."""
        request, done, layout = self._request, self._done, self._replica.fetching()
        theirs: set[bytes] = set()
        for run in request.runs:
            done.runs.append(run)
            done.record_bytes += await in_thread(record_bytes, layout, run)
            told = Collected()
            theirs |= await in_thread(mark, layout, [run], request.manifests_in, told)
            if not request.is_dry_run:
                await self._delete_run(run)
        return frozenset(theirs)

    async def _delete_run(self, run: RunName) -> None:
        # Its object first: what is listed no more is rubbish, if this process dies now.
        flow, run_id = run.flow, run.run_id
        await self._blobs.delete([status_key(flow, run_id), tags_key(flow, run_id)])
        prefix = run_prefix(flow, run_id)
        await self._blobs.delete([info.key async for info in self._blobs.list(prefix)])
        folder = self._replica.layout.run(flow, run_id)
        await in_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _rubbish(self, needed: Set[bytes], theirs: Set[bytes]) -> list[BlobInfo]:
        """What nobody needs: blobs, and what was left of runs that are listed no more."""
        before_us = self._now_us - self._request.grace_us
        rubbish = []
        async for info in self._blobs.list("blobs/"):
            digest = _digest(info.key)
            is_old = info.modified_us < before_us or digest in theirs
            if digest is not None and digest not in needed and is_old:
                rubbish.append(info)
        dead_us = min(before_us, self._now_us - ALIVE_US)
        rubbish += [i async for i in self._blobs.list(GATES) if i.modified_us < dead_us]
        async for info in self._blobs.list("runs/"):
            parts = info.key.split("/")
            if RunName(parts[1], parts[2]) not in self._statuses and info.modified_us < before_us:
                rubbish.append(info)
        return rubbish

    async def _sweep(self, rubbish: list[BlobInfo]) -> None:
        for start in range(0, len(rubbish), BATCH):
            batch = rubbish[start : start + BATCH]
            async with _shut(self._blobs):
                now = await _listed(self._blobs)
                # One that was dead may be driven again, by who ships what its driver left.
                if fresh := [run for run, info in now.items() if self._statuses.get(run) != info]:
                    self._done.began = min(fresh)
                    return
                await self._blobs.delete([info.key for info in batch])
                _count(batch, self._done)

    async def _abort_uploads(self) -> None:
        """Drop uploads in parts that nobody finished in the time of grace."""
        blobs = self._blobs
        if not isinstance(blobs, HasUploads):
            return
        before_us = self._now_us - self._request.grace_us
        old = [u async for u in blobs.unfinished_uploads() if u.begun_us < before_us]
        self._done.uploads = len(old)
        if old and not self._request.is_dry_run:
            await blobs.abort_uploads(old)


async def _survey(blobs: BlobStore) -> tuple[int, dict[RunName, BlobInfo]]:
    """The store's time, and the runs behind the shut gate."""
    async with _shut(blobs) as now_us:
        return now_us, await _listed(blobs)


@asynccontextmanager
async def _shut(blobs: BlobStore) -> AsyncIterator[int]:
    """No run begins inside this block; yields the store's time.

    Raises:
        StoreUnavailableError: it took so long that runs may take the gate for a dead one's.
    """
    key = gate_key(secrets.token_hex(8))
    try:
        async with asyncio.timeout(SHUT_MAX_S):
            yield await store_time_us(blobs, key)
    except TimeoutError as error:
        raise StoreUnavailableError(
            f"a batch of blobs was not removed in {SHUT_MAX_S:.0f} s", hint="run it again"
        ) from error
    finally:
        await blobs.delete([key])


async def _listed(blobs: BlobStore) -> dict[RunName, BlobInfo]:
    found = {}
    async for info in blobs.list(STATUS):
        _, flow, run_id = info.key.split("/")
        found[RunName(flow, run_id)] = info
    return found


async def _alive(
    blobs: BlobStore, statuses: Mapping[RunName, BlobInfo], now_us: int
) -> list[Alive]:
    found = []
    for run, info in sorted(statuses.items()):
        if now_us - info.modified_us >= ALIVE_US:
            continue
        record = unpack_status(await blobs.get(info.key), info.key)
        if is_alive(record, info, now_us):
            found.append(Alive(run, driver_of(record)))
    return found


def _digest(key: str) -> bytes | None:
    name = key.rpartition("/")[2]
    if len(name) != DIGEST_HEX or name.strip("0123456789abcdef"):
        return None
    return bytes.fromhex(name)


def _count(rubbish: Iterable[BlobInfo], done: Collected) -> None:
    for info in rubbish:
        done.blobs += 1
        done.blob_bytes += info.size_bytes
