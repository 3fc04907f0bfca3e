"""Where the remote jobs of a run get their orders and leave word: an object store.

Orders go out when all that they name is there: the journal up to now, with its blobs, and the
inputs of a join. Words are read once, given to the executor, and removed a while later, when what
they said is in the journal and the log.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress

from msgspec import Struct
from msgspec.structs import replace

from engine.errors import BlobNotFoundError
from engine.executors.base import Exit, ExitKind, Job, JobEnded, JobOutput, JobStarted, JobUpdate
from engine.executors.batch_reasons import told_by_container
from engine.executors.batch_submit import Sent
from engine.groups import unwrapped
from engine.runtime.earlier import Earlier
from engine.runtime.remote_variables import PARCEL
from engine.stores.artifact_store import manifest_key
from engine.stores.base import BlobStore
from engine.stores.remote.parcels import (
    Boot,
    Order,
    Word,
    gang_result_key,
    pack_parcel,
    parcel_key,
    words_prefix,
)
from engine.stores.remote.shipper import entries_of
from engine.stores.remote.uploads import Uploads, Wanted
from engine.stores.taskspec import Report, TaskSpec
from engine.stores.threads import in_thread

_AT_ONCE = 32
_REMOVE_AFTER = 8
"""Words are removed so many looks after they were taken: by then they are in the journal, and the
log is shipped each second."""


class RemotePost:
    """The post of one run; implements `executors.batch.Post`.

    Args:
        blobs: the object store.
        boot: what all jobs of the run have in common; without names.
        uploads: what carries blobs there, and is told of those that jobs have put.
        durable: returns when the journal as it is now, and all that it names, is in the store.
        variables: what every container is started with.
        earlier: what the runs that this one goes on from had sent.
    """

    def __init__(
        self,
        blobs: BlobStore,
        boot: Boot,
        uploads: Uploads,
        durable: Callable[[], Awaitable[None]],
        variables: Mapping[str, str],
        earlier: Earlier | None = None,
    ) -> None:
        self._blobs = blobs
        self._boot = boot
        self._uploads = uploads
        self._durable = durable
        self._variables = variables
        self._earlier = earlier
        self._prefix = words_prefix(boot.flow, boot.run_id)
        self._taken: set[str] = set()
        self._old: list[list[str]] = []  # keys by look, the oldest first
        self._collecting = asyncio.Lock()

    async def send(self, parcel: str, jobs: Sequence[Job], pack: int) -> Mapping[str, str]:
        """See `Post`.

        Raises:
            StoreError: the store does not take them, or lacks an input.
        """
        key = parcel_key(self._boot.flow, self._boot.run_id, parcel)
        bundles, data = await in_thread(self._packed, jobs, pack)
        await self._durable()
        with unwrapped():
            async with asyncio.TaskGroup() as group:
                for digest in bundles:
                    group.create_task(self._uploads.ensure(bytes.fromhex(digest), Wanted()))
        await self._blobs.put(key, (data,))
        return {**self._variables, PARCEL: key}

    def _packed(self, jobs: Sequence[Job], pack: int) -> tuple[set[str], bytes]:
        specs = (TaskSpec.unpack(job.spec) for job in jobs)
        bundles = {spec.inputs_digest for spec in specs if spec.inputs_digest}
        boot = replace(self._boot, names=[job.name for job in jobs], pack=pack)
        orders = [Order(job.name, job.spec, job.deadline_s) for job in jobs]
        return bundles, pack_parcel(boot, orders)

    async def sent(self, jobs: Sequence[Job]) -> Mapping[str, Sent]:
        """See `Post`. The earlier process is the driver of the run that this one goes on from.

        Raises:
            StoreError: the store does not answer, or a parcel is damaged.
        """
        if self._earlier is None:
            return {}
        return await self._earlier.sent(jobs)

    async def collect(self) -> Sequence[JobUpdate]:
        """See `Post`.

        Raises:
            StoreError: the store does not answer, or a word is damaged.
        """
        async with self._collecting:
            listed = [info.key async for info in self._blobs.list(self._prefix)]
            for prefix in self._earlier.words if self._earlier is not None else ():
                listed += [info.key async for info in self._blobs.list(prefix)]
            fresh = [key for key in listed if key not in self._taken]
            words = await self._read(fresh)
            self._taken.update(fresh)
            self._old.append(fresh)
            if len(self._old) > _REMOVE_AFTER:
                done = self._old.pop(0)
                if done:
                    await self._blobs.delete(done)
                    self._taken.difference_update(done)
        return [update for word in words if word for update in self._updates(word)]

    async def _read(self, keys: Sequence[str]) -> list[Word | None]:
        """Read words; None for one that another reader has removed."""
        at_once = asyncio.Semaphore(_AT_ONCE)
        found: list[Word | None] = [None] * len(keys)

        async def read(index: int) -> None:
            async with at_once:
                try:
                    found[index] = Word.unpack(await self._blobs.get(keys[index]))
                except BlobNotFoundError:
                    return

        with unwrapped():
            async with asyncio.TaskGroup() as group:
                for index in range(len(keys)):
                    group.create_task(read(index))
        return found

    def _updates(self, word: Word) -> list[JobUpdate]:
        updates: list[JobUpdate] = []
        name = self._earlier.name_here(word.name) if self._earlier else word.name
        if word.pid is not None:
            at_us = word.ending.started_us if word.ending else word.at_us
            updates.append(JobStarted(name, at_us, word.pid))
        updates += [
            JobOutput(name, stream, tuple((at, text) for at, text in lines))
            for stream, lines in word.lines
        ]
        if (end := word.ending) is not None:
            if end.report is not None:
                self._note(end.report)
            exit = told_by_container(Exit(ExitKind(end.kind), end.code, end.detail))
            updates.append(JobEnded(name, exit, end.started_us, end.ended_us, end.report))
        return updates

    def _note(self, report: bytes) -> None:
        """Take it as known that what a job has committed is in the store."""
        try:
            manifest = Report.unpack(report).manifest
        except (ValueError, TypeError, KeyError):
            return  # the scheduler will say so
        if manifest is not None:
            entries = entries_of(manifest)
            self._uploads.note(bytes.fromhex(e.digest) for e in entries if e.digest)

    async def settle(self, job: Job) -> bytes | None:
        """See `Post`.

        Raises:
            StoreError: the store does not answer.
        """
        spec = TaskSpec.unpack(job.spec)
        if job.gang is not None:
            gang = job.gang
            return await self._left_at(
                gang_result_key(spec.flow, spec.run_id, gang.name, gang.index)
            )
        runs = [spec.run_id]
        if self._earlier is not None and (earlier := self._earlier.run_of(job.name)):
            runs.append(earlier)
        for run_id in runs:
            key = manifest_key(spec.flow, run_id, spec.step, spec.task_id)
            if report := await self._left_at(key):
                return report
        return None

    async def _left_at(self, key: str) -> bytes | None:
        """The report of a job that has committed at `key`, if it has."""
        with suppress(BlobNotFoundError):
            report = Report(manifest=await self._blobs.get(key)).pack()
            self._note(report)
            return report
        return None


class Durable(Struct, frozen=True):
    """Waits until the journal as it is now is in the store."""

    end: Callable[[], int]
    until: Callable[[int], Awaitable[None]]

    async def __call__(self) -> None:
        if (end := self.end()) > 0:
            await self.until(end - 1)
