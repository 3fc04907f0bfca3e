"""Where a resumed run starts from: another run's parameters and what it committed."""

import asyncio
from itertools import chain

from msgspec import Struct

from engine.errors import NotFoundError, RunHeldError, StoreError, UnsafeNameError, UsageError
from engine.flow.graph import Graph
from engine.runtime.stores import Stores
from engine.scheduler.journal import RunBeganRecord, decode
from engine.scheduler.memo import Memo
from engine.scheduler.plan import Planning
from engine.scheduler.progress import ResumePlanned
from engine.stores.fsck import Soundness
from engine.stores.journals import JournalReader
from engine.stores.manifest import Manifest, digests_in

_LINEAGE_MAX = 64  # files that stay open while the run lasts


class Origin(Struct, frozen=True):
    """A run to go on from. `parameters` is the packed manifest of its parameters.

    `journals` are open: its own, and those of the runs that it came from. What is damaged in them
    is passed over, so the tasks that it held are done again. With `is_settled`, all that they name
    is sure to be where the datastore is.
    """

    run_id: str
    parameters: bytes
    memo: Memo
    plan: ResumePlanned
    journals: tuple[JournalReader, ...]
    run_ids: tuple[str, ...]
    is_settled: bool

    def warnings(self) -> tuple[str, ...]:
        """What is damaged, for people."""
        return tuple(
            f"{journal.path} is damaged at byte {torn.offset:,}: what it held is done again"
            for journal in self.journals
            for torn in journal.passed_over
        )

    def close(self) -> None:
        for journal in self.journals:
            journal.close()


async def find_origin(
    stores: Stores, graph: Graph, run_id: str, step: str | None, *, is_plan: bool = False
) -> Origin:
    """Read the run to go on from; `run_id` may be "" for the flow's latest.

    Of one that is driven only a plan is made: two would do the same work, and take the same jobs.

    The loop gets its turn every few milliseconds, however many tasks that run has.

    Raises:
        NotFoundError: there is no such run.
        UsageError: `step` is not a step of the flow.
        RunHeldError: a living process drives the run, and this is no plan.
        StoreError: its journal cannot be read.
    """
    if step is not None and step not in graph.nodes:
        raise UsageError(
            f"flow {graph.flow} has no step {step!r}", hint=f"it has {', '.join(graph.nodes)}"
        )
    if not run_id:
        run_id = await _latest(stores, graph.flow)
    is_settled = await stores.settle(graph.flow, run_id)
    if not is_plan and (held := await stores.driver(graph.flow, run_id)):
        name = f"{graph.flow}/{run_id}"
        raise RunHeldError(name, host=held.host, pid=held.pid, since=held.since)
    path = stores.layout.journal(graph.flow, run_id)
    if not path.exists():
        raise NotFoundError(
            f"there is no run {graph.flow}/{run_id} in {stores.layout.root}",
            hint=f"`aflow list {graph.flow}` lists its runs",
        )
    journals = [JournalReader(str(path), is_tolerant=True)]
    try:
        began = _began(journals[0], graph.flow, run_id)
        older, are_settled = await _add_older(journals, stores, began)
        memo = Memo(
            journals[0],
            older=journals[1:],
            rerun=() if step is None else (step,),
            gangs=[node.name for node in graph.nodes.values() if node.is_parallel],
            is_usable=_Blobs(stores).are_sound,
        )
        planning = Planning(graph, memo, run_id)
        for _ in chain(memo.read(), planning.steps()):
            await asyncio.sleep(0)
        return Origin(
            run_id,
            began.parameters,
            memo,
            planning.plan(),
            tuple(journals),
            (run_id, *older),
            is_settled and are_settled,
        )
    except BaseException:
        for journal in journals:
            journal.close()
        raise


async def _add_older(
    journals: list[JournalReader], stores: Stores, began: RunBeganRecord
) -> tuple[list[str], bool]:
    """Open the journals of the runs that a run came from, as far back as they are there.

    Returns:
        Their ids, and whether all of them are settled.
    """
    seen, found, are_settled = {began.run_id}, list[str](), True
    while (older := began.origin_run_id) and older not in seen and len(seen) < _LINEAGE_MAX:
        seen.add(older)
        try:
            is_settled = await stores.settle(began.flow, older)
            path = str(stores.layout.journal(began.flow, older))
            journal = JournalReader(path, is_tolerant=True)
        except (NotFoundError, StoreError, UnsafeNameError):  # deleted: its tasks are done again
            break
        try:
            began = _began(journal, began.flow, older)
        except StoreError:
            journal.close()
            break
        journals.append(journal)
        found.append(older)
        are_settled = are_settled and is_settled
    return found, are_settled


async def _latest(stores: Stores, flow: str) -> str:
    await stores.pull_runs(flow)
    async for run in stores.metadata.runs(flow):
        return run.run_id
    raise NotFoundError(f"flow {flow} has no run to resume", hint="start one with `aflow run`")


def _began(journal: JournalReader, flow: str, run_id: str) -> RunBeganRecord:
    for _, payload in journal.scan():
        record = decode(payload)
        if isinstance(record, RunBeganRecord) and (record.flow, record.run_id) == (flow, run_id):
            return record
        break
    raise StoreError(
        f"{journal.path} does not begin with the start of run {run_id}",
        hint="it is damaged, and the run's parameters with it: start the flow with `aflow run`",
    )


class _Blobs:
    """Whether the blobs of manifests are as they were written. Tasks share blobs, so each is looked
    at once.
    """

    def __init__(self, stores: Stores) -> None:
        # A journal in an object store names no blob that is not there; what comes from there is
        # verified when it comes.
        self._sound = None if stores.replica else Soundness(stores.blobs)
        self._known: set[str] = set()

    def are_sound(self, packed: bytes) -> bool:
        digests = digests_in(packed)
        if self._sound is None or self._known.issuperset(digests):
            return True
        if not self._sound.of(Manifest.unpack(packed)):
            return False
        self._known.update(digests)
        return True
