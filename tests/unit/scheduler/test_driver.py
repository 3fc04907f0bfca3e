"""The driver performs what the machine orders, and turns whatever happens into an event."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from engine.executors.base import Exit, ExitKind, Job, JobOutput, JobUpdate
from engine.flow.graph import Retry
from engine.ids import TaskKey
from engine.scheduler.commands import Launch
from engine.scheduler.jobs import GRACE_S
from engine.scheduler.journal import (
    FailedRecord,
    RetryDueRecord,
    RunBeganRecord,
    RunDoneRecord,
    SucceededRecord,
    events,
)
from engine.scheduler.machine import Scheduler
from engine.scheduler.progress import (
    RunBegan,
    RunDone,
    TaskAttemptFailed,
    TaskDone,
    TaskLaunched,
    TaskOutput,
)
from engine.testing.fakes import (
    GraphScript,
    Play,
    ScriptedExecutor,
    failed,
)
from tests.unit.scheduler.flows import (
    CATCHING,
    FANNED,
    LINE,
    RETRYING,
    Foreach,
    Step,
    flow,
)
from tests.unit.scheduler.rig import Rig, child, instead, wide

START, WORK = TaskKey("start"), TaskKey("work")


# -- a run that goes well ------------------------------------------------------------------------


def test_a_thousand_hour_long_tasks_on_64_slots_take_exactly_19_hours() -> None:
    rig = Rig(FANNED, wide(1_000, 3_600.0), slots=64)
    assert rig.run().status == "succeeded"
    assert rig.ended_s == 3_600.0 * (3 + 16)  # start, join, end, and ceil(1000 / 64) rounds
    assert rig.executor.most_in_flight == 64


def test_a_round_of_ends_makes_one_submit() -> None:
    rig = Rig(FANNED, wide(1_000), slots=64)
    rig.run()
    assert rig.executor.submits == 3 + 16


def test_watchers_hear_of_everything_in_order_and_after_the_journal_has_it() -> None:
    written: list[int] = []
    rig = Rig(LINE, observers=[lambda event: written.append(len(rig.journal))])
    rig.run()
    assert [type(event) for event in rig.seen] == [
        RunBegan,
        *(TaskLaunched, TaskDone) * 3,
        RunDone,
    ]
    assert written == [1, 1, 2, 2, 3, 3, 4, 5]


def test_a_commit_is_told_with_its_frame_its_size_and_its_times() -> None:
    rig = Rig(LINE)
    rig.run()
    (start, *_) = rig.events(TaskDone)
    assert isinstance(start, TaskDone)
    record = rig.records()[1]
    assert isinstance(record, SucceededRecord)
    assert start.result == list(rig.journal.scan())[1][0]
    assert start.result_size == len(record.manifest)
    assert start.ended_us - start.started_us == 1_000_000


def test_the_journal_begins_and_ends_with_the_run() -> None:
    rig = Rig(LINE)
    rig.run()
    first, *_, last = rig.records()
    assert isinstance(first, RunBeganRecord)
    assert last == RunDoneRecord(last.at_us, "succeeded")


def test_a_replayed_journal_comes_to_the_same_end() -> None:
    graph = flow(Foreach("start", (Foreach("deep", (Step("work", RETRYING),)),)))
    script = GraphScript(graph, fails=lambda task, attempt: attempt == 0 and task.step == "work")
    rig = Rig(graph, script, slots=2)
    assert rig.run().status == "succeeded"
    twin = Scheduler(graph, slots=2)
    launches = [
        command
        for event in events(rig.journal.scan())
        for command in twin.handle(event)
        if isinstance(command, Launch)
    ]
    twin.check()
    assert [f"r1-{c.task.step}-{c.task.task_id}-{c.attempt}" for c in launches] == list(
        rig.executor.started
    )


def test_no_more_than_a_few_batches_are_taken_ahead() -> None:
    class Chatty(ScriptedExecutor):
        taken = 0
        ahead = 0

        async def updates(self) -> AsyncIterator[Sequence[JobUpdate]]:
            (name,) = self.started
            for _ in range(200):
                self.taken += 1
                self.ahead = max(self.ahead, self.taken - len(rig.events(TaskOutput)))
                yield [JobOutput(name, "stdout", ((1, "line"),))]
            async for batch in super().updates():
                yield batch

    rig = Rig(flow(), executor_class=Chatty)
    rig.run()
    assert len(rig.events(TaskOutput)) == 200
    assert isinstance(rig.executor, Chatty)
    assert rig.executor.ahead <= 6


def test_other_tasks_of_the_loop_get_their_turn_while_results_are_reused() -> None:
    origin = Rig(FANNED, wide(1_000), slots=64)
    origin.run()
    turns = 0

    async def scenario() -> RunDone:
        async def neighbour() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            other = group.create_task(neighbour())
            done = await rig.driver.run()
            other.cancel()
        return done

    rig = Rig(FANNED, run_id="r2", origin=origin.journal)
    rig.play(scenario)
    assert turns >= 10


# -- retries and time ----------------------------------------------------------------------------


def test_a_failed_attempt_is_tried_again_when_its_backoff_is_over() -> None:
    fails = GraphScript(FANNED, fanout=lambda t: 1, fails=lambda t, a: t.step == "work" and a == 0)
    rig = Rig(FANNED, fails)
    assert rig.run().status == "succeeded"
    assert rig.ended_s == 1 + 1 + 30 + 1 + 1 + 1
    (failure,) = rig.events(TaskAttemptFailed)
    assert isinstance(failure, TaskAttemptFailed)
    assert failure.retry_in_s == 30.0
    assert rig.started("work") == ["work-0-0", "work-0-1"]
    kinds = [type(r) for r in rig.records()]
    assert kinds.index(FailedRecord) < kinds.index(RetryDueRecord)


def test_the_last_failure_is_the_runs() -> None:
    rig = Rig(FANNED, GraphScript(FANNED, fanout=lambda t: 1, fails=lambda t, a: t.step == "work"))
    done = rig.run()
    assert done.status == "failed"
    assert done.failed_task == child(0, 1)
    assert done.failure is not None
    assert done.failure.message == "work/0 attempt 1"
    assert done.reason == "work/0 failed: RuntimeError: work/0 attempt 1"
    last = rig.records()[-1]
    assert isinstance(last, RunDoneRecord)
    assert (last.status, last.failure, last.failed_task) == ("failed", done.failure, child(0, 1))
    assert [e.retry_in_s for e in rig.events(TaskAttemptFailed)] == [30.0, None]


def test_a_failed_run_does_not_wait_for_pending_retries() -> None:
    # Child 0 fails at 2 and for good at 33; child 1 fails at 31.5 and would retry at 61.5.
    plays = {
        "work-0-0": Play(1.0, failed("a")),
        "work-0-1": Play(1.0, failed("b")),
        "work-1-0": Play(30.5, failed("c")),
    }
    rig = Rig(FANNED, instead(plays, wide(2)))
    assert rig.run().status == "failed"
    assert rig.ended_s == 33.0


def test_siblings_of_a_failed_task_finish_and_commit() -> None:
    fails = Play(1.0, failed("a", retryable=False))
    rig = Rig(FANNED, instead({"work-0-0": fails}, wide(2, 9.0)))
    rig.run()
    assert rig.ended_s == 9.0 + 9.0
    assert [e.task for e in rig.events(TaskDone)] == [START, child(1, 2)]


def test_on_failure_cancel_ends_the_siblings_at_once() -> None:
    fails = Play(1.0, failed("a", retryable=False))
    rig = Rig(FANNED, instead({"work-0-0": fails}, wide(2, 9.0)), on_failure="cancel")
    done = rig.run()
    assert rig.ended_s == 9.0 + 1.0
    assert done.failed_task == child(0, 2)
    failures = {e.task: e.failure.code for e in rig.events(TaskAttemptFailed)}
    assert failures == {child(0, 2): "task-failed", child(1, 2): "task-cancelled"}


def test_a_job_started_and_cancelled_in_one_batch_still_ends() -> None:
    # Both ends of the first round come together: one frees a slot, the other cancels the run.
    plays = {"work-1-0": Play(1.0, failed("a", retryable=False))}
    rig = Rig(FANNED, instead(plays, wide(9)), slots=2, on_failure="cancel")
    assert rig.run().status == "failed"
    assert rig.started("work") == ["work-0-0", "work-1-0", "work-2-0"]
    assert rig.executor.in_flight == 0


def test_a_task_over_its_deadline_is_timed_out_and_tried_again() -> None:
    graph = flow(Step("work", Retry(times=1), timeout_s=60.0))
    rig = Rig(graph, instead({"work-0-0": Play(1e6)}, GraphScript(graph)))
    assert rig.run().status == "succeeded"
    assert rig.ended_s == 1 + (60 + GRACE_S) + 1 + 1
    (failure,) = rig.events(TaskAttemptFailed)
    assert isinstance(failure, TaskAttemptFailed)
    assert failure.failure.code == "task-timeout"


def test_a_process_that_dies_is_caught_by_an_attempt_that_runs_no_user_code() -> None:
    dies = Play(1.0, exit=Exit(ExitKind.SIGNAL, 9))
    rig = Rig(CATCHING, instead({"work-0-0": dies, "work-0-1": dies}, GraphScript(CATCHING)))
    assert rig.run().status == "succeeded"
    assert rig.started("work") == ["work-0-0", "work-0-1", "work-0-2"]
    (caught,) = (e for e in rig.events(TaskDone) if isinstance(e, TaskDone) and e.caught)
    assert (caught.task, caught.attempt) == (WORK, 2)


# -- output --------------------------------------------------------------------------------------


def test_output_is_passed_on_and_its_last_lines_stay_with_the_failure() -> None:
    lines = tuple(f"line {i}" for i in range(50))
    dies = Play(1.0, exit=Exit(ExitKind.SIGNAL, 11), stdout=lines)
    rig = Rig(LINE, instead({"work-0-0": dies}, GraphScript(LINE)))
    done = rig.run()
    (output,) = rig.events(TaskOutput)
    assert isinstance(output, TaskOutput)
    assert (output.task, output.attempt, output.stream) == (WORK, 0, "stdout")
    assert tuple(text for _, text in output.lines) == lines
    assert done.failure is not None
    assert done.failure.log_tail == lines[-20:]
    assert "segmentation fault" in done.failure.message


def test_output_of_a_job_that_is_not_in_flight_is_dropped() -> None:
    class Stray(ScriptedExecutor):
        async def submit(self, jobs: Sequence[Job]) -> None:
            await super().submit(jobs)
            self.tell(JobOutput("r1-other-0-0", "stdout", ((1, "who?"),)))

    rig = Rig(LINE, executor_class=Stray)
    assert rig.run().status == "succeeded"
    assert rig.events(TaskOutput) == []
