"""Reads a local datastore: what the client and the command line stand on. Synchronous, no loop.

Lists come from metadata; what a task committed comes from the journal of its run, at the offset
that metadata names; values come from the manifest or the blobs it names. Nothing is written but
tags, and nothing is unpickled but by `value`.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import msgpack

from engine.config import Config
from engine.errors import Failure, MetadataDamagedError, NotFoundError, StoreError
from engine.flow.graph import Graph, Kind, Node
from engine.scheduler.facts import fact_of, record_of
from engine.scheduler.journal import FailedRecord, RunBeganRecord, SucceededRecord, decode
from engine.stores.artifacts import load_entry
from engine.stores.journals import JournalReader, run_holder
from engine.stores.layout import Layout, open_layout
from engine.stores.logs import LocalLogStore, LogPage, LogQuery, LogRecord
from engine.stores.manifest import Entries, Entry, outline
from engine.stores.metadata.base import RunRecord, TaskRecord
from engine.stores.metadata.local import LocalMetadataSync
from engine.stores.metadata.rebuild import known_runs

ENDED = frozenset(("succeeded", "failed", "interrupted"))
_JOURNALS_OPEN = 16  # descriptors; a client that walks many runs reads one after the other


class Reader:
    """Reads one datastore. Closed by `close`, by leaving its block, or with its last user."""

    def __init__(self, layout: Layout, config: Config) -> None:
        self._layout = layout
        self._blobs = layout.blob_directory(
            verify="always" if config.verify == "always" else "identity"
        )
        self._logs = LocalLogStore(layout)
        path = Path(config.metadata) if config.metadata else layout.metadata
        self._facts = LocalMetadataSync(path, known=lambda: known_runs(layout, fact_of))
        self._journals: OrderedDict[tuple[str, str], JournalReader] = OrderedDict()
        self._graphs: dict[tuple[str, str], Graph] = {}

    @classmethod
    def open(cls, config: Config) -> "Reader":
        """Open the datastore of a configuration.

        Raises:
            DatastoreError: there is none, or it is something else.
            ConfigError: the datastore is of a kind that this version does not have.
        """
        if "://" in config.datastore:
            from engine.client.remote import RemoteReader  # noqa: PLC0415  # only where needed

            return RemoteReader(config)
        return cls(open_layout(Path(config.datastore)), config)

    @classmethod
    def at(cls, root: str) -> "Reader":
        """Open the datastore in a directory."""
        return cls.open(Config(datastore=root))

    @property
    def root(self) -> str:
        """The datastore's directory."""
        return str(self._layout.root)

    # -- facts ---------------------------------------------------------------------------------

    def flows(self) -> Sequence[str]:
        """Flows that have a run, by name."""
        return self._facts.flows()

    def run(self, flow: str, run_id: str) -> RunRecord | None:
        return self._facts.run(flow, run_id)

    def runs(
        self,
        flow: str | None = None,
        *,
        status: str | None = None,
        since_us: int | None = None,
        tags: Collection[str] = (),
    ) -> Iterator[RunRecord]:
        """Runs, newest first, fetched by page."""
        return self._facts.runs(flow, status=status, since_us=since_us, tags=tags)

    def unlisted(self, run_id: str | None = None, flow: str | None = None) -> RunRecord | None:
        """A run that metadata does not have, as its journal tells of it.

        A driver that was killed in its first milliseconds could not list its run any more.

        Args:
            run_id: the run; None for the newest that began, if none that is listed is newer.
            flow: its flow; None for any.

        Raises:
            StoreError: its journal is damaged.
        """
        there = (
            (known_id, name)
            for name in ([flow] if flow else self._layout.flows())
            for known_id in self._layout.run_ids(name)
            if run_id in (None, known_id)
        )
        for known_id, name in sorted(there, reverse=True):
            if self._facts.run(name, known_id) is not None:
                return None
            if began := self._began(name, known_id):
                return record_of(began)
        return None

    def steps(self, flow: str, run_id: str) -> Sequence[str]:
        """Steps that have begun, in the order in which they began."""
        return self._facts.steps(flow, run_id)

    def task(self, flow: str, run_id: str, step: str, task_id: str) -> TaskRecord | None:
        return self._facts.task(flow, run_id, step, task_id)

    def tasks(
        self, flow: str, run_id: str, step: str | None = None, *, status: str | None = None
    ) -> Iterator[TaskRecord]:
        """Tasks by ordinal, fetched by page."""
        return self._facts.tasks(flow, run_id, step, status=status)

    def change_tags(
        self, flow: str, run_id: str, *, add: Collection[str], remove: Collection[str]
    ) -> RunRecord:
        return self._facts.change_tags(flow, run_id, add=add, remove=remove)

    def status(self, record: RunRecord) -> str:
        """A run's status; "interrupted" if it is said to run and nobody drives it."""
        if record.status in ENDED:
            return record.status
        if run_holder(str(self._layout.lock(record.flow, record.run_id))) is not None:
            return record.status
        # Its driver may have written the end between the two looks.
        now = self.run(record.flow, record.run_id)
        return now.status if now and now.status in ENDED else "interrupted"

    # -- the journal ---------------------------------------------------------------------------

    def entries(self, record: TaskRecord) -> Mapping[str, Entry]:
        """The artifacts that a task committed, unloaded; none if it did not.

        Raises:
            StoreError: the journal is damaged.
        """
        if record.result is None:
            return {}
        found = decode(self._journal(record.flow, record.run_id).read(record.result))
        if not isinstance(found, SucceededRecord) or not _is_of(record, found):
            raise StoreError(
                f"the database and the journal of {record.flow}/{record.run_id} disagree on where "
                f"the result of {record.step}/{record.task_id} is",
                hint="`aflow fsck` tells which is damaged; its --reindex mends the database",
            )
        return Entries(found.manifest)

    def began(self, flow: str, run_id: str) -> RunBeganRecord | None:
        """The first record of a run's journal."""
        for _, payload in self._journal(flow, run_id).scan():
            record = decode(payload)
            if not isinstance(record, RunBeganRecord):
                return None
            if (record.flow, record.run_id) != (flow, run_id):
                raise StoreError(
                    f"the journal of {flow}/{run_id} is that of {record.flow}/{record.run_id}",
                    hint="somebody has moved or copied it; put it where it was",
                )
            return record
        return None

    def _began(self, flow: str, run_id: str) -> RunBeganRecord | None:
        try:
            return self.began(flow, run_id)
        except NotFoundError:  # killed before it made a journal
            return None

    def parameters(self, flow: str, run_id: str) -> Mapping[str, Entry]:
        """The run's parameters and constants, unloaded."""
        began = self.began(flow, run_id)
        return Entries(began.parameters) if began else {}

    def graph(self, flow: str, run_id: str) -> Graph:
        """The flow's graph as it was when the run began."""
        graph = self._graphs.get((flow, run_id))
        if graph is None:
            began = self.began(flow, run_id)
            graph = self._graphs[flow, run_id] = graph_from(began.graph if began else {}, flow)
        return graph

    def origin(self, flow: str, run_id: str) -> str | None:
        record = self.run(flow, run_id)
        return record.origin_run_id if record else None

    def attempt(self, record: TaskRecord, attempt: int) -> TaskRecord | None:
        """The record of an earlier attempt, which failed; None if there was none."""
        for _, payload in self._journal(record.flow, record.run_id).scan():
            found = decode(payload)
            if not isinstance(found, FailedRecord) or found.attempt != attempt:
                continue
            if (found.task.step, found.task.task_id) == (record.step, record.task_id):
                return TaskRecord(
                    flow=record.flow,
                    run_id=record.run_id,
                    step=record.step,
                    task_id=record.task_id,
                    ordinal=record.ordinal,
                    attempt=attempt,
                    status="failed",
                    started_us=found.started_us,
                    ended_us=found.ended_us,
                    failure=bytes(msgpack.packb(found.failure.to_dict())),
                )
        return None

    def _journal(self, flow: str, run_id: str) -> JournalReader:
        key = flow, run_id
        reader = self._journals.get(key)
        if reader is None:
            reader = self._journals[key] = JournalReader(str(self._layout.journal(flow, run_id)))
            if len(self._journals) > _JOURNALS_OPEN:
                self._journals.popitem(last=False)[1].close()
        else:
            self._journals.move_to_end(key)
        return reader

    # -- values and lines ----------------------------------------------------------------------

    def value(self, entry: Entry, *, allow_pickle: bool = True) -> Any:  # Any: users' values
        """Load one value.

        Raises:
            BlobNotFoundError, BlobCorruptError, StoreError: it is not there as it was.
        """
        return load_entry(entry, self._blobs, allow_pickle=allow_pickle)

    def blob_path(self, entry: Entry) -> str:
        """The file that holds a value; empty for one inside its manifest."""
        return self._blobs.path(entry.digest) if entry.digest else ""

    @staticmethod
    def failure(record: TaskRecord) -> Failure | None:
        """How a task failed, as text."""
        if record.failure is None:
            return None
        try:
            return Failure.from_dict(msgpack.unpackb(record.failure))
        except (ValueError, TypeError, AttributeError, msgpack.UnpackException) as error:
            raise MetadataDamagedError(
                "the list of tasks", problem=f"how {record.step}/{record.task_id} failed is garbled"
            ) from error

    def log_page(self, flow: str, run_id: str, query: LogQuery, position: int = 0) -> LogPage:
        """Lines from a position on; a page without records is the end for now."""
        return self._logs.page_now(flow, run_id, query, position)

    def lines(self, record: TaskRecord, stream: str | None = None) -> Iterator[LogRecord]:
        """What an attempt printed."""
        query = LogQuery(
            tasks=frozenset((f"{record.step}/{record.task_id}",)),
            attempt=record.attempt,
            stream=stream,
        )
        position = 0
        while (page := self.log_page(record.flow, record.run_id, query, position)).records:
            yield from page.records
            position = page.position

    def close(self) -> None:
        """Close what is open."""
        while self._journals:
            self._journals.popitem()[1].close()
        self._facts.close()

    def __del__(self) -> None:
        if hasattr(self, "_journals"):  # it was opened
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _is_of(record: TaskRecord, found: SucceededRecord) -> bool:
    """Whether a commit is the task's, and of the run or of one before it."""
    head = outline(found.manifest)
    place = record.step, record.task_id
    is_of_run = found.reused or head.run_id == record.run_id
    return (found.task.step, found.task.task_id) == place == (head.step, head.task_id) and is_of_run


def graph_from(plain: Mapping[str, Any], flow: str) -> Graph:  # Any: plain msgpack values
    """The graph that a journal holds; without its steps, if it holds none."""
    nodes = {
        name: Node(
            name=name,
            kind=Kind(fields["kind"]),
            next=tuple(fields["next"]),
            foreach=fields.get("foreach"),
            is_join=fields.get("is_join", False),
            is_parallel=fields.get("is_parallel", False),
            join_of=fields.get("join_of"),
            split_parents=tuple(fields.get("split_parents", ())),
            doc=fields.get("doc", ""),
            where=fields.get("where", ""),
        )
        for name, fields in plain.get("nodes", {}).items()
    }
    return Graph(flow, nodes, plain.get("start", "start"), plain.get("end", "end"))
