"""A node of a gang knows its place, and the main one stays until all others have ended."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.container import gang
from engine.container.gang import GangNode, Node, own_address
from engine.container.main import Supervisor
from engine.container.orders import Assignment
from engine.stores.memory import MemoryBlobStore
from engine.stores.remote.parcels import Boot
from engine.testing import virtual_time

BOOT = Boot("Flow", "R", "f.py:Flow", is_file=True, names=("job-0", "job-1", "job-2"))
MAIN = {"AWS_BATCH_JOB_NODE_INDEX": "0", "AWS_BATCH_JOB_MAIN_NODE_INDEX": "0"}
OTHER = {
    "AWS_BATCH_JOB_NODE_INDEX": "2",
    "AWS_BATCH_JOB_MAIN_NODE_INDEX": "0",
    "AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS": "10.0.0.7",
}


@pytest.fixture(autouse=True)
def _sigterm_as_before() -> Iterator[None]:
    """What a test has set is taken back."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_a_node_finds_its_place_and_the_main_one_its_own_address() -> None:
    assert Node.read({"AWS_BATCH_JOB_ARRAY_INDEX": "3"}) is None
    assert Node.read(OTHER) == Node(2, is_main=False, main_ip="10.0.0.7")
    assert Node.read(MAIN) == Node(0, is_main=True, main_ip=own_address())


def test_a_node_takes_the_order_of_its_index() -> None:
    found = Assignment.read({"AFLOWJOB_PARCEL": "p", **OTHER})
    assert (found.index, found.node) == (2, Node(2, is_main=False, main_ip="10.0.0.7"))


def node(blobs: MemoryBlobStore, index: int) -> GangNode:
    return GangNode(blobs, BOOT, Node(index, index == 0, "10.0.0.7"))


def test_the_main_node_stays_until_all_have_ended_and_the_others_do_not() -> None:
    async def scenario() -> list[str]:
        blobs, said = MemoryBlobStore(), []

        async def main() -> None:
            await node(blobs, 0).leave(asyncio.Event(), is_well=True)
            said.append("main")

        async with asyncio.TaskGroup() as group:
            group.create_task(main())
            for index in (1, 2):
                await asyncio.sleep(60.0)
                await node(blobs, index).leave(asyncio.Event(), is_well=True)
                said.append(str(index))
        return said

    assert virtual_time.run(scenario()) == ["1", "2", "main"]


def test_a_main_node_whose_task_failed_ends_at_once() -> None:
    asyncio.run(node(MemoryBlobStore(), 0).leave(asyncio.Event(), is_well=False))


def test_a_main_node_that_stays_goes_when_it_is_told_to() -> None:
    async def scenario() -> None:
        told = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(node(MemoryBlobStore(), 0).leave(told, is_well=True))
            await asyncio.sleep(0.05)
            told.set()

    virtual_time.run(scenario())


class Terminates(MemoryBlobStore):
    """The container gets SIGTERM while something is put."""

    async def put(self, *args: Any, **more: Any) -> bool:
        os.kill(os.getpid(), signal.SIGTERM)
        return await super().put(*args, **more)


def test_a_main_node_whose_task_has_ended_hears_a_signal_before_it_stays(tmp_path: Path) -> None:
    assignment = Assignment("parcel", 0, "place", Node(0, is_main=True, main_ip="10.0.0.7"))

    async def scenario() -> None:
        async with asyncio.timeout(20.0):
            await Supervisor(Terminates(), tmp_path, BOOT, assignment).run(())

    asyncio.run(scenario())


def test_a_main_node_does_not_stay_for_ever() -> None:
    async def scenario() -> float:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        await node(MemoryBlobStore(), 0).leave(asyncio.Event(), is_well=True)
        return loop.time() - began_s

    assert virtual_time.run(scenario()) == gang.STAY_S


def test_tasks_of_one_gang_commit_beside_each_other_and_beside_other_attempts() -> None:
    blobs = MemoryBlobStore()
    again = Boot("Flow", "R", "f.py:Flow", is_file=True, names=("job-0-again",))
    keys = {node(blobs, index).commit_key for index in range(3)}
    keys.add(GangNode(blobs, again, Node(0, True, "10.0.0.7")).commit_key)
    assert len(keys) == 4
