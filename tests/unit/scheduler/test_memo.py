"""A resumed run does again what it must, and no more."""

from engine.errors import StoreError
from engine.ids import TaskKey
from engine.scheduler.events import ResultRef
from engine.scheduler.journal import RunBeganRecord, SucceededRecord, encode
from engine.scheduler.memo import Memo
from engine.testing.fakes import MemoryJournal

START, WORK = TaskKey("start"), TaskKey("work")
PARAMETERS = ResultRef(4)


def origin() -> MemoryJournal:
    journal = MemoryJournal()
    journal.append(encode(RunBeganRecord(1, "Flow", "r0", b"")))
    journal.append(encode(SucceededRecord(2, START, 1, 10, 20, b"of start")))
    journal.append(encode(SucceededRecord(3, WORK, 0, 30, 40, b"of work")))
    return journal


def test_a_commit_is_reused_with_its_times() -> None:
    found = Memo(origin()).take(START, [PARAMETERS])
    assert found is not None
    assert (found.manifest, found.started_us, found.ended_us) == (b"of start", 10, 20)


def test_what_was_not_committed_is_not_known() -> None:
    assert Memo(origin()).take(TaskKey("end"), [ResultRef(50)]) is None


def test_a_result_is_given_once() -> None:
    memo = Memo(origin())
    assert len(memo) == 2
    assert memo.take(START, [PARAMETERS]) is not None
    assert memo.take(START, [PARAMETERS]) is None
    assert len(memo) == 1


def test_steps_to_run_again_are_left_out() -> None:
    memo = Memo(origin(), rerun=["start"])
    assert memo.take(START, [PARAMETERS]) is None
    assert memo.take(WORK, [PARAMETERS]) is not None


def test_what_was_made_from_a_fresh_result_is_made_again() -> None:
    memo = Memo(origin())
    memo.note_fresh(ResultRef(70))
    memo.note_fresh(ResultRef(90))
    assert memo.take(WORK, [ResultRef(60), ResultRef(90)]) is None


def test_results_beside_fresh_ones_are_reused() -> None:
    memo = Memo(origin())
    memo.note_fresh(ResultRef(70))
    memo.note_fresh(ResultRef(90))
    assert memo.take(WORK, [ResultRef(80), ResultRef(95)]) is not None


def test_a_task_whose_blobs_are_gone_is_done_again() -> None:
    memo = Memo(origin(), is_usable=lambda manifest: manifest != b"of work")
    assert memo.take(START, [PARAMETERS]) is not None
    assert memo.take(WORK, [PARAMETERS]) is None


def test_a_damaged_frame_is_a_task_to_do_again() -> None:
    class Damaged(MemoryJournal):
        def read(self, offset: int) -> bytes:
            return super().read(offset)[:-3]

    damaged = Damaged()
    for _, payload in origin().scan():
        damaged.append(payload)
    assert Memo(damaged).take(START, [PARAMETERS]) is None


def test_a_manifest_that_cannot_be_judged_is_a_task_to_do_again() -> None:
    def is_usable(manifest: bytes) -> bool:
        raise StoreError("the manifest is damaged")

    assert Memo(origin(), is_usable=is_usable).take(START, [PARAMETERS]) is None
