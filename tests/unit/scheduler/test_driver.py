"""The driver performs what the machine orders, and turns whatever happens into an event."""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import replace

import pytest

from engine.errors import InvariantError, StoreUnavailableError
from engine.executors.base import Exit, ExitKind, Job, JobEnded, JobOutput, JobUpdate
from engine.flow.graph import Graph, Retry
from engine.ids import TaskKey
from engine.scheduler.commands import Launch
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
    RunEvent,
    TaskAttemptFailed,
    TaskDone,
    TaskLaunched,
    TaskOutput,
)
from engine.stores.manifest import Manifest
from engine.stores.taskspec import Report, TaskSpec
from engine.testing.fakes import (
    GraphScript,
    MemoryJournal,
    Play,
    Script,
    ScriptedExecutor,
    committed,
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
    item,
)
from tests.unit.scheduler.rig import Rig

START, WORK, END = TaskKey("start"), TaskKey("work"), TaskKey("end")


def child(index: int, total: int) -> TaskKey:
    return item("work", ("start", index, total))


def wide(width: int, seconds: float = 1.0) -> GraphScript:
    return GraphScript(FANNED, seconds, fanout=lambda task: width)


def instead(plays: dict[str, Play], script: GraphScript) -> Script:
    """The script, but for the jobs whose names without the run are in `plays`."""
    return lambda job: plays.get(job.name.removeprefix("r1-")) or script(job)


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
    assert rig.ended_s == 1 + 62 + 1 + 1
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
    dies = Play(1.0, exit=Exit(ExitKind.SIGNAL, 11), lines=lines)
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


# -- results that are not as they should be ------------------------------------------------------


def test_a_second_end_of_a_job_changes_nothing() -> None:
    class Stutters(ScriptedExecutor):
        async def updates(self) -> AsyncIterator[Sequence[JobUpdate]]:
            async for batch in super().updates():
                yield [*batch, *batch]

    rig = Rig(FANNED, wide(20), executor_class=Stutters)
    assert rig.run().status == "succeeded"
    commits = [r.task for r in rig.records() if isinstance(r, SucceededRecord)]
    assert len(commits) == len(set(commits)) == 23


def test_a_late_end_of_an_earlier_attempt_cannot_commit() -> None:
    late: list[JobEnded] = []

    class Lossy(ScriptedExecutor):
        async def submit(self, jobs: Sequence[Job]) -> None:
            await super().submit(jobs)
            for job in jobs:
                if job.name == "r1-work-0-1":
                    self.tell(late[0])

    def script(job: Job) -> Play:
        spec = TaskSpec.unpack(job.spec)
        if spec.step == "work" and spec.attempt == 0:
            report = committed(spec, ("join_start",))
            late.append(JobEnded(job.name, Exit(ExitKind.RETURNED), 1, 2, report))
            return Play(1.0, exit=Exit(ExitKind.LOST))
        return wide(1)(job)

    rig = Rig(FANNED, script, executor_class=Lossy)
    assert rig.run().status == "succeeded"
    (commit,) = (
        r for r in rig.records() if isinstance(r, SucceededRecord) and r.task.step == "work"
    )
    assert commit.attempt == 1


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"task_id": "7"}, "another task's result"),
        ({"step": "start"}, "another task's result"),
        ({"attempt": 1}, "another task's result"),
        ({"run_id": "r9"}, "another task's result"),
    ],
)
def test_the_result_of_another_task_is_not_committed(wrong: dict[str, object], words: str) -> None:
    def script(job: Job) -> Play:
        spec = TaskSpec.unpack(job.spec)
        if spec.step != "work":
            return GraphScript(LINE)(job)
        mine: dict[str, object] = {"run_id": "r1", "step": "work", "task_id": "0", "attempt": 0}
        manifest = Manifest(flow="Flow", **{**mine, **wrong})
        return Play(1.0, Report(manifest=manifest.pack()).pack())

    rig = Rig(LINE, script)
    done = rig.run()
    assert done.failure is not None
    assert words in done.failure.message
    assert [r.task for r in rig.records() if isinstance(r, SucceededRecord)] == [START]


