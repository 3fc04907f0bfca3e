"""Make metadata again from the journals. The journals are the truth; the database is an index.

What a journal's payload means is decoded by a function that is handed in, because that meaning
belongs to the scheduler, which stands above the stores.
"""

from collections.abc import Callable, Iterable

from msgspec import Struct
from msgspec.structs import replace

from engine.errors import NotFoundError, StoreError
from engine.stores.journals import JournalReader, never_began, run_holder
from engine.stores.layout import Layout
from engine.stores.metadata.base import MetadataStore, RunRecord, TaskRecord
from engine.stores.threads import in_thread

BATCH = 500


class RunEnd(Struct, frozen=True):
    """The run's last word."""

    status: str
    at_us: int
    reason: str | None = None


Fact = RunRecord | TaskRecord | RunEnd
Decoder = Callable[[int, bytes], Fact | None]
"""(offset, payload) of a frame to what it says: the run's first record, an attempt that ended (its
`ordinal` is set here; `flow` and `run_id` are the run's), the run's end, or None."""


class Rebuilt(Struct, frozen=True):
    """One run, as its journal tells it."""

    run: RunRecord
    tasks: tuple[TaskRecord, ...]


def records_of(
    frames: Iterable[tuple[int, bytes]], decode: Decoder, *, is_alive: bool = False
) -> Rebuilt | None:
    """Fold a journal into records.

    Args:
        frames: (offset, payload), in order.
        decode: see Decoder.
        is_alive: whether a process drives the run now; a run that nobody drives and that has no
            end was interrupted.

    Returns:
        The run and the latest attempt of each of its tasks; None if the run never began.
    """
    run: RunRecord | None = None
    end: RunEnd | None = None
    tasks: dict[tuple[str, str], TaskRecord] = {}
    for offset, payload in frames:
        fact = decode(offset, payload)
        if isinstance(fact, RunRecord):
            run = fact
        elif isinstance(fact, RunEnd):
            end = fact
        elif fact:
            key = fact.step, fact.task_id
            known = tasks.get(key)
            tasks[key] = replace(fact, ordinal=known.ordinal if known else len(tasks))
    if run is None:
        return None
    flow, run_id = run.flow, run.run_id
    of_run = tuple(replace(task, flow=flow, run_id=run_id) for task in tasks.values())
    if end:
        run = replace(run, status=end.status, ended_us=end.at_us, reason=end.reason)
    elif not is_alive:
        last_us = max((task.ended_us or 0 for task in of_run), default=0)
        run = replace(run, status="interrupted", ended_us=max(last_us, run.created_us))
    return Rebuilt(run, of_run)


async def rebuild(
    layout: Layout, metadata: MetadataStore, decode: Decoder
) -> tuple[int, dict[str, str]]:
    """Write the records of every journal of a datastore.

    Tags that were changed after a run began are kept where the metadata still has them, and lost
    where it has not: a journal only knows those that the run began with.

    Returns:
        How many runs were written, and by pathspec why others could not be.
    """
    written = 0
    problems: dict[str, str] = {}
    for flow in layout.flows():
        for run_id in layout.run_ids(flow):
            folder = layout.run(flow, run_id)
            try:
                found = await in_thread(_read, layout, flow, run_id, decode)
            except StoreError as error:
                problems[f"{flow}/{run_id}"] = error.message
                continue
            if found is None:
                is_listed = await metadata.run(flow, run_id) is not None
                if not is_listed and await in_thread(never_began, folder):
                    continue  # killed in its first millisecond
                problems[f"{flow}/{run_id}"] = "its journal does not say that it began"
                continue
            await metadata.put_runs([found.run])
            for start in range(0, len(found.tasks), BATCH):
                await metadata.put_tasks(found.tasks[start : start + BATCH])
            written += 1
    return written, problems


def _read(layout: Layout, flow: str, run_id: str, decode: Decoder) -> Rebuilt | None:
    is_alive = run_holder(str(layout.lock(flow, run_id))) is not None
    try:
        journal = JournalReader(str(layout.journal(flow, run_id)))
    except NotFoundError:
        return None
    with journal:
        return records_of(journal.scan(), decode, is_alive=is_alive)
