"""R-24: whatever the flow and whatever the world does to it, the machine comes to what is due."""

from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.flow.graph import FANS_OUT, Graph, Retry, Transition
from engine.ids import TaskKey
from engine.scheduler.commands import CancelTask, Command, FinishRun, Launch, StartTimer
from engine.scheduler.events import (
    Event,
    ResultRef,
    RetryDue,
    RunStarted,
    TaskFailed,
    TaskSucceeded,
)
from engine.scheduler.gangs import leader, member
from engine.scheduler.machine import Scheduler
from tests.unit.scheduler import reference
from tests.unit.scheduler.flows import Branch, Foreach, Gang, Shape, Step, flow
from tests.unit.scheduler.reference import Fate, Reference

PARAMETERS = ResultRef(4)

OUTCOMES = st.sampled_from(["ok", "failed", "fatal"])
STEPS = st.builds(
    Step,
    name=st.just(""),
    retry=st.builds(Retry, times=st.integers(0, 2), delay_s=st.sampled_from([0.0, 5.0])),
    catches=st.booleans(),
)


GANGS = st.builds(Gang, name=st.just(""), body=STEPS)


def _nested(inner: st.SearchStrategy[Shape]) -> st.SearchStrategy[Shape]:
    bodies = st.lists(inner, min_size=1, max_size=2).map(tuple)
    return st.one_of(
        st.builds(Foreach, name=st.just(""), body=bodies),
        st.builds(
            Branch, name=st.just(""), arms=st.lists(bodies, min_size=1, max_size=3).map(tuple)
        ),
    )


def _named(shapes: tuple[Shape, ...], prefix: str) -> tuple[Shape, ...]:
    named: list[Shape] = []
    for at, shape in enumerate(shapes):
        name = f"{prefix}{at}"
        match shape:
            case Step(_, retry, catches):
                named.append(Step(name, retry, catches))
            case Branch(_, arms):
                arms = tuple(_named(arm, f"{name}_{i}_") for i, arm in enumerate(arms))
                named.append(Branch(name, arms))
            case Gang(_, Step(_, retry, catches)):
                named.append(Gang(name, Step(f"{name}_p", retry, catches)))
            case Foreach(_, body):
                named.append(Foreach(name, _named(body, f"{name}_")))
    return tuple(named)


FLOWS = (
    st.lists(st.recursive(STEPS | GANGS, _nested, max_leaves=6), min_size=1, max_size=3)
    .map(tuple)
    .map(lambda shapes: flow(*_named(shapes, "s")))
)


@dataclass
class World:
    """Draws what becomes of each task once, for the machine and the reference alike."""

    draw: st.DataObject
    graph: Graph
    failures: bool
    fates: dict[TaskKey, Fate] = field(default_factory=dict)
    widths: dict[TaskKey, int] = field(default_factory=dict)

    def fate(self, key: TaskKey) -> Fate:
        key = leader(self.graph, key)
        if key not in self.fates:
            attempts = st.lists(OUTCOMES, max_size=4) if self.failures else st.just([])
            # Most tasks do well, or no run would get far.
            is_lucky = self.draw.draw(st.integers(0, 9)) > 2
            both = ([], []) if is_lucky else self.draw.draw(st.tuples(attempts, attempts))
            self.fates[key] = both
        return self.fates[key]

    def width(self, key: TaskKey) -> int:
        if key not in self.widths:
            self.widths[key] = self.draw.draw(st.integers(1, 4))
        return self.widths[key]