def test_a_manifest_that_cannot_be_read_fails_the_attempt() -> None:
    damaged = Play(1.0, Report(manifest=b"\xc1").pack())
    rig = Rig(LINE, instead({"work-0-0": damaged}, GraphScript(LINE)))
    done = rig.run()
    assert done.failure is not None
    assert done.failure.code == "store"


def test_a_step_that_goes_where_the_graph_does_not_fails_for_good_and_is_not_committed() -> None:
    graph = flow(Step("work", Retry(times=3)))

    def script(job: Job) -> Play:
        spec = TaskSpec.unpack(job.spec)
        return (
            Play(1.0, committed(spec, ("start",)))
            if spec.step == "work"
            else GraphScript(graph)(job)
        )

    rig = Rig(graph, script)
    done = rig.run()
    assert "its self.next names [end]" in str(done.reason)
    assert rig.started("work") == ["work-0-0"]
    assert [r.task for r in rig.records() if isinstance(r, SucceededRecord)] == [START]


def test_a_manifest_too_large_for_the_channel_is_fetched_and_committed_whole() -> None:
    manifests: dict[str, bytes] = {}

    def script(job: Job) -> Play:
        play = GraphScript(LINE)(job)
        manifest = Report.unpack(play.outcome or b"").manifest or b""
        manifests[job.name] = manifest
        rig.blobs.blobs[job.name] = manifest
        return Play(1.0, Report(manifest_digest=job.name).pack())

    rig = Rig(LINE, script)
    assert rig.run().status == "succeeded"
    commits = [r.manifest for r in rig.records() if isinstance(r, SucceededRecord)]
    assert commits == list(manifests.values())


def test_a_manifest_that_is_not_in_the_store_fails_the_attempt() -> None:
    missing = Play(1.0, Report(manifest_digest="d" * 64).pack())
    rig = Rig(LINE, instead({"work-0-0": missing}, GraphScript(LINE)))
    done = rig.run()
    assert done.failure is not None
    assert done.failure.code == "blob-not-found"


def test_a_job_that_cannot_be_made_is_a_failed_attempt() -> None:
    class Forgets(MemoryJournal):
        failures = 1

        def read(self, offset: int) -> bytes:
            if self.failures:
                self.failures -= 1
                raise StoreUnavailableError("the disk is busy")
            return super().read(offset)

    graph = flow(Step("work", Retry(times=1, delay_s=5.0)))
    rig = Rig(graph, journal=Forgets())
    assert rig.run().status == "succeeded"
    assert rig.started("work") == ["work-0-1"]
    (failure,) = rig.events(TaskAttemptFailed)
    assert isinstance(failure, TaskAttemptFailed)
    assert failure.failure.message == "the disk is busy"
    assert rig.ended_s == 1 + 5 + 1 + 1


# -- cancel --------------------------------------------------------------------------------------


def cancelled_at(rig: Rig, *seconds: float) -> None:
    """Cancel `run` at each of the times, and see that the cancellation comes out again."""

    async def scenario() -> None:
        async with asyncio.TaskGroup() as group:
            run = group.create_task(rig.driver.run())
            before = 0.0
            for at in seconds:
                await asyncio.sleep(at - before)
                run.cancel()
                before = at
            await asyncio.wait({run})
            assert run.cancelled()
            rig.ended_s = asyncio.get_running_loop().time()

    rig.play(scenario)


def test_a_cancel_reaches_every_task_and_then_the_caller() -> None:
    rig = Rig(FANNED, wide(1_000, 3_600.0), slots=64)

    async def scenario() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5_000.0):
                await rig.driver.run()

    rig.play(scenario)
    assert rig.executor.in_flight == 0
    assert rig.ended_s == 5_000.0
    done = rig.records()[-1]
    assert isinstance(done, RunDoneRecord)
    assert (done.status, done.reason) == ("interrupted", "cancelled by the caller")
    assert isinstance(rig.seen[-1], RunDone)


