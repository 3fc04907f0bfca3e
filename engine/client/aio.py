"""The client for programs with a loop: the names of engine.client.sync, awaited.

    run = await Flow("X").latest_run
    async for task in run["train"].tasks():
        print(await task.data.score)

An attribute that reads is awaited; one that is known already (`id`, `pathspec`) is not; a list is
an async iterator that fetches by page. Each read is the synchronous one, in a thread, so the two
clients cannot differ in what they say.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from engine.client import sync
from engine.client.awaited import Code, Data, Lazy, paged
from engine.client.namespaces import (
    NamespaceMismatchError,
    default_metadata,
    default_namespace,
    get_metadata,
    get_namespace,
    metadata,
    namespace,
)
from engine.client.reader import Reader
from engine.client.values import ArtifactNotFoundError
from engine.errors import Failure
from engine.stores.threads import in_thread

__all__ = [
    "ArtifactNotFoundError",
    "Client",
    "Code",
    "DataArtifact",
    "Flow",
    "Metaflow",
    "NamespaceMismatchError",
    "Run",
    "Step",
    "Task",
    "default_metadata",
    "default_namespace",
    "get_metadata",
    "get_namespace",
    "metadata",
    "namespace",
]


class Client:
    """All flows of a datastore. `Metaflow` is another name for it."""

    def __init__(self, *, reader: Reader | None = None) -> None:
        self._reader = reader

    @property
    def flows(self) -> Awaitable[list["Flow"]]:
        return in_thread(lambda: [Flow._of(f) for f in sync.Client(reader=self._reader).flows])

    def __getitem__(self, name: str) -> "Flow":
        return Flow(name, reader=self._reader)

    def __aiter__(self) -> AsyncIterator["Flow"]:
        return paged(lambda: sync.Client(reader=self._reader).flows, Flow._of)


Metaflow = Client


class Flow(Lazy[sync.Flow]):
    """A flow: its runs."""

    def __init__(self, pathspec: str, *, reader: Reader | None = None) -> None:
        super().__init__(pathspec, lambda: sync.Flow(pathspec, reader=reader))
        self._reader = reader

    @classmethod
    def _of(cls, found: sync.Flow) -> "Flow":
        flow = cls(found.pathspec, reader=found._reader)
        flow._opened = found
        return flow

    @property
    def parent(self) -> Client:
        return Client(reader=self._reader)

    def is_in_namespace(self) -> Awaitable[bool]:
        return self._read(lambda flow: flow.is_in_namespace())

    def runs(self, *tags: str) -> AsyncIterator["Run"]:
        return self._list(lambda flow: flow.runs(*tags), Run._of)

    def __aiter__(self) -> AsyncIterator["Run"]:
        return self.runs()

    def __getitem__(self, run_id: str) -> "Run":
        return Run(f"{self.pathspec}/{run_id}", reader=self._reader)

    @property
    def latest_run(self) -> Awaitable["Run | None"]:
        return self._read(lambda flow: _run(flow.latest_run))

    @property
    def latest_successful_run(self) -> Awaitable["Run | None"]:
        return self._read(lambda flow: _run(flow.latest_successful_run))

    @property
    def created_at(self) -> Awaitable[datetime | None]:
        return self._read(lambda flow: flow.created_at)

    @property
    def finished_at(self) -> Awaitable[datetime | None]:
        return self._read(lambda flow: flow.finished_at)


class Run(Lazy[sync.Run]):
    """A run: its steps, what it left, its tags."""

    def __init__(self, pathspec: str, *, reader: Reader | None = None) -> None:
        super().__init__(pathspec, lambda: sync.Run(pathspec, reader=reader))
        self._reader = reader

    @classmethod
    def _of(cls, found: sync.Run) -> "Run":
        run = cls(found.pathspec, reader=found._reader)
        run._opened = found
        return run

    @property
    def parent(self) -> Flow:
        return Flow(self.path_components[0], reader=self._reader)

    def is_in_namespace(self) -> Awaitable[bool]:
        return self._read(lambda run: run.is_in_namespace())

    @property
    def status(self) -> Awaitable[str]:
        return self._read(lambda run: run.status)

    @property
    def finished(self) -> Awaitable[bool]:
        return self._read(lambda run: run.finished)

    @property
    def successful(self) -> Awaitable[bool]:
        return self._read(lambda run: run.successful)

    @property
    def created_at(self) -> Awaitable[datetime]:
        return self._read(lambda run: run.created_at)

    @property
    def finished_at(self) -> Awaitable[datetime | None]:
        return self._read(lambda run: run.finished_at)

    def steps(self, *tags: str) -> AsyncIterator["Step"]:
        return self._list(lambda run: run.steps(*tags), Step._of)

    def __aiter__(self) -> AsyncIterator["Step"]:
        return self.steps()

    def __getitem__(self, name: str) -> "Step":
        return Step(f"{self.pathspec}/{name}", reader=self._reader)

    @property
    def end_task(self) -> Awaitable["Task | None"]:
        return self._read(lambda run: Task._of(task) if (task := run.end_task) else None)

    @property
    def data(self) -> "Data":
        """What the run left; `await run.data.x`."""
        return Data(self._read, lambda run: run.data)

    @property
    def code(self) -> Awaitable[Code | None]:
        """The code that it was started with: see engine.client.sync.Run.code."""
        return self._read(lambda run: Code(code) if (code := run.code) else None)

    @property
    def trigger(self) -> None:
        """None: see engine.client.sync.Run.trigger."""
        return

    @property
    def origin_pathspec(self) -> Awaitable[str | None]:
        return self._read(lambda run: run.origin_pathspec)

    @property
    def tags(self) -> Awaitable[frozenset[str]]:
        return self._read(lambda run: run.tags)

    @property
    def user_tags(self) -> Awaitable[frozenset[str]]:
        return self._read(lambda run: run.user_tags)

    @property
    def system_tags(self) -> Awaitable[frozenset[str]]:
        return self._read(lambda run: run.system_tags)

    async def add_tag(self, tag: str) -> None:
        await self.replace_tags([], [tag])

    async def add_tags(self, tags: Iterable[str]) -> None:
        await self.replace_tags([], tags)

    async def remove_tag(self, tag: str) -> None:
        await self.replace_tags([tag], [])

    async def remove_tags(self, tags: Iterable[str]) -> None:
        await self.replace_tags(tags, [])

    async def replace_tag(self, tag_to_remove: str, tag_to_add: str) -> None:
        await self.replace_tags([tag_to_remove], [tag_to_add])

    async def replace_tags(self, tags_to_remove: Iterable[str], tags_to_add: Iterable[str]) -> None:
        await self._read(lambda run: run.replace_tags(tags_to_remove, tags_to_add))


class Step(Lazy[sync.Step]):
    """A step of a run: its tasks."""

    def __init__(self, pathspec: str, *, reader: Reader | None = None) -> None:
        super().__init__(pathspec, lambda: sync.Step(pathspec, reader=reader))
        self._reader = reader

    @classmethod
    def _of(cls, found: sync.Step) -> "Step":
        step = cls(found.pathspec, reader=found._reader)
        step._opened = found
        return step

    @property
    def parent(self) -> Run:
        return Run(self.pathspec.rpartition("/")[0], reader=self._reader)

    @property
    def control_task(self) -> Awaitable["Task | None"]:
        """See engine.client.sync.Step.control_task."""

        def first(step: sync.Step) -> "Task | None":
            found = step.control_task
            return None if found is None else Task._of(found)

        return self._read(first)

    def control_tasks(self, *tags: str) -> AsyncIterator["Task"]:
        """See engine.client.sync.Step.control_tasks."""
        return self._list(lambda step: step.control_tasks(*tags), Task._of)

    @property
    def environment_info(self) -> None:
        """None: see engine.client.sync.Step.environment_info."""
        return

    def tasks(self, *tags: str) -> AsyncIterator["Task"]:
        return self._list(lambda step: step.tasks(*tags), Task._of)

    def __aiter__(self) -> AsyncIterator["Task"]:
        return self.tasks()

    def __getitem__(self, task_id: str) -> "Task":
        return Task(f"{self.pathspec}/{task_id}", reader=self._reader)

    @property
    def task(self) -> Awaitable["Task"]:
        return self._read(lambda step: Task._of(step.task))

    @property
    def created_at(self) -> Awaitable[datetime | None]:
        return self._read(lambda step: step.created_at)

    @property
    def finished_at(self) -> Awaitable[datetime | None]:
        return self._read(lambda step: step.finished_at)

    @property
    def parent_steps(self) -> AsyncIterator["Step"]:
        return self._list(lambda step: step.parent_steps, Step._of)

    @property
    def child_steps(self) -> AsyncIterator["Step"]:
        return self._list(lambda step: step.child_steps, Step._of)


class Task(Lazy[sync.Task]):
    """A task: its artifacts, what it printed, how it ended."""

    def __init__(
        self, pathspec: str, attempt: int | None = None, *, reader: Reader | None = None
    ) -> None:
        super().__init__(pathspec, lambda: sync.Task(pathspec, attempt, reader=reader))
        self._reader = reader

    @property
    def parent(self) -> Step:
        return Step(self.pathspec.rpartition("/")[0], reader=self._reader)

    @classmethod
    def _of(cls, found: sync.Task) -> "Task":
        task = cls(found.pathspec, reader=found._reader)
        task._opened = found
        return task

    @property
    def data(self) -> "Data":
        """Its artifacts' values; `await task.data.x`."""
        return Data(self._read, lambda task: task.data)

    @property
    def artifacts(self) -> Awaitable[list["DataArtifact"]]:
        """Its artifacts, without their values."""
        return self._read(lambda task: [DataArtifact._of(a) for a in task.artifacts])

    def __aiter__(self) -> AsyncIterator["DataArtifact"]:
        return self._list(iter, DataArtifact._of)

    def __getitem__(self, name: str) -> "DataArtifact":
        return DataArtifact(
            f"{self.pathspec}/{name}", lambda: self._sync()[name], reader=self._reader
        )

    @property
    def status(self) -> Awaitable[str]:
        return self._read(lambda task: task.status)

    @property
    def finished(self) -> Awaitable[bool]:
        return self._read(lambda task: task.finished)

    @property
    def successful(self) -> Awaitable[bool]:
        return self._read(lambda task: task.successful)

    @property
    def reused(self) -> Awaitable[bool]:
        return self._read(lambda task: task.reused)

    @property
    def created_at(self) -> Awaitable[datetime | None]:
        return self._read(lambda task: task.created_at)

    @property
    def finished_at(self) -> Awaitable[datetime | None]:
        return self._read(lambda task: task.finished_at)

    @property
    def current_attempt(self) -> Awaitable[int]:
        return self._read(lambda task: task.current_attempt)

    @property
    def exception(self) -> Awaitable[Failure | None]:
        return self._read(lambda task: task.exception)

    @property
    def index(self) -> Awaitable[int | None]:
        return self._read(lambda task: task.index)

    @property
    def parent_tasks(self) -> AsyncIterator["Task"]:
        return self._list(lambda task: task.parent_tasks, Task._of)

    @property
    def child_tasks(self) -> AsyncIterator["Task"]:
        return self._list(lambda task: task.child_tasks, Task._of)

    @property
    def parent_task_pathspecs(self) -> AsyncIterator[str]:
        return self._list(lambda task: task.parent_task_pathspecs, str)

    @property
    def child_task_pathspecs(self) -> AsyncIterator[str]:
        return self._list(lambda task: task.child_task_pathspecs, str)

    @property
    def stdout(self) -> Awaitable[str]:
        return self._read(lambda task: task.stdout)

    @property
    def stderr(self) -> Awaitable[str]:
        return self._read(lambda task: task.stderr)

    @property
    def stdout_size(self) -> Awaitable[int]:
        return self._read(lambda task: task.stdout_size)

    @property
    def stderr_size(self) -> Awaitable[int]:
        return self._read(lambda task: task.stderr_size)

    def loglines(
        self, stream: str, as_unicode: bool = True, meta_dict: Mapping[str, Any] | None = None
    ) -> AsyncIterator[tuple[datetime, str]]:
        return self._list(lambda task: task.loglines(stream), lambda line: line)

    @property
    def metadata(self) -> Awaitable[list[sync.Metadata]]:
        return self._read(lambda task: task.metadata)

    @property
    def metadata_dict(self) -> Awaitable[dict[str, str]]:
        return self._read(lambda task: task.metadata_dict)

    @property
    def runtime_name(self) -> Awaitable[str]:
        return self._read(lambda task: task.runtime_name)

    @property
    def environment_info(self) -> None:
        """None: see engine.client.sync.Step.environment_info."""
        return

    @property
    def code(self) -> Awaitable[Code | None]:
        """The code that its run was started with."""
        return self._read(lambda task: Code(code) if (code := task.code) else None)


