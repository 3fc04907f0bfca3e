"""The machine keeps its laws, and notices when it contradicts itself."""

from collections.abc import Callable

import pytest

from engine.errors import InvariantError
from engine.flow.graph import Graph, Kind, Node, Transition
from engine.scheduler.events import ResultRef, RetryDue, RunStarted
from engine.scheduler.joins import Fanout
from engine.scheduler.machine import LEGAL_MOVES, Scheduler, State, Task
from tests.unit.scheduler import laws, laws_of_gangs, laws_of_trouble
from tests.unit.scheduler.flows import FANNED, LINE
from tests.unit.scheduler.hand import PARAMETERS, START, Hand, MakeScheduler

LAWS = laws.LAWS + laws_of_trouble.LAWS + laws_of_gangs.LAWS


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_the_machine_keeps_its_law(law: Callable[[MakeScheduler], None]) -> None:
    law(Scheduler)


def test_there_are_laws() -> None:
    assert len(LAWS) > 40


def test_a_scheduler_without_slots_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, not 0"):
        Scheduler(LINE, slots=0)


@pytest.mark.parametrize(
    ("step", "transition", "objection"),
    [
        ("work", Transition(("join_start",)), None),
        ("work", Transition(("end",)), r"went on to \[end\]; its self.next names \[join_start\]"),
        ("work", Transition(("join_start",), 3), "no foreach, but fanned out"),
        ("start", Transition(("work",), None), "no items"),
        ("start", Transition(("work",), -1), "no items"),
        ("start", Transition(("work",), 1), None),
    ],
)
def test_a_transition_that_is_not_the_graphs_is_objected_to(
    step: str, transition: Transition, objection: str | None
) -> None:
    said = Scheduler(FANNED, slots=1).objection(step, transition)
    if objection is None:
        assert said is None
    else:
        with pytest.raises(AssertionError, match=objection):
            raise AssertionError(said)


def test_a_join_from_inside_another_split_is_a_contradiction_that_tells_its_story() -> None:
    nodes = {
        "start": Node("start", Kind.FOREACH, ("work",)),
        "work": Node("work", Kind.LINEAR, ("join",)),
        "join": Node("join", Kind.LINEAR, ("end",), is_join=True, join_of="elsewhere"),
        "end": Node("end", Kind.END),
    }
    hand = Hand(Scheduler, Graph("Flow", nodes))
    hand.start()
    (launch,) = hand.commit(START, width=1)
    with pytest.raises(InvariantError, match="work/0 arrived at join from inside start") as caught:
        hand.commit(launch.task)  # type: ignore[union-attr]  # it is a Launch
    assert "start/0#0: ready -> running" in caught.value.story
    assert any(line.startswith("event TaskSucceeded") for line in caught.value.story)


def test_a_join_outside_of_any_split_is_a_contradiction() -> None:
    nodes = {
        "start": Node("start", Kind.LINEAR, ("end",)),
        "end": Node("end", Kind.END, is_join=True, join_of="start"),
    }
    hand = Hand(Scheduler, Graph("Flow", nodes))
    hand.start()
    with pytest.raises(InvariantError, match="from inside no split"):
        hand.commit(START)


def test_a_child_that_arrives_twice_is_a_contradiction() -> None:
    fanout = Fanout(START, ResultRef(4), ("work",), 2, is_foreach=True, parent=None)
    fanout.issue()
    assert fanout.arrive(0, ResultRef(10)) is False
    with pytest.raises(InvariantError, match="child 0 of start/0 arrived twice"):
        fanout.arrive(0, ResultRef(11))


def test_a_story_is_bounded() -> None:
    scheduler = Scheduler(FANNED, slots=1)
    for _ in range(1_000):
        scheduler.handle(RunStarted(PARAMETERS))
    assert len(scheduler.story()) == 200


def test_terminal_states_are_those_without_moves() -> None:
    terminal = {state for state, moves in LEGAL_MOVES.items() if not moves}
    assert terminal == {State.SUCCEEDED, State.FAILED, State.CANCELLED}
    assert set(LEGAL_MOVES) == set(State)


@pytest.mark.parametrize("spoil", ["count", "ready", "branch", "stopped", "finished"])
def test_check_notices_an_index_that_disagrees(spoil: str) -> None:
    hand = Hand(Scheduler, FANNED, slots=1)
    hand.start()
    hand.commit(START, width=3)
    scheduler = hand.scheduler
    match spoil:
        case "count":
            scheduler._in_flight = 0
        case "ready":
            scheduler._ready.append(next(iter(scheduler._live.values())))
        case "branch":
            scheduler._open[START].issued += 1
        case "stopped":
            scheduler._stopped = "spoiled"
        case "finished":
            scheduler._finished = True
    with pytest.raises(InvariantError, match="not so: "):
        scheduler.check()


def test_running_out_of_work_before_the_end_is_a_contradiction() -> None:
    scheduler = Scheduler(LINE, slots=1)
    scheduler.handle(RunStarted(PARAMETERS))
    scheduler._live.clear()  # forget the only task
    with pytest.raises(InvariantError, match="nothing is left to run before end was reached"):
        scheduler.handle(RetryDue(START, 1))


def test_a_task_cannot_make_a_move_that_the_table_does_not_list() -> None:
    hand = Hand(Scheduler, LINE)
    hand.start()
    task = hand.scheduler._live[START]
    with pytest.raises(InvariantError, match="start/0 cannot go from running to ready"):
        hand.scheduler._move(task, State.READY)


def test_a_task_cannot_be_started_twice() -> None:
    hand = Hand(Scheduler, LINE)
    hand.start()
    with pytest.raises(InvariantError, match="start/0 was started twice"):
        hand.scheduler._spawn(Task(START, (), None))
