"""What the machine promises, law by law: run on the machine itself, and on mutants of it.

Each function's name is the law. It is given a way to make a Scheduler and raises if the law does
not hold; `Hand` checks the machine's own invariants after each event besides.
"""

from collections.abc import Callable

from engine.flow.graph import Retry
from engine.ids import TaskKey
from engine.scheduler.commands import CancelTask, FinishRun, Launch, StartTimer
from engine.scheduler.events import RetryDue, TaskFailed
from tests.unit.scheduler.flows import (
    BRANCHED,
    CATCHING,
    FANNED,
    LINE,
    NESTED,
    Branch,
    Foreach,
    Step,
    arm,
    flow,
    item,
)
from tests.unit.scheduler.hand import (
    PARAMETERS,
    START,
    Hand,
    MakeScheduler,
    cancelled,
    finish,
    launched,
    only_launch,
    timers,
)

Law = Callable[[MakeScheduler], None]

WORK = TaskKey("work")
END = TaskKey("end")


def child(index: int, total: int) -> TaskKey:
    return item("work", ("start", index, total))


def fanned(make: MakeScheduler, width: int, **options: object) -> Hand:
    """A run whose start has committed a foreach of `width`."""
    hand = Hand(make, FANNED, **options)
    hand.start()
    hand.commit(START, width=width)
    return hand


def retried(hand: Hand, task: TaskKey) -> None:
    """Fail attempt 0 of a task that has one retry, and let the retry begin."""
    hand.fail(task)
    hand.due(task, 1)


# -- the way of a run ----------------------------------------------------------------------------


def a_run_begins_with_its_start_step_and_the_parameters(make: MakeScheduler) -> None:
    assert Hand(make, LINE).start() == [Launch(START, 0, (PARAMETERS,))]


def a_step_is_followed_by_the_next_with_its_result(make: MakeScheduler) -> None:
    hand = Hand(make, LINE)
    hand.start()
    assert hand.commit(START) == [Launch(WORK, 0, (hand.result(START),))]


def a_run_ends_when_its_end_step_has_committed(make: MakeScheduler) -> None:
    hand = Hand(make, LINE)
    hand.start()
    hand.commit(START)
    hand.commit(WORK)
    assert hand.commit(END) == [FinishRun(ok=True)]


def a_finished_run_hears_nothing_more(make: MakeScheduler) -> None:
    hand = Hand(make, flow())
    hand.start()
    hand.commit(START)
    hand.commit(END)
    assert hand.cancel() == []
    assert hand.start() == []


def a_second_start_is_ignored(make: MakeScheduler) -> None:
    hand = Hand(make, LINE)
    hand.start()
    assert hand.start() == []


# -- fan-outs and joins --------------------------------------------------------------------------


def a_fan_out_never_has_more_in_flight_than_slots(make: MakeScheduler) -> None:
    hand = fanned(make, 5, slots=2)
    assert launched(hand.commands) == [child(0, 5), child(1, 5)]
    assert hand.scheduler.in_flight == 2


def a_freed_slot_is_given_to_the_next_child(make: MakeScheduler) -> None:
    hand = fanned(make, 5, slots=2)
    assert launched(hand.commit(child(1, 5))) == [child(2, 5)]


def each_child_is_started_exactly_once(make: MakeScheduler) -> None:
    hand = fanned(make, 5, slots=1)
    for index in range(5):
        hand.commit(child(index, 5))
    assert launched(hand.launches) == [
        START,
        *(child(index, 5) for index in range(5)),
        TaskKey("join_start"),
    ]


def a_join_waits_for_the_last_child(make: MakeScheduler) -> None:
    hand = fanned(make, 3)
    hand.commit(child(2, 3))
    assert hand.commit(child(0, 3)) == []
    assert launched(hand.commit(child(1, 3))) == [TaskKey("join_start")]


