"""Is all that is stored still what was written? Every journal, log, blob, and the database.

A journal is held against the names of its directory and against its seal, a log against its
journal's seal, the database against the journals, a blob against its digest. What cannot be told
from anything else is taken as it is: tags that were changed after a run began, and the order of
its tasks, which only the database has.
"""

from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct, field

from engine.errors import NotFoundError, StoreError
from engine.scheduler.facts import fact_of
from engine.scheduler.journal import (
    RunBeganRecord,
    RunDoneRecord,
    Seal,
    SucceededRecord,
    decode,
    manifests_in,
)
from engine.stores.fsck import BlobCheck, Damage
from engine.stores.journals import JournalReader, never_began, run_holder
from engine.stores.layout import Layout
from engine.stores.logs import check_log
from engine.stores.manifest import Manifest
from engine.stores.metadata.base import Fact, Rebuilt, RunRecord, TaskRecord
from engine.stores.metadata.local import LocalMetadataSync
from engine.stores.metadata.rebuild import records_of
from engine.stores.metadata.schema import damage_in

_UNFINISHED = ("running", "retrying")


class _Told(Struct):
    """What a journal tells of its run."""

    rebuilt: Rebuilt | None = None
    has_ended: bool = False
    seal: Seal = field(default_factory=dict)
    size_bytes: int = 0


class Audit:
    """One look at a datastore.

    Args:
        layout: the datastore.
        metadata: the database's file.
        read_data: hash every blob; see BlobCheck.
        blobs: how blobs are looked at, if they do not lie in the layout.
        is_copy: what drivers elsewhere have shipped; a run that has not ended may be listed and
            have shipped nothing yet.
    """

    def __init__(
        self,
        layout: Layout,
        metadata: Path,
        *,
        read_data: bool = False,
        blobs: BlobCheck | None = None,
        is_copy: bool = False,
    ) -> None:
        self._layout = layout
        self._index = _Index(metadata, layout, is_copy=is_copy)
        self._blobs = blobs or BlobCheck(layout.blob_directory(), read_data=read_data)
        self.runs = 0

    def damages(self) -> Iterator[Damage]:
        """All that is not as it was written; each file once, but a blob's and the database's facts.

        Raises:
            StoreAccessError: the file system refuses.
        """
        with self._index:
            there = set()
            for flow in self._layout.flows():
                for run_id in self._layout.run_ids(flow):
                    there.add((flow, run_id))
                    self.runs += 1
                    yield from self._run(flow, run_id)
            yield from self._index.without_directory(there)

    def _run(self, flow: str, run_id: str) -> Iterator[Damage]:
        told, found = _Told(), []
        for damage in self._journal(flow, run_id, told):
            if not damage.digest:
                found.append(damage)
            yield damage
        is_alive = run_holder(str(self._layout.lock(flow, run_id))) is not None
        if told.rebuilt is None or is_alive:
            return
        yield from self._log(flow, run_id, told.seal.get("log"))
        if not found:
            yield from self._index.differences(told)

    def _journal(self, flow: str, run_id: str, told: _Told) -> Iterator[Damage]:
        pathspec, path = f"{flow}/{run_id}", self._layout.journal(flow, run_id)
        name = f"runs/{flow}/{run_id}/journal"
        try:
            journal = JournalReader(str(path), is_tolerant=True)
        except NotFoundError:
            is_nothing = self._is_nothing(path.parent) and self._index.has_not(flow, run_id)
            if not (is_nothing or self._index.may_lack(flow, run_id)):
                yield Damage("missing", name, pathspec, "is gone")
            return
        except StoreError as error:
            yield Damage("damaged", name, pathspec, error.message)
            return
        with journal:
            yield from self._frames(journal, name, (flow, run_id), told)
            if told.rebuilt is None:
                if not (self._is_nothing(path.parent) and self._index.has_not(flow, run_id)):
                    yield Damage("damaged", name, pathspec, "does not say that the run began")
            elif problem := self._problem(journal, told):
                yield Damage("damaged", name, pathspec, problem)

    def _frames(
        self, journal: JournalReader, name: str, run: tuple[str, str], told: _Told
    ) -> Iterator[Damage]:
        """Look at every frame that can be read, and remember what they tell."""
        facts: list[Fact | None] = []
        pathspec = "/".join(run)
        try:
            for offset, payload in journal.scan():
                record = decode(payload)
                if isinstance(record, RunDoneRecord):
                    told.has_ended, told.seal = True, record.seal
                for packed in manifests_in(payload):
                    manifest = Manifest.unpack(packed)
                    _refuse_foreign(record, manifest, run)
                    yield from self._blobs.damages(manifest, name)
                facts.append(fact_of(offset, payload))
            told.size_bytes = journal.position
            told.rebuilt = records_of(facts)
        except StoreError as error:
            yield Damage("damaged", name, pathspec, error.message)
            told.rebuilt = None

    def _problem(self, journal: JournalReader, told: _Told) -> str | None:
        """What is wrong with a journal whose frames could be read, as far as they are sound."""
        if journal.passed_over:
            places = ", ".join(f"{torn.offset:,}" for torn in journal.passed_over)
            return f"no sound frame is at byte {places}"
        if "journal" in told.seal and not journal.fits(*told.seal["journal"]):
            return "frames of it have changed their places, or are another journal's"
        return self._index.lost_by(told)

    def _is_nothing(self, folder: Path) -> bool:
        try:
            return never_began(folder)
        except StoreError:
            return False

    def _log(self, flow: str, run_id: str, seal: tuple[int, int] | None) -> Iterator[Damage]:
        name = f"runs/{flow}/{run_id}/log"
        try:
            problem = check_log(str(self._layout.log(flow, run_id)), seal)
        except NotFoundError:
            if not self._index.may_lack(flow, run_id):
                yield Damage("missing", name, f"{flow}/{run_id}", "is gone")
            return
        except StoreError as error:
            problem = error.message
        if problem:
            yield Damage("damaged", name, f"{flow}/{run_id}", problem)


