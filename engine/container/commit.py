"""Makes durable what a task left: its blobs, then the manifest that names them: that is the commit.

Of all attempts and all copies of an attempt, one commits; whoever comes later reports what was
committed. So a job that ran twice, or whose word was lost, is one task all the same.
"""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import suppress

from engine.errors import BlobNotFoundError, Failure, TaskFailedError
from engine.groups import unwrapped
from engine.stores.artifact_store import manifest_key
from engine.stores.artifacts import PACKED, read_entry
from engine.stores.base import BlobStore
from engine.stores.cas import blob_key
from engine.stores.directory import BlobDirectory, digest_of
from engine.stores.manifest import Entry, outline
from engine.stores.packed import PackedList
from engine.stores.remote.shipper import entries_of
from engine.stores.remote.uploads import Uploads, Wanted
from engine.stores.taskspec import CHANNEL_MAX_BYTES, Report, TaskSpec
from engine.stores.threads import in_thread


class Commits:
    """Commits the one task of a container.

    Args:
        blobs: the object store.
        directory: the container's cache.
        spec: what the task was told; the blobs that it names are in the store.
        key: where to commit, if not where any attempt at the task may.
    """

    def __init__(
        self, blobs: BlobStore, directory: BlobDirectory, spec: TaskSpec, key: str | None = None
    ) -> None:
        self._key = key or manifest_key(spec.flow, spec.run_id, spec.step, spec.task_id)
        self._blobs = blobs
        self._directory = directory
        self._spec = spec
        self._uploads = Uploads(blobs, directory)

    async def committed(self) -> Report | None:
        """What an earlier start of the same container has committed, if it has.

        Raises:
            StoreError: the store does not answer.
        """
        with suppress(BlobNotFoundError):
            return await self._as_report(await self._blobs.get(self._key))
        return None

    async def commit(self, report: Report) -> Report:
        """Make a report durable and say what came of it: the manifest that is committed, or a
        failure.

        Raises:
            StoreError: the store does not take it.
        """
        if report.failure is not None:
            return report
        manifest = report.manifest
        if manifest is None:
            manifest = await in_thread(self._directory.read, report.manifest_digest or "")
        await self._upload(manifest)
        if not await self._blobs.put(self._key, (manifest,), if_absent=True):
            manifest = await self._blobs.get(self._key)
            if problem := self._objection(manifest):
                return Report(failure=Failure(TaskFailedError.code, problem))
        return await self._as_report(manifest)

    async def _as_report(self, manifest: bytes) -> Report:
        if len(manifest) <= CHANNEL_MAX_BYTES // 2:
            return Report(manifest=manifest)
        digest = digest_of((manifest,))
        await self._blobs.put(blob_key(digest), (manifest,), if_absent=True)
        return Report(manifest_digest=digest)

    def _objection(self, manifest: bytes) -> str | None:
        spec = self._spec
        head = outline(manifest)
        is_mine = (head.run_id, head.step, head.task_id) == (spec.run_id, spec.step, spec.task_id)
        return None if is_mine else "another task's result is committed in this one's place"

    async def _upload(self, manifest: bytes) -> None:
        known, wanted = await in_thread(self._sorted, manifest)
        self._uploads.note(known)
        with unwrapped():
            async with asyncio.TaskGroup() as group:
                for entry in wanted:
                    digest = bytes.fromhex(entry.digest or "")
                    group.create_task(self._uploads.ensure(digest, Wanted(entry.identity)))

    def _sorted(self, manifest: bytes) -> tuple[set[bytes], list[Entry]]:
        """The digests that are in the store, for the task's inputs name them; and what is new."""
        known = {bytes.fromhex(e.digest) for e in _inputs_of(self._spec) if e.digest}
        found = {
            entry.digest: entry
            for entry in self._with_items(entries_of(manifest), known)
            if entry.digest and bytes.fromhex(entry.digest) not in known
        }
        return known, list(found.values())

    def _with_items(self, entries: Iterable[Entry], known: set[bytes]) -> Iterator[Entry]:
        for entry in entries:
            yield entry
            is_known = entry.digest is not None and bytes.fromhex(entry.digest) in known
            if entry.serializer == PACKED and not is_known:
                items = PackedList(read_entry(entry, self._directory))
                yield from self._with_items(map(Entry.unpack, items), known)


def _inputs_of(spec: TaskSpec) -> Iterator[Entry]:
    for manifest in (spec.parameters, *(ref.manifest for ref in spec.inputs)):
        if manifest:
            yield from entries_of(manifest)
    yield from map(Entry.unpack, spec.items)
