"""Steps, tasks and artifacts, read. See sync.py for what the client promises."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from msgspec.structs import replace

from engine.client import lineage
from engine.client.code import Code, code_of
from engine.client.namespaces import tags_of
from engine.client.objects import Located, instant
from engine.client.reader import Reader
from engine.client.values import ArtifactNotFoundError, Artifacts, TaskData
from engine.errors import Failure, NotFoundError
from engine.ids import Pathspec
from engine.stores.manifest import Entry
from engine.stores.metadata.base import TaskRecord

_STREAMS = ("stdout", "stderr")


class Metadata(NamedTuple):
    """One fact about a task."""

    name: str
    value: str
    created_at: datetime | None
    type: str
    task: "Task"


class Step(Located):
    """A step of a run: its tasks."""

    __slots__ = ()
    _parts = 3

    @classmethod
    def _of(cls, reader: Reader, run: Pathspec, name: str) -> "Step":
        return cls._at(reader, Pathspec(run.flow, run.run, name))

    def _open(self) -> None:
        self._run_record()
        if self.id not in self._begun():
            raise NotFoundError(f"there is no step {self.pathspec!r} that has begun")

    def _begun(self) -> list[str]:
        return list(self._reader.steps(self._place.flow, self._place.run or ""))

    def _records(self) -> Iterator[TaskRecord]:
        place = self._place
        return self._reader.tasks(place.flow, place.run or "", place.step)

    def tasks(self, *tags: str) -> Iterator["Task"]:
        """Its tasks in the order in which they were launched, fetched by page."""
        if not tags or tags_of(self._run_record()).issuperset(tags):
            for record in self._records():
                yield Task._of(self._reader, record)

    def __iter__(self) -> Iterator["Task"]:
        return self.tasks()

    def __getitem__(self, task_id: str) -> "Task":
        record = self._find(task_id)
        if record is None:
            raise NotFoundError(f"{self.pathspec} has no task {task_id!r} that has begun")
        return Task._of(self._reader, record)

    def __contains__(self, task_id: object) -> bool:
        return self._find(str(task_id)) is not None

    def _find(self, task_id: str) -> TaskRecord | None:
        place = self._place
        return self._reader.task(place.flow, place.run or "", self.id, str(task_id))

    @property
    def task(self) -> "Task":
        """Its first task; the only one outside of a foreach."""
        return next(self.tasks())

    @property
    def control_task(self) -> "Task | None":
        """The first task of the step's gang; None if the step is not @parallel."""
        return next(self.control_tasks(), None)

    def control_tasks(self, *tags: str) -> Iterator["Task"]:
        """The first task of each of the step's gangs; none if the step is not @parallel.

        Args:
            tags: as for `tasks`.
        """
        node = self._reader.graph(self._place.flow, self._place.run or "").nodes.get(self.id)
        if node is None or not node.is_parallel:
            return iter(())
        return (task for task in self.tasks(*tags) if task.id.rpartition(".")[2] == "0")

    @property
    def environment_info(self) -> None:
        """None: local tasks run in the environment of the run itself."""
        return

    @property
    def created_at(self) -> datetime | None:
        """When its first task began."""
        return self.task.created_at

    @property
    def finished_at(self) -> datetime | None:
        """When its last task ended; None while one has not."""
        last_us = 0
        for record in self._records():
            if record.ended_us is None or record.status in ("running", "retrying"):
                return None
            last_us = max(last_us, record.ended_us)
        return instant(last_us)

    @property
    def parent_steps(self) -> Iterator["Step"]:
        """The steps that lead here and have begun."""
        nodes = self._reader.graph(self._place.flow, self._place.run or "").nodes
        return self._those_begun(name for name, node in nodes.items() if self.id in node.next)

    @property
    def child_steps(self) -> Iterator["Step"]:
        """The steps that this one leads to and that have begun."""
        nodes = self._reader.graph(self._place.flow, self._place.run or "").nodes
        return self._those_begun(iter(nodes[self.id].next))

    def _those_begun(self, names: Iterator[str]) -> Iterator["Step"]:
        begun = self._begun()
        return (Step._of(self._reader, self._place, name) for name in names if name in begun)


