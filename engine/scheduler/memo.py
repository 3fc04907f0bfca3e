"""What a resumed run need not do again: the commits of other runs, by task. Pure.

A `TaskKey` is equal across runs that took the same path, so no search is needed. The run that is
resumed may itself be one that resumed another and was killed before it had taken over all that was
done, so its origin is asked after it, and that one's origin, and so on.
"""

import sys
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from itertools import chain

from msgspec import Struct

from engine.errors import StoreError
from engine.ids import TaskKey
from engine.scheduler.events import ResultRef
from engine.scheduler.journal import JournalReader, RunBeganRecord, SucceededRecord, decode

_FRESH = 0  # the generation of what this run did itself; its origin is 1, that one's origin 2


class ReusedResult(Struct, frozen=True):
    """What another run committed for a task, and where in its journal that stands."""

    offset: int
    manifest: bytes
    started_us: int
    ended_us: int


class _Generation(Struct):
    """One of the runs before: its commits that no later run has."""

    number: int
    journal: JournalReader
    offsets: dict[TaskKey, int]


class Memo:
    """Answers for tasks that other runs have done. Holds offsets only; manifests are read late.

    A result is reused only if all inputs of its task are the ones that it was made from: what
    follows a task that was done again is done again too.

    Args:
        journal: of the run to go on from.
        older: the journals of its origin, of that one's origin, and so on.
        rerun: steps whose tasks are done again.
        is_usable: whether a manifest's blobs are all there and sound; a task whose are not is done
            again.
    """

    def __init__(
        self,
        journal: JournalReader,
        *,
        older: Iterable[JournalReader] = (),
        rerun: Iterable[str] = (),
        is_usable: Callable[[bytes], bool] = lambda manifest: True,
    ) -> None:
        self._is_usable = is_usable
        self._generations: list[_Generation] = []
        self._number_of: dict[str, int] = {}  # by run id
        left_out = set(rerun)
        for number, source in enumerate(chain([journal], older), start=1):
            began, found = _commits(source)
            mine = {k: at for k, at in found.items() if k.step not in left_out and not self._has(k)}
            self._generations.append(_Generation(number, source, mine))
            if began is not None:
                self._number_of[began.run_id] = number
                left_out |= set(began.rerun)
        # Results of this run that not all generations share, and the one whose work each is.
        self._noted = array("q")  # ascending, as a journal grows
        self._by = array("q")

    def __len__(self) -> int:
        return sum(len(generation.offsets) for generation in self._generations)

    def note(self, result: ResultRef, run_id: str, *, is_reused: bool) -> None:
        """Remember which run did the work of a result, if not all runs before have that result.

        What the others have made from another one is then not reused.
        """
        number = self._number_of.get(run_id, len(self._generations)) if is_reused else _FRESH
        if number < len(self._generations):
            self._noted.append(result)
            self._by.append(number)

    def take(self, task: TaskKey, inputs: Sequence[ResultRef]) -> ReusedResult | None:
        """Return the task's earlier result, and forget it; None if the task must be done again.

        That is so if it was not committed, if it was made from other inputs, if its frame is
        damaged, or if blobs of it are gone or not sound: a task is done again rather than a run
        lost.
        """
        for generation in self._generations:
            offset = generation.offsets.pop(task, None)
            if offset is not None:
                break
        else:
            return None
        if any(self._maker_of(ref) < generation.number for ref in inputs):
            return None
        try:
            record = decode(generation.journal.read(offset))
            if not isinstance(record, SucceededRecord) or not self._is_usable(record.manifest):
                return None
        except StoreError:
            return None
        return ReusedResult(offset, record.manifest, record.started_us, record.ended_us)

    def _has(self, task: TaskKey) -> bool:
        return any(task in generation.offsets for generation in self._generations)

    def _maker_of(self, ref: ResultRef) -> int:
        at = bisect_left(self._noted, ref)
        is_noted = at < len(self._noted) and self._noted[at] == ref
        return self._by[at] if is_noted else sys.maxsize


def _commits(journal: JournalReader) -> tuple[RunBeganRecord | None, dict[TaskKey, int]]:
    """How a run began, and the offset of each of its commits."""
    began: RunBeganRecord | None = None
    found: dict[TaskKey, int] = {}
    for offset, payload in journal.scan():
        record = decode(payload)
        if isinstance(record, SucceededRecord):
            found.setdefault(record.task, offset)  # the first is the commit
        elif isinstance(record, RunBeganRecord):
            began = record
    return began, found
