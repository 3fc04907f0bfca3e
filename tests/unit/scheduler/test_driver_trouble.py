"""Whatever breaks around the driver, or in it, the run ends as it should and says why."""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence

import pytest
from msgspec.structs import replace

from engine.errors import ExecutorError, Failure, InvariantError, StoreUnavailableError
from engine.executors.base import Exit, ExitKind, Job, JobEnded, JobUpdate
from engine.flow.graph import Graph, Retry
from engine.ids import TaskKey
from engine.scheduler.journal import (
    RunDoneRecord,
    SucceededRecord,
)
from engine.scheduler.progress import (
    RunDone,
    RunEvent,
    TaskAttemptFailed,
    TaskDone,
    TaskLaunched,
)
from engine.stores.manifest import Manifest
from engine.stores.taskspec import Report, TaskSpec
from engine.testing import virtual_time
from engine.testing.fakes import (
    GraphScript,
    MemoryJournal,
    Play,
    ScriptedExecutor,
    committed,
)
from tests.unit.scheduler.flows import (
    FANNED,
    LINE,
    Gang,
    Step,
    flow,
    item,
)
from tests.unit.scheduler.rig import Rig, instead, wide

START = TaskKey("start")


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


def test_a_gang_that_finds_no_port_fails_and_the_run_says_why() -> None:
    def free_port(name: str) -> int:
        raise ExecutorError("no port is free")

    graph = flow(Gang("start", Step("work")))
    rig = Rig(graph, GraphScript(graph, fanout=lambda task: 3), free_port=free_port)
    done = rig.run()
    assert done.status == "failed"
    assert done.failure is not None
    assert done.failure.message == "no port is free"
    failures = [e.task for e in rig.seen if isinstance(e, TaskAttemptFailed)]
    assert failures == [item("work", ("start", index, 3)) for index in range(3)]


def test_a_gang_is_told_of_when_all_have_ended_by_its_cause_and_those_left_are_ended_once() -> None:
    asked: list[list[str]] = []

    class Patient(ScriptedExecutor):
        async def cancel(self, names: Collection[str], *, reason: str) -> None:
            asked.extend([list(names)] if names else [])  # and all end in their own time

    lost = Failure("task-failed", "a peer has gone", type="ConnectionError")
    late = Failure("task-timeout", "ran longer than its @timeout", retryable=False)
    cancelled = Exit(ExitKind.CANCELLED, detail="work/0 failed: ConnectionError: a peer has gone")
    graph = flow(Gang("start", Step("work", Retry(times=1))))
    plays = {
        "work-0-0": Play(1.0, Report(failure=lost).pack()),
        "work-1-0": Play(1.2, Report(failure=late).pack()),
        "work-2-0": Play(1.4, exit=cancelled),
    }
    script = instead(plays, GraphScript(graph, fanout=lambda task: 3))
    rig = Rig(graph, script, executor_class=Patient)
    done = rig.run()
    assert (done.failure, done.failed_task) == (late, item("work", ("start", 1, 3)))
    assert done.reason == f"work/1 failed: {late.message}"
    assert asked == [["r1-work-1-0", "r1-work-2-0"]]
    failures = [e for e in rig.seen if isinstance(e, TaskAttemptFailed)]
    assert [each.task.task_id for each in failures] == ["1", "0", "2"]
    assert failures[2].failure.message == f"cancelled: {done.reason}"


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
    assert (done.status, done.reason) == ("interrupted", "by the caller")
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
    assert str(done.reason).startswith("cancelled twice, by the caller")
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


def test_a_journal_that_has_no_room_for_its_beginning_gets_no_end() -> None:
    class FullAtFirst(MemoryJournal):
        refusals = 0

        def append(self, payload: bytes) -> int:
            if not self.refusals:
                self.refusals += 1
                raise StoreUnavailableError("no space is left for the journal")
            return super().append(payload)

    rig = Rig(LINE, journal=FullAtFirst())
    with pytest.raises(StoreUnavailableError, match="no space is left"):
        rig.run()
    assert rig.records() == []
    assert [type(event) for event in rig.seen] == [RunDone]


def test_r10_a_job_whose_clock_was_set_back_took_no_time() -> None:
    class SetBack(ScriptedExecutor):
        def _end(self, name: str, play: Play) -> None:
            timer, _ = self._running.pop(name)
            timer.cancel()
            hour_us = 3_600_000_000
            began_us = virtual_time.clock()
            self.tell(JobEnded(name, play.exit, began_us, began_us - hour_us, play.outcome))

    rig = Rig(LINE, executor_class=SetBack)
    rig.run()
    ends = [event for event in rig.seen if isinstance(event, TaskDone)]
    assert len(ends) == 3
    assert all(end.started_us == end.ended_us for end in ends)
    written = [r for r in rig.records() if isinstance(r, SucceededRecord)]
    assert all(record.started_us == record.ended_us for record in written)


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
