"""What a resumed run need not do again: the commits of another run, by task. Pure.

A `TaskKey` is equal across runs that took the same path, so no search is needed.
"""

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct

from engine.errors import StoreError
from engine.ids import TaskKey
from engine.scheduler.events import ResultRef
from engine.scheduler.journal import JournalReader, SucceededRecord, committed, decode


class ReusedResult(Struct, frozen=True):
    """What another run committed for a task, and where in its journal that stands."""

    offset: int
    manifest: bytes
    started_us: int
    ended_us: int


class Memo:
    """Answers for tasks that another run has done. Holds offsets only; manifests are read late.

    A result is reused only if all inputs of its task were: what follows a task that is done again
    is done again too.

    Args:
        journal: the other run's.
        rerun: steps whose tasks are done again.
        is_usable: whether a manifest's blobs are all there; a task whose are not is done again.
    """

    def __init__(
        self,
        journal: JournalReader,
        *,
        rerun: Iterable[str] = (),
        is_usable: Callable[[bytes], bool] = lambda manifest: True,
    ) -> None:
        left_out = frozenset(rerun)
        self._journal = journal
        self._is_usable = is_usable
        found = committed(journal.scan())
        self._offsets = {key: at for key, at in found.items() if key.step not in left_out}
        self._fresh = array("q")  # results of this run's own work; ascending, as a journal grows

    def __len__(self) -> int:
        return len(self._offsets)

    def note_fresh(self, result: ResultRef) -> None:
        """Remember that this result was made anew, so that nothing made from it is reused."""
        self._fresh.append(result)

    def take(self, task: TaskKey, inputs: Sequence[ResultRef]) -> ReusedResult | None:
        """Return the task's earlier result, and forget it; None if the task must be done again.

        That is so if it was not committed, if it was made from other inputs, if its frame is
        damaged, or if blobs of it are gone: a task is done again rather than a run lost.
        """
        offset = self._offsets.pop(task, None)
        if offset is None or any(self._is_fresh(ref) for ref in inputs):
            return None
        try:
            record = decode(self._journal.read(offset))
            if not isinstance(record, SucceededRecord) or not self._is_usable(record.manifest):
                return None
        except StoreError:
            return None
        return ReusedResult(offset, record.manifest, record.started_us, record.ended_us)

    def _is_fresh(self, ref: ResultRef) -> bool:
        at = bisect_left(self._fresh, ref)
        return at < len(self._fresh) and self._fresh[at] == ref
