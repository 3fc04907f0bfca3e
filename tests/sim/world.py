"""A world for the driver, made from a seed: workers that compute, executors that lie and fall.

A worker reads what its spec gives it and commits one value: a digest of its step, its items and its
inputs in their order. So a value that is right says that everything under it was right too.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from random import Random

import msgpack
from blake3 import blake3

from engine.executors.base import Exit, ExitKind, Job, JobEnded, JobOutput, JobUpdate
from engine.flow.graph import FANS_OUT, Graph
from engine.ids import TaskKey
from engine.stores.manifest import Entry, Manifest
from engine.stores.packed import PackedList
from engine.stores.taskspec import InputRef, Report, TaskSpec
from engine.testing.fakes import MemoryBlobs, Play, ScriptedExecutor, committed, failed, int_entry
from tests.sim.faults import Epoch
from tests.sim.stores import Life


def width_of(seed: int, task: TaskKey) -> int:
    """How many items a foreach finds: mostly few, now and then more than fit into a spec."""
    rng = Random(f"{seed}/width/{task}")
    return rng.choice((1, 1, 2, 2, 3, 4, 20)) if len(task.frames) < 2 else rng.choice((1, 2, 3))


def value_of(step: str, items: Sequence[int], inputs: Sequence[str]) -> str:
    """What a task makes of what it was given."""
    return blake3(msgpack.packb([step, list(items), list(inputs)])).hexdigest()


def caught_value(task: TaskKey) -> str:
    return f"caught {task}"


def value_in(manifest: Manifest, blobs: Mapping[str, bytes]) -> str:
    """The value that a task committed, inside the manifest or in a blob that hashes right."""
    entry = manifest.artifacts["value"]
    if entry.digest is None:
        return (entry.inline or b"").decode()
    data = blobs[entry.digest]
    assert blake3(data).hexdigest() == entry.digest
    return data.decode()


class Worker:
    """Plays each job: computes its value, and then meets its fate."""

    def __init__(self, graph: Graph, epoch: Epoch, blobs: MemoryBlobs) -> None:
        self._graph = graph
        self._epoch = epoch
        self._blobs = blobs
        self.fates: Counter[str] = Counter()

    def __call__(self, job: Job) -> Play:
        spec = TaskSpec.unpack(job.spec)
        seconds = self._epoch.rng(f"{job.name}/seconds").choice((0.0, 0.5, 1.0, 1.0, 7.0))
        fate = self._epoch.fate(job.name)
        self.fates[fate] += 1
        lines = (f"{job.name} says hello",) if seconds > 1.0 else ()
        match fate:
            case "raises":
                return Play(seconds, failed("boom"), stdout=lines)
            case "raises for good":
                return Play(seconds, failed("boom", retryable=False), stdout=lines)
            case "segfaults":
                return Play(seconds, exit=Exit(ExitKind.SIGNAL, 11), stdout=lines)
            case "exits":
                return Play(seconds, exit=Exit(ExitKind.CODE, 3), stdout=lines)
            case "stalls":
                return Play(1_000.0, self.report(spec))
            case "talks nonsense":
                return Play(seconds, b"\xc1\xc1")
            case "is lost, then heard of late":
                return Play(seconds, exit=Exit(ExitKind.LOST))
            case "answers for another":
                other = msgpack.unpackb(Report.unpack(self.report(spec)).manifest or b"")
                other["task"] += ".99"
                return Play(seconds, Report(manifest=msgpack.packb(other)).pack())
            case "reports by digest":
                return Play(seconds, self._by_digest(spec))
            case _:
                return Play(seconds, self.report(spec), stdout=lines)

    def report(self, spec: TaskSpec) -> bytes:
        task, node = TaskKey(spec.step, spec.frames), self._graph[spec.step]
        width = width_of(self._epoch.seed, task) if node.kind in FANS_OUT else None
        is_caught = spec.fallback is not None
        value = caught_value(task) if is_caught else self._value(spec)
        return committed(
            spec,
            node.next,
            fanout=width,
            artifacts={"value": self._entry(str(task), value.encode())},
            caught=is_caught,
        )

    def _entry(self, task: str, data: bytes) -> Entry:
        """A value inside the manifest, or now and then in a blob."""
        if self._epoch.rng(f"{task}/entry").random() < 0.8:
            return Entry("json", "str", len(data), "", inline=data)
        return Entry("json", "str", len(data), "", digest=self._stored(data))

    def _by_digest(self, spec: TaskSpec) -> bytes:
        manifest = Report.unpack(self.report(spec)).manifest or b""
        return Report(manifest_digest=self._stored(manifest)).pack()

    def _stored(self, data: bytes) -> str:
        digest = blake3(data).hexdigest()
        self._blobs.blobs[digest] = data
        return digest

    def _value(self, spec: TaskSpec) -> str:
        inputs = list(spec.inputs)
        if spec.inputs_digest is not None:
            bundle = PackedList(self._blobs.blobs[spec.inputs_digest])
            inputs = [InputRef(*msgpack.unpackb(data)) for data in bundle]
        assert not any(spec.items_whole)
        items = [int((_unpacked(data).inline or b"").decode()) for data in spec.items]
        values = [value_in(Manifest.unpack(i.manifest), self._blobs.blobs) for i in inputs]
        return value_of(spec.step, items, values)


def _unpacked(data: bytes) -> Entry:
    entry = Entry.unpack(data)
    assert entry == int_entry(int(entry.inline or b""))
    return entry


class FaultyExecutor(ScriptedExecutor):
    """Breaks its own laws as the epoch says: ends twice or late, tells of strangers, falls over."""

    def __init__(self, worker: Worker, epoch: Epoch, clock: Callable[[], int], life: Life) -> None:
        super().__init__(worker, clock=clock)
        self._epoch = epoch
        self._worker = worker
        self._life = life
        self._specs: dict[str, TaskSpec] = {}

    async def submit(self, jobs: Sequence[Job]) -> None:
        taken = self._epoch.faults.submits_taken
        if taken is not None and self.submits >= taken:
            raise ConnectionError("the queue is closed")
        luck = self._epoch.rng(f"submit {self.submits}").random()
        if luck < 0.1:
            await asyncio.sleep(2.0)
        if self._life.is_over:
            return
        if luck > 0.97:
            self.tell(JobEnded("of another run", Exit(ExitKind.RETURNED), 1, 2, b"\xc0"))
            self.tell(JobOutput("of another run", "stdout", ((1, "hello"),)))
        self._specs.update((job.name, TaskSpec.unpack(job.spec)) for job in jobs)
        await super().submit(jobs)

    async def updates(self) -> AsyncIterator[Sequence[JobUpdate]]:
        loop, rng = asyncio.get_running_loop(), self._epoch.rng("order")
        if self._epoch.faults.executor_lost_at_s is not None:
            loop.call_later(self._epoch.faults.executor_lost_at_s, self._news.put_nowait, None)
        async for batch in super().updates():
            yield batch if rng.random() < 0.5 else rng.sample(batch, len(batch))
        raise ConnectionError("the executor fell over")

    async def cancel(self, names: Collection[str], *, reason: str) -> None:
        if self._epoch.rng("cancel").random() < 0.5:
            return await super().cancel(names, reason=reason)
        for name in names:  # takes its time
            play = Play(exit=Exit(ExitKind.CANCELLED, detail=reason))
            asyncio.get_running_loop().call_later(3.0, self._end, name, play)
        return None

    def _end(self, name: str, play: Play) -> None:
        is_running = name in self._running
        super()._end(name, play)
        if not is_running or play.exit.kind is ExitKind.CANCELLED:
            return
        again: JobEnded | None = None
        match self._epoch.fate(name):
            case "ends twice":
                again = JobEnded(name, play.exit, 1, 2, play.outcome)
            case "is lost, then heard of late":
                report = self._worker.report(self._specs[name])
                again = JobEnded(name, Exit(ExitKind.RETURNED), 1, 2, report)
        if again is not None:
            delay_s = self._epoch.rng(f"{name}/again").choice((0.0, 2.0, 31.0))
            asyncio.get_running_loop().call_later(delay_s, self.tell, again)
