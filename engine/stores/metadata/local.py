"""Metadata in SQLite: runs and tasks as rows, written in batches, read by page.

WAL mode, so readers never wait for a writer, and every write is one IMMEDIATE transaction, so
writers queue instead of failing. A list is read by key, 500 rows at a time, and holds no
transaction between pages. `LocalMetadataSync` is for callers without a loop; `LocalMetadata` runs
the same calls in threads.
"""

import json
import sqlite3
import threading
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import closing, contextmanager
from itertools import islice
from operator import attrgetter
from pathlib import Path
from types import UnionType
from typing import Any, Self, TypeVar

from msgspec import convert
from msgspec.structs import fields, replace

from engine.errors import MetadataDamagedError, NotFoundError
from engine.stores.metadata.base import Rebuilt, RunRecord, TaskRecord
from engine.stores.metadata.schema import connect, sqlite_errors, transaction
from engine.stores.metadata.tags import merged_tags
from engine.stores.threads import in_thread

PAGE = 500

Row = tuple[Any, ...]  # Any: SQLite's values


def _types_of(record: type[TaskRecord]) -> Iterator[type | UnionType]:
    """What `isinstance` takes, for each column; SQLite has no bool."""
    for field in fields(record):
        yield int if field.type is bool else field.type


_Record = TypeVar("_Record")

_RUN = [field.name for field in fields(RunRecord)]
_TASK = [field.name for field in fields(TaskRecord)]
_TAGS = ("tags", "system_tags")
_REUSED, _CAUGHT = _TASK.index("reused"), _TASK.index("caught")  # side by side, in this order
_TASK_TYPES = tuple(_types_of(TaskRecord))
_run_values = attrgetter(*_RUN)
_task_row = attrgetter(*_TASK)
_PUT_RUN = (
    f"INSERT INTO runs ({', '.join(_RUN)}) VALUES ({', '.join('?' * len(_RUN))}) "
    "ON CONFLICT (flow, run_id) DO UPDATE SET "
    # A run's tags belong to its users once it has begun: the driver's record must not undo them.
    + ", ".join(f"{n} = excluded.{n}" for n in _RUN if n not in ("flow", "run_id", "tags"))
)
_PUT_TASK = (
    f"INSERT OR REPLACE INTO tasks ({', '.join(_TASK)}) VALUES ({', '.join('?' * len(_TASK))})"
)
_HAS_TAG = (
    "(EXISTS (SELECT 1 FROM json_each(tags) WHERE value = ?) "
    "OR EXISTS (SELECT 1 FROM json_each(system_tags) WHERE value = ?))"
)


def _run_row(run: RunRecord) -> Row:
    values = dict(zip(_RUN, _run_values(run), strict=True))
    for name in _TAGS:
        values[name] = json.dumps(values[name], ensure_ascii=False)
    return tuple(values.values())


def _run_record(row: Row, path: str) -> RunRecord:
    """SQLite has types for values, not for columns, so damage can put any value anywhere.

    Raises:
        MetadataDamagedError: a value is of a wrong type.
    """
    values = dict(zip(_RUN, row, strict=True))
    try:
        for name in _TAGS:
            values[name] = tuple(json.loads(values[name]))
        return convert(values, RunRecord, strict=True)
    except (ValueError, TypeError) as error:
        raise MetadataDamagedError(path, problem=f"a run is not as it was written: {error}") from (
            error
        )


def _task_record(row: Row, path: str) -> TaskRecord:
    """As `_run_record`. Checked by hand: a list may have 100,000 of them."""
    flags = bool(row[_REUSED]), bool(row[_CAUGHT])
    if not all(map(isinstance, row, _TASK_TYPES)):
        raise MetadataDamagedError(path, problem="a task is not as it was written")
    return TaskRecord(*(row[:_REUSED] + flags + row[_CAUGHT + 1 :]))


def tags_in(text: object) -> tuple[str, ...] | None:
    """The tags of a column; None if it does not hold any."""
    try:
        return convert(json.loads(text), tuple[str, ...])  # type: ignore[arg-type]  # as below
    except (ValueError, TypeError):  # text may be whatever damage has made of it
        return None


