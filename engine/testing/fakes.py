"""Stand-ins that keep the contracts: what tests use instead of mocks.

`ScriptedExecutor` runs nothing and takes its time from the loop, so with `virtual_time` a thousand
hour-long tasks take milliseconds. `GraphScript` plays a whole flow for it.
"""

import asyncio
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence

from blake3 import blake3
from msgspec import Struct, field
from msgspec.structs import replace

from engine.errors import BlobNotFoundError, Failure, StoreError, StoreUnavailableError
from engine.executors.base import Exit, ExitKind, Job, JobEnded, JobOutput, JobStarted, JobUpdate
from engine.flow.graph import FANS_OUT, Graph, Transition
from engine.ids import TaskKey
from engine.stores.manifest import Entry, Manifest
from engine.stores.packed import pack_list
from engine.stores.taskspec import Report, TaskSpec
from engine.testing.virtual_time import clock as virtual_clock

_HEADER_BYTES = 4
_FRAME_BYTES = 8


class MemoryJournal:
    """A journal in memory, with offsets like those of a file.

    Args:
        room_bytes: how much may be appended before the disk is full.
    """

    def __init__(self, *, room_bytes: int | None = None) -> None:
        self._offsets: list[int] = []
        self._payloads: list[bytes] = []
        self._end = _HEADER_BYTES
        self._room_bytes = room_bytes

    def __len__(self) -> int:
        return len(self._payloads)

    def append(self, payload: bytes) -> int:
        if self._room_bytes is not None and self._end + len(payload) > self._room_bytes:
            raise StoreUnavailableError("no space is left for the journal")
        offset = self._end
        self._offsets.append(offset)
        self._payloads.append(payload)
        self._end += _FRAME_BYTES + len(payload)
        return offset

    def read(self, offset: int) -> bytes:
        at = bisect_left(self._offsets, offset)
        if at == len(self._offsets) or self._offsets[at] != offset:
            raise StoreError(f"no frame begins at {offset}")
        return self._payloads[at]

    def scan(self, start: int = 0) -> Iterator[tuple[int, bytes]]:
        first = bisect_left(self._offsets, start)
        return zip(self._offsets[first:], self._payloads[first:], strict=True)

    def prefix(self, frames: int) -> "MemoryJournal":
        """What a crash after so many frames leaves behind."""
        left = MemoryJournal()
        for payload in self._payloads[:frames]:
            left.append(payload)
        return left


