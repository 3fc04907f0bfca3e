"""Where a resumed run starts from: another run's parameters and what it committed."""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from engine.errors import NotFoundError, StoreError, UnsafeNameError, UsageError
from engine.flow.graph import Graph
from engine.runtime.stores import Stores
from engine.scheduler.journal import RunBeganRecord, decode
from engine.scheduler.memo import Memo
from engine.stores.fsck import Soundness
from engine.stores.journals import JournalReader
from engine.stores.manifest import Manifest

_LINEAGE_MAX = 64  # files that stay open while the run lasts


class Origin(Struct, frozen=True):
    """A run to go on from. `parameters` is the packed manifest of its parameters.

    `journals` are open: its own, and those of the runs that it came from. What is damaged in them
    is passed over, so the tasks that it held are done again.
    """

    run_id: str
    parameters: bytes
    memo: Memo
    journals: tuple[JournalReader, ...]

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


async def find_origin(stores: Stores, graph: Graph, run_id: str, step: str | None) -> Origin:
    """Read the run to go on from; `run_id` may be "" for the flow's latest.

    Raises:
        NotFoundError: there is no such run.
        UsageError: `step` is not a step of the flow.
        StoreError: its journal cannot be read.
    """
    if step is not None and step not in graph.nodes:
        raise UsageError(
            f"flow {graph.flow} has no step {step!r}", hint=f"it has {', '.join(graph.nodes)}"
        )
    if not run_id:
        run_id = await _latest(stores, graph.flow)
    path = stores.layout.journal(graph.flow, run_id)
    if not path.exists():
        raise NotFoundError(
            f"there is no run {graph.flow}/{run_id} in {stores.layout.root}",
            hint=f"`aflow list {graph.flow}` lists its runs",
        )
    journals = [JournalReader(str(path), is_tolerant=True)]
    try:
        began = _began(journals[0], graph.flow, run_id)
        _add_older(journals, stores, began)
        rerun = () if step is None else (step,)
        return Origin(run_id, began.parameters, _memo(journals, stores, rerun), tuple(journals))
    except BaseException:
        for journal in journals:
            journal.close()
        raise


def _add_older(journals: list[JournalReader], stores: Stores, began: RunBeganRecord) -> None:
    """Open the journals of the runs that a run came from, as far back as they can be read."""
    seen = {began.run_id}
    while (older := began.origin_run_id) and older not in seen and len(seen) < _LINEAGE_MAX:
        seen.add(older)
        try:
            path = str(stores.layout.journal(began.flow, older))
            journal = JournalReader(path, is_tolerant=True)
        except (NotFoundError, StoreError, UnsafeNameError):  # deleted: its tasks are done again
            return
        try:
            began = _began(journal, began.flow, older)
            journal.end()
        except StoreError:
            journal.close()
            return
        journals.append(journal)


async def _latest(stores: Stores, flow: str) -> str:
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


def _memo(journals: Sequence[JournalReader], stores: Stores, rerun: Iterable[str]) -> Memo:
    sound = Soundness(stores.blobs)
    return Memo(
        journals[0],
        older=journals[1:],
        rerun=rerun,
        is_usable=lambda packed: sound.of(Manifest.unpack(packed)),
    )
