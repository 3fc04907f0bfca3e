"""A run that begins where another ended does none of its work again."""

import asyncio

import pytest

from engine.errors import StoreError
from engine.ids import TaskKey
from engine.scheduler.journal import RunDoneRecord, SucceededRecord, decode
from engine.scheduler.memo import Memo
from engine.scheduler.progress import TaskDone, TaskLaunched
from engine.testing.fakes import GraphScript, MemoryJournal
from tests.unit.scheduler.flows import FANNED, LINE, NESTED, Branch, Step, flow, item
from tests.unit.scheduler.rig import Rig


def width(task: TaskKey) -> int:
    return 3


def failing(step: str, index: int) -> GraphScript:
    """Fails one item of a step for good."""
    return GraphScript(
        NESTED,
        fanout=width,
        fails=lambda task, attempt: task.step == step and task.frames[-1].index == index,
    )


def commits(journal: MemoryJournal) -> dict[TaskKey, SucceededRecord]:
    records = (decode(payload) for _, payload in journal.scan())
    return {r.task: r for r in records if isinstance(r, SucceededRecord)}


def test_a_finished_run_is_reused_whole_and_takes_no_time() -> None:
    origin = Rig(NESTED, GraphScript(NESTED, fanout=width), slots=9)
    origin.run()
    rig = Rig(NESTED, run_id="r2", origin=origin.journal)
    assert rig.run().status == "succeeded"
    assert rig.ended_s == 0.0
    assert rig.executor.started == {}
    assert rig.events(TaskLaunched) == []
    assert all(isinstance(e, TaskDone) and e.reused for e in rig.events(TaskDone))
    assert set(commits(rig.journal)) == set(commits(origin.journal))


def test_a_failed_run_is_taken_up_where_it_failed() -> None:
    origin = Rig(NESTED, failing("inner", 2), slots=1)
    assert origin.run().status == "failed"
    rig = Rig(NESTED, GraphScript(NESTED, fanout=width), run_id="r2", origin=origin.journal)
    assert rig.run().status == "succeeded"
    done = set(commits(origin.journal))
    assert done
    assert {e.task for e in rig.events(TaskLaunched)} == set(commits(rig.journal)) - done


def test_a_reused_commit_keeps_the_manifest_and_the_times_of_the_work() -> None:
    origin = Rig(LINE)
    origin.run()
    rig = Rig(LINE, run_id="r2", origin=origin.journal)
    rig.run()
    before, after = commits(origin.journal), commits(rig.journal)
    for key, record in after.items():
        assert record.reused
        assert not before[key].reused
        assert record.manifest == before[key].manifest
        assert (record.started_us, record.ended_us) == (
            before[key].started_us,
            before[key].ended_us,
        )


def test_a_resumed_run_can_be_resumed() -> None:
    first = Rig(LINE, GraphScript(LINE, fails=lambda task, attempt: task.step == "work"))
    first.run()
    second = Rig(
        LINE,
        GraphScript(LINE, fails=lambda t, a: t.step == "end"),
        run_id="r2",
        origin=first.journal,
    )
    second.run()
    third = Rig(LINE, run_id="r3", origin=second.journal)
    assert third.run().status == "succeeded"
    assert list(third.executor.started) == ["r3-end-0-0"]


def test_steps_asked_for_again_run_again_with_all_that_follows_and_nothing_beside() -> None:
    graph = flow(Branch("start", ((Step("a"), Step("a2")), (Step("b"), Step("b2")))))
    origin = Rig(graph)
    origin.run()
    memo = Memo(origin.journal, rerun=["a"])
    rig = Rig(graph, run_id="r2", memo=memo)
    rig.run()
    assert list(rig.executor.started) == [
        f"r2-{step}-0-0" for step in ("a", "a2", "join_start", "end")
    ]


def test_a_task_whose_blobs_are_gone_runs_again_with_all_that_follows() -> None:
    origin = Rig(FANNED, GraphScript(FANNED, fanout=width))
    origin.run()
    lost = commits(origin.journal)[item("work", ("start", 1, 3))].manifest
    rig = Rig(FANNED, run_id="r2", memo=Memo(origin.journal, is_usable=lambda m: m != lost))
    rig.run()
    assert list(rig.executor.started) == ["r2-work-1-0", "r2-join_start-0-0", "r2-end-0-0"]


def test_a_result_that_leads_where_the_flow_no_longer_goes_is_made_again() -> None:
    origin = Rig(LINE)
    origin.run()
    edited = flow(Step("work"), Step("more"))
    rig = Rig(edited, run_id="r2", origin=origin.journal)
    assert rig.run().status == "succeeded"
    assert list(rig.executor.started) == [f"r2-{step}-0-0" for step in ("work", "more", "end")]


def test_an_interrupted_run_says_so_and_its_commits_are_reused() -> None:
    origin = Rig(FANNED, GraphScript(FANNED, fanout=width, seconds=10.0), slots=1)

    async def scenario() -> None:
        asyncio.get_running_loop().call_later(25.0, origin.driver.cancel, "ctrl-c")
        await origin.driver.run()

    origin.play(scenario)
    *_, (_, last) = origin.journal.scan()
    done = decode(last)
    assert isinstance(done, RunDoneRecord)
    assert done.status == "interrupted"
    script = GraphScript(FANNED, fanout=width, seconds=10.0)
    rig = Rig(FANNED, script, run_id="r2", origin=origin.journal, slots=1)
    assert rig.run().status == "succeeded"
    assert next(iter(rig.executor.started)) == "r2-work-1-0"


def test_a_journal_that_cannot_be_read_is_refused_before_anything_runs() -> None:
    journal = MemoryJournal()
    journal.append(b"\xc1")
    with pytest.raises(StoreError, match="it is damaged"):
        list(Memo(journal).read())


@pytest.mark.parametrize("frames", range(9))
def test_a_run_cut_off_at_any_frame_is_taken_up(frames: int) -> None:
    origin = Rig(FANNED, GraphScript(FANNED, fanout=width), slots=2)
    origin.run()
    left = origin.journal.prefix(frames)
    rig = Rig(FANNED, GraphScript(FANNED, fanout=width), run_id="r2", origin=left)
    assert rig.run().status == "succeeded"
    again = {name.removeprefix("r2-") for name in rig.executor.started}
    kept = {f"{key.step}-{key.task_id}-0" for key in commits(left)}
    assert not again & kept
    assert len(again) + len(kept) == 6
