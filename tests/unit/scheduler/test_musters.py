"""Of a gang nothing is told before it is known what all of it comes to."""

from collections.abc import Sequence

from msgspec.structs import replace

from engine.errors import Failure
from engine.flow.graph import Graph
from engine.ids import TaskKey
from engine.scheduler.commands import CancelTask
from engine.scheduler.flights import Ended
from engine.scheduler.musters import Musters
from tests.unit.scheduler.flows import GANG, LINE, item

BOOM = Failure("task-failed", "boom", type="ValueError")
LATE = "step 'work' ran longer than its @timeout of 2 s"
TIMED_OUT = Failure("task-timeout", LATE, type="engine.errors.base.TaskTimedOutError")
LOST_PEER = Failure("task-failed", "a peer has gone", type="ConnectionError")


def child(index: int) -> TaskKey:
    return item("work", ("start", index, 3))


def end(index: int, outcome: bytes | Failure = b"done", attempt: int = 0) -> Ended:
    return Ended(child(index), attempt, 1, 2, outcome)


def told(ends: list[Ended], graph: Graph = GANG) -> list[list[Ended | CancelTask]]:
    musters = Musters(graph)
    return [list(musters.take(ended)) for ended in ends]


def failures(ends: Sequence[Ended | CancelTask]) -> list[Failure]:
    outcomes = [each.outcome for each in ends if isinstance(each, Ended)]
    return [outcome for outcome in outcomes if isinstance(outcome, Failure)]


def test_the_end_of_a_task_of_no_gang_is_told_at_once() -> None:
    ended = Ended(TaskKey("work"), 0, 1, 2, b"done")
    assert told([ended], LINE) == [[ended]]


def test_ends_are_told_together_and_in_order_when_all_have_ended_well() -> None:
    assert told([end(2), end(0), end(1)]) == [[], [], [end(0), end(1), end(2)]]


def test_the_first_failure_has_those_end_that_have_not() -> None:
    why = "work/1 failed: ValueError: boom"
    assert told([end(0), end(1, BOOM)]) == [[], [CancelTask(child(2), 0, why)]]
    whole = [child(0), child(2)]
    [asked] = told([end(1, BOOM)])
    assert [each.task for each in asked] == whole
    assert told([end(1, BOOM), end(0, BOOM)])[1] == []


def test_a_failure_is_told_when_all_have_ended_and_first_and_the_others_are_given_up() -> None:
    *_, all_of_it = told([end(0), end(1, BOOM), end(2)])
    assert all_of_it[0] == end(1, BOOM)
    assert [ended.task for ended in all_of_it] == [child(1), child(0), child(2)]
    for failure in failures(all_of_it)[1:]:
        assert failure.code == "task-cancelled"
        assert "work/1 failed: " in failure.message
        assert not failure.retryable


def test_other_failures_are_told_as_they_are_in_order_after_the_cause() -> None:
    other = Failure("task-lost", "killed")
    ends = [end(2, BOOM), end(1, BOOM), end(0, other)]
    assert told(ends)[-1] == [end(0, other), end(1, BOOM), end(2, BOOM)]


def test_who_was_ended_is_told_the_cause_and_not_what_was_heard_first() -> None:
    thought = "work/0 failed: ConnectionError: a peer has gone"
    ended = Failure("task-cancelled", f"cancelled: {thought}", retryable=False)
    by_hand = Failure("task-cancelled", "cancelled: by SIGINT", retryable=False)
    [late, _, cancelled] = told([end(0, LOST_PEER), end(1, ended), end(2, TIMED_OUT)])[-1]
    assert late == end(2, TIMED_OUT)
    assert failures([cancelled]) == [replace(ended, message=f"cancelled: work/2 failed: {LATE}")]
    assert told([end(0, LOST_PEER), end(1, by_hand), end(2, TIMED_OUT)])[-1][2] == end(1, by_hand)


def test_the_next_attempt_begins_anew() -> None:
    musters = Musters(GANG)
    for ended in (end(0), end(1, BOOM), end(2)):
        musters.take(ended)
    again = [end(index, attempt=1) for index in range(3)]
    assert [list(musters.take(ended)) for ended in again] == [[], [], again]


def test_what_is_forgotten_is_told_no_more() -> None:
    musters = Musters(GANG)
    musters.take(end(0))
    musters.clear()
    assert musters.take(end(1)) == ()
