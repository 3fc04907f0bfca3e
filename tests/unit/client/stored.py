"""Runs put into a datastore through the stores' own API, for those who read them.

The flow is start (foreach over n) => work => join => end, and each run is what a driver would have
left: journal, metadata, log, blobs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack
from msgspec import to_builtins
from msgspec.structs import replace

from engine.errors import Failure
from engine.flow.graph import Graph, Kind, Node, Transition
from engine.ids import Frame, TaskKey
from engine.scheduler.journal import (
    FailedRecord,
    Record,
    RunBeganRecord,
    RunDoneRecord,
    SucceededRecord,
    encode,
)
from engine.stores.artifacts import save_values
from engine.stores.journals import JournalWriter
from engine.stores.layout import Layout, create_layout
from engine.stores.leases import Lease
from engine.stores.logs import LogBatch, LogWriter
from engine.stores.manifest import Entry, Manifest
from engine.stores.metadata.base import RunRecord, TaskRecord
from engine.stores.metadata.local import LocalMetadataSync

BEGAN_US = 1_785_000_000_000_000  # 2026-07-25T17:20:00Z

GRAPH = Graph(
    "Fan",
    {
        "start": Node("start", Kind.FOREACH, ("work",), foreach="items", doc="Make items."),
        "work": Node("work", Kind.LINEAR, ("join",), split_parents=("start",)),
        "join": Node("join", Kind.LINEAR, ("end",), is_join=True, join_of="start"),
        "end": Node("end", Kind.END),
    },
)

FAILURE = Failure(
    code="task-failed",
    message="ValueError: no such luck",
    type="ValueError",
    traceback="Traceback ...\nValueError: no such luck\n",
    where="flow.py:12  raise ValueError('no such luck')",
    hint="",
    log_tail=("one", "two"),
)


@dataclass(slots=True)
class Stored:
    """A run in the making; `finish` puts its last records."""

    root: Path
    run_id: str
    flow: str = "Fan"
    user: str = "ada"
    tags: tuple[str, ...] = ()
    origin_run_id: str | None = None
    began_us: int = BEGAN_US
    parameters: Mapping[str, object] = field(default_factory=dict)
    layout: Layout = field(init=False)
    lease: Lease = field(init=False)
    _journal: JournalWriter = field(init=False)
    _log: LogWriter = field(init=False)
    _metadata: LocalMetadataSync = field(init=False)
    _record: RunRecord = field(init=False)
    _ordinal: int = 0
    _at_us: int = 0

    def __post_init__(self) -> None:
        self.layout = create_layout(self.root)
        self.layout.create_run(self.flow, self.run_id)
        lock = str(self.layout.lock(self.flow, self.run_id))
        self.lease = Lease.acquire(lock, run=self.run_id, since_us=self.began_us)
        journal = str(self.layout.journal(self.flow, self.run_id))
        self._journal = JournalWriter(journal, self.lease)
        self._log = LogWriter(str(self.layout.log(self.flow, self.run_id)))
        self._metadata = LocalMetadataSync(self.layout.metadata)
        self._at_us = self.began_us
        graph = to_builtins(GRAPH)
        parameters = Manifest(
            self.flow, self.run_id, "_parameters", "0", 0, self.entries(self.parameters)
        )
        self.append(
            RunBeganRecord(
                at_us=self.began_us,
                flow=self.flow,
                run_id=self.run_id,
                parameters=parameters.pack(),
                user=self.user,
                host="here",
                tags=self.tags,
                origin_run_id=self.origin_run_id,
                code={"target": "flow.py:Fan"},
                graph=graph,
            )
        )
        self._record = RunRecord(
            flow=self.flow,
            run_id=self.run_id,
            status="running",
            created_us=self.began_us,
            user=self.user,
            tags=self.tags,
            system_tags=(f"user:{self.user}", "runtime:dev"),
            origin_run_id=self.origin_run_id,
            host="here",
        )
        self._metadata.put_runs([self._record])

    def entries(self, values: Mapping[str, object], step: str = "start") -> dict[str, Entry]:
        return save_values(values, self.layout.blob_directory(), step=step)

    def append(self, record: Record) -> int:
        return self._journal.append(encode(record))

    def succeed(
        self,
        key: TaskKey,
        values: Mapping[str, object],
        *,
        goes: Transition,
        attempt: int = 0,
        reused: bool = False,
        took_us: int = 1_000_000,
    ) -> None:
        """Commit a task."""
        manifest = Manifest(
            flow=self.flow,
            run_id=self.run_id,
            step=key.step,
            task_id=key.task_id,
            attempt=attempt,
            artifacts=self.entries(values, key.step),
            transition=goes,
        )
        began_us, self._at_us = self._at_us, self._at_us + took_us
        offset = self.append(
            SucceededRecord(
                self._at_us, key, attempt, began_us, self._at_us, manifest.pack(), reused
            )
        )
        self._put(
            key,
            status="succeeded",
            attempt=attempt,
            started_us=began_us,
            ended_us=self._at_us,
            result=offset,
            reused=reused,
        )

    def fail(self, key: TaskKey, *, attempt: int = 0, final: bool = True) -> None:
        """Fail an attempt."""
        began_us, self._at_us = self._at_us, self._at_us + 500_000
        self.append(FailedRecord(self._at_us, key, attempt, began_us, self._at_us, FAILURE))
        status = "failed" if final else "retrying"
        packed = bytes(msgpack.packb(FAILURE.to_dict()))
        self._put(
            key,
            status=status,
            attempt=attempt,
            started_us=began_us,
            ended_us=self._at_us,
            failure=packed,
        )

    def launch(self, key: TaskKey) -> None:
        """Let a task be running."""
        self._put(key, status="running", attempt=0, started_us=self._at_us)

    def _put(self, key: TaskKey, **fields: Any) -> None:  # Any: of TaskRecord's fields
        known = self._metadata.task(self.flow, self.run_id, key.step, key.task_id)
        record = TaskRecord(
            flow=self.flow,
            run_id=self.run_id,
            step=key.step,
            task_id=key.task_id,
            ordinal=known.ordinal if known else self._ordinal,
            **fields,
        )
        self._ordinal += known is None
        self._metadata.put_tasks([record])

    def say(self, key: TaskKey, stream: str, *lines: str, attempt: int = 0) -> None:
        """Print lines, a second apart."""
        timed = [(self._at_us + 1_000_000 * i, line) for i, line in enumerate(lines)]
        self._log.append([LogBatch(key.step, key.task_id, attempt, stream, timed)])

    def end(self, status: str, *, reason: str | None = None) -> None:
        """Put the run's last word."""
        failure = FAILURE if status == "failed" else None
        seal = {"journal": self._journal.seal, "log": self._log.seal}
        self.append(RunDoneRecord(self._at_us, status, reason, failure, seal=seal))
        self._record = replace(self._record, status=status, ended_us=self._at_us, reason=reason)
        self._metadata.put_runs([self._record])

    def die(self) -> None:
        """Let go of everything, as a driver that ended does, in whatever way."""
        self._journal.close()
        self._log.close()
        self._metadata.close()
        self.lease.release()