class LocalMetadataSync:
    """The methods of MetadataStore without `async`. One connection, used by any thread in turn.

    It is opened by the first call, so that making one costs and fails nothing. If that call finds
    no database, or an empty one, it makes one of the runs that are `known` from elsewhere.

    Raises:
        StoreAccessError, StoreUnavailableError, StoreError: from every method, see schema.connect.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        durability: str = "process",
        known: Callable[[], Iterable[Rebuilt]] = tuple,
    ) -> None:
        self._path = str(path)
        self._durability = durability
        self._known = known
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def put_runs(self, runs: Collection[RunRecord]) -> None:
        with self._writing() as connection:
            connection.executemany(_PUT_RUN, [_run_row(run) for run in runs])

    def put_tasks(self, tasks: Collection[TaskRecord]) -> None:
        with self._writing() as connection:
            connection.executemany(_PUT_TASK, map(_task_row, tasks))

    def flows(self) -> Sequence[str]:
        return [row[0] for row in self._select("SELECT DISTINCT flow FROM runs ORDER BY flow")]

    def run(self, flow: str, run_id: str) -> RunRecord | None:
        sql = f"SELECT {', '.join(_RUN)} FROM runs WHERE flow = ? AND run_id = ?"
        rows = self._select(sql, (flow, run_id))
        return _run_record(rows[0], self._path) if rows else None

    def runs(
        self,
        flow: str | None = None,
        *,
        status: str | None = None,
        since_us: int | None = None,
        tags: Collection[str] = (),
    ) -> Iterator[RunRecord]:
        where, values = _conditions({"flow = ?": flow, "status = ?": status})
        if since_us is not None:
            where, values = [*where, "created_us >= ?"], [*values, since_us]
        for tag in tags:
            where, values = [*where, _HAS_TAG], [*values, tag, tag]
        key = ("created_us", "run_id", "flow")
        for row in self._pages("runs", _RUN, where, values, key, newest_first=True):
            yield _run_record(row, self._path)

    def steps(self, flow: str, run_id: str) -> Sequence[str]:
        sql = (
            "SELECT step FROM tasks WHERE flow = ? AND run_id = ? "
            "GROUP BY step ORDER BY min(ordinal), step"
        )
        return [row[0] for row in self._select(sql, (flow, run_id))]

    def task(self, flow: str, run_id: str, step: str, task_id: str) -> TaskRecord | None:
        sql = (
            f"SELECT {', '.join(_TASK)} FROM tasks "
            "WHERE flow = ? AND run_id = ? AND step = ? AND task_id = ?"
        )
        rows = self._select(sql, (flow, run_id, step, task_id))
        return _task_record(rows[0], self._path) if rows else None

    def tasks(
        self, flow: str, run_id: str, step: str | None = None, *, status: str | None = None
    ) -> Iterator[TaskRecord]:
        where, values = _conditions(
            {"flow = ?": flow, "run_id = ?": run_id, "step = ?": step, "status = ?": status}
        )
        key = ("ordinal", "step", "task_id")
        for row in self._pages("tasks", _TASK, where, values, key):
            yield _task_record(row, self._path)

    def change_tags(
        self, flow: str, run_id: str, *, add: Collection[str], remove: Collection[str]
    ) -> RunRecord:
        """Add and remove tags in one step.

        Raises:
            NotFoundError: there is no such run.
            UsageError: a tag cannot be one, or they become too many.
        """
        sql = f"SELECT {', '.join(_RUN)} FROM runs WHERE flow = ? AND run_id = ?"
        with self._writing() as connection:
            row = connection.execute(sql, (flow, run_id)).fetchone()
            if row is None:
                raise NotFoundError(f"there is no run {flow}/{run_id}")
            run = _run_record(row, self._path)
            run = replace(run, tags=merged_tags(run.tags, add, remove))
            connection.execute(
                "UPDATE runs SET tags = ? WHERE flow = ? AND run_id = ?",
                (json.dumps(run.tags, ensure_ascii=False), flow, run_id),
            )
        return run

    def delete_run(self, flow: str, run_id: str) -> None:
        with self._writing() as connection:
            _delete_run(connection, flow, run_id)

    def replace_run(self, rebuilt: Rebuilt) -> None:
        """Put a run in the place of all that is there of it, but for its tags, in one step."""
        run = rebuilt.run
        with self._writing() as connection:
            sql = "SELECT tags FROM runs WHERE flow = ? AND run_id = ?"
            row = connection.execute(sql, (run.flow, run.run_id)).fetchone()
            if row is not None and (tags := tags_in(row[0])) is not None:
                run = replace(run, tags=tags)
            _delete_run(connection, run.flow, run.run_id)
            _insert(connection, replace(rebuilt, run=run))

    def names(self) -> list[tuple[str, str]]:
        """The flow and the id of every run, whatever else is there of it."""
        return [(row[0], row[1]) for row in self._select("SELECT flow, run_id FROM runs")]

    def close(self) -> None:
        with self._lock:
            if self._connection:
                self._connection.close()
                self._connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        with self._lock, sqlite_errors(self._path):
            if self._connection is None:
                self._connection = connect(
                    self._path, durability=self._durability, on_made=self._fill
                )
            yield self._connection

    def _fill(self, connection: sqlite3.Connection) -> None:
        for rebuilt in self._known():
            _insert(connection, rebuilt)

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._using() as connection, transaction(connection):
            yield connection

    def _select(self, sql: str, values: Sequence[object] = ()) -> list[Row]:
        with self._using() as connection, closing(connection.execute(sql, values)) as cursor:
            return cursor.fetchall()

    def _pages(
        self,
        table: str,
        columns: Sequence[str],
        where: Sequence[str],
        values: Sequence[object],
        key: Sequence[str],
        *,
        newest_first: bool = False,
    ) -> Iterator[Row]:
        """Rows in order of `key`; each page begins behind the last row of the one before."""
        order = " DESC" if newest_first else ""
        beyond = f"({', '.join(key)}) {'<' if newest_first else '>'} (?, ?, ?)"
        places = [columns.index(name) for name in key]
        last: list[object] = []
        while True:
            conditions = " AND ".join([*where, beyond] if last else where) or "1"
            rows = self._select(
                f"SELECT {', '.join(columns)} FROM {table} WHERE {conditions} "
                f"ORDER BY {', '.join(name + order for name in key)} LIMIT {PAGE}",
                [*values, *last],
            )
            yield from rows
            if len(rows) < PAGE:
                return
            last = [rows[-1][place] for place in places]


def _delete_run(connection: sqlite3.Connection, flow: str, run_id: str) -> None:
    for table in ("tasks", "runs"):
        connection.execute(f"DELETE FROM {table} WHERE flow = ? AND run_id = ?", (flow, run_id))


def _insert(connection: sqlite3.Connection, rebuilt: Rebuilt) -> None:
    connection.execute(_PUT_RUN, _run_row(rebuilt.run))
    connection.executemany(_PUT_TASK, map(_task_row, rebuilt.tasks))


def _conditions(wanted: Mapping[str, object]) -> tuple[list[str], list[object]]:
    asked = {condition: value for condition, value in wanted.items() if value is not None}
    return list(asked), list(asked.values())


async def _in_threads(found: Iterator[_Record]) -> AsyncIterator[_Record]:
    while page := await in_thread(lambda: list(islice(found, PAGE))):
        for record in page:
            yield record


class LocalMetadata:
    """MetadataStore over SQLite; every call runs in a thread."""

    def __init__(
        self,
        path: Path | str,
        *,
        durability: str = "process",
        known: Callable[[], Iterable[Rebuilt]] = tuple,
    ) -> None:
        self.sync = LocalMetadataSync(path, durability=durability, known=known)

    async def put_runs(self, runs: Collection[RunRecord]) -> None:
        await in_thread(self.sync.put_runs, runs)

    async def put_tasks(self, tasks: Collection[TaskRecord]) -> None:
        await in_thread(self.sync.put_tasks, tasks)

    async def flows(self) -> Sequence[str]:
        return await in_thread(self.sync.flows)

    async def run(self, flow: str, run_id: str) -> RunRecord | None:
        return await in_thread(self.sync.run, flow, run_id)

    async def runs(
        self,
        flow: str | None = None,
        *,
        status: str | None = None,
        since_us: int | None = None,
        tags: Collection[str] = (),
    ) -> AsyncIterator[RunRecord]:
        found = self.sync.runs(flow, status=status, since_us=since_us, tags=tags)
        async for run in _in_threads(found):
            yield run

    async def steps(self, flow: str, run_id: str) -> Sequence[str]:
        return await in_thread(self.sync.steps, flow, run_id)

    async def task(self, flow: str, run_id: str, step: str, task_id: str) -> TaskRecord | None:
        return await in_thread(self.sync.task, flow, run_id, step, task_id)

    async def tasks(
        self, flow: str, run_id: str, step: str | None = None, *, status: str | None = None
    ) -> AsyncIterator[TaskRecord]:
        async for task in _in_threads(self.sync.tasks(flow, run_id, step, status=status)):
            yield task

    async def change_tags(
        self, flow: str, run_id: str, *, add: Collection[str], remove: Collection[str]
    ) -> RunRecord:
        return await in_thread(self.sync.change_tags, flow, run_id, add=add, remove=remove)

    async def delete_run(self, flow: str, run_id: str) -> None:
        await in_thread(self.sync.delete_run, flow, run_id)

    async def aclose(self) -> None:
        await in_thread(self.sync.close)
