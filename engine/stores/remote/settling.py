"""Ships what a driver of this machine had no time to ship.

From before a run is listed in the object store until all of it is there, its directory here has a
file `unshipped`: it may be the only place that has some of the run. While it is there, what the
object store says of the run is behind what is here, and a run that is not listed was not deleted.
"""

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from msgspec.structs import replace

from engine.errors import NotFoundError
from engine.groups import unwrapped
from engine.stores.directory import access_error
from engine.stores.frames import FrameReader
from engine.stores.journals import JOURNAL_MAGIC, run_holder
from engine.stores.layout import Layout
from engine.stores.logs import LOG_MAGIC
from engine.stores.remote.keys import JOURNAL, LOG
from engine.stores.remote.pulling import extent
from engine.stores.remote.replica import Replica
from engine.stores.remote.shipper import Growing, Shipment
from engine.stores.remote.standing import Heartbeat
from engine.stores.threads import in_thread

_POLL_S = 0.1
_MAGICS = {JOURNAL: JOURNAL_MAGIC, LOG: LOG_MAGIC}


def mark_unshipped(layout: Layout, flow: str, run_id: str) -> None:
    """Say that a run whose directory is there may not be in the object store yet.

    Raises:
        StoreAccessError: the file system refuses.
    """
    path = layout.unshipped(flow, run_id)
    try:
        path.touch(mode=0o600)
    except OSError as error:
        raise access_error(error, str(path), "create") from error


def mark_shipped(layout: Layout, flow: str, run_id: str) -> None:
    """Say that all of a run is in the object store."""
    with suppress(OSError):  # it is shipped again then, and nothing is found to be missing
        layout.unshipped(flow, run_id).unlink()


async def settle(replica: Replica, flow: str, run_id: str) -> None:
    """Bring a run that nobody drives up to date on both sides.

    A driver of this machine that was killed may have left what it had no time to ship; what another
    machine shipped may not be here.

    Raises:
        NotFoundError: there is no such run.
        StoreError: the object store does not answer, or does not take it.
    """
    if not await replica.pulling.run(flow, run_id):
        raise NotFoundError(
            f"there is no run {flow}/{run_id}", hint=f"`aflow list {flow}` lists its runs"
        )
    if run_holder(str(replica.layout.lock(flow, run_id))) is not None:
        return
    async with _alone(replica.layout.unshipped(flow, run_id)) as is_due:
        if is_due:
            await _ship(replica, flow, run_id)
            await in_thread(mark_shipped, replica.layout, flow, run_id)


@asynccontextmanager
async def _alone(mark: Path) -> AsyncIterator[bool]:
    """Let one process of this machine at a time ship a run; False if there is nothing to ship."""
    try:
        fd = os.open(mark, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    except OSError as error:
        raise access_error(error, str(mark), "open") from error
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(_POLL_S)
        yield os.fstat(fd).st_nlink > 0  # else another process has shipped it meanwhile
    finally:
        os.close(fd)


async def _ship(replica: Replica, flow: str, run_id: str) -> None:
    """Ship a run as if it were driven: listed as alive, so that no collection takes its blobs."""
    layout = replica.layout
    run = await replica.pulling.index(flow, run_id)  # metadata of a killed driver may be behind
    if run is None:
        return  # it was killed before it began
    heart = Heartbeat(replica.blobs, replace(run, status="running", ended_us=None))
    await heart.begin()
    here = [await in_thread(_sound_end, layout, flow, run_id, name) for name in (JOURNAL, LOG)]
    segments = await replica.pulling.segments(flow, run_id)
    shipment = Shipment(
        flow,
        run_id,
        Growing(str(layout.journal(flow, run_id)), lambda: here[0]),
        Growing(str(layout.log(flow, run_id)), lambda: here[1]),
        done=(min(extent(segments[JOURNAL]), here[0]), min(extent(segments[LOG]), here[1])),
        is_settled=True,
    )
    shipper = replica.shipper(shipment)
    shipper.close()
    with unwrapped():
        async with asyncio.TaskGroup() as group:
            beating = group.create_task(heart.run(), name=f"heartbeat of {run_id}")
            await shipper.run()
            beating.cancel()
    await heart.end(run)


def _sound_end(layout: Layout, flow: str, run_id: str, name: str) -> int:
    try:
        with FrameReader(str(layout.run(flow, run_id) / name), _MAGICS[name]) as reader:
            return reader.end()
    except NotFoundError:
        return 0
