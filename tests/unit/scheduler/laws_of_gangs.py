"""What the machine promises of gangs; as laws.py does."""

from engine.flow.graph import Graph, Retry
from engine.ids import Frame, TaskKey
from engine.scheduler.commands import CancelTask, FinishRun, Launch, StartTimer
from tests.unit.scheduler.flows import GANG, Branch, Foreach, Gang, Step, arm, flow, item
from tests.unit.scheduler.hand import (
    START,
    Hand,
    MakeScheduler,
    cancelled,
    finish,
    launched,
    laws_in,
    only_launch,
    timers,
)

JOIN = TaskKey("join_start")
PLAIN, SPLIT = arm("plain", "start", 0), arm("split", "start", 1)
ONCE = flow(Gang("start", Step("work")))
CAUGHT = flow(Gang("start", Step("work", Retry(times=1, delay_s=30.0), catches=True)))


def child(index: int, total: int) -> TaskKey:
    return item("work", ("start", index, total))


def ganged(make: MakeScheduler, width: int, graph: Graph = GANG, **options: object) -> Hand:
    """A run whose start has committed a gang of `width`."""
    hand = Hand(make, graph, **options)
    hand.start()
    hand.commit(START, width=width)
    return hand


def beside(make: MakeScheduler, slots: int) -> Hand:
    """A gang of three, ready beside an arm of two steps that is under way."""
    arms = ((Step("plain"), Step("more")), (Gang("split", Step("work")),))
    hand = Hand(make, flow(Branch("start", arms)), slots=slots)
    hand.start()
    hand.commit(START)
    hand.commit(SPLIT, width=3)
    return hand


def inside(index: int, total: int = 3) -> TaskKey:
    """A member of the gang of `beside`."""
    return TaskKey("work", (*SPLIT.frames, Frame("split", index, total)))


# -- together ------------------------------------------------------------------------------------


def a_gang_is_launched_whole_by_one_order(make: MakeScheduler) -> None:
    hand = ganged(make, 3)
    split = hand.result(START)
    assert hand.commands == [Launch(child(0, 3), 0, (split,), (split,), gang=3)]
    assert hand.scheduler.in_flight == 3


def a_gang_of_one_is_a_gang(make: MakeScheduler) -> None:
    hand = ganged(make, 1)
    assert only_launch(hand.commands).gang == 1
    assert list(only_launch(hand.commit(child(0, 1))).inputs) == [hand.result(child(0, 1))]


def a_gang_waits_until_there_is_room_for_all_of_it(make: MakeScheduler) -> None:
    hand = beside(make, slots=3)
    assert hand.commands == []
    assert launched(hand.commit(PLAIN)) == [inside(0)]


def a_gang_that_waits_is_passed_by_nobody(make: MakeScheduler) -> None:
    hand = beside(make, slots=4)
    assert launched(hand.commands) == [inside(0)]
    hand = beside(make, slots=3)
    # "more" comes to the line after the gang, and all three slots are the gang's.
    assert launched(hand.commit(PLAIN)) == [inside(0)]
    assert hand.scheduler.in_flight == 3


def a_gang_wider_than_the_slots_runs_alone(make: MakeScheduler) -> None:
    hand = beside(make, slots=2)
    assert launched(hand.commit(PLAIN)) == [inside(0)]
    assert hand.scheduler.in_flight == 3
    assert hand.commit(inside(0)) == hand.commit(inside(1)) == []
    assert [key.step for key in launched(hand.commit(inside(2)))] == ["more", "join_split"]


def gangs_of_a_foreach_take_turns(make: MakeScheduler) -> None:
    graph = flow(Foreach("start", (Gang("split", Step("work")),)))
    hand = Hand(make, graph, slots=3)
    hand.start()
    hand.commit(START, width=2)
    for index in range(2):
        hand.commit(item("split", ("start", index, 2)), width=2)
    works = [key for key in launched(hand.launches) if key.step == "work"]
    assert works == [item("work", ("start", 0, 2), ("split", 0, 2))]
    hand.commit(works[0])
    assert hand.commands == []
    hand.commit(item("work", ("start", 0, 2), ("split", 1, 2)))
    assert item("work", ("start", 1, 2), ("split", 0, 2)) in launched(hand.commands)


def a_gang_wider_than_allowed_fails_the_run(make: MakeScheduler) -> None:
    over = finish(ganged(make, 10, max_splits=9).commands)
    assert over is not None
    assert over.reason == "start/0 failed: the gang of start has 10 tasks; at most 9 may be"


# -- the join ------------------------------------------------------------------------------------


def a_join_of_a_gang_waits_for_all_and_gets_them_in_order(make: MakeScheduler) -> None:
    hand = ganged(make, 3)
    assert hand.commit(child(2, 3)) == []
    assert hand.commit(child(0, 3)) == []
    join = only_launch(hand.commit(child(1, 3)))
    assert join.task == JOIN
    assert list(join.inputs) == [hand.result(child(index, 3)) for index in range(3)]


def a_member_that_ends_twice_counts_once(make: MakeScheduler) -> None:
    hand = ganged(make, 2)
    hand.commit(child(0, 2))
    assert hand.commit(child(0, 2)) == []
    assert not hand.scheduler.awaits(child(0, 2), 0)
    assert hand.scheduler.awaits(child(1, 2), 0)


# -- one fails -----------------------------------------------------------------------------------


