"""What the machine promises of failures, retries, late news, cancels; as laws.py does."""

from engine.flow.graph import Retry
from engine.ids import TaskKey
from engine.scheduler.commands import CancelTask, FinishRun, Launch, StartTimer
from engine.scheduler.events import RetryDue, TaskFailed
from tests.unit.scheduler.flows import (
    CATCHING,
    LINE,
    Branch,
    Step,
    arm,
    flow,
)
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
from tests.unit.scheduler.laws import END, WORK, child, fanned


def retried(hand: Hand, task: TaskKey) -> None:
    """Fail attempt 0 of a task that has one retry, and let the retry begin."""
    hand.fail(task)
    hand.due(task, 1)


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


LAWS = laws_in(globals())
