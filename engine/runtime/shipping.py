"""What runs beside the driver when the datastore is in an object store.

The run's object is kept fresh, its journal and log are shipped, and its tasks get the blobs that
this machine lacks. The driver waits for none of it but at the end: a run is done when all of it is
where others can read it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

from msgspec import Struct
from msgspec.structs import replace

from engine.errors import EngineError, NotFoundError, StoreError, StoreUnavailableError
from engine.groups import unwrapped
from engine.scheduler.progress import Observer, RunDone, RunEvent
from engine.stores.metadata.base import RunRecord
from engine.stores.remote.broker import broker
from engine.stores.remote.cache import mark_shipped
from engine.stores.remote.keys import status_key
from engine.stores.remote.replica import Replica
from engine.stores.remote.shipper import Growing, Shipment, Shipper
from engine.stores.remote.standing import Heartbeat

SETTLE_S = 1.0
"""How long a run that was told to end goes on shipping; what is left, a resume ships."""


class Beside(Struct, frozen=True):
    """What the run needs to know of it. `broker` is the socket that tasks ask for blobs.

    `shipper` tells what is durable, and is told what others have made so.
    """

    broker: str
    observe: Observer
    shipper: Shipper


class Freight(Struct, frozen=True):
    """What is shipped: the run as it begins, and its files.

    `origins` are the ids of the runs that it goes on from. With `is_sure`, all that these name is
    in the object store.
    """

    record: RunRecord
    journal: Growing
    log: Growing
    origins: Sequence[str] = ()
    is_sure: bool = True


class _Course(Struct):
    """How a run and its shipping went so far.

    `driving` is the task that drives the run; `end` its record, once its end is journaled.
    """

    run_id: str
    driving: "asyncio.Task[object]"
    end: RunRecord | None = None
    is_over: bool = False
    is_shipped: bool = False
    is_stopped: bool = False
    refusal: EngineError | None = None

    async def follow(self, work: Awaitable[None]) -> None:
        """Do `work`; if the object store refuses it, let the driver end, and say why."""
        try:
            await work
        except (StoreError, NotFoundError) as error:
            self.refusal = self.refusal or error
            if not (self.is_over or self.is_stopped):
                # Not raised here: the group would cancel the driver, and know no reason.
                self.is_stopped = True
                self.driving.cancel(f"the datastore failed: {error.message}")


@asynccontextmanager
async def shipped(replica: Replica, freight: Freight) -> AsyncIterator[Beside]:
    """Ship a run while this block lasts; at its end, all that is left.

    Args:
        replica: the object store and its directory.
        freight: the run.

    Raises:
        RunFencedError: another process drives the run, too.
        NotFoundError: the run, or one that it goes on from, was deleted meanwhile.
        StoreError: the object store does not take it. The block is cancelled then, if it runs.
    """
    driving = asyncio.current_task()
    assert driving is not None  # a coroutine runs in one
    record, course = freight.record, _Course(freight.record.run_id, driving)
    heart = Heartbeat(replica.blobs, record, replica.now_us)
    standing = _Standing(replica, heart, freight)
    shipper = replica.shipper(
        Shipment(
            record.flow,
            record.run_id,
            freight.journal,
            freight.log,
            standing.renew,
            is_sure=freight.is_sure,
        )
    )

    def observe(event: RunEvent) -> None:
        if isinstance(event, RunDone) and event.is_journaled:
            course.end = replace(
                record, status=event.status, ended_us=event.at_us, reason=event.reason
            )
        shipper.wake()

    with _told(course), unwrapped():
        async with broker(replica.downloads.fetch) as path, asyncio.TaskGroup() as group:
            beating = group.create_task(
                course.follow(heart.run()), name=f"heartbeat of {record.run_id}"
            )
            shipping = group.create_task(
                course.follow(_ship(standing, shipper)), name=f"shipper of {record.run_id}"
            )
            limit_s: float | None = SETTLE_S
            try:
                yield Beside(path, observe, shipper)
                limit_s = None
            finally:
                course.is_over = True
                shipper.close()
                await asyncio.wait({shipping}, timeout=limit_s)
                # Without an end in the journal there is no last word; silence tells of it.
                if _has_succeeded(shipping) and course.refusal is None and course.end:
                    await heart.end(course.end)
                    mark_shipped(replica.layout, record.flow, record.run_id)
                    course.is_shipped = True
                    await replica.trim()
                beating.cancel()


def _has_succeeded(task: "asyncio.Task[None]") -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


@contextmanager
def _told(course: _Course) -> Iterator[None]:
    """Raise why the run was not shipped, and say how what is left of it gets there."""
    rest = f"what was not uploaded is kept here: aflow resume {course.run_id}"
    try:
        yield
    except asyncio.CancelledError as cancelled:
        is_ours = course.is_stopped and not course.driving.uncancel()
        if not is_ours:
            if not course.is_shipped:
                cancelled.add_note(rest)
            raise
    except StoreUnavailableError as error:
        course.refusal = error
    if course.refusal is not None:
        if isinstance(course.refusal, StoreUnavailableError):
            hint = course.refusal.hint
            course.refusal.hint = f"{hint}; {rest}" if hint else rest
        raise course.refusal


class _Standing:
    """A run's place on the list, and that of those it goes on from.

    While it is listed, nothing that is there is removed. What was removed before, with a run that
    was deleted, it must not refer to: such a run goes off the list before anything of it does.
    """

    def __init__(self, replica: Replica, heart: Heartbeat, freight: Freight) -> None:
        self._replica = replica
        self._heart = heart
        self._freight = freight

    async def begin(self) -> None:
        await self._heart.begin()
        record = self._freight.record
        self._replica.layout.listed(record.flow, record.run_id).touch(0o600)
        await self._check_origins()

    async def renew(self) -> bool:
        if not await self._heart.renew():
            return False
        await self._check_origins()
        return True

    async def _check_origins(self) -> None:
        flow = self._freight.record.flow
        for origin in self._freight.origins:
            if await self._replica.blobs.stat(status_key(flow, origin)) is None:
                raise NotFoundError(
                    f"{flow}/{origin}, which this run goes on from, was deleted meanwhile"
                )


async def _ship(standing: _Standing, shipper: Shipper) -> None:
    # Nothing is put before the run is listed: a collection that begins now must see it.
    await standing.begin()
    await shipper.run()
