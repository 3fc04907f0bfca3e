"""Plays the outside world to a Scheduler by hand, and checks its invariants at each event."""

from collections.abc import Callable, Sequence
from typing import Any

from engine.flow.graph import Graph, Transition
from engine.ids import TaskKey
from engine.scheduler.commands import CancelTask, Command, FinishRun, Launch, StartTimer
from engine.scheduler.events import (
    CancelRequested,
    Event,
    ExecutorLost,
    ResultRef,
    RetryDue,
    RunStarted,
    TaskFailed,
    TaskSucceeded,
)
from engine.scheduler.machine import Scheduler

MakeScheduler = Callable[..., Scheduler]
PARAMETERS = ResultRef(4)
START = TaskKey("start")


class Hand:
    """A scheduler under test. Results are numbered 100, 101, ... in the order of the commits."""

    def __init__(self, make: MakeScheduler, graph: Graph, **options: Any) -> None:
        self.graph = graph
        self.scheduler = make(graph, **{"slots": 100, **options})
        self.results: dict[TaskKey, ResultRef] = {}
        self.launches: list[Launch] = []
        self.flying: dict[TaskKey, Launch] = {}
        self.commands: list[Command] = []

    def tell(self, event: Event) -> list[Command]:
        commands = self.scheduler.handle(event)
        self.scheduler.check()
        self.commands = commands
        if isinstance(event, TaskSucceeded | TaskFailed):
            self.flying.pop(event.task, None)
        self.flying.update({c.task: c for c in commands if isinstance(c, Launch)})
        self.launches += [c for c in commands if isinstance(c, Launch)]
        return commands

    def start(self) -> list[Command]:
        return self.tell(RunStarted(PARAMETERS))

    def commit(self, task: TaskKey, attempt: int = 0, *, width: int | None = None) -> list[Command]:
        """Commit an attempt; `width` is that of its foreach."""
        result = ResultRef(100 + len(self.results))
        self.results.setdefault(task, result)
        transition = Transition(self.graph[task.step].next, width)
        return self.tell(TaskSucceeded(task, attempt, transition, result))

    def fail(
        self, task: TaskKey, attempt: int = 0, *, retryable: bool = True, reason: str = "boom"
    ) -> list[Command]:
        return self.tell(TaskFailed(task, attempt, reason, retryable))

    def due(self, task: TaskKey, attempt: int) -> list[Command]:
        return self.tell(RetryDue(task, attempt))

    def cancel(self, reason: str = "ctrl-c") -> list[Command]:
        return self.tell(CancelRequested(reason))

    def lose_executor(self, reason: str = "gone") -> list[Command]:
        return self.tell(ExecutorLost(reason))

    def result(self, task: TaskKey) -> ResultRef:
        return self.results[task]


def launched(commands: Sequence[Command]) -> list[TaskKey]:
    return [c.task for c in commands if isinstance(c, Launch)]


def only_launch(commands: Sequence[Command]) -> Launch:
    (launch,) = (c for c in commands if isinstance(c, Launch))
    return launch


def cancelled(commands: Sequence[Command]) -> list[TaskKey]:
    return [c.task for c in commands if isinstance(c, CancelTask)]


def timers(commands: Sequence[Command]) -> list[StartTimer]:
    return [c for c in commands if isinstance(c, StartTimer)]


def finish(commands: Sequence[Command]) -> FinishRun | None:
    return next((c for c in commands if isinstance(c, FinishRun)), None)


def laws_in(module: dict[str, Any]) -> tuple[Callable[[MakeScheduler], None], ...]:
    """The laws that a module defines: its functions of one `make` that return nothing."""
    return tuple(
        value
        for value in module.values()
        if getattr(value, "__module__", None) == module["__name__"]
        and getattr(value, "__annotations__", None) == {"make": MakeScheduler, "return": None}
    )
