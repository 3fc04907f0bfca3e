"""Is all that is in the object store what was written? What fsck.py asks, asked of it.

Blobs are looked for by listing them; with `read_data` each is read and hashed, past the cache. A
run's journal and log are compared with the copies here, which Audit then looks into.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence, Set
from contextlib import suppress

from msgspec import Struct

from engine.errors import BlobCorruptError, NotFoundError, StoreError
from engine.groups import unwrapped
from engine.stores.cas import blob_key
from engine.stores.directory import BlobDirectory, digest_of_file
from engine.stores.fsck import Damage
from engine.stores.gc import ManifestsIn, RunName, digests_of
from engine.stores.manifest import FileIdentity
from engine.stores.remote.keys import JOURNAL, LOG, segment_key
from engine.stores.remote.pulling import Pulled
from engine.stores.remote.replica import Replica
from engine.stores.remote.segments import Segment, cover, extent, gap_in
from engine.stores.temporary import new_file
from engine.stores.threads import in_thread

RUNS_AT_ONCE = 16


class ListedDirectory(BlobDirectory):
    """The blobs of an object store for BlobCheck: there if they are listed.

    Args:
        root: of the cache, for what has to be looked into.
        sizes: of what is listed, by digest.
        waiting: digests of blobs that are here and need not be there yet.
        fetch: see BlobDirectory.
        read: reads a blob in the object store and raises if it is not what its name says.
    """

    def __init__(
        self,
        root: str,
        sizes: Mapping[str, int],
        waiting: Set[str],
        fetch: Callable[[str], None],
        read: Callable[[str], None],
    ) -> None:
        super().__init__(root, fetch=fetch)
        self._sizes = sizes
        self._waiting = waiting
        self._read_remote = read

    def size(self, digest: str) -> int | None:
        size = self._sizes.get(digest)
        return super().size(digest) if size is None and digest in self._waiting else size

    def check(self, digest: str, identity: FileIdentity | None = None) -> None:
        """Nothing: that it is there, and how long, its listing has said."""

    def verify(self, digest: str) -> None:
        if digest in self._sizes:
            self._read_remote(digest)
        else:
            super().verify(digest)


async def blob_sizes(replica: Replica) -> dict[str, int]:
    """The size of each blob there is, by digest: a request for 1,000."""
    return {
        info.key.rpartition("/")[2]: info.size_bytes async for info in replica.blobs.list("blobs/")
    }


async def read_blob(replica: Replica, digest: str) -> None:
    """Read and hash a blob in the object store; nothing of it is kept.

    Raises:
        BlobNotFoundError, BlobCorruptError: it is not what its name says.
        StoreUnavailableError: the object store does not answer.
    """
    with new_file(os.path.join(str(replica.layout.blobs), "tmp")) as (fd, _):
        await replica.blobs.get_to_file(blob_key(digest), fd)
        found = await in_thread(digest_of_file, fd)
    if found != digest:
        raise BlobCorruptError(digest, expected=digest, actual=found)


async def pull_all(replica: Replica) -> dict[tuple[str, str], Pulled]:
    """Bring the list of runs, and every run's journal and log, up to date.

    Returns:
        What there is of each run, by flow and id.
    """
    there = await replica.pulling.runs()
    at_once = asyncio.Semaphore(RUNS_AT_ONCE)
    pulled = {}

    async def pull(flow: str, run_id: str) -> None:
        async with at_once:
            pulled[flow, run_id] = await replica.pulling.run(flow, run_id)

    with unwrapped():
        async with asyncio.TaskGroup() as group:
            for flow, run_id in there:
                group.create_task(pull(flow, run_id))
    return pulled


async def waiting_blobs(replica: Replica, manifests_in: ManifestsIn) -> set[str]:
    """Digests of blobs that journals name here and not there: what a dead driver did not ship.

    They are not lost while they lie here: a resume ships them.
    """
    layout, found = replica.fetching(), set[str]()
    pulled = await pull_all(replica)
    here = [RunName(flow, run_id) for flow in layout.flows() for run_id in layout.run_ids(flow)]
    for run in here:  # one whose driver died at once is on no list
        known = pulled.get((run.flow, run.run_id))
        if known is None or not known.is_whole:
            segments = await replica.pulling.segments(run.flow, run.run_id)
            with suppress(NotFoundError, StoreError):  # what the audit tells of
                behind = extent(segments[JOURNAL])
                named = await in_thread(digests_of, layout, run, manifests_in, behind=behind)
                found |= {digest.hex() for digest in named}
    return found


async def record_damages(replica: Replica, *, read_data: bool) -> list[Damage]:
    """Journals and logs that lack something, or with `read_data` differ from the copies here.

    Of a run whose driver has had no last word, the object store may have less than is here: the
    rest is on its way, or a resume ships it.
    """
    found = []
    for (flow, run_id), pulled in sorted((await pull_all(replica)).items()):
        segments = await replica.pulling.segments(flow, run_id)
        for name in (JOURNAL, LOG):
            at = _File(flow, run_id, name, str(replica.layout.run(flow, run_id) / name))
            here = await in_thread(_size, at.copy)
            there, gap = extent(segments[name]), gap_in(segments[name])
            if gap is not None:
                found.append(at.damage(f"lacks what is at byte {gap:,} in the object store"))
            elif there < here and pulled.is_whole:
                found.append(at.damage(f"has {there:,} of {here:,} bytes in the object store"))
            elif read_data:
                found += [d async for d in _differences(replica, at, segments[name])]
    return found


class _File(Struct, frozen=True):
    """One file of a run, and the path of its copy here."""

    flow: str
    run_id: str
    name: str
    copy: str

    def damage(self, detail: str, kind: str = "damaged") -> Damage:
        run = f"{self.flow}/{self.run_id}"
        return Damage(kind, f"runs/{run}/{self.name}", run, detail)


async def _differences(
    replica: Replica, at: _File, segments: Sequence[Segment]
) -> AsyncIterator[Damage]:
    for segment in cover(segments):
        key = segment_key(at.flow, at.run_id, at.name, segment.start)
        try:
            data = await replica.blobs.get(key)
        except StoreError as error:
            yield at.damage(error.message, "missing")
            continue
        if not await in_thread(_is_equal, at.copy, segment.start, data):
            yield at.damage(f"{key} differs from the copy here")


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _is_equal(path: str, start: int, data: bytes) -> bool:
    try:
        with open(path, "rb") as file:
            file.seek(start)
            here = file.read(len(data))
    except FileNotFoundError:
        return False
    return here == data[: len(here)]
