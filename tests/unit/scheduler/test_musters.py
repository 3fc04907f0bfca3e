"""Of a gang nothing is told before it is known what all of it comes to."""

from engine.errors import Failure
from engine.flow.graph import Graph
from engine.ids import TaskKey
from engine.scheduler.flights import Ended
from engine.scheduler.musters import Musters
from tests.unit.scheduler.flows import GANG, LINE, item

BOOM = Failure("task-failed", "boom", type="ValueError")


def child(index: int) -> TaskKey:
    return item("work", ("start", index, 3))


def end(index: int, outcome: bytes | Failure = b"done", attempt: int = 0) -> Ended:
    return Ended(child(index), attempt, 1, 2, outcome)


def told(ends: list[Ended], graph: Graph = GANG) -> list[list[Ended]]:
    musters = Musters(graph)
    return [list(musters.take(ended)) for ended in ends]


def test_the_end_of_a_task_of_no_gang_is_told_at_once() -> None:
    ended = Ended(TaskKey("work"), 0, 1, 2, b"done")
    assert told([ended], LINE) == [[ended]]


def test_ends_are_told_together_and_in_order_when_all_have_ended_well() -> None:
    assert told([end(2), end(0), end(1)]) == [[], [], [end(0), end(1), end(2)]]


def test_a_failure_is_told_at_once_and_first_and_those_before_it_are_given_up() -> None:
    first, second, third = told([end(0), end(1, BOOM), end(2)])
    assert first == []
    assert second[0] == end(1, BOOM)
    for ended in (second[1], *third):
        assert isinstance(ended.outcome, Failure)
        assert ended.outcome.code == "task-cancelled"
        assert "work/1 failed: " in ended.outcome.message
        assert not ended.outcome.retryable
    assert [ended.task for ended in (*second, *third)] == [child(1), child(0), child(2)]


def test_a_later_failure_is_told_as_it_is() -> None:
    other = Failure("task-lost", "killed")
    assert told([end(0, BOOM), end(1, other)]) == [[end(0, BOOM)], [end(1, other)]]


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