@dataclass
class Play:
    """One run of the machine in a world that answers in any order, and repeats itself."""

    graph: Graph
    world: World
    scheduler: Scheduler
    launched: dict[TaskKey, list[Launch]] = field(default_factory=dict)
    committed: dict[TaskKey, ResultRef] = field(default_factory=dict)
    cancelled: set[tuple[TaskKey, int]] = field(default_factory=set)
    culprits: dict[tuple[TaskKey, int], int] = field(default_factory=dict)  # of failing gangs
    done: dict[tuple[TaskKey, int], dict[TaskKey, ResultRef]] = field(default_factory=dict)
    results: int = 100
    over: FinishRun | None = None

    def run(self) -> None:
        draw = self.world.draw.draw
        pending = self.tell(RunStarted(PARAMETERS))
        said: list[Event] = []
        while self.over is None:
            event = self.answer(pending.pop(draw(st.integers(0, len(pending) - 1))))
            pending += self.tell(event)
            said.append(event)
            if draw(st.integers(0, 4)) == 0 and self.over is None:
                repeated = draw(st.sampled_from(said))
                assert self.scheduler.handle(repeated) == [], f"heard twice: {repeated}"
                self.scheduler.check()

    def tell(self, event: Event) -> list[Launch | StartTimer]:
        commands = self.scheduler.handle(event)
        self.scheduler.check()
        pending: list[Launch | StartTimer] = []
        for command in commands:
            if self.is_pending(command):
                assert isinstance(command, Launch | StartTimer)
                size = command.gang if isinstance(command, Launch) else 0
                members = [member(command.task, i) for i in range(size)] or [command.task]
                pending += [replace(command, task=task) for task in members]
        return pending

    def is_pending(self, command: Command) -> bool:
        match command:
            case Launch(task=task, attempt=attempt):
                assert self.over is None
                attempts = self.launched.setdefault(task, [])
                assert attempt == len(attempts), "attempts count from 0, one by one"
                attempts.append(command)
            case FinishRun():
                assert self.over is None
                self.over = command
            case CancelTask(task=task, attempt=attempt):
                assert (task, attempt) not in self.cancelled
                self.cancelled.add((task, attempt))
        return isinstance(command, Launch | StartTimer)

    def answer(self, command: Launch | StartTimer) -> Event:
        key, attempt = command.task, command.attempt
        if isinstance(command, StartTimer):
            return RetryDue(key, attempt)
        first = leader(self.graph, key)
        attempts, fallbacks = self.world.fate(key)
        spent = sum(launch.fallback is None for launch in self.launched[first])
        at = attempt if command.fallback is None else attempt - spent
        fates = attempts if command.fallback is None else fallbacks
        fate = fates[at] if at < len(fates) else "ok"
        if fate != "ok" and command.gang and key.frames[-1].index != self.culprit(command):
            fate = "ok"  # as far as this member is concerned
        if fate != "ok" or (key, attempt) in self.cancelled:
            return TaskFailed(key, attempt, fate, retryable=fate != "fatal")
        node = self.graph[key.step]
        width = self.world.width(key) if node.kind in FANS_OUT else None
        self.results += 1
        together = self.done.setdefault((first, attempt), {})
        together[key] = ResultRef(self.results)
        if len(together) == (command.gang or 1):
            self.committed |= together
        return TaskSucceeded(key, attempt, Transition(node.next, width), together[key])

    def culprit(self, launch: Launch) -> int:
        """Which member fails of a gang that does."""
        at = leader(self.graph, launch.task), launch.attempt
        if at not in self.culprits:
            self.culprits[at] = self.world.draw.draw(st.integers(0, launch.gang - 1))
        return self.culprits[at]


@settings(max_examples=80, deadline=None)
@given(
    data=st.data(),
    graph=FLOWS,
    slots=st.integers(1, 5),
    failures=st.booleans(),
    on_failure=st.sampled_from(["finish", "cancel"]),
)
def test_r24_the_machine_comes_to_what_the_reference_comes_to(
    data: st.DataObject, graph: Graph, slots: int, failures: bool, on_failure: str
) -> None:
    world = World(data, graph, failures)
    play = Play(graph, world, Scheduler(graph, slots=slots, on_failure=on_failure))
    play.run()
    expected = Reference(graph, world.fate, world.width)
    expected.walk(TaskKey("start"), ())

    assert play.over is not None
    assert play.over.ok is not bool(expected.failed)
    if play.over.ok:
        assert set(play.committed) == set(expected.inputs)
    else:
        assert play.scheduler.failed_task in expected.failed
        assert set(play.committed) <= set(expected.inputs)
    for key, launches in play.launched.items():
        if key in expected.inputs and key.step != "start":
            due = [play.committed[parent] for parent in expected.inputs[key]]
            assert all(list(launch.inputs) == due for launch in launches)
        foreachs = (f for f in key.frames if f.is_foreach)
        splits = [TaskKey(f.split, key.frames[: key.frames.index(f)]) for f in foreachs]
        assert list(launches[0].scope) == [play.committed[split] for split in splits]
    play.scheduler.check()


def test_the_reference_is_short_enough_to_be_believed() -> None:
    text = Path(reference.__file__).read_text()
    body = text[text.index("    def walk") :].splitlines()
    code = [line for line in body if line.strip() and not line.strip().startswith('"""')]
    assert len(code) <= 40