def a_join_gets_its_inputs_in_index_order(make: MakeScheduler) -> None:
    hand = fanned(make, 4)
    for index in (2, 0, 3, 1):
        hand.commit(child(index, 4))
    join = only_launch(hand.commands)
    assert list(join.inputs) == [hand.result(child(index, 4)) for index in range(4)]


def a_foreach_of_one_has_a_join_of_one(make: MakeScheduler) -> None:
    hand = fanned(make, 1)
    assert list(only_launch(hand.commit(child(0, 1))).inputs) == [hand.result(child(0, 1))]


def a_branch_starts_each_arm_and_joins_them_in_order(make: MakeScheduler) -> None:
    hand = Hand(make, BRANCHED)
    hand.start()
    left, right = arm("left", "start", 0), arm("right", "start", 1)
    assert launched(hand.commit(START)) == [left, right]
    hand.commit(right)
    join = only_launch(hand.commit(left))
    assert list(join.inputs) == [hand.result(left), hand.result(right)]
    assert join.scope == ()


def children_read_the_split_and_have_it_in_scope(make: MakeScheduler) -> None:
    hand = fanned(make, 1)
    split = hand.result(START)
    assert hand.commands == [Launch(child(0, 1), 0, (split,), scope=(split,))]


def scope_holds_every_foreach_around_outermost_first(make: MakeScheduler) -> None:
    hand = Hand(make, NESTED)
    hand.start()
    hand.commit(START, width=1)
    outer = item("outer", ("start", 0, 1))
    inner = item("inner", ("start", 0, 1), ("outer", 0, 1))
    deepest = only_launch(hand.commit(outer, width=1))
    assert deepest.task == inner
    assert deepest.scope == (hand.result(START), hand.result(outer))
    join = only_launch(hand.commit(inner))
    assert join.scope == (hand.result(START),)
    after = only_launch(hand.commit(join.task))
    assert after.scope == (hand.result(START),)
    assert only_launch(hand.commit(after.task)).scope == ()


def static_branches_are_not_in_scope(make: MakeScheduler) -> None:
    graph = flow(Branch("start", ((Foreach("a", (Step("b"),)),), (Step("c"),))))
    hand = Hand(make, graph)
    hand.start()
    hand.commit(START)
    split = arm("a", "start", 0)
    assert only_launch(hand.commit(split, width=1)).scope == (hand.result(split),)


def an_item_flows_on_before_new_items_begin(make: MakeScheduler) -> None:
    graph = flow(Foreach("start", (Step("first"), Step("second"))))
    hand = Hand(make, graph, slots=1)
    hand.start()
    hand.commit(START, width=2)
    assert launched(hand.commit(item("first", ("start", 0, 2)))) == [
        item("second", ("start", 0, 2))
    ]


def the_innermost_fan_out_goes_first(make: MakeScheduler) -> None:
    hand = Hand(make, NESTED, slots=1)
    hand.start()
    hand.commit(START, width=2)
    assert launched(hand.commit(item("outer", ("start", 0, 2)), width=1)) == [
        item("inner", ("start", 0, 2), ("outer", 0, 1))
    ]


def nested_joins_close_their_own_level(make: MakeScheduler) -> None:
    hand = Hand(make, NESTED)
    hand.start()
    hand.commit(START, width=2)
    for index in range(2):
        hand.commit(item("outer", ("start", index, 2)), width=2)
    for inner in (1, 0):
        for outer in (1, 0):
            hand.commit(item("inner", ("start", outer, 2), ("outer", inner, 2)))
    for outer in (1, 0):
        hand.commit(item("join_outer", ("start", outer, 2)))
        hand.commit(item("after", ("start", outer, 2)))
    join = only_launch(hand.commands)
    assert join.task == TaskKey("join_start")
    assert list(join.inputs) == [hand.result(item("after", ("start", i, 2))) for i in range(2)]
    by_key = {launch.task: list(launch.inputs) for launch in hand.launches}
    for outer in range(2):
        assert by_key[item("join_outer", ("start", outer, 2))] == [
            hand.result(item("inner", ("start", outer, 2), ("outer", i, 2))) for i in range(2)
        ]


