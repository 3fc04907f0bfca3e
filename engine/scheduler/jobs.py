"""From a launch to a job: what the worker is told, gathered from the journal.

Waits for nothing but the blob of a join's inputs when they are many. A fan-out of 100,000 makes as
many jobs from one parent, so what siblings share is read and decoded once and kept a while.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

import msgpack
from msgspec import Struct, field

from engine.errors import InvariantError
from engine.executors.base import OUT_OF_MEMORY, GangPlace, Job
from engine.flow.graph import Graph
from engine.ids import TaskKey
from engine.scheduler.commands import Launch
from engine.scheduler.events import ResultRef
from engine.scheduler.gangs import leader
from engine.scheduler.journal import JournalReader, SucceededRecord, decode
from engine.scheduler.retry import is_last_attempt
from engine.stores.manifest import Entry, Manifest
from engine.stores.packed import PackedList, PackedListBuilder
from engine.stores.taskspec import InputRef, TaskSpec

INPUTS_IN_SPEC = 16
INPUT_BYTES_IN_SPEC = 32 * 1024
GRACE_S = 4.0
"""The worker raises inside the step at the @timeout; the executor ends its process this much later.

So a step that ends in time has this long to save what it leaves, and one that will not end is gone
5 s after its @timeout (FAULTS R-19): LocalExecutor adds at most half a second.
"""

_READS_A_TURN = 500  # before other tasks of the loop get their turn: under 10 ms
_PARENTS_KEPT = 128
_FANOUTS_KEPT = 16
_ITEM_BYTES_IN_SPEC = 4096

T = TypeVar("T")

PutBlob = Callable[[bytes | bytearray], Awaitable[str]]
ReadList = Callable[[Entry], Awaitable[memoryview | None]]


class RunFacts(Struct, frozen=True):
    """What every task of a run is told. `parameters` is the packed manifest of the parameters.

    `environments` (variables) and `resources` are by step; a step without any may be absent.
    `more_memory` takes a step, its resources, and how often an attempt at the task has run out of
    memory; it gives the resources of the next attempt. `free_port` takes the name of a gang's
    attempt and finds it a port on this machine.
    """

    flow: str
    run_id: str
    datastore: str
    parameters: bytes
    origin_run_id: str | None = None
    username: str = ""
    tags: tuple[str, ...] = ()
    environments: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    resources: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    more_memory: Callable[[str, Mapping[str, object], int], Mapping[str, object]] | None = None
    durability: str = "process"
    verify: str = "identity"
    broker: str | None = None
    free_port: Callable[[str], int] | None = None


class _Items(Struct, frozen=True):
    """A foreach's list as its children are told of it: item by item, or as a whole."""

    each: PackedList | None
    whole: bytes
    is_blob: bool


