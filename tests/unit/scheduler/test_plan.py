"""What a resumed run is said to do is what it does."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.flow.graph import Graph
from engine.ids import TaskKey
from engine.scheduler.journal import RunBeganRecord, encode
from engine.scheduler.memo import Memo, Why
from engine.scheduler.plan import TASKS_NAMED, Planning
from engine.scheduler.progress import ResumePlanned, StepPlan, TaskDone, TaskLaunched
from engine.stores.manifest import Manifest
from engine.testing.fakes import GraphScript, MemoryJournal
from tests.unit.scheduler.flows import FANNED, LINE, NESTED, Branch, Step, flow
from tests.unit.scheduler.rig import Rig
from tests.unit.scheduler.test_properties import FLOWS


def width(task: TaskKey) -> int:
    return 1 + len(str(task)) % 3


def plan_of(graph: Graph, memo: Memo) -> ResumePlanned:
    planning = Planning(graph, memo, "r1")
    list(planning.steps())
    return planning.plan()


def step_of(plan: ResumePlanned, name: str) -> StepPlan:
    return next(step for step in plan.steps if step.step == name)


def ran(graph: Graph, script: GraphScript | None = None) -> MemoryJournal:
    rig = Rig(graph, script or GraphScript(graph, fanout=width))
    rig.run()
    return rig.journal


@settings(max_examples=60, deadline=None)
@given(data=st.data(), graph=FLOWS)
def test_r24_the_plan_counts_what_the_run_then_does(data: st.DataObject, graph: Graph) -> None:
    whole = ran(graph)
    cut = whole.prefix(data.draw(st.integers(1, len(whole)), "frames"))
    journals, run_id = [cut], "r2"
    if data.draw(st.booleans(), "resumed before"):
        middle = Rig(graph, GraphScript(graph, fanout=width), run_id="r2", origin=cut)
        middle.run()
        frames = data.draw(st.integers(1, len(middle.journal)), "frames of the resumed")
        journals, run_id = [middle.journal.prefix(frames), cut], "r3"
    rerun = data.draw(st.lists(st.sampled_from(list(graph.nodes)), max_size=2), "rerun")

    gangs = [node.name for node in graph.nodes.values() if node.is_parallel]
    plan = plan_of(graph, Memo(journals[0], older=journals[1:], rerun=rerun, gangs=gangs))
    memo = Memo(journals[0], older=journals[1:], rerun=rerun, gangs=gangs)
    rig = Rig(graph, GraphScript(graph, fanout=width), run_id=run_id, memo=memo)
    assert rig.run().status == "succeeded"

    reused = Counter(
        e.task.step for e in rig.events(TaskDone) if isinstance(e, TaskDone) and e.reused
    )
    launched = Counter(e.task.step for e in rig.events(TaskLaunched) if isinstance(e, TaskLaunched))
    for step in plan.steps:
        assert step.reused == reused[step.step]
        again = sum(step.again.values())
        assert 1 <= again <= launched[step.step] if step.is_open else again == launched[step.step]


def test_a_failed_item_is_named_and_what_follows_was_not_done() -> None:
    script = GraphScript(
        NESTED,
        fanout=lambda task: 3,
        fails=lambda task, attempt: task.step == "inner" and task.task_id == "1.2",
    )
    plan = plan_of(NESTED, Memo(ran(NESTED, script)))
    inner = step_of(plan, "inner")
    assert inner.again[Why.FAILED] == 1
    assert inner.tasks[0] == "1.2"
    assert step_of(plan, "end") == StepPlan("end", 0, {Why.NOT_DONE: 1}, ("0",))


def test_a_step_that_is_asked_for_takes_along_what_follows_and_nothing_beside() -> None:
    graph = flow(Branch("start", ((Step("a"), Step("a2")), (Step("b"),))))
    plan = plan_of(graph, Memo(ran(graph), rerun=["a"]))
    whys = {step.step: list(step.again) for step in plan.steps if step.again}
    assert whys == {
        "a": [Why.ASKED],
        "a2": [Why.FOLLOWS],
        "join_start": [Why.FOLLOWS],
        "end": [Why.FOLLOWS],
    }
    assert step_of(plan, "b").reused == 1


def test_data_that_is_gone_is_told() -> None:
    memo = Memo(ran(LINE), is_usable=lambda manifest: Manifest.unpack(manifest).step != "work")
    assert step_of(plan_of(LINE, memo), "work").again == {Why.LOST: 1}


def test_a_flow_that_goes_another_way_now_is_told() -> None:
    edited = flow(Step("work"), Step("more"))
    plan = plan_of(edited, Memo(ran(LINE)))
    assert step_of(plan, "start").reused == 1
    assert step_of(plan, "work").again == {Why.MOVED: 1}
    assert step_of(plan, "more").again == {Why.NOT_DONE: 1}


def test_how_wide_a_foreach_is_that_has_yet_to_run_is_not_known() -> None:
    plan = plan_of(FANNED, Memo(ran(FANNED), rerun=["start"]))
    assert step_of(plan, "work").is_open
    assert not step_of(plan, "join_start").is_open
    assert not step_of(plan, "end").is_open


def test_only_the_first_few_tasks_are_named() -> None:
    wide = GraphScript(FANNED, fanout=lambda task: 50)
    work = step_of(plan_of(FANNED, Memo(ran(FANNED, wide), rerun=["work"])), "work")
    assert work.again == {Why.ASKED: 50}
    assert len(work.tasks) == TASKS_NAMED


def with_code(graph: Graph, **codes: str) -> Graph:
    nodes = {n: replace(node, code=codes.get(n, "same")) for n, node in graph.nodes.items()}
    return replace(graph, nodes=nodes)


def test_what_is_reused_of_a_step_that_has_changed_is_told_and_whose_work_it_is_counts() -> None:
    """The run in the middle had the new code already, but took over what the old had done."""
    old, new = with_code(LINE, work="old"), with_code(LINE, work="new")
    first, second = MemoryJournal(), MemoryJournal()
    first.append(encode(began("r0", old)))
    for _, payload in list(ran(LINE).scan())[1:]:
        first.append(payload.replace(b"r1", b"r0"))
    rig = Rig(LINE, run_id="r1", origin=first)
    rig.run()
    second.append(encode(began("r1", new, origin="r0")))
    for _, payload in list(rig.journal.scan())[1:]:
        second.append(payload)

    plan = plan_of(new, Memo(second, older=[first]))
    assert {step.step: step.of_old_code for step in plan.steps} == {"start": 0, "work": 1, "end": 0}


def began(run_id: str, graph: Graph, origin: str | None = None) -> RunBeganRecord:
    nodes = {name: {"code": node.code} for name, node in graph.nodes.items()}
    return RunBeganRecord(1, "Flow", run_id, b"", origin_run_id=origin, graph={"nodes": nodes})