START = TaskKey("start")
JOIN = TaskKey("join")
END = TaskKey("end")


def work(index: int, total: int) -> TaskKey:
    """The key of task `work/index`."""
    return TaskKey("work", (Frame("start", index, total),))


def succeeded(
    root: Path,
    run_id: str,
    *,
    n: int = 3,
    values: Sequence[Mapping[str, object]] = (),
    **options: object,
) -> str:
    """A whole run: work/i leaves x = 2 i, or what `values` says; end leaves total."""
    run = Stored(root, run_id, **options)  # type: ignore[arg-type]  # by name
    run.succeed(START, {"items": list(range(n))}, goes=Transition(("work",), n))
    for i in range(n):
        left = values[i] if values else {"x": 2 * i, "_hidden": i}
        run.say(work(i, n), "stdout", f"working on {i}")
        run.succeed(work(i, n), left, goes=Transition(("join",)))
    run.say(JOIN, "stderr", "careful")
    run.succeed(JOIN, {"total": n * (n - 1)}, goes=Transition(("end",)))
    run.say(END, "stdout", "done", "bye")
    run.succeed(END, {"total": n * (n - 1), "name": "fan"}, goes=Transition(()))
    run.end("succeeded")
    run.die()
    return run_id


def failed(root: Path, run_id: str, **options: object) -> str:
    """A run whose work/1 failed twice, after work/0 was done."""
    run = Stored(root, run_id, **options)  # type: ignore[arg-type]  # by name
    run.succeed(START, {"items": [0, 1]}, goes=Transition(("work",), 2))
    run.succeed(work(0, 2), {"x": 0}, goes=Transition(("join",)))
    run.say(work(1, 2), "stderr", "first try")
    run.fail(work(1, 2), final=False)
    run.say(work(1, 2), "stderr", "second try", attempt=1)
    run.fail(work(1, 2), attempt=1)
    run.end("failed", reason="work/1 failed")
    run.die()
    return run_id
