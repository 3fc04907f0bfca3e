"""Flows and runs, read. See sync.py for what the client promises."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from engine.client.code import Code, code_of
from engine.client.namespaces import default_reader, get_namespace, in_namespace, tags_of
from engine.client.objects import Located, instant
from engine.client.reader import ENDED, Reader
from engine.client.tasks import Step, Task
from engine.client.values import TaskData
from engine.errors import NotFoundError, UsageError
from engine.ids import Pathspec
from engine.stores.metadata.base import RunRecord


class Client:
    """All flows of a datastore. `Metaflow` is another name for it."""

    def __init__(self, *, reader: Reader | None = None) -> None:
        self._reader = reader or default_reader()

    @property
    def flows(self) -> list["Flow"]:
        """The flows that have a run in the namespace, by name."""
        found = (Flow._at(self._reader, Pathspec(name)) for name in self._reader.flows())
        return [flow for flow in found if flow.is_in_namespace()]

    def __iter__(self) -> Iterator["Flow"]:
        return iter(self.flows)

    def __getitem__(self, name: str) -> "Flow":
        return Flow(name, reader=self._reader)

    def __contains__(self, name: object) -> bool:
        return any(flow.id == name for flow in self.flows)

    def __repr__(self) -> str:
        return f"Client({self._reader.root!r})"


class Flow(Located):
    """A flow: its runs."""

    __slots__ = ()
    _parts = 1

    def _open(self) -> None:
        if self._place.flow not in self._reader.flows():
            raise NotFoundError(
                f"there is no flow {self._place.flow!r} in {self._reader.root}",
                hint="`aflow list` shows the flows there are",
            )

    @property
    def parent(self) -> Client:
        return Client(reader=self._reader)

    def runs(self, *tags: str) -> Iterator["Run"]:
        """Runs in the namespace that have all of `tags`, newest first, fetched by page."""
        name = get_namespace()
        for record in self._reader.runs(self._place.flow):
            if in_namespace(record, name) and tags_of(record).issuperset(tags):
                yield Run._of(self._reader, record)

    def __iter__(self) -> Iterator["Run"]:
        return self.runs()

    def __getitem__(self, run_id: str) -> "Run":
        return Run(f"{self._place.flow}/{run_id}", reader=self._reader)

    def __contains__(self, run_id: object) -> bool:
        return self._reader.run(self._place.flow, str(run_id)) is not None

    @property
    def latest_run(self) -> "Run | None":
        return next(self.runs(), None)

    @property
    def latest_successful_run(self) -> "Run | None":
        return next((run for run in self.runs() if run.successful), None)

    def is_in_namespace(self) -> bool:
        return get_namespace() is None or self.latest_run is not None

    @property
    def created_at(self) -> datetime | None:
        """When its first run began."""
        begins = (record.created_us for record in self._reader.runs(self._place.flow))
        return instant(min(begins, default=None))

    @property
    def finished_at(self) -> datetime | None:
        """When its latest run ended."""
        run = self.latest_run
        return run.finished_at if run else None


def change_tags(
    reader: Reader, run: RunRecord, tags_to_remove: Iterable[str], tags_to_add: Iterable[str]
) -> RunRecord:
    """Remove user tags of a run, then add others, in one step.

    Raises:
        UsageError: a system tag would be removed, a text cannot be a tag, or they become too many.
    """
    add, remove = list(tags_to_add), list(tags_to_remove)
    if system := [tag for tag in remove if tag in run.system_tags]:
        raise UsageError(
            f"{system[0]!r} is a system tag and stays", hint="only user tags can be removed"
        )
    return reader.change_tags(
        run.flow,
        run.run_id,
        add=[tag for tag in add if tag not in run.system_tags],
        remove=[tag for tag in remove if tag not in add],
    )


class Run(Located):
    """A run: its steps, what it left, its tags."""

    __slots__ = ("_record",)
    _parts = 2
    _record: RunRecord

    @classmethod
    def _of(cls, reader: Reader, record: RunRecord) -> "Run":
        run = cls._at(reader, Pathspec(record.flow, record.run_id))
        run._record = record
        return run

    def _open(self) -> None:
        self._record = self._run_record()

    def _now(self) -> RunRecord:
        """The record as it is now: tags can change even of a run that has ended."""
        self._record = self._run_record()
        return self._record

    @property
    def status(self) -> str:
        """ "running", "succeeded", "failed", or "interrupted", also when its driver has died."""
        if self._record.status not in ENDED:
            self._now()
        return self._reader.status(self._record)

    @property
    def finished(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self.status in ENDED

    @property
    def successful(self) -> bool:
        return self.status == "succeeded"

    @property
    def created_at(self) -> datetime:
        return datetime.fromtimestamp(self._record.created_us / 1_000_000, UTC)

    @property
    def finished_at(self) -> datetime | None:
        """When it ended; None while it runs, and of one whose driver died."""
        if self._record.ended_us is None:
            self._now()
        return instant(self._record.ended_us)

    def _begun(self) -> list[str]:
        return list(self._reader.steps(self._record.flow, self._record.run_id))

    def steps(self, *tags: str) -> Iterator[Step]:
        """The steps that have begun, newest first. `tags` are the run's, as every tag is."""
        if not tags or self.tags.issuperset(tags):
            for name in reversed(self._begun()):
                yield Step._of(self._reader, self._place, name)

    def __iter__(self) -> Iterator[Step]:
        return self.steps()

    def __getitem__(self, name: str) -> Step:
        if name not in self:
            raise NotFoundError(f"{self.pathspec} has no step {name!r} that has begun")
        return Step._of(self._reader, self._place, name)

    def __contains__(self, name: object) -> bool:
        return name in self._begun()

    @property
    def end_task(self) -> Task | None:
        """The task of the last step, once it has succeeded."""
        flow, run_id = self._record.flow, self._record.run_id
        record = self._reader.task(flow, run_id, self._reader.graph(flow, run_id).end, "0")
        return Task._of(self._reader, record) if record and record.status == "succeeded" else None

    @property
    def data(self) -> TaskData | None:
        """What the run left: the artifacts of its last task."""
        task = self.end_task
        return task.data if task else None

    @property
    def code(self) -> Code | None:
        """The code that it was started with.

        None if there is no package of it: of a flow that was defined in a notebook, say, or whose
        directory is too large. `aflow package info` tells the reason.
        """
        return code_of(self._reader, self._record.flow, self._record.run_id)

    @property
    def trigger(self) -> None:
        """None: nothing but people and programs starts local runs."""
        return

    @property
    def origin_pathspec(self) -> str | None:
        """The run that this one resumed."""
        origin = self._record.origin_run_id
        return f"{self._record.flow}/{origin}" if origin else None

    @property
    def tags(self) -> frozenset[str]:
        """User tags and system tags."""
        return tags_of(self._now())

    @property
    def user_tags(self) -> frozenset[str]:
        return frozenset(self._now().tags)

    @property
    def system_tags(self) -> frozenset[str]:
        return frozenset(self._now().system_tags)

    def is_in_namespace(self) -> bool:
        return in_namespace(self._record, get_namespace())

    def add_tag(self, tag: str) -> None:
        self.replace_tags([], [tag])

    def add_tags(self, tags: Iterable[str]) -> None:
        self.replace_tags([], tags)

    def remove_tag(self, tag: str) -> None:
        self.replace_tags([tag], [])

    def remove_tags(self, tags: Iterable[str]) -> None:
        self.replace_tags(tags, [])

    def replace_tag(self, tag_to_remove: str, tag_to_add: str) -> None:
        self.replace_tags([tag_to_remove], [tag_to_add])

    def replace_tags(self, tags_to_remove: Iterable[str], tags_to_add: Iterable[str]) -> None:
        """Remove, then add.

        Raises:
            UsageError: a system tag would be removed, a text cannot be a tag, or the run would
                have too many.
        """
        self._record = change_tags(self._reader, self._now(), tags_to_remove, tags_to_add)