def _refuse_foreign(record: object, manifest: Manifest, run: tuple[str, str]) -> None:
    """Raise if a frame is another run's, or its manifest another task's."""
    match record:
        case RunBeganRecord():
            is_ours = (record.flow, record.run_id) == run
        case SucceededRecord():
            place = record.task.step, record.task.task_id
            is_ours = manifest.flow == run[0] and place == (manifest.step, manifest.task_id)
            is_ours = is_ours and (record.reused or manifest.run_id == run[1])
        case _:
            return
    if not is_ours:
        raise StoreError("frames of another run are in it")


class _Index:
    """The database, held against what journals tell. Nothing is made or changed."""

    def __init__(self, path: Path, layout: Layout, *, is_copy: bool) -> None:
        self._path = path
        self._is_copy = is_copy
        self._is_own = path == layout.metadata
        self._name = path.name if self._is_own else str(path)
        self._metadata: LocalMetadataSync | None = None
        self._damage: str | None = None
        self._names: set[tuple[str, str]] = set()
        self._has_differences = False

    def __enter__(self) -> "_Index":
        if not self._path.exists() or not self._path.stat().st_size:
            return self
        try:
            self._damage = damage_in(str(self._path))
            if self._damage is None:
                self._metadata = LocalMetadataSync(self._path)
                self._names = set(self._metadata.names())
        except StoreError as error:  # of a later version
            self._damage = error.message
        return self

    def __exit__(self, *_: object) -> None:
        if self._metadata:
            self._metadata.close()

    def has_not(self, flow: str, run_id: str) -> bool:
        """Whether a run is surely not listed."""
        return self._damage is None and (flow, run_id) not in self._names

    def may_lack(self, flow: str, run_id: str) -> bool:
        """Whether a run is listed whose driver may have shipped no journal or no log yet."""
        row = self._run(flow, run_id) if self._is_copy else None
        return row is not None and not _is_ended(row)

    def lost_by(self, told: _Told) -> str | None:
        """What a sound-looking journal must have lost, for the database has it."""
        assert told.rebuilt is not None  # it began
        run = told.rebuilt.run
        try:
            row = self._run(run.flow, run.run_id)
            if row is None:
                return None
            if _is_ended(row) and not told.has_ended:
                return "the run's end, which the database has, is gone from it"
            known = {(task.step, task.task_id) for task in told.rebuilt.tasks}
            for task in self._tasks(run):
                is_gone = task.result is not None and task.result >= told.size_bytes
                if is_gone and (task.step, task.task_id) not in known:
                    return f"the result of {task.step}/{task.task_id} is gone from its end"
        except StoreError:  # `differences` tells
            return None
        return None

    def differences(self, told: _Told) -> Iterator[Damage]:
        """What the database says otherwise than a sound journal."""
        assert told.rebuilt is not None  # it began
        if self._damage is not None:
            return
        run = told.rebuilt.run
        pathspec = f"{run.flow}/{run.run_id}"
        try:
            row = self._run(run.flow, run.run_id)
            problems = list(self._problems(told, row))
        except StoreError as error:
            problems = [error.message]
        for problem in problems:
            self._has_differences = True
            yield Damage("damaged", self._name, pathspec, problem)

    def without_directory(self, there: set[tuple[str, str]]) -> Iterator[Damage]:
        """Runs that are listed and are not there; and whatever is wrong with the file itself."""
        if self._damage is not None:
            yield Damage("damaged", self._name, "every run", self._damage)
        if not self._is_own:
            return
        for flow, run_id in sorted(self._names - there, key=str):
            if self.may_lack(flow, run_id):
                continue
            if self._has_differences:
                yield Damage("damaged", self._name, f"{flow}/{run_id}", "there is no such run")
            else:
                path = f"runs/{flow}/{run_id}/journal"
                yield Damage("missing", path, f"{flow}/{run_id}", "is gone, with its directory")

    def _run(self, flow: str, run_id: str) -> RunRecord | None:
        return self._metadata.run(flow, run_id) if self._metadata else None

    def _tasks(self, run: RunRecord) -> list[TaskRecord]:
        return list(self._metadata.tasks(run.flow, run.run_id)) if self._metadata else []

    def _problems(self, told: _Told, row: RunRecord | None) -> Iterator[str]:
        assert told.rebuilt is not None  # it began
        run = told.rebuilt.run
        if row is None:
            if told.has_ended:
                yield "the run is not listed"
            return
        is_over = row.status not in _UNFINISHED and (_is_ended(row) or told.has_ended)
        if _facts(row, is_over=is_over) != _facts(run, is_over=is_over):
            yield "the run is listed with other facts"
        elif row.status == "retrying":
            yield f"the run is listed as {row.status!r}"
        rows = {(task.step, task.task_id): task for task in self._tasks(run)}
        known = {(task.step, task.task_id): task for task in told.rebuilt.tasks}
        for place in rows.keys() | (known.keys() if is_over else set()):
            if not _agree(rows.get(place), known.get(place), is_over=is_over):
                yield f"{'/'.join(place)} is listed otherwise than the journal has it"


def _is_ended(run: RunRecord) -> bool:
    """Whether a run is listed as ended by who knew it: a guess has no reason."""
    is_guess = run.status == "interrupted" and run.reason is None
    return run.status not in _UNFINISHED and not is_guess


def _facts(run: RunRecord, *, is_over: bool) -> tuple[object, ...]:
    """What a journal knows of a run from its beginning, and from its end."""
    ended = (run.status, run.ended_us, run.reason) if is_over else ()
    return (run.created_us, run.user, run.system_tags, run.origin_run_id, run.host, *ended)


def _agree(row: TaskRecord | None, known: TaskRecord | None, *, is_over: bool) -> bool:
    """Whether the database may say `row` where the journal says `known`.

    A driver that is killed leaves the database behind the journal by a moment. An attempt that was
    cancelled, or was in flight then, has no word in the journal.
    """
    if row is None or known is None:
        return known is None and row is not None and row.status in _UNFINISHED
    if row.status in _UNFINISHED:
        return row.attempt >= known.attempt and known.status == "failed" if is_over else True
    if row.attempt < known.attempt:
        return not is_over
    same = ("attempt", "status", "started_us", "ended_us", "result", "reused", "caught", "failure")
    return all(getattr(row, name) == getattr(known, name) for name in same)
