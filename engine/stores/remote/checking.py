"""Is all that is in the object store what was written? What fsck.py asks, asked of it.

Blobs are looked for by listing them; with `read_data` each is read and hashed, past the cache. A
run's journal and log are compared with the copies here, which Audit then looks into.
"""

import asyncio
import os
from collections.abc import Callable, Mapping

from engine.errors import BlobCorruptError, BlobNotFoundError, StoreError
from engine.groups import unwrapped
from engine.stores.cas import blob_key
from engine.stores.directory import BlobDirectory, digest_of_file
from engine.stores.fsck import Damage
from engine.stores.manifest import FileIdentity
from engine.stores.remote.keys import JOURNAL, LOG, segment_key
from engine.stores.remote.pulling import extent
from engine.stores.remote.replica import Replica
from engine.stores.remote.segments import cover
from engine.stores.temporary import new_file
from engine.stores.threads import in_thread

RUNS_AT_ONCE = 16


class ListedDirectory(BlobDirectory):
    """The blobs of an object store for BlobCheck: there if they are listed.

    Args:
        root: of the cache, for what has to be looked into.
        sizes: of what is listed, by digest.
        fetch: see BlobDirectory.
        read: reads a blob in the object store and raises if it is not what its name says.
    """

    def __init__(
        self,
        root: str,
        sizes: Mapping[str, int],
        fetch: Callable[[str], None],
        read: Callable[[str], None],
    ) -> None:
        super().__init__(root, fetch=fetch)
        self._sizes = sizes
        self._read_remote = read

    def size(self, digest: str) -> int | None:
        return self._sizes.get(digest)

    def check(self, digest: str, identity: FileIdentity | None = None) -> None:
        """Nothing: that it is there, and how long, its listing has said."""

    def verify(self, digest: str) -> None:
        self._read_remote(digest)


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


async def pull_all(replica: Replica) -> None:
    """Bring the list of runs, and every run's journal and log, up to date."""
    await replica.pulling.runs()
    at_once = asyncio.Semaphore(RUNS_AT_ONCE)

    async def pull(flow: str, run_id: str) -> None:
        async with at_once:
            await replica.pulling.run(flow, run_id)

    with unwrapped():
        async with asyncio.TaskGroup() as group:
            async for run in replica.pulling.listed():
                group.create_task(pull(run.flow, run.run_id))


async def record_damages(replica: Replica, *, read_data: bool) -> list[Damage]:
    """Journals and logs that are not as the copies here are: shorter, or with `read_data` other."""
    found = []
    async for run in replica.pulling.listed():
        segments = await replica.pulling.segments(run.flow, run.run_id)
        for name in (JOURNAL, LOG):
            copy = str(replica.layout.run(run.flow, run.run_id) / name)
            here = await in_thread(_size, copy)
            there = extent(segments[name])
            pathspec, path = f"{run.flow}/{run.run_id}", f"runs/{run.flow}/{run.run_id}/{name}"
            if there < here:
                kind = "damaged" if there else "missing"
                detail = f"has {there:,} of {here:,} bytes in the object store"
                found.append(Damage(kind, path, pathspec, detail))
            elif read_data:
                for segment in cover(segments[name]):
                    key = segment_key(run.flow, run.run_id, name, segment.start)
                    try:
                        data = await replica.blobs.get(key)
                    except (BlobNotFoundError, StoreError) as error:
                        found.append(Damage("missing", path, pathspec, error.message))
                        continue
                    if not await in_thread(_is_equal, copy, segment.start, data):
                        detail = f"{key} differs from the copy here"
                        found.append(Damage("damaged", path, pathspec, detail))
    return found


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
