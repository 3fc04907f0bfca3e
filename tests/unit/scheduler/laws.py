"""What the machine promises when all goes well, law by law; laws_of_trouble.py has the rest.

Each function's name is the law. It is given a way to make a Scheduler and raises if the law does
not hold; `Hand` checks the machine's own invariants after each event besides.
"""

from engine.ids import TaskKey
from engine.scheduler.commands import FinishRun, Launch
from tests.unit.scheduler.flows import (
    BRANCHED,
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
    finish,
    launched,
    laws_in,
    only_launch,
)

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


# -- what is kept --------------------------------------------------------------------------------


def what_is_kept_follows_the_slots_and_not_the_width(make: MakeScheduler) -> None:
    hand = Hand(make, NESTED, slots=3)
    hand.start()
    hand.commit(START, width=1_000)
    for _ in range(200):
        oldest = next(iter(hand.flying))
        hand.commit(oldest, width=50 if oldest.step == "outer" else None)
        assert hand.scheduler.kept <= 3 + 1 + 3  # in flight, start's fan-out, one for each slot


LAWS = laws_in(globals())
