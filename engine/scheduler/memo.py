"""What a resumed run need not do again: the commits of other runs, by task. Pure.

A `TaskKey` is equal across runs that took the same path, so no search is needed. The run that is
resumed may itself be one that resumed another and was killed before it had taken over all that was
done, so its origin is asked after it, and that one's origin, and so on.
"""

import sys
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import chain
from typing import Any

from msgspec import Struct, field

from engine.errors import StoreError, TaskCancelledError
from engine.flow.graph import Transition
from engine.ids import TaskKey
from engine.scheduler.events import ResultRef
from engine.scheduler.gangs import member
from engine.scheduler.journal import (
    FailedRecord,
    JournalReader,
    RunBeganRecord,
    SucceededRecord,
    decode,
    glance,
)
from engine.stores.manifest import outline

FRESH = 0
"""The generation of what this run did itself; its origin is 1, that one's origin 2."""

UNKNOWN = sys.maxsize
"""The generation of a result that all runs before share, such as the parameters."""

_CANCELLED = -1  # stands for an attempt that failed only as its run did not wait for its end

_SLICE = 200  # records read in one turn, some 2 ms


class Why(StrEnum):
    """Why a task of a resumed run is done (again)."""

    ASKED = "--step asks for it"
    FAILED = "it failed"
    NOT_DONE = "it was not done"
    FOLLOWS = "what comes before it is done again"
    LOST = "data of it is missing or damaged"
    MOVED = "the flow goes another way now"


class ReusedResult(Struct, frozen=True):
    """What another run committed for a task, and where in its journal that stands."""

    offset: int
    manifest: bytes
    started_us: int
    ended_us: int


class Found(Struct, frozen=True):
    """A commit that can be reused: where it stands, whose work it is, where its task went on."""

    task: TaskKey
    generation: int
    offset: int
    maker: int
    going: Transition


class _Generation(Struct):
    """One of the runs before: its commits that no later run has, and what else it tells."""

    number: int
    journal: JournalReader
    began: RunBeganRecord | None = None
    offsets: dict[TaskKey, int] = field(default_factory=dict)
    makers: dict[TaskKey, str] = field(default_factory=dict)  # run id, where another's work
    going: dict[str, Transition] = field(default_factory=dict)  # by step; but for foreach:
    fanouts: dict[TaskKey, Transition] = field(default_factory=dict)
    lost: set[TaskKey] = field(default_factory=set)
    failed: dict[TaskKey, int] = field(default_factory=dict)  # the last attempt that did


def _note_failure(generation: _Generation, task: TaskKey, payload: bytes) -> None:
    record = decode(payload)
    assert isinstance(record, FailedRecord)  # as its kind says
    is_over = record.failure.code != TaskCancelledError.code  # else it may have been left running
    known = generation.failed.get(task, _CANCELLED)
    generation.failed[task] = max(known, record.attempt if is_over else _CANCELLED)