class SlowToDie(ScriptedExecutor):
    """Takes 100 s to end what is cancelled."""

    async def cancel(self, names: Collection[str], *, reason: str) -> None:
        for name in names:
            play = Play(exit=Exit(ExitKind.CANCELLED, detail=reason))
            asyncio.get_running_loop().call_later(100.0, self._end, name, play)


def test_a_cancelled_run_waits_for_its_tasks_to_end() -> None:
    rig = Rig(LINE, GraphScript(LINE, seconds=3_600.0), executor_class=SlowToDie)
    cancelled_at(rig, 50.0)
    assert rig.ended_s == 150.0
    assert rig.executor.in_flight == 0


def test_a_second_cancel_stops_the_waiting_and_the_journal_says_interrupted() -> None:
    rig = Rig(LINE, GraphScript(LINE, seconds=3_600.0), executor_class=SlowToDie)
    cancelled_at(rig, 50.0, 60.0)
    assert rig.ended_s == 60.0
    done = rig.records()[-1]
    assert isinstance(done, RunDoneRecord)
    assert done.status == "interrupted"
    assert "cancelled twice" in str(done.reason)
    assert isinstance(rig.seen[-1], RunDone)


def test_a_cancel_in_the_middle_of_a_submit_does_not_tear_it() -> None:
    class SlowToTake(ScriptedExecutor):
        async def submit(self, jobs: Sequence[Job]) -> None:
            await asyncio.sleep(10.0)
            await super().submit(jobs)

    rig = Rig(LINE, executor_class=SlowToTake)
    cancelled_at(rig, 5.0)
    assert rig.ended_s == 10.0  # the job was taken, then cancelled, and its end awaited
    assert list(rig.executor.started) == ["r1-start-0-0"]
    assert rig.executor.in_flight == 0


def test_a_run_that_is_asked_to_cancel_returns_interrupted() -> None:
    rig = Rig(LINE, GraphScript(LINE, seconds=3_600.0))

    async def scenario() -> RunDone:
        asyncio.get_running_loop().call_later(50.0, rig.driver.cancel, "ctrl-c")
        return await rig.driver.run()

    done = rig.play(scenario)
    assert (done.status, done.reason) == ("interrupted", "ctrl-c")
    assert rig.ended_s == 50.0


def test_a_cancel_during_a_backoff_does_not_wait_for_it() -> None:
    graph = flow(Step("work", Retry(times=1, delay_s=3_600.0)))
    rig = Rig(graph, GraphScript(graph, fails=lambda task, attempt: task.step == "work"))
    cancelled_at(rig, 50.0)
    assert rig.ended_s == 50.0


# -- executors that break ------------------------------------------------------------------------


def test_an_executor_that_raises_ends_the_run_and_says_why() -> None:
    class Broken(ScriptedExecutor):
        async def updates(self) -> AsyncIterator[Sequence[JobUpdate]]:
            await asyncio.sleep(10.0)
            raise ConnectionError("credentials expired")
            yield  # an async generator, as the contract asks

    rig = Rig(LINE, executor_class=Broken)
    done = rig.run()
    assert done.status == "failed"
    assert done.reason == "the executor failed: ConnectionError: credentials expired"
    assert done.failure is not None
    assert done.failure.code == "executor"


@pytest.mark.parametrize("cancels", [False, True])
def test_an_executor_that_stops_telling_ends_the_run(cancels: bool) -> None:
    class Silent(ScriptedExecutor):
        async def updates(self) -> AsyncIterator[Sequence[JobUpdate]]:
            if cancels:
                raise asyncio.CancelledError
            return
            yield  # an async generator, as the contract asks

    rig = Rig(LINE, executor_class=Silent)
    assert rig.run().reason == "the executor stopped telling of its jobs"


def test_an_executor_that_refuses_jobs_ends_the_run_and_says_why() -> None:
    class Refuses(ScriptedExecutor):
        async def submit(self, jobs: Sequence[Job]) -> None:
            if "work" in jobs[0].name:
                raise PermissionError("queue is closed")
            await super().submit(jobs)

    rig = Rig(LINE, executor_class=Refuses)
    assert rig.run().reason == "the executor failed: PermissionError: queue is closed"
    assert [e.task for e in rig.events(TaskLaunched)] == [START]