class JobFactory:
    """Makes jobs out of launches.

    Args:
        graph: the flow.
        facts: what all tasks of the run are told.
        journal: the run's; holds the manifests that launches refer to.
        put_blob: stores bytes and returns their digest.
        read_list: gives the blob of a foreach's items, if it can be read at no cost; each task is
            then told its own item, and need not open the list.
    """

    def __init__(
        self,
        graph: Graph,
        facts: RunFacts,
        journal: JournalReader,
        put_blob: PutBlob,
        read_list: ReadList | None = None,
    ) -> None:
        self._graph = graph
        self._facts = facts
        self._journal = journal
        self._put_blob = put_blob
        self._read_list = read_list
        self._parents: dict[ResultRef, InputRef] = {}
        self._items: dict[ResultRef, _Items] = {}
        self._bundles: dict[ResultRef, str] = {}
        self._out_of_memory: dict[TaskKey, int] = {}
        self._ports: dict[str, int] = {}  # of gangs whose jobs are being made

    def name(self, task: TaskKey, attempt: int) -> str:
        """Name an attempt; unique among the attempts of all runs."""
        return f"{self._facts.run_id}-{task.step}-{task.task_id}-{attempt}"

    async def make(self, launch: Launch, task: TaskKey | None = None) -> Job:
        """Build the job of an attempt; of a gang's, that of `task`, its first if not given.

        Raises:
            StoreError: the journal cannot be read, or the store did not take the inputs.
            ExecutorError: there is no port for the gang.
        """
        task = task or launch.task
        node, facts = self._graph[task.step], self._facts
        inputs, inputs_digest = await self._inputs(launch)
        items, items_whole = await self._items_of(launch, task)
        gang = self._gang(launch, task)
        spec = TaskSpec(
            flow=facts.flow,
            run_id=facts.run_id,
            step=task.step,
            task_id=task.task_id,
            attempt=launch.attempt,
            datastore=facts.datastore,
            frames=task.frames,
            parameters=facts.parameters,
            inputs=inputs,
            inputs_digest=inputs_digest,
            items=items,
            items_whole=items_whole,
            # Of a gang nobody catches alone: the others have to be told to end.
            last_attempt=gang is None and is_last_attempt(node, launch.attempt),
            fallback=launch.fallback,
            timeout_s=node.timeout_s,
            origin_run_id=facts.origin_run_id,
            username=facts.username,
            tags=facts.tags,
            environment=facts.environments.get(task.step, {}),
            durability=facts.durability,
            verify=facts.verify,
            broker=facts.broker,
            master_port=self._port(gang),
        )
        return Job(
            name=self.name(task, launch.attempt),
            spec=spec.pack(),
            deadline_s=None if node.timeout_s is None else node.timeout_s + GRACE_S,
            # What only commits a failure that was caught needs no machine of its own.
            resources={} if launch.fallback is not None else self._resources(task),
            gang=gang,
        )

    def _gang(self, launch: Launch, task: TaskKey) -> GangPlace | None:
        if not launch.gang:
            return None
        name = self.name(launch.task, launch.attempt)
        return GangPlace(name, task.frames[-1].index, launch.gang)

    def _port(self, gang: GangPlace | None) -> int | None:
        """Where the first of a gang listens for the others: asked for once, and told to all."""
        if gang is None or self._facts.free_port is None:
            return None
        if gang.index == 0:
            self._ports[gang.name] = self._facts.free_port(gang.name)
        port = self._ports[gang.name]
        if gang.index == gang.size - 1:
            del self._ports[gang.name]
        return port

    def note(self, task: TaskKey, code: str) -> None:
        """Take note of an attempt that failed: one for want of memory may get more next time."""
        if code == OUT_OF_MEMORY and self._facts.more_memory is not None:
            first = leader(self._graph, task)  # what one of a gang lacks, all are given
            self._out_of_memory[first] = self._out_of_memory.get(first, 0) + 1

    def _resources(self, task: TaskKey) -> Mapping[str, object]:
        found = self._facts.resources.get(task.step, {})
        times = self._out_of_memory.get(leader(self._graph, task), 0)
        if times and self._facts.more_memory is not None:
            return self._facts.more_memory(task.step, found, times)
        return found

    async def _inputs(self, launch: Launch) -> tuple[list[InputRef], str | None]:
        """Gather the parents, into the spec if they are few and small, else into a blob."""
        refs = launch.inputs
        if launch.task.step == self._graph.start:
            return [], None  # its one input is the parameters, which every spec carries
        if len(refs) <= INPUTS_IN_SPEC:
            inputs = [self._parent(ref) for ref in refs]
            if sum(len(i.manifest) for i in inputs) <= INPUT_BYTES_IN_SPEC:
                return inputs, None
        digest = self._bundles.get(refs[0]) if len(refs) == 1 else None
        if digest is None:
            digest = await self._put_blob(await self._bundle(refs))
        if len(refs) == 1:  # the siblings of a fan-out will ask for the same
            _keep(self._bundles, refs[0], digest, limit=_FANOUTS_KEPT)
        return [], digest

    async def _bundle(self, refs: Sequence[ResultRef]) -> bytearray:
        bundle = PackedListBuilder(len(refs))
        for at, ref in enumerate(refs, 1):
            # Not by way of the cache: each is read once, and would push out what is shared.
            parent = self._read_parent(ref)
            bundle.add(msgpack.packb([parent.step, parent.task_id, parent.manifest]))
            if at % _READS_A_TURN == 0:
                await asyncio.sleep(0)
        return bundle.finish()

    async def _items_of(self, launch: Launch, task: TaskKey) -> tuple[list[bytes], list[bool]]:
        """Find the task's item at each foreach level, outermost first."""
        items: list[bytes] = []
        wholes: list[bool] = []
        levels = (frame for frame in task.frames if frame.is_foreach)
        for frame, ref in zip(levels, launch.scope, strict=True):
            found = self._items.get(ref) or await self._keep_items(ref)
            item = found.each[frame.index] if found.each is not None else None
            if item is not None and found.is_blob and len(item) > _ITEM_BYTES_IN_SPEC:
                item = None
            wholes.append(item is None)
            items.append(found.whole if item is None else item)
        return items, wholes

    def _parent(self, ref: ResultRef) -> InputRef:
        found = self._parents.get(ref)
        if found is None:
            found = self._read_parent(ref)
            _keep(self._parents, ref, found, limit=_PARENTS_KEPT)
        return found

    def _read_parent(self, ref: ResultRef) -> InputRef:
        record = decode(self._journal.read(ref))
        if not isinstance(record, SucceededRecord):
            raise InvariantError(f"frame {ref} is no commit", story=[repr(record)[:500]])
        return InputRef(record.task.step, record.task.task_id, record.manifest)

    async def _keep_items(self, ref: ResultRef) -> _Items:
        entry = Manifest.unpack(self._parent(ref).manifest).items
        if entry is None:
            raise InvariantError(f"the foreach at frame {ref} has no items", story=[])
        found = _Items(await self._readable(entry), entry.pack(), entry.digest is not None)
        _keep(self._items, ref, found, limit=_FANOUTS_KEPT)
        return found

    async def _readable(self, entry: Entry) -> PackedList | None:
        """The list of a foreach, where reading it here spares each child to do so."""
        if entry.codec is not None:
            return None
        if entry.inline is not None:
            return PackedList(entry.inline)
        data = await self._read_list(entry) if self._read_list else None
        return PackedList(data) if data is not None else None


def _keep(cache: dict[ResultRef, T], ref: ResultRef, value: T, *, limit: int) -> None:
    """Add to a cache of at most `limit`; the oldest goes first, for a dict keeps its order."""
    if len(cache) >= limit:
        del cache[next(iter(cache))]
    cache[ref] = value
