"""What runs beside the driver when the datastore is in an object store.

The run's object is kept fresh, its journal and log are shipped, and its tasks get the blobs that
this machine lacks. The driver waits for none of it but at the end: a run is done when all of it is
where others can read it.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from msgspec import Struct
from msgspec.structs import replace

from engine.errors import StoreUnavailableError
from engine.groups import unwrapped
from engine.scheduler.progress import Observer, RunDone, RunEvent
from engine.stores.metadata.base import RunRecord
from engine.stores.remote.broker import broker
from engine.stores.remote.cache import mark_shipped
from engine.stores.remote.replica import Replica
from engine.stores.remote.shipper import Growing, Shipment, Shipper
from engine.stores.remote.standing import Heartbeat

SETTLE_S = 1.5
"""How long a run that was told to end goes on shipping; what is left, a resume ships."""


class Beside(Struct, frozen=True):
    """What the run needs to know of it. `broker` is the socket that tasks ask for blobs.

    `shipper` tells what is durable, and is told what others have made so.
    """

    broker: str
    observe: Observer
    shipper: Shipper


class _Last(Struct):
    record: RunRecord


@asynccontextmanager
async def shipped(
    replica: Replica, record: RunRecord, journal: Growing, log: Growing
) -> AsyncIterator[Beside]:
    """Ship a run while this block lasts; at its end, all that is left.

    Args:
        replica: the object store and its directory.
        record: of the run, as it begins.
        journal, log: its files.

    Raises:
        RunFencedError: another process drives the run, too.
        StoreError: the object store does not take it. The block is cancelled then, if it runs.
    """
    heart, last = Heartbeat(replica.blobs, record), _Last(record)
    shipper = replica.shipper(Shipment(record.flow, record.run_id, journal, log))

    def observe(event: RunEvent) -> None:
        if isinstance(event, RunDone):
            last.record = replace(
                record, status=event.status, ended_us=event.at_us, reason=event.reason
            )
        shipper.wake()

    with _told(record), unwrapped():
        async with broker(replica.downloads.fetch) as path, asyncio.TaskGroup() as group:
            beating = group.create_task(heart.run(), name=f"heartbeat of {record.run_id}")
            shipping = group.create_task(_ship(heart, shipper), name=f"shipper of {record.run_id}")
            limit_s: float | None = SETTLE_S
            try:
                yield Beside(path, observe, shipper)
                limit_s = None
            finally:
                shipper.close()
                await asyncio.wait({shipping}, timeout=limit_s)
                beating.cancel()
                if shipping.done() and not shipping.cancelled() and not shipping.exception():
                    await heart.end(last.record)
                    mark_shipped(replica.layout, record.flow, record.run_id)
                    await replica.trim()


@contextmanager
def _told(record: RunRecord) -> Iterator[None]:
    try:
        yield
    except StoreUnavailableError as error:
        kept = f"what was not uploaded is kept here: aflow resume {record.run_id}"
        error.hint = f"{error.hint}; {kept}" if error.hint else kept
        raise


async def _ship(heart: Heartbeat, shipper: Shipper) -> None:
    # Nothing is put before the run is listed: a collection that begins now must see it.
    await heart.begin()
    await shipper.run()