class Task(Located):
    """A task: its artifacts, what it printed, how it ended. The latest attempt, unless told.

    Args of its making by name:
        pathspec: `Flow/run/step/task`.
        attempt: which try, from 0; what an earlier one committed is nothing.
    """

    __slots__ = ("_committed", "_record")
    _parts = 4
    _record: TaskRecord
    _committed: Mapping[str, Entry] | None

    def __init__(
        self, pathspec: str, attempt: int | None = None, *, reader: Reader | None = None
    ) -> None:
        super().__init__(pathspec, reader=reader)
        if attempt is not None and attempt != self._record.attempt:
            earlier = self._reader.attempt(self._record, attempt)
            if earlier is None:
                raise NotFoundError(f"{pathspec} has no attempt {attempt}")
            self._record = earlier

    @classmethod
    def _of(cls, reader: Reader, record: TaskRecord) -> "Task":
        place = Pathspec(record.flow, record.run_id, record.step, record.task_id)
        task = cls._at(reader, place)
        task._record = record
        task._committed = None
        return task

    def _open(self) -> None:
        self._run_record()
        self._committed = None
        record = self._fetch()
        if record is None:
            raise NotFoundError(f"there is no task {self.pathspec!r} that has begun")
        self._record = record

    def _fetch(self) -> TaskRecord | None:
        place = self._place
        return self._reader.task(place.flow, place.run or "", place.step or "", self.id)

    def _now(self) -> TaskRecord:
        if self._record.status in ("running", "retrying"):
            self._record = self._fetch() or self._record
        return self._record

    def _entries(self) -> Mapping[str, Entry]:
        if self._committed is None:
            record = self._now()
            if record.result is None:
                return {}
            self._committed = self._reader.entries(record)
        return self._committed

    def _names(self) -> list[str]:
        return list(self._entries())

    def _artifact(self, name: str) -> "DataArtifact":
        artifact = DataArtifact._at(self._reader, replace(self._place, artifact=name))
        artifact._entry, artifact._finished_us = self._entries()[name], self._record.ended_us
        return artifact

    def _value(self, name: str) -> Any:  # Any: users' values
        return self._reader.value(self._entries()[name])

    @property
    def data(self) -> TaskData:
        """Its artifacts' values, each loaded when it is touched."""
        return TaskData(self.pathspec, self._names, self._value)

    @property
    def artifacts(self) -> "Artifacts[DataArtifact]":
        """Its artifacts, without their values."""
        return Artifacts(self.pathspec, self._names, self._artifact)

    def __iter__(self) -> Iterator["DataArtifact"]:
        return iter(self.artifacts)

    def __getitem__(self, name: str) -> "DataArtifact":
        if name not in self._entries():
            raise ArtifactNotFoundError(name, self.pathspec, self._names())
        return self._artifact(name)

    def __contains__(self, name: object) -> bool:
        return name in self._entries()

    @property
    def status(self) -> str:
        """ "running", "retrying", "succeeded" or "failed"."""
        return self._now().status

    @property
    def finished(self) -> bool:
        """Whether it has ended for good, in whatever way."""
        return self.status in ("succeeded", "failed")

    @property
    def successful(self) -> bool:
        return self.status == "succeeded"

    @property
    def reused(self) -> bool:
        """Whether another run had done the work."""
        return self._now().reused

    @property
    def created_at(self) -> datetime | None:
        """When this attempt began."""
        return instant(self._record.started_us)

    @property
    def finished_at(self) -> datetime | None:
        return instant(self._now().ended_us) if self.finished else None

    @property
    def current_attempt(self) -> int:
        return self._now().attempt

    @property
    def exception(self) -> Failure | None:
        """How the attempt failed, as text: type, message, traceback, where; never unpickled."""
        return self._reader.failure(self._now())

    @property
    def index(self) -> int | None:
        """Its place in the innermost foreach around it, from 0; None outside of any."""
        nodes = self._reader.graph(self._record.flow, self._record.run_id).nodes
        inside = self._record.step in nodes and lineage.depth(nodes, self._record.step) > 0
        return int(self.id.partition("-")[0].rpartition(".")[2]) if inside else None

    @property
    def parent_tasks(self) -> Iterator["Task"]:
        """The tasks that this one read from."""
        return self._neighbours(lineage.parents)

    @property
    def child_tasks(self) -> Iterator["Task"]:
        """The tasks that this one led to and that have begun."""
        return self._neighbours(lineage.children)

    @property
    def parent_task_pathspecs(self) -> Iterator[str]:
        return (task.pathspec for task in self.parent_tasks)

    @property
    def child_task_pathspecs(self) -> Iterator[str]:
        return (task.pathspec for task in self.child_tasks)

    def _neighbours(self, related: lineage.Related) -> Iterator["Task"]:
        record = self._record
        nodes = self._reader.graph(record.flow, record.run_id).nodes
        for found in related(nodes, record.step, record.task_id):
            for other in self._reader.tasks(record.flow, record.run_id, found.step):
                if found.has(other.task_id):
                    yield Task._of(self._reader, other)

    @property
    def stdout(self) -> str:
        """All that the attempt printed."""
        return self._text("stdout")

    @property
    def stderr(self) -> str:
        return self._text("stderr")

    def _text(self, stream: str) -> str:
        return "".join(f"{text}\n" for _, text in self.loglines(stream))

    @property
    def stdout_size(self) -> int:
        """In bytes of UTF-8."""
        return len(self.stdout.encode())

    @property
    def stderr_size(self) -> int:
        return len(self.stderr.encode())

    def loglines(
        self, stream: str, as_unicode: bool = True, meta_dict: Mapping[str, Any] | None = None
    ) -> Iterator[tuple[datetime, str]]:
        """What the attempt printed on "stdout" or "stderr", with the time of each line.

        `as_unicode` and `meta_dict` are Metaflow's; lines are always text.

        Raises:
            ValueError: no such stream.
        """
        if stream not in _STREAMS:
            raise ValueError(f"stream is one of {_STREAMS}, not {stream!r}")
        for line in self._reader.lines(self._now(), stream):
            yield instant(line.at_us), line.text  # type: ignore[misc]  # never None here

    @property
    def metadata(self) -> list[Metadata]:
        """Facts about the attempt."""
        record = self._now()
        facts = {
            "attempt": str(record.attempt),
            "attempt_ok": str(record.status == "succeeded"),
            "origin-run-id": self._reader.origin(record.flow, record.run_id) or "",
        }
        at = instant(record.started_us)
        return [Metadata(k, v, at, k, self) for k, v in facts.items() if v]

    @property
    def metadata_dict(self) -> dict[str, str]:
        return {fact.name: fact.value for fact in self.metadata}

    @property
    def runtime_name(self) -> str:
        """ "dev", Metaflow's word for a run that a person started."""
        return "dev"

    @property
    def code(self) -> Code | None:
        """The code that its run was started with; None: see Run.code."""
        return code_of(self._reader, self._place.flow, self._place.run or "")

    @property
    def environment_info(self) -> None:
        """None: see Step.environment_info."""
        return


class DataArtifact(Located):
    """A named value of a task: what it is, without loading it; `data` loads it."""

    __slots__ = ("_entry", "_finished_us")
    _parts = 5
    _entry: Entry
    _finished_us: int | None

    def _open(self) -> None:
        task = Task(self.pathspec.rpartition("/")[0], reader=self._reader)
        found = task[self.id]
        self._entry, self._finished_us = found._entry, found._finished_us

    @property
    def data(self) -> Any:  # Any: users' values
        """The value, loaded anew each time."""
        return self._reader.value(self._entry)

    @property
    def sha(self) -> str:
        """BLAKE3 of the serialized value, in hex; equal for equal bytes."""
        return self._entry.sha

    @property
    def size(self) -> int:
        """Bytes, serialized."""
        return self._entry.size_bytes

    @property
    def type(self) -> str:
        """The value's qualified type."""
        return self._entry.type

    @property
    def preview(self) -> str:
        """The start of its repr, made when it was saved."""
        return self._entry.preview

    @property
    def finished_at(self) -> datetime | None:
        return instant(self._finished_us)

    created_at = finished_at