def a_foreach_without_items_fails_the_run(make: MakeScheduler) -> None:
    hand = Hand(make, FANNED)
    hand.start()
    over = finish(hand.commit(START, width=0))
    assert over is not None
    assert not over.ok
    assert over.reason == "start/0 failed: the foreach of start has no items"


def a_foreach_wider_than_allowed_fails_the_run(make: MakeScheduler) -> None:
    hand = Hand(make, FANNED, max_splits=9)
    hand.start()
    over = finish(hand.commit(START, width=10))
    assert over is not None
    assert "10 items; at most 9" in str(over.reason)


def a_foreach_as_wide_as_allowed_is_let_through(make: MakeScheduler) -> None:
    hand = Hand(make, FANNED, max_splits=9)
    hand.start()
    assert len(launched(hand.commit(START, width=9))) == 9


# -- retries -------------------------------------------------------------------------------------


def a_failed_attempt_is_tried_again_after_its_delay(make: MakeScheduler) -> None:
    hand = fanned(make, 1)
    assert hand.fail(child(0, 1)) == [StartTimer(child(0, 1), 1, 30.0)]
    split = hand.result(START)
    assert hand.due(child(0, 1), 1) == [Launch(child(0, 1), 1, (split,), scope=(split,))]


def user_code_runs_once_and_as_often_again_as_it_may(make: MakeScheduler) -> None:
    hand = Hand(make, flow(Step("work", Retry(times=2, delay_s=1.0))))
    hand.start()
    hand.commit(START)
    for attempt in (1, 2):
        assert timers(hand.fail(WORK, attempt - 1)) == [StartTimer(WORK, attempt, 1.0)]
        hand.due(WORK, attempt)
    assert hand.fail(WORK, 2) == [FinishRun(ok=False, reason="work/0 failed: boom")]
    assert hand.scheduler.failed_task == WORK


def a_step_without_retry_fails_at_once(make: MakeScheduler) -> None:
    hand = Hand(make, LINE)
    hand.start()
    assert hand.fail(START) == [FinishRun(ok=False, reason="start/0 failed: boom")]


def a_failure_that_cannot_go_away_is_not_retried(make: MakeScheduler) -> None:
    hand = fanned(make, 1)
    assert finish(hand.fail(child(0, 1), retryable=False)) is not None


def a_backing_off_task_lends_its_slot(make: MakeScheduler) -> None:
    hand = fanned(make, 2, slots=1)
    assert launched(hand.fail(child(0, 2))) == [child(1, 2)]


def a_retry_in_line_goes_before_new_children(make: MakeScheduler) -> None:
    hand = fanned(make, 3, slots=1)
    hand.fail(child(0, 3))
    assert hand.due(child(0, 3), 1) == []
    assert launched(hand.commit(child(1, 3))) == [child(0, 3)]


# -- news that is late, early, or double ---------------------------------------------------------


def a_late_success_of_an_earlier_attempt_does_not_count(make: MakeScheduler) -> None:
    hand = fanned(make, 1)
    retried(hand, child(0, 1))
    assert hand.commit(child(0, 1), 0) == []
    assert hand.scheduler.awaits(child(0, 1), 1)


def a_late_failure_of_an_earlier_attempt_does_not_count(make: MakeScheduler) -> None:
    hand = fanned(make, 1)
    retried(hand, child(0, 1))
    assert hand.fail(child(0, 1), 0) == []


def a_success_while_backing_off_does_not_count(make: MakeScheduler) -> None:
    hand = fanned(make, 1)
    hand.fail(child(0, 1))
    assert hand.commit(child(0, 1), 0) == []
    assert hand.commit(child(0, 1), 1) == []


def a_second_success_does_not_count(make: MakeScheduler) -> None:
    hand = fanned(make, 2)
    hand.commit(child(0, 2))
    assert hand.commit(child(0, 2)) == []
    assert not hand.scheduler.awaits(child(0, 2), 0)