class MemoryBlobs:
    """Blobs by digest, in memory."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}

    async def put(self, data: bytes | bytearray) -> str:
        digest = blake3(data).hexdigest()
        self.blobs[digest] = bytes(data)
        return digest

    async def get(self, digest: str) -> bytes:
        try:
            return self.blobs[digest]
        except KeyError:
            raise BlobNotFoundError(digest) from None


class Play(Struct, frozen=True):
    """What a job does: it prints, and after `seconds` it reports `outcome` and exits."""

    seconds: float = 1.0
    outcome: bytes | None = None
    exit: Exit = field(default_factory=lambda: Exit(ExitKind.RETURNED))
    stdout: tuple[str, ...] = ()
    stderr: tuple[str, ...] = ()


Script = Callable[[Job], Play]


class ScriptedExecutor:
    """Runs nothing: `script(job)` says how long each job takes and how it ends.

    A job whose `deadline_s` comes first is timed out, as a real executor would do.
    """

    def __init__(self, script: Script, *, clock: Callable[[], int] = virtual_clock) -> None:
        self._script = script
        self._clock = clock
        self._news: asyncio.Queue[JobUpdate | None] = asyncio.Queue()
        self._running: dict[str, tuple[asyncio.TimerHandle, int]] = {}
        self.started: dict[str, None] = {}  # names in the order of their start
        self.most_in_flight = 0
        self.submits = 0

    @property
    def in_flight(self) -> int:
        return len(self._running)

    async def submit(self, jobs: Sequence[Job]) -> None:
        self.submits += 1
        for job in jobs:
            if job.name not in self.started:
                self.started[job.name] = None
                self._start(job)
        self.most_in_flight = max(self.most_in_flight, len(self._running))

    async def updates(self) -> AsyncIterator[Sequence[JobUpdate]]:
        is_open = True
        while is_open:
            news = [await self._news.get()]
            while not self._news.empty():
                news.append(self._news.get_nowait())
            batch = [update for update in news if update is not None]
            is_open = len(batch) == len(news)
            if batch:
                yield batch

    async def cancel(self, names: Collection[str], *, reason: str) -> None:
        for name in names:
            self._end(name, Play(exit=Exit(ExitKind.CANCELLED, detail=reason)))

    async def aclose(self) -> None:
        await self.cancel(list(self._running), reason="the executor was closed")
        self._news.put_nowait(None)

    def tell(self, update: JobUpdate) -> None:
        """Yield an update that no law allows: a second end, news of an unknown job."""
        self._news.put_nowait(update)

    def _start(self, job: Job) -> None:
        play, loop = self._script(job), asyncio.get_running_loop()
        if job.deadline_s is not None and job.deadline_s < play.seconds:
            play = replace(
                play, seconds=job.deadline_s, outcome=None, exit=Exit(ExitKind.TIMED_OUT)
            )
        timer = loop.call_later(play.seconds, self._end, job.name, play)
        self._running[job.name] = (timer, self._clock())
        now_us = self._clock()
        self._news.put_nowait(JobStarted(job.name, now_us))
        for stream, lines in (("stdout", play.stdout), ("stderr", play.stderr)):
            if lines:
                printed = tuple((now_us, line) for line in lines)
                self._news.put_nowait(JobOutput(job.name, stream, printed))

    def _end(self, name: str, play: Play) -> None:
        timer, started_us = self._running.pop(name, (None, 0))
        if timer is None:
            return
        timer.cancel()
        now_us = self._clock()
        self._news.put_nowait(JobEnded(name, play.exit, started_us, now_us, play.outcome))


def int_entry(value: int) -> Entry:
    """A small artifact, as a worker would store it inside the manifest."""
    data = str(value).encode()
    return Entry("json", "builtins.int", len(data), blake3(data).hexdigest(), inline=data)


def items_entry(values: Sequence[int]) -> Entry:
    """A foreach's list of small items, inside the manifest."""
    data = pack_list([int_entry(v).pack() for v in values])
    return Entry("packed", "builtins.list", len(data), blake3(data).hexdigest(), inline=data)


def committed(
    spec: TaskSpec,
    targets: tuple[str, ...] = (),
    *,
    fanout: int | None = None,
    artifacts: Mapping[str, Entry] | None = None,
    caught: bool = False,
) -> bytes:
    """The report of a worker that did its task; a foreach's items are 0, 1, 2 ..."""
    manifest = Manifest(
        flow=spec.flow,
        run_id=spec.run_id,
        step=spec.step,
        task_id=spec.task_id,
        attempt=spec.attempt,
        artifacts=artifacts or {},
        transition=Transition(targets, fanout),
        items=items_entry(range(fanout)) if fanout else None,
        caught=caught,
    )
    return Report(manifest=manifest.pack()).pack()


def failed(message: str, *, retryable: bool = True) -> bytes:
    """The report of a worker whose user code raised."""
    failure = Failure("task-failed", message, type="RuntimeError", retryable=retryable)
    return Report(failure=failure).pack()


class GraphScript(Struct):
    """Plays a flow: each task takes `seconds` and goes where the graph says.

    `fanout` gives the width of each foreach; `fails` says whether an attempt raises instead.
    """

    graph: Graph
    seconds: float = 1.0
    fanout: Callable[[TaskKey], int] = lambda task: 2
    fails: Callable[[TaskKey, int], bool] = lambda task, attempt: False

    def __call__(self, job: Job) -> Play:
        spec = TaskSpec.unpack(job.spec)
        task, node = TaskKey(spec.step, spec.frames), self.graph[spec.step]
        if spec.fallback is None and self.fails(task, spec.attempt):
            return Play(self.seconds, failed(f"{task} attempt {spec.attempt}"))
        width = self.fanout(task) if node.kind in FANS_OUT else None
        caught = spec.fallback is not None
        return Play(self.seconds, committed(spec, node.next, fanout=width, caught=caught))