class Memo:
    """Answers for tasks that other runs have done. Holds offsets only; manifests are read late.

    A result is reused only if all inputs of its task are the ones that it was made from: what
    follows a task that was done again is done again too.

    Nothing is read before the first question, or before `read`, which does it in slices.

    Args:
        journal: of the run to go on from.
        older: the journals of its origin, of that one's origin, and so on. One that cannot be read,
            and those behind it, are left out: their tasks are done again.
        rerun: steps whose tasks are done again.
        gangs: steps whose tasks commit together: what is not there as a whole is not there.
        is_usable: whether a manifest's blobs are all there and sound; a task whose are not is done
            again.

    Raises:
        StoreError: by whatever reads first: the journal cannot be read.
    """

    def __init__(
        self,
        journal: JournalReader,
        *,
        older: Iterable[JournalReader] = (),
        rerun: Iterable[str] = (),
        gangs: Iterable[str] = (),
        is_usable: Callable[[bytes], bool] = lambda manifest: True,
    ) -> None:
        self._is_usable = is_usable
        self._asked = frozenset(rerun)
        self._gangs = frozenset(gangs)
        self._generations: list[_Generation] = []
        self._number_of: dict[str, int] = {}  # by run id
        self._reading = self._read(chain([journal], older))
        # Results of this run that not all generations share, and the one whose work each is.
        self._noted = array("q")  # ascending, as a journal grows
        self._by = array("q")

    def __len__(self) -> int:
        return sum(len(generation.offsets) for generation in self._all())

    def read(self) -> Iterator[None]:
        """Read the journals, and yield now and then, for others to have their turn."""
        yield from self._reading

    def note(self, result: ResultRef, run_id: str, *, is_reused: bool) -> None:
        """Remember which run did the work of a result, if not all runs before have that result.

        What the others have made from another one is then not reused.
        """
        number = self._number(run_id) if is_reused else FRESH
        if number < len(self._all()):
            self._noted.append(result)
            self._by.append(number)

    def take(self, task: TaskKey, inputs: Sequence[ResultRef]) -> ReusedResult | None:
        """Return the task's earlier result, and forget it; None if the task must be done again.

        That is so if it was not committed, if it was made from other inputs, if its frame is
        damaged, or if blobs of it are gone or not sound: a task is done again rather than a run
        lost.
        """
        found = self.find(task, min((self._maker_of(ref) for ref in inputs), default=UNKNOWN))
        for generation in self._generations:
            if generation.offsets.pop(task, None) is not None:
                break
        if not isinstance(found, Found):
            return None
        try:
            record = decode(self._generations[found.generation - 1].journal.read(found.offset))
        except StoreError:
            return None
        if not isinstance(record, SucceededRecord):
            return None
        return ReusedResult(found.offset, record.manifest, record.started_us, record.ended_us)

    def find(self, task: TaskKey, newest_input: int) -> Found | Why:
        """Say what is known of a task, and forget nothing.

        Args:
            task: a task of this run.
            newest_input: the generation whose work the newest of its inputs is.
        """
        generations = self._all()
        if task.step in self._asked:
            return Why.ASKED
        home = next((g for g in generations if task in g.offsets), None)
        if home is None:
            return Why.FAILED if any(task in g.failed for g in generations) else Why.NOT_DONE
        if newest_input < home.number:
            return Why.FOLLOWS
        if task in home.lost:
            return Why.LOST
        going = home.fanouts.get(task) or home.going[task.step]
        run_id = home.makers.get(task)
        maker = home.number if run_id is None else self._number(run_id)
        return Found(task, home.number, home.offsets[task], maker, going)

    def has_failed(self, run_id: str, task: TaskKey, attempt: int) -> bool:
        """Whether it is known how an attempt has ended that a run before began: it has failed, and
        counted there, or in a later run that took it over. One that was cancelled may go on.
        """
        generations = self._all()
        number = self._number_of.get(run_id)
        if number is None:
            return False
        then, *later = (g.failed.get(task, _CANCELLED) for g in generations[number - 1 :: -1])
        return then >= attempt or any(last > _CANCELLED for last in later)

    def graph_of(self, generation: int) -> Mapping[str, Any] | None:  # Any: plain msgpack values
        """The flow's graph as that run had it; None if its work is known by its traces only."""
        if not FRESH < generation <= len(self._generations):
            return None
        began = self._generations[generation - 1].began
        return began.graph if began else None

    def _all(self) -> list[_Generation]:
        for _ in self._reading:
            pass
        return self._generations

    def _number(self, run_id: str) -> int:
        """The generation of a run; one that is deleted comes before all that are there."""
        return self._number_of.get(run_id, len(self._all()) or UNKNOWN)

    def _maker_of(self, ref: ResultRef) -> int:
        at = bisect_left(self._noted, ref)
        is_noted = at < len(self._noted) and self._noted[at] == ref
        return self._by[at] if is_noted else UNKNOWN

    # -- reading -------------------------------------------------------------------------------

    def _read(self, journals: Iterable[JournalReader]) -> Iterator[None]:
        left_out = set(self._asked)
        for number, journal in enumerate(journals, start=1):
            generation = _Generation(number, journal)
            try:
                yield from self._read_one(generation, left_out)
            except StoreError:
                if number == 1:
                    raise
                return
            self._generations.append(generation)
            if generation.began is not None:
                self._number_of[generation.began.run_id] = number
                left_out |= set(generation.began.rerun)

    def _read_one(self, generation: _Generation, left_out: set[str]) -> Iterator[None]:
        for count, (offset, payload) in enumerate(generation.journal.scan()):
            seen = glance(payload)
            if seen.kind == "run-began":
                record = decode(payload)
                generation.began = record if isinstance(record, RunBeganRecord) else None
            elif seen.kind == "task-failed" and seen.task is not None:
                _note_failure(generation, seen.task, payload)
            elif seen.task is None or seen.task.step in left_out or self._has(seen.task):
                continue
            elif seen.kind == "task-succeeded" and seen.task not in generation.offsets:
                # The first is the commit.
                self._keep(generation, seen.task, offset, seen.manifest, seen.reused)
            if count % _SLICE == _SLICE - 1:
                yield
        self._leave_torn_gangs(generation)

    def _leave_torn_gangs(self, generation: _Generation) -> None:
        """Forget gangs of which a driver that was killed has written a part, and what is lost."""
        members: dict[TaskKey, list[TaskKey]] = {}
        for task in generation.offsets:
            if task.step in self._gangs and task.frames:
                members.setdefault(member(task, 0), []).append(task)
        for tasks in members.values():
            if len(tasks) < tasks[0].frames[-1].total:
                for task in tasks:
                    del generation.offsets[task]
            elif not generation.lost.isdisjoint(tasks):
                generation.lost.update(tasks)

    def _keep(
        self, generation: _Generation, task: TaskKey, offset: int, manifest: bytes, is_reused: bool
    ) -> None:
        generation.offsets[task] = offset
        try:
            head = outline(manifest)
            is_usable = self._is_usable(manifest)
        except StoreError:
            is_usable = False
        if not is_usable:
            generation.lost.add(task)
            return
        if head.transition.fanout is None:
            generation.going.setdefault(task.step, head.transition)
        else:
            generation.fanouts[task] = head.transition
        if is_reused:
            generation.makers[task] = sys.intern(head.run_id)

    def _has(self, task: TaskKey) -> bool:
        return any(task in generation.offsets for generation in self._generations)