class DataArtifact(Lazy[sync.DataArtifact]):
    """A named value of a task: what it is, without loading it; `await artifact.data` loads it."""

    def __init__(
        self,
        pathspec: str,
        open_: Callable[[], sync.DataArtifact] | None = None,
        *,
        reader: Reader | None = None,
    ) -> None:
        super().__init__(pathspec, open_ or (lambda: sync.DataArtifact(pathspec, reader=reader)))
        self._reader = reader

    @classmethod
    def _of(cls, found: sync.DataArtifact) -> "DataArtifact":
        return cls(found.pathspec, lambda: found, reader=found._reader)

    @property
    def parent(self) -> Task:
        return Task(self.pathspec.rpartition("/")[0], reader=self._reader)

    @property
    def created_at(self) -> Awaitable[datetime | None]:
        return self.finished_at

    @property
    def data(self) -> Awaitable[Any]:  # Any: users' values
        return self._read(lambda artifact: artifact.data)

    @property
    def sha(self) -> Awaitable[str]:
        return self._read(lambda artifact: artifact.sha)

    @property
    def size(self) -> Awaitable[int]:
        return self._read(lambda artifact: artifact.size)

    @property
    def type(self) -> Awaitable[str]:
        return self._read(lambda artifact: artifact.type)

    @property
    def preview(self) -> Awaitable[str]:
        return self._read(lambda artifact: artifact.preview)

    @property
    def finished_at(self) -> Awaitable[datetime | None]:
        return self._read(lambda artifact: artifact.finished_at)


def _run(found: sync.Run | None) -> Run | None:
    return Run._of(found) if found else None