def when_one_fails_the_others_are_cancelled_once(make: MakeScheduler) -> None:
    hand = ganged(make, 4)
    hand.commit(child(0, 4))
    why = "work/2 failed: boom"
    assert hand.fail(child(2, 4)) == [
        CancelTask(child(1, 4), 0, why),
        CancelTask(child(3, 4), 0, why),
    ]
    assert hand.fail(child(1, 4), reason="cancelled") == []


def a_gang_is_tried_again_as_one_when_all_have_ended(make: MakeScheduler) -> None:
    hand = ganged(make, 3)
    hand.fail(child(1, 3))
    assert hand.scheduler.retry_in_s(child(1, 3)) == 30.0
    assert hand.fail(child(2, 3), reason="cancelled") == []
    assert hand.commit(child(0, 3)) == [StartTimer(child(0, 3), 1, 30.0)]
    again = only_launch(hand.due(child(0, 3), 1))
    assert (again.task, again.attempt, again.gang) == (child(0, 3), 1, 3)


def what_a_broken_gang_has_done_counts_for_nothing(make: MakeScheduler) -> None:
    hand = ganged(make, 2)
    early = hand.commit(child(0, 2))
    hand.fail(child(1, 2))
    hand.due(child(0, 2), 1)
    assert early == hand.commit(child(1, 2), 1) == []
    assert launched(hand.commit(child(0, 2), 1)) == [JOIN]


def the_retries_are_those_of_the_gang(make: MakeScheduler) -> None:
    hand = ganged(make, 2)
    hand.fail(child(0, 2))
    hand.fail(child(1, 2))
    assert only_launch(hand.due(child(0, 2), 1)).attempt == 1
    assert timers(hand.fail(child(1, 2), 1)) == []
    assert hand.fail(child(0, 2), 1, reason="cancelled") == [
        FinishRun(ok=False, reason="work/1 failed: boom")
    ]
    assert hand.scheduler.failed_task == child(1, 2)


def a_gang_that_backs_off_lends_its_slots(make: MakeScheduler) -> None:
    hand = ganged(make, 2)
    hand.fail(child(0, 2))
    hand.fail(child(1, 2))
    assert hand.scheduler.in_flight == 0


def a_gang_whose_last_attempt_fails_ends_the_run_when_all_have_ended(make: MakeScheduler) -> None:
    hand = ganged(make, 3, ONCE, on_failure="cancel")
    assert cancelled(hand.fail(child(0, 3))) == [child(1, 3), child(2, 3)]
    assert hand.scheduler.retry_in_s(child(0, 3)) is None
    assert hand.commit(child(1, 3)) == []
    assert hand.fail(child(2, 3), reason="cancelled") == [
        FinishRun(ok=False, reason="work/0 failed: boom")
    ]


def a_gang_that_breaks_in_a_stopped_run_is_cancelled_too(make: MakeScheduler) -> None:
    graph = flow(Branch("start", ((Step("plain"),), (Gang("split", Step("work")),))))
    hand = Hand(make, graph)
    hand.start()
    hand.commit(START)
    hand.commit(SPLIT, width=2)
    assert hand.fail(PLAIN) == []
    assert cancelled(hand.fail(inside(0, 2))) == [inside(1, 2)]
    assert finish(hand.fail(inside(1, 2))) is not None


def a_broken_gang_of_a_run_that_stops_is_not_tried_again(make: MakeScheduler) -> None:
    arms = ((Step("plain"),), (Gang("split", Step("work", Retry(times=1))),))
    hand = Hand(make, flow(Branch("start", arms)))
    hand.start()
    hand.commit(START)
    hand.commit(SPLIT, width=2)
    hand.fail(inside(0, 2))
    hand.fail(PLAIN)
    assert finish(hand.fail(inside(1, 2))) is not None


def a_cancel_ends_each_member_once(make: MakeScheduler) -> None:
    hand = ganged(make, 3)
    hand.commit(child(0, 3))
    assert cancelled(hand.cancel()) == [child(1, 3), child(2, 3)]
    assert hand.fail(child(1, 3), reason="cancelled") == []
    assert hand.fail(child(2, 3), reason="cancelled") == [FinishRun(ok=False, reason="ctrl-c")]


def a_cancel_tells_a_broken_gang_nothing_new(make: MakeScheduler) -> None:
    hand = ganged(make, 3)
    hand.fail(child(0, 3))
    assert hand.cancel() == []


def a_lost_executor_ends_a_gang(make: MakeScheduler) -> None:
    hand = ganged(make, 3)
    hand.fail(child(0, 3))
    assert hand.lose_executor() == [FinishRun(ok=False, reason="gone")]


# -- @catch --------------------------------------------------------------------------------------


def a_catch_is_of_the_whole_gang_and_of_the_first_failure(make: MakeScheduler) -> None:
    hand = ganged(make, 2, CAUGHT)
    hand.fail(child(1, 2), retryable=False, reason="died")
    assert hand.fail(child(0, 2), reason="cancelled") == [StartTimer(child(0, 2), 1, 0.0)]
    launch = only_launch(hand.due(child(0, 2), 1))
    assert (launch.fallback, launch.gang) == ("died", 2)
    hand.commit(child(0, 2), 1)
    assert launched(hand.commit(child(1, 2), 1)) == [JOIN]


LAWS = laws_in(globals())
