"""One node of a gang in AWS Batch: a multi-node job, which ends when its main node does.

So the main node stays until the others have ended, too. And what a task commits is of its gang's
attempt alone: the next attempt makes all of it anew, so nothing of this one may stand in its way.
"""

import asyncio
import socket
from collections.abc import Mapping
from contextlib import suppress

from msgspec import Struct

from engine.errors import StoreError
from engine.stores.base import BlobStore
from engine.stores.remote.parcels import Boot, gang_prefix, gang_result_key

LOOK_MIN_S = 0.5
LOOK_MAX_S = 10.0
STAY_S = 6 * 3600.0
"""How long a main node stays for the others, if no driver is there to end the job."""

_ENDED = ".ended"
_NOWHERE = ("192.0.2.1", 9)  # RFC 5737: an address of nobody


class Node(Struct, frozen=True):
    """Which node of a multi-node job a container is, and where the main one is."""

    index: int
    is_main: bool
    main_ip: str

    @classmethod
    def read(cls, variables: Mapping[str, str]) -> "Node | None":
        """Find it in the variables that Batch sets; None in a container of another job.

        Source: AWS Batch User Guide, "Environment variables" of multi-node parallel jobs: the main
        node is not told its own address (read 2026-11).
        """
        index = variables.get("AWS_BATCH_JOB_NODE_INDEX")
        if index is None:
            return None
        is_main = index == variables.get("AWS_BATCH_JOB_MAIN_NODE_INDEX", "0")
        main_ip = variables.get("AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS")
        return cls(int(index), is_main, main_ip or own_address())


class GangNode:
    """Tells the others of a gang of this node's end, and waits for theirs.

    Args:
        blobs: the object store.
        boot: of the gang's parcel, which has the names of all its jobs.
        node: this one.
    """

    def __init__(self, blobs: BlobStore, boot: Boot, node: Node) -> None:
        self._blobs = blobs
        self._node = node
        self._size = len(boot.names)
        place = boot.flow, boot.run_id, boot.names[0]
        self._prefix = gang_prefix(*place)
        self.commit_key = gang_result_key(*place, node.index)
        """Where this node's task commits what it has made in this attempt."""

    async def leave(self, told: asyncio.Event, *, is_well: bool) -> None:
        """Tell that this node's task has ended. The main node's returns when all have, or must.

        Args:
            told: is set when this node is to end whatever the others do.
            is_well: whether the task ended well; else the others need not be waited for.

        Raises:
            StoreError: the store does not take it.
        """
        await self._blobs.put(f"{self._prefix}{self._node.index}{_ENDED}", (b"",))
        if not self._node.is_main or not is_well:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(STAY_S):
                await self._others(told)

    async def _others(self, told: asyncio.Event) -> None:
        wait_s = LOOK_MIN_S
        while not told.is_set() and await self._ended() < self._size:
            try:
                async with asyncio.timeout(wait_s):
                    await told.wait()
            except TimeoutError:
                wait_s = min(LOOK_MAX_S, wait_s * 1.5)

    async def _ended(self) -> int:
        """How many have told of their end, as far as can be known."""
        try:
            listed = [info.key async for info in self._blobs.list(self._prefix)]
        except StoreError:
            return 0
        return sum(key.endswith(_ENDED) for key in listed)


def own_address() -> str:
    """This machine's address, as others in its network know it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_NOWHERE)  # chooses a way there, and sends nothing
            address: str = probe.getsockname()[0]
        except OSError:
            return "127.0.0.1"
    return address
