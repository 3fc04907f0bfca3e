"""What a resumed run will do, before it does anything. Pure.

The machine itself is played against the memo, with one slot and no clock: what the memo has counts
as done, and what it has not is noted, with why, and taken to go where the flow's source says. So
the plan cannot disagree with the run, but in one thing: how wide a foreach is that has yet to run.
"""

from array import array
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct, field

from engine.errors import InvariantError
from engine.flow.graph import FANS_OUT, Graph, Transition
from engine.ids import TaskKey
from engine.scheduler.commands import FinishRun, Launch
from engine.scheduler.events import Event, ResultRef, RunStarted, TaskSucceeded
from engine.scheduler.gangs import tasks_of
from engine.scheduler.machine import Scheduler
from engine.scheduler.memo import FRESH, UNKNOWN, Found, Memo, Why
from engine.scheduler.progress import ResumePlanned, StepPlan

TASKS_NAMED = 5
_SLICE = 200  # tasks planned in one turn, some 3 ms


class _Count(Struct):
    reused: int = 0
    again: dict[str, int] = field(default_factory=dict)
    tasks: list[str] = field(default_factory=list)
    is_open: bool = False
    of_old_code: int = 0


class Planning:
    """Makes the plan of one resumed run: `step` until it ends, then `plan` is there."""

    def __init__(self, graph: Graph, memo: Memo, origin_run_id: str) -> None:
        self._graph = graph
        self._memo = memo
        self._origin_run_id = origin_run_id
        self._scheduler = Scheduler(graph, slots=1)
        self._makers = array("q", [UNKNOWN])  # of each result, by its number; 0 is the parameters
        self._counts = {name: _Count() for name in graph.nodes}
        self._open: set[str] = set()  # foreach steps whose width is not known
        self._old: dict[tuple[str, int], bool] = {}

    def steps(self) -> Iterator[None]:
        """Plan everything, and yield now and then, for others to have their turn."""
        events: deque[Event] = deque([RunStarted(ResultRef(0))])
        count = 0
        while events:
            for command in self._scheduler.handle(events.popleft()):
                if isinstance(command, FinishRun):
                    return
                if not isinstance(command, Launch):
                    raise InvariantError(f"a plan was answered with {command}", story=[])
                events += self._done(command)
            count += 1
            if count % _SLICE == 0:
                yield

    def plan(self) -> ResumePlanned:
        """What `steps` has found, in the order of the source."""
        steps = (
            StepPlan(
                step=name,
                reused=count.reused,
                again=dict(sorted(count.again.items(), key=lambda item: -item[1])),
                tasks=tuple(count.tasks),
                is_open=count.is_open,
                of_old_code=count.of_old_code,
            )
            for name, count in self._counts.items()
        )
        return ResumePlanned(self._graph.flow, self._origin_run_id, tuple(steps))

    def _done(self, launch: Launch) -> Iterator[TaskSucceeded]:
        """How tasks will have gone: reused, or done as the source says; of a gang all alike."""
        tasks = tasks_of(launch)
        newest = min(self._makers[ref] for ref in launch.inputs)
        finds = [self._find(task, newest) for task in tasks]
        why = next((found for found in finds if isinstance(found, Why)), None)
        for task, found in zip(tasks, finds, strict=True):
            yield self._count(launch, task, why or found)

    def _find(self, task: TaskKey, newest: int) -> Found | Why:
        found = self._memo.find(task, newest)
        if isinstance(found, Found) and self._scheduler.objection(task.step, found.going):
            return Why.MOVED
        return found

    def _count(self, launch: Launch, task: TaskKey, found: Found | Why) -> TaskSucceeded:
        count = self._counts[task.step]
        if isinstance(found, Found):
            count.reused += 1
            count.of_old_code += self._is_of_old_code(task.step, found.maker)
            self._makers.append(found.maker)
            going = found.going
        else:
            if any(frame.split in self._open for frame in task.frames):
                count.is_open, found = True, Why.FOLLOWS
            count.again[found] = count.again.get(found, 0) + 1
            if len(count.tasks) < TASKS_NAMED:
                count.tasks.append(task.task_id)
            self._makers.append(FRESH)
            going = self._as_written(task.step)
        return TaskSucceeded(task, launch.attempt, going, ResultRef(len(self._makers) - 1))

    def _as_written(self, step: str) -> Transition:
        node = self._graph[step]
        if node.kind not in FANS_OUT:
            return Transition(node.next)
        self._open.add(step)
        return Transition(node.next, 1)

    def _is_of_old_code(self, step: str, maker: int) -> bool:
        key = (step, maker)
        if key not in self._old:
            then = _code_in(self._memo.graph_of(maker), step)
            self._old[key] = bool(then and then != self._graph[step].code)
        return self._old[key]


def _code_in(graph: Mapping[str, Any] | None, step: str) -> str | None:  # Any: msgpack values
    """The fingerprint of a step's source in a journaled graph; None if it has none."""
    nodes = (graph or {}).get("nodes") or {}
    found: str | None = (nodes.get(step) or {}).get("code")
    return found