def a_retry_that_comes_due_twice_starts_once(make: MakeScheduler) -> None:
    hand = fanned(make, 1)
    retried(hand, child(0, 1))
    assert hand.due(child(0, 1), 1) == []


def a_retry_of_another_attempt_starts_nothing(make: MakeScheduler) -> None:
    hand = fanned(make, 1)
    hand.fail(child(0, 1))
    assert hand.tell(RetryDue(child(0, 1), 0)) == []
    assert hand.tell(RetryDue(child(0, 1), 2)) == []


def news_of_tasks_that_never_were_is_ignored(make: MakeScheduler) -> None:
    hand = fanned(make, 1)
    assert hand.tell(TaskFailed(TaskKey("nowhere"), 0, "?")) == []
    assert hand.tell(RetryDue(TaskKey("nowhere"), 0)) == []


# -- @catch --------------------------------------------------------------------------------------


def caught(make: MakeScheduler) -> Hand:
    """A step with one retry and @catch whose user attempts are spent."""
    hand = Hand(make, CATCHING)
    hand.start()
    hand.commit(START)
    retried(hand, WORK)
    return hand


def a_catch_is_launched_when_user_attempts_are_spent(make: MakeScheduler) -> None:
    hand = caught(make)
    assert hand.fail(WORK, 1, reason="killed") == [StartTimer(WORK, 2, 0.0)]
    assert hand.due(WORK, 2) == [Launch(WORK, 2, (hand.result(START),), fallback="killed")]
    assert launched(hand.commit(WORK, 2)) == [END]


def a_catch_is_tried_three_times(make: MakeScheduler) -> None:
    hand = caught(make)
    hand.fail(WORK, 1, reason="killed")
    for attempt in (2, 3):
        assert only_launch(hand.due(WORK, attempt)).fallback == "killed"
        assert timers(hand.fail(WORK, attempt, reason="again")) == [
            StartTimer(WORK, attempt + 1, 0.0)
        ]
    assert only_launch(hand.due(WORK, 4)).fallback == "killed"
    assert hand.fail(WORK, 4, reason="again") == [FinishRun(False, "work/0 failed: again")]


def a_failure_that_cannot_go_away_is_caught_at_once(make: MakeScheduler) -> None:
    hand = Hand(make, CATCHING)
    hand.start()
    hand.commit(START)
    hand.fail(WORK, retryable=False)
    assert only_launch(hand.due(WORK, 1)).fallback == "boom"


# -- failure -------------------------------------------------------------------------------------


def after_a_failure_what_runs_may_finish_but_nothing_starts(make: MakeScheduler) -> None:
    hand = fanned(make, 5, slots=2)
    assert hand.fail(child(0, 5), retryable=False) == []
    assert hand.commit(child(1, 5)) == [
        FinishRun(ok=False, reason="work/0 failed: boom"),
    ]


def after_a_failure_successors_do_not_start(make: MakeScheduler) -> None:
    graph = flow(Branch("start", ((Step("left"), Step("more")), (Step("right"),))))
    hand = Hand(make, graph)
    hand.start()
    hand.commit(START)
    hand.fail(arm("right", "start", 1))
    assert launched(hand.commit(arm("left", "start", 0))) == []


def after_a_failure_nothing_is_tried_again(make: MakeScheduler) -> None:
    hand = fanned(make, 2)
    hand.fail(child(0, 2), retryable=False)
    assert timers(hand.fail(child(1, 2))) == []


def a_failure_ends_pending_backoffs(make: MakeScheduler) -> None:
    hand = fanned(make, 2)
    hand.fail(child(0, 2))
    over = finish(hand.fail(child(1, 2), retryable=False))
    assert over is not None  # and not after 30 s
    assert hand.due(child(0, 2), 1) == []


