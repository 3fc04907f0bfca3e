"""A resumed run does again what it must, and no more."""

from collections.abc import Iterable, Iterator

from engine.errors import Failure, StoreError
from engine.flow.graph import Transition
from engine.ids import Frame, TaskKey
from engine.scheduler.events import ResultRef
from engine.scheduler.journal import FailedRecord, RunBeganRecord, SucceededRecord, encode
from engine.scheduler.memo import UNKNOWN, Memo, Why
from engine.stores.manifest import Manifest
from engine.testing.fakes import MemoryJournal

START, WORK = TaskKey("start"), TaskKey("work")
PARAMETERS = ResultRef(4)


def manifest(step: str, run: str, *leads_to: str) -> bytes:
    return Manifest("Flow", run, step, "0", 0, transition=Transition(leads_to)).pack()


OF_START, OF_WORK = manifest("start", "r0", "work"), manifest("work", "r0", "end")
OF_R1 = manifest("work", "r1", "end")


def origin() -> MemoryJournal:
    journal = MemoryJournal()
    journal.append(encode(RunBeganRecord(1, "Flow", "r0", b"")))
    journal.append(encode(SucceededRecord(2, START, 1, 10, 20, OF_START)))
    journal.append(encode(SucceededRecord(3, WORK, 0, 30, 40, OF_WORK)))
    return journal


def test_a_commit_is_reused_with_its_times() -> None:
    found = Memo(origin()).take(START, [PARAMETERS])
    assert found is not None
    assert (found.manifest, found.started_us, found.ended_us) == (OF_START, 10, 20)


def test_what_was_not_committed_is_not_known() -> None:
    assert Memo(origin()).take(TaskKey("end"), [ResultRef(50)]) is None


def gang_of(total: int, indices: Iterable[int], run: str = "r0") -> MemoryJournal:
    journal = origin()
    for index in indices:
        task = TaskKey("train", (Frame("work", index, total),))
        packed = Manifest("Flow", run, "train", str(index), 0, transition=Transition(("join",)))
        journal.append(encode(SucceededRecord(5, task, 0, 50, 60, packed.pack())))
    return journal


def members(total: int) -> list[TaskKey]:
    return [TaskKey("train", (Frame("work", index, total),)) for index in range(total)]


def test_a_gang_is_known_when_all_of_it_has_committed() -> None:
    memo = Memo(gang_of(3, [0, 1, 2]), gangs=["train"])
    assert all(memo.take(task, [PARAMETERS]) for task in members(3))


def test_a_gang_of_which_a_part_was_written_is_not_known_but_by_the_run_that_has_it_whole() -> None:
    memo = Memo(gang_of(3, [0, 1]), gangs=["train"])
    assert [memo.find(task, UNKNOWN) for task in members(3)] == [Why.NOT_DONE] * 3
    memo = Memo(gang_of(3, [0, 1], "r1"), older=[gang_of(3, [0, 1, 2])], gangs=["train"])
    assert all(memo.take(task, [PARAMETERS]) for task in members(3))


def test_a_gang_of_which_one_has_lost_its_data_is_done_again_whole() -> None:
    lost = Manifest("Flow", "r0", "train", "1", 0, transition=Transition(("join",))).pack()
    memo = Memo(gang_of(3, [0, 1, 2]), gangs=["train"], is_usable=lambda packed: packed != lost)
    assert [memo.find(task, UNKNOWN) for task in members(3)] == [Why.LOST] * 3


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
    memo.note(ResultRef(70), "r9", is_reused=False)
    memo.note(ResultRef(90), "r9", is_reused=False)
    assert memo.take(WORK, [ResultRef(60), ResultRef(90)]) is None


def test_results_beside_fresh_ones_are_reused() -> None:
    memo = Memo(origin())
    memo.note(ResultRef(70), "r9", is_reused=False)
    memo.note(ResultRef(90), "r9", is_reused=False)
    assert memo.take(WORK, [ResultRef(80), ResultRef(95)]) is not None


def generations() -> tuple[MemoryJournal, MemoryJournal]:
    """A run killed when it had taken over the start from its origin, and that origin."""
    newer = MemoryJournal()
    newer.append(encode(RunBeganRecord(1, "Flow", "r1", b"", origin_run_id="r0")))
    newer.append(encode(SucceededRecord(2, START, 1, 10, 20, OF_START, reused=True)))
    return newer, origin()