def test_an_executor_that_cannot_cancel_does_not_hold_the_caller() -> None:
    class Clings(ScriptedExecutor):
        async def cancel(self, names: Collection[str], *, reason: str) -> None:
            raise ConnectionError("no route")

    rig = Rig(LINE, GraphScript(LINE, seconds=3_600.0), executor_class=Clings)
    cancelled_at(rig, 50.0)
    assert rig.ended_s == 50.0


# -- what breaks inside --------------------------------------------------------------------------


def test_a_watcher_that_raises_ends_the_run_cleanly_and_is_raised() -> None:
    def breaks(event: RunEvent) -> None:
        if isinstance(event, TaskDone) and event.task.step == "work":
            raise ZeroDivisionError("a bug")

    rig = Rig(FANNED, wide(9), slots=3, observers=[breaks])
    with pytest.raises(ZeroDivisionError, match="a bug"):
        rig.run()
    assert rig.executor.in_flight == 0
    done = rig.records()[-1]
    assert isinstance(done, RunDoneRecord)
    assert (done.status, done.reason) == ("failed", "aflow failed: ZeroDivisionError: a bug")
    assert isinstance(rig.seen[-1], RunDone)


def test_a_watcher_that_raises_at_the_end_is_raised_and_the_journal_is_right() -> None:
    def breaks(event: RunEvent) -> None:
        if isinstance(event, RunDone):
            raise ZeroDivisionError("a bug")

    rig = Rig(LINE, observers=[breaks])
    with pytest.raises(ZeroDivisionError):
        rig.run()
    done = [r for r in rig.records() if isinstance(r, RunDoneRecord)]
    assert [d.status for d in done] == ["succeeded"]


def test_a_full_disk_ends_the_run_and_is_raised() -> None:
    rig = Rig(FANNED, wide(50), slots=3, journal=MemoryJournal(room_bytes=9_000))
    with pytest.raises(StoreUnavailableError, match="no space is left"):
        rig.run()
    assert rig.executor.in_flight == 0
    assert isinstance(rig.seen[-1], RunDone)
    commits = [r for r in rig.records() if isinstance(r, SucceededRecord)]
    assert len(commits) == len(rig.events(TaskDone)) > 3


def test_an_executor_that_breaks_while_a_bug_is_cleaned_up_does_not_hide_it() -> None:
    class Clings(ScriptedExecutor):
        async def cancel(self, names: Collection[str], *, reason: str) -> None:
            raise ConnectionError("no route")

    def breaks(event: RunEvent) -> None:
        if isinstance(event, TaskLaunched):
            raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError):
        Rig(LINE, executor_class=Clings, observers=[breaks]).run()


def test_an_executor_that_is_lost_while_a_bug_is_cleaned_up_is_not_waited_for() -> None:
    class Dies(SlowToDie):
        async def updates(self) -> AsyncIterator[Sequence[JobUpdate]]:
            await asyncio.sleep(10.0)
            return
            yield  # an async generator, as the contract asks

    def breaks(event: RunEvent) -> None:
        if isinstance(event, TaskLaunched):
            raise ZeroDivisionError("a bug")

    rig = Rig(LINE, GraphScript(LINE, 3_600.0), executor_class=Dies, observers=[breaks])
    with pytest.raises(ZeroDivisionError):
        rig.run()
    assert rig.ended_s == 10.0


def test_a_contradiction_of_the_machine_is_raised_with_its_story() -> None:
    nodes = dict(FANNED.nodes)
    nodes["join_start"] = replace(nodes["join_start"], join_of="elsewhere")
    rig = Rig(Graph("Flow", nodes), wide(3))
    with pytest.raises(InvariantError, match="work/0 arrived at join_start") as caught:
        rig.run()
    assert caught.value.story
    assert rig.executor.in_flight == 0