def on_failure_cancel_ends_what_is_in_flight(make: MakeScheduler) -> None:
    hand = fanned(make, 3, on_failure="cancel")
    reason = "work/1 failed: boom"
    assert hand.fail(child(1, 3), retryable=False) == [
        CancelTask(child(0, 3), 0, reason),
        CancelTask(child(2, 3), 0, reason),
    ]
    assert hand.fail(child(0, 3), retryable=False) == []
    assert hand.fail(child(2, 3), reason="cancelled") == [FinishRun(ok=False, reason=reason)]


def the_first_failure_is_the_reason(make: MakeScheduler) -> None:
    hand = fanned(make, 2)
    hand.fail(child(0, 2), retryable=False, reason="first")
    assert hand.fail(child(1, 2), retryable=False, reason="second") == [
        FinishRun(ok=False, reason="work/0 failed: first")
    ]
    assert hand.scheduler.failed_task == child(0, 2)


# -- cancel, and an executor that is lost --------------------------------------------------------


def a_cancel_ends_what_is_in_flight_and_then_the_run(make: MakeScheduler) -> None:
    hand = fanned(make, 9, slots=2)
    assert hand.cancel() == [
        CancelTask(child(0, 9), 0, "ctrl-c"),
        CancelTask(child(1, 9), 0, "ctrl-c"),
    ]
    assert hand.fail(child(0, 9), reason="cancelled") == []
    assert hand.fail(child(1, 9), reason="cancelled") == [FinishRun(ok=False, reason="ctrl-c")]
    assert hand.scheduler.failed_task is None


def a_task_that_commits_while_being_cancelled_is_not_followed(make: MakeScheduler) -> None:
    hand = Hand(make, LINE)
    hand.start()
    hand.cancel()
    assert hand.commit(START) == [FinishRun(ok=False, reason="ctrl-c")]


def a_second_cancel_orders_nothing_twice(make: MakeScheduler) -> None:
    hand = fanned(make, 2)
    hand.cancel()
    assert hand.cancel() == []


def a_cancel_after_a_failure_ends_what_was_let_finish(make: MakeScheduler) -> None:
    hand = fanned(make, 2)
    hand.fail(child(0, 2), retryable=False)
    assert cancelled(hand.cancel()) == [child(1, 2)]
    over = finish(hand.fail(child(1, 2)))
    assert over is not None
    assert over.reason == "work/0 failed: boom"


def a_cancel_ends_backoffs_at_once(make: MakeScheduler) -> None:
    hand = fanned(make, 1)
    hand.fail(child(0, 1))
    assert hand.cancel() == [FinishRun(ok=False, reason="ctrl-c")]


def a_cancel_before_the_start_ends_the_run(make: MakeScheduler) -> None:
    hand = Hand(make, LINE)
    assert hand.cancel() == [FinishRun(ok=False, reason="ctrl-c")]
    assert hand.start() == []


def a_lost_executor_ends_the_run_without_waiting(make: MakeScheduler) -> None:
    hand = fanned(make, 9, slots=3)
    hand.fail(child(0, 9))
    assert hand.lose_executor() == [FinishRun(ok=False, reason="gone")]
    assert hand.scheduler.in_flight == 0


def a_lost_executor_ends_a_cancel_too(make: MakeScheduler) -> None:
    hand = fanned(make, 2)
    hand.cancel()
    assert hand.lose_executor() == [FinishRun(ok=False, reason="ctrl-c")]


# -- what is kept --------------------------------------------------------------------------------


def what_is_kept_follows_the_slots_and_not_the_width(make: MakeScheduler) -> None:
    hand = Hand(make, NESTED, slots=3)
    hand.start()
    hand.commit(START, width=1_000)
    for _ in range(200):
        oldest = next(iter(hand.flying))
        hand.commit(oldest, width=50 if oldest.step == "outer" else None)
        assert hand.scheduler.kept <= 3 + 1 + 3  # in flight, start's fan-out, one for each slot


LAWS: tuple[Law, ...] = tuple(
    value
    for name, value in list(globals().items())
    if callable(value)
    and getattr(value, "__module__", "") == __name__
    and getattr(value, "__annotations__", {}) == {"make": MakeScheduler, "return": None}
)