def test_what_a_killed_run_had_not_yet_taken_over_is_taken_from_its_origin() -> None:
    newer, older = generations()
    memo = Memo(newer, older=[older])
    assert len(memo) == 2
    start = memo.take(START, [PARAMETERS])
    memo.note(ResultRef(50), "r0", is_reused=True)
    work = memo.take(WORK, [ResultRef(50)])
    assert start is not None
    assert work is not None
    assert (start.manifest, work.manifest) == (OF_START, OF_WORK)


def test_what_the_origin_of_an_origin_made_from_other_inputs_is_made_again() -> None:
    newer, older = generations()
    memo = Memo(newer, older=[older])
    memo.note(ResultRef(50), "r1", is_reused=True)
    assert memo.take(WORK, [ResultRef(50)]) is None


def test_what_an_origin_made_of_its_own_work_is_reused() -> None:
    newer, older = generations()
    newer.append(encode(SucceededRecord(3, WORK, 0, 30, 40, OF_R1)))
    memo = Memo(newer, older=[older])
    memo.note(ResultRef(50), "r1", is_reused=True)
    found = memo.take(WORK, [ResultRef(50)])
    assert found is not None
    assert found.manifest == OF_R1
    assert memo.take(WORK, [ResultRef(50)]) is None, "the older result is of other inputs"


def test_a_step_that_an_origin_was_told_to_run_again_is_not_taken_from_before_it() -> None:
    newer = MemoryJournal()
    newer.append(encode(RunBeganRecord(1, "Flow", "r1", b"", origin_run_id="r0", rerun=("work",))))
    memo = Memo(newer, older=[origin()])
    assert memo.take(START, [PARAMETERS]) is not None
    assert memo.take(WORK, [ResultRef(50)]) is None


def test_a_task_whose_blobs_are_gone_is_done_again() -> None:
    memo = Memo(origin(), is_usable=lambda manifest: manifest != OF_WORK)
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


def test_a_commit_whose_manifest_is_damaged_is_a_task_to_do_again() -> None:
    journal = origin()
    journal.append(encode(SucceededRecord(4, TaskKey("end"), 0, 50, 60, b"\xc1")))
    assert Memo(journal).take(TaskKey("end"), [PARAMETERS]) is None


def test_an_older_journal_that_cannot_be_read_is_left_out() -> None:
    newer, _ = generations()
    damaged = MemoryJournal()
    damaged.append(b"\xc1")
    memo = Memo(newer, older=[damaged, origin()])
    assert memo.take(START, [PARAMETERS]) is not None
    assert memo.take(WORK, [ResultRef(50)]) is None


def test_journals_are_read_in_turns_that_do_not_grow_with_them() -> None:
    longest, turns = 0, 0
    for tasks in (1_000, 5_000):
        journal = CountingJournal()
        for number in range(tasks):
            key = TaskKey("work", (Frame("start", number, tasks),))
            journal.append(encode(SucceededRecord(4, key, 0, 50, 60, OF_WORK)))
        turns = 0
        for _ in Memo(journal).read():
            longest, journal.frames, turns = max(longest, journal.frames), 0, turns + 1
        assert journal.frames <= longest
        assert turns == tasks // longest
    assert longest <= 200


class CountingJournal(MemoryJournal):
    frames = 0

    def scan(self, start: int = 0) -> Iterator[tuple[int, bytes]]:
        for frame in super().scan(start):
            self.frames += 1
            yield frame


def of_run(run: str, *failures: tuple[TaskKey, int, str]) -> MemoryJournal:
    journal = MemoryJournal()
    journal.append(encode(RunBeganRecord(1, "Flow", run, b"")))
    for task, attempt, code in failures:
        journal.append(encode(FailedRecord(3, task, attempt, 30, 40, Failure(code, "no"))))
    return journal


def test_it_is_known_which_attempts_of_runs_before_have_failed_for_good() -> None:
    end = TaskKey("end")
    r1 = of_run("r1", (WORK, 0, "task-failed"), (WORK, 1, "task-lost"), (end, 0, "task-cancelled"))
    memo = Memo(r1, rerun=["work"])
    assert [memo.has_failed("r1", WORK, attempt) for attempt in (0, 1, 2)] == [True, True, False]
    assert not memo.has_failed("r1", end, 0), "it may have been left running"
    assert not memo.has_failed("r1", START, 0)
    assert not memo.has_failed("deleted", WORK, 0)


def test_what_a_later_run_had_taken_over_has_failed_if_it_did_there() -> None:
    r2, r1 = of_run("r2", (WORK, 0, "task-failed")), of_run("r1", (WORK, 0, "task-failed"))
    memo = Memo(r2, older=[r1])
    assert memo.has_failed("r1", WORK, 4)
    assert not memo.has_failed("r2", WORK, 1)
