"""What a container was started to do: its variables, parcel and code, fetched and checked."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from engine.container.gang import Node
from engine.errors import StoreError, UsageError
from engine.groups import unwrapped
from engine.package.bundle import Bundle
from engine.stores.artifacts import load_entry
from engine.stores.base import BlobStore
from engine.stores.directory import BlobDirectory
from engine.stores.manifest import Entry
from engine.stores.packed import HEAD_BYTES, PackedSpan, span_of
from engine.stores.remote.downloads import Downloads
from engine.stores.remote.parcels import Boot, Order
from engine.stores.threads import in_thread

_FIRST_BYTES = 64 << 10


class Assignment(Struct, frozen=True):
    """Which container of which parcel this is; `place` tells it from others of the same jobs.

    `node` is its place in a multi-node job, if it is of one. `is_repeated` if Batch has started it
    before, and took its machine away.
    """

    parcel: str
    index: int
    place: str
    node: Node | None = None
    is_repeated: bool = False

    @classmethod
    def read(cls, variables: Mapping[str, str]) -> "Assignment":
        """Find it in the variables that the job was submitted with, and those that Batch sets.

        Raises:
            UsageError: this is not a container of aflow.

        Source: AWS Batch User Guide, "Job environment variables" (read 2026-11).
        """
        parcel = variables.get("AFLOWJOB_PARCEL")
        if not parcel:
            raise UsageError(
                "engine.container runs in containers that aflow has started",
                hint="run a step there: aflow run FLOW.py --with batch",
            )
        job = variables.get("AWS_BATCH_JOB_ID", f"process-{os.getpid()}")
        attempt = variables.get("AWS_BATCH_JOB_ATTEMPT", "1")
        node = Node.read(variables)
        index = node.index if node else int(variables.get("AWS_BATCH_JOB_ARRAY_INDEX", "0"))
        return cls(parcel, index, f"{job}:{index}:{attempt}", node, attempt != "1")


async def fetch_orders(blobs: BlobStore, assignment: Assignment) -> tuple[Boot, list[Order]]:
    """Read what all jobs of the parcel have in common, and the orders of this container.

    Raises:
        StoreError: the parcel is not there, or damaged, or too short.
    """
    key = assignment.parcel
    first = await blobs.get_range(key, 0, _FIRST_BYTES)

    async def read(span: PackedSpan) -> bytes:
        if span.end <= len(first):
            return first[span.start : span.end]
        return await blobs.get_range(key, span.start, span.end - span.start)

    async def item(index: int) -> bytes:
        table = span_of(first[:HEAD_BYTES], index)
        return await read(table.item(await read(table.offsets)))

    try:
        boot = Boot.unpack(await item(0))
        first_order = assignment.index * boot.pack
        mine = range(first_order, len(boot.names))[: boot.pack]
        with unwrapped():
            async with asyncio.TaskGroup() as group:
                reading = [group.create_task(item(1 + index)) for index in mine]
        if not reading:
            raise IndexError
        return boot, [Order.unpack(task.result()) for task in reading]
    except IndexError as error:
        raise StoreError(f"parcel {key} has no orders for container {assignment.index}") from error


async def fetch_code(boot: Boot, downloads: Downloads, directory: BlobDirectory, to: Path) -> None:
    """Write the flow's code into the directory `to`; nothing if the flow came by value.

    Raises:
        StoreError: the package is not there, or damaged.
    """
    if not boot.code:
        return
    entry = Entry.unpack(boot.code)
    if entry.digest is not None:
        await downloads.fetch(entry.digest)
    data = await in_thread(load_entry, entry, directory, allow_pickle=False)
    if not isinstance(data, bytes):
        raise StoreError("the code package of the run is none")
    await in_thread(Bundle(data).extract, to)
