"""What runs beside the driver when the datastore is in an object store.

The run's object is kept fresh, its journal and log are shipped, and its tasks get the blobs that
this machine lacks. The driver waits for none of it but at the end: a run is done when all of it is
where others can read it.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress

from msgspec import Struct
from msgspec.structs import replace

from engine.errors import EngineError, NotFoundError, StoreError, StoreUnavailableError
from engine.groups import unwrapped
from engine.scheduler.progress import Observer, RunDone, RunEvent
from engine.stores.base import BlobStore
from engine.stores.metadata.base import RunRecord
from engine.stores.remote.broker import broker
from engine.stores.remote.keys import status_key
from engine.stores.remote.replica import Replica
from engine.stores.remote.settling import mark_shipped, mark_unshipped
from engine.stores.remote.shipper import Growing, Shipment
from engine.stores.remote.standing import Heartbeat
from engine.stores.threads import in_thread

SETTLE_S = 1.0
"""How long a run that was told to end goes on shipping; what is left, a resume ships."""

LAST_WORD_S = 0.5
"""How long it then tries to say that it was interrupted, which others would guess in minutes."""


class Beside(Struct, frozen=True):
    """What the run needs to know of it. `broker` is the socket that tasks ask for blobs."""

    broker: str
    observe: Observer


class _Course(Struct):
    """How a run and its shipping went so far. `driving` is the task that drives it."""

    record: RunRecord
    driving: "asyncio.Task[object]"
    has_ended: bool = False
    is_shipped: bool = False
    is_stopped: bool = False
    refusal: EngineError | None = None

    def refuse(self, error: EngineError) -> None:
        """The object store does not take the run: let its driver end, if it still drives."""
        self.refusal = error
        if not self.has_ended:
            self.is_stopped = True
            self.driving.cancel(f"the datastore failed: {error.message}")


@asynccontextmanager
async def shipped(
    replica: Replica,
    record: RunRecord,
    journal: Growing,
    log: Growing,
    origins: Sequence[str] = (),
) -> AsyncIterator[Beside]:
    """Ship a run while this block lasts; at its end, all that is left.

    Args:
        replica: the object store and its directory.
        record: of the run, as it begins.
        journal, log: its files.
        origins: ids of the runs of whose results it makes use.

    Raises:
        RunFencedError: another process drives the run, too, or it was taken for dead.
        NotFoundError: one of `origins` was deleted meanwhile.
        StoreError: the object store does not take it. The block is cancelled then, if it runs.
    """
    driving = asyncio.current_task()
    assert driving is not None  # a coroutine runs in one
    course = _Course(record, driving)
    heart = Heartbeat(replica.blobs, record)
    shipper = replica.shipper(Shipment(record.flow, record.run_id, journal, log))

    def observe(event: RunEvent) -> None:
        if isinstance(event, RunDone):
            course.record = replace(
                record, status=event.status, ended_us=event.at_us, reason=event.reason
            )
        shipper.wake()

    async def ship() -> None:
        try:
            # Nothing is put before the run is listed: a collection that begins now must see it.
            await heart.begin()
            await _check_origins(replica.blobs, record.flow, origins)
            await shipper.run()
        except (StoreError, NotFoundError) as error:
            course.refuse(error)

    await in_thread(mark_unshipped, replica.layout, record.flow, record.run_id)
    with _told(course), unwrapped():
        async with broker(replica.downloads.fetch) as path, asyncio.TaskGroup() as group:
            beating = group.create_task(heart.run(), name=f"heartbeat of {record.run_id}")
            shipping = group.create_task(ship(), name=f"shipper of {record.run_id}")
            limit_s: float | None = SETTLE_S
            try:
                yield Beside(path, observe)
                limit_s = None
            finally:
                course.has_ended = True
                shipper.close()
                try:
                    await asyncio.wait({shipping}, timeout=limit_s)
                finally:
                    beating.cancel()
                    await _last_word(replica, heart, course, is_whole=_has_succeeded(shipping))
                    shipping.cancel()


def _has_succeeded(task: "asyncio.Task[None]") -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


async def _check_origins(blobs: BlobStore, flow: str, run_ids: Sequence[str]) -> None:
    """Make sure that the runs to go on from are still listed, now that this one is.

    Who deletes them from now on sees this one, and leaves what they refer to.
    """
    keys = [status_key(flow, run_id) for run_id in run_ids]
    with unwrapped():
        async with asyncio.TaskGroup() as group:
            looks = [group.create_task(blobs.stat(key)) for key in keys]
    for run_id, look in zip(run_ids, looks, strict=True):
        if look.result() is None:
            raise NotFoundError(
                f"run {flow}/{run_id} was deleted as this one began to go on from it",
                hint="start the flow with `aflow run`",
            )


async def _last_word(
    replica: Replica, heart: Heartbeat, course: _Course, *, is_whole: bool
) -> None:
    """List the run as ended: as it has, or as interrupted if not all of it was shipped."""
    if course.refusal is not None:
        return
    record = course.record
    if is_whole and record.status != "running":
        try:
            await heart.end(record)
        except StoreError as error:
            course.refuse(error)
            return
        await in_thread(mark_shipped, replica.layout, record.flow, record.run_id)
        course.is_shipped = True
        return
    ended_us = record.ended_us or time.time_ns() // 1000
    # Without a reason: its journal, as far as others have it, knows none.
    cut = replace(record, status="interrupted", ended_us=ended_us, reason=None)
    with suppress(StoreError, TimeoutError):
        async with asyncio.timeout(LAST_WORD_S):
            await heart.end(cut)


@contextmanager
def _told(course: _Course) -> Iterator[None]:
    """Raise why the run was not shipped, and say how what is left of it gets there."""
    rest = f"what was not uploaded is kept here: aflow resume {course.record.run_id}"
    try:
        yield
    except asyncio.CancelledError as cancelled:
        is_ours = course.is_stopped and not course.driving.uncancel()
        if not is_ours:
            if not course.is_shipped:
                cancelled.add_note(rest)
            raise
    if course.refusal is not None:
        if isinstance(course.refusal, StoreUnavailableError):
            hint = course.refusal.hint
            course.refusal.hint = f"{hint}; {rest}" if hint else rest
        raise course.refusal
