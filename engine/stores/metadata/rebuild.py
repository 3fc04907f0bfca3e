"""Make metadata again from the journals. The journals are the truth; the database is an index.

What a journal's payload means is decoded by a function that is handed in, because that meaning
belongs to the scheduler, which stands above the stores.
"""

import os
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress

from msgspec import Struct, field
from msgspec.structs import replace

from engine.errors import NotFoundError, StoreError, UsageError
from engine.stores.access import access_error
from engine.stores.journals import JournalReader, never_began, run_holder
from engine.stores.layout import Layout
from engine.stores.metadata.base import Fact, Rebuilt, RunEnd, RunRecord, TaskRecord
from engine.stores.metadata.local import LocalMetadataSync, tags_in
from engine.stores.metadata.schema import damage_in

Decoder = Callable[[int, bytes], Fact | None]
"""(offset, payload) of a frame to what it says, or None. A task's `ordinal` is set here; its `flow`
and `run_id` are the run's."""


class Reindexed(Struct):
    """What was done: how many runs were `written`, and by pathspec why others could not be.

    `set_aside` is where a database went that was damaged.
    """

    written: int = 0
    problems: dict[str, str] = field(default_factory=dict)
    set_aside: str | None = None


def records_of(facts: Iterable[Fact | None], *, is_alive: bool = False) -> Rebuilt | None:
    """Fold a journal into records.

    Args:
        facts: what its frames say, in order.
        is_alive: whether a process drives the run now; a run that nobody drives and that has no
            end was interrupted.

    Returns:
        The run and the latest attempt of each of its tasks, in the order of their launches, as a
        driver lists them; None if the run never began.
    """
    run: RunRecord | None = None
    end: RunEnd | None = None
    tasks: dict[tuple[str, str], TaskRecord] = {}
    launched: dict[tuple[str, str], int] = {}
    for fact in facts:
        if isinstance(fact, RunRecord):
            run = fact
        elif isinstance(fact, RunEnd):
            end = fact
        elif fact:
            key = fact.step, fact.task_id
            tasks[key] = fact
            launched.setdefault(key, fact.started_us or fact.ended_us or 0)
    if run is None:
        return None
    flow, run_id = run.flow, run.run_id
    in_order = sorted(tasks, key=lambda key: (launched[key], _indices(key[1])))
    of_run = tuple(
        replace(tasks[key], flow=flow, run_id=run_id, ordinal=ordinal)
        for ordinal, key in enumerate(in_order)
    )
    if end:
        run = replace(run, status=end.status, ended_us=end.at_us, reason=end.reason)
    elif not is_alive:
        last_us = max((task.ended_us or 0 for task in of_run), default=0)
        run = replace(run, status="interrupted", ended_us=max(last_us, run.created_us))
    return Rebuilt(run, of_run)


def _indices(task_id: str) -> list[int]:
    """Of the items of a foreach: those that were launched at one moment were so in this order."""
    return [int(digits) for digits in re.findall(r"\d+", task_id)]


def known_runs(layout: Layout, decode: Decoder) -> Iterator[Rebuilt]:
    """Every run whose journal can be read, for a database that is made."""
    for flow in layout.flows():
        for run_id in layout.run_ids(flow):
            with suppress(StoreError):  # `aflow fsck` tells of it
                if found := rebuilt_of(layout, flow, run_id, decode):
                    yield found


def reindex(layout: Layout, path: str, decode: Decoder) -> Reindexed:
    """Make the list of runs again from every journal of a datastore.

    Tags that were changed after a run began are kept where the database still has them, and lost
    where it has not: a journal only knows those that the run began with.

    Raises:
        UsageError: the database must be replaced, and a run that writes to it is alive.
    """
    done = Reindexed()
    tags: dict[tuple[str, str], tuple[str, ...]] = {}
    if damage_in(path):
        _refuse_if_alive(layout)
        tags = _tags_left(path)
        done.set_aside = _set_aside(path)
    with LocalMetadataSync(path) as metadata:
        listed = set(metadata.names())
        there = {(flow, run_id) for flow in layout.flows() for run_id in layout.run_ids(flow)}
        for flow, run_id in sorted(there):
            try:
                found = rebuilt_of(layout, flow, run_id, decode)
            except StoreError as error:
                done.problems[f"{flow}/{run_id}"] = error.message
                continue
            if found is None:
                if (flow, run_id) in listed or not never_began(layout.run(flow, run_id)):
                    done.problems[f"{flow}/{run_id}"] = "its journal does not say that it began"
                continue
            kept = tags.get((flow, run_id), found.run.tags)
            _write(metadata, replace(found, run=replace(found.run, tags=kept)))
            done.written += 1
        if path == str(layout.metadata):  # another one may list the runs of other datastores
            for flow, run_id in listed - there:
                metadata.delete_run(flow, run_id)
    return done


def rebuilt_of(layout: Layout, flow: str, run_id: str, decode: Decoder) -> Rebuilt | None:
    """What a run's journal tells; None if it is not there, or does not say that the run began.

    Raises:
        StoreError: it is damaged, or another run's.
    """
    is_alive = run_holder(str(layout.lock(flow, run_id))) is not None
    path = str(layout.journal(flow, run_id))
    try:
        journal = JournalReader(path)
    except NotFoundError:
        return None
    with journal:
        facts = (decode(offset, payload) for offset, payload in journal.scan())
        found = records_of(facts, is_alive=is_alive)
    if found and (found.run.flow, found.run.run_id) != (flow, run_id):
        raise StoreError(f"{path} is the journal of {found.run.flow}/{found.run.run_id}")
    return found


def _write(metadata: LocalMetadataSync, rebuilt: Rebuilt) -> None:
    if rebuilt.run.status == "running":  # its driver writes, too, and knows of tasks in flight
        metadata.put_runs([rebuilt.run])
        metadata.put_tasks(rebuilt.tasks)
    else:
        metadata.replace_run(rebuilt)


def _refuse_if_alive(layout: Layout) -> None:
    for flow in layout.flows():
        for run_id in layout.run_ids(flow):
            if holder := run_holder(str(layout.lock(flow, run_id))):
                raise UsageError(
                    f"the damaged database cannot be replaced while {flow}/{run_id} is alive, "
                    f"driven by {holder.host}/{holder.pid}",
                    hint="wait for it to end, or end that process",
                )


def _set_aside(path: str) -> str:
    """Give a damaged database another name, so that nothing is lost that somebody could save."""
    aside = f"{path}.damaged"
    try:
        os.rename(path, aside)
        for suffix in ("-wal", "-shm"):
            with suppress(FileNotFoundError):
                os.unlink(path + suffix)
    except OSError as error:
        raise access_error(error, path, "rename") from error
    return aside


def _tags_left(path: str) -> dict[tuple[str, str], tuple[str, ...]]:
    """The tags that can still be read of a damaged database."""
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    unreadable = sqlite3.DatabaseError, UnicodeDecodeError
    with suppress(*unreadable), closing(sqlite3.connect(path)) as connection:
        for flow, run_id, text in connection.execute("SELECT flow, run_id, tags FROM runs"):
            if (tags := tags_in(text)) is not None:
                found[flow, run_id] = tags
    return found
