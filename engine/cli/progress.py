"""What a run's progress looks like, counted: per step, in all, how fast, how long still. No output.

Every count is kept up to date event by event, so a picture costs the number of steps, never the
number of tasks. What is to come is read off the graph: a split that opens with n children adds n to
each step inside of it.
"""

from collections import deque

from msgspec import Struct, field

from engine.errors import Failure, TaskCancelledError
from engine.flow.graph import Graph
from engine.ids import TaskKey
from engine.scheduler.progress import (
    RunBegan,
    RunDone,
    RunEvent,
    TaskAttemptFailed,
    TaskDone,
    TaskLaunched,
)

CANCELLED = TaskCancelledError.code
"""The failure of a task that did not fail but was ended."""

_RATE_WINDOW_S = 10
_FIRST_FAILURES = 5


class StepCount(Struct):
    """One step's tasks. `expected` is what the splits opened so far have announced."""

    expected: int = 0
    running: int = 0
    done: int = 0
    reused: int = 0
    failed: int = 0
    cancelled: int = 0
    retried: int = 0
    slowest_us: int = 0
    slowest: str = ""

    @property
    def total(self) -> int:
        return max(self.expected, self.running + self.done + self.failed + self.cancelled)

    @property
    def begun(self) -> bool:
        return bool(self.running or self.done or self.failed or self.cancelled)


class Tally(Struct):
    """The counts of one run. Without a graph, nothing that has not begun is counted."""

    graph: Graph | None = None
    flow: str = ""
    run_id: str = ""
    origin_run_id: str | None = None
    began_us: int = 0
    now_us: int = 0
    steps: dict[str, StepCount] = field(default_factory=dict)
    failures: list[tuple[TaskKey, Failure]] = field(default_factory=list)
    ended: RunDone | None = None
    _inside: dict[str, list[str]] = field(default_factory=dict)  # split -> steps right inside
    _started: dict[TaskKey, int] = field(default_factory=dict)
    _recent: deque[list[int]] = field(default_factory=deque)  # [second, tasks that ended in it]

    def __post_init__(self) -> None:
        for name, node in self.graph.nodes.items() if self.graph else ():
            self.steps[name] = StepCount(expected=0 if node.split_parents else 1)
            if node.split_parents:
                self._inside.setdefault(node.split_parents[-1], []).append(name)

    def observe(self, event: RunEvent) -> None:
        """Count an event. Task output is not counted."""
        match event:
            case TaskLaunched():
                self.step(event.task.step).running += 1
                self._started[event.task] = event.at_us
                self.now_us = max(self.now_us, event.at_us)
            case TaskDone():
                self._done(event)
            case TaskAttemptFailed():
                self._failed(event)
            case RunBegan():
                self.flow, self.run_id = event.flow, event.run_id
                self.origin_run_id = event.origin_run_id
                self.began_us = self.now_us = event.at_us
            case RunDone():
                self.ended = event
                self.now_us = max(self.now_us, event.at_us)

    def step(self, name: str) -> StepCount:
        count = self.steps.get(name)
        if count is None:
            count = self.steps[name] = StepCount()
        return count

    @property
    def done(self) -> int:
        return sum(count.done for count in self.steps.values())

    @property
    def reused(self) -> int:
        return sum(count.reused for count in self.steps.values())

    @property
    def failed(self) -> int:
        return sum(count.failed for count in self.steps.values())

    @property
    def cancelled(self) -> int:
        return sum(count.cancelled for count in self.steps.values())

    @property
    def running(self) -> int:
        return len(self._started)

    @property
    def total(self) -> int:
        return sum(count.total for count in self.steps.values())

    def rate(self) -> float | None:
        """Tasks ended per second over the last seconds; None when too little is known."""
        first = self._recent[0][0] if self._recent else 0
        span_s = self.now_us / 1_000_000 - max(first, self.began_us / 1_000_000)
        ended = sum(count for _, count in self._recent)
        return ended / span_s if ended and span_s >= 1 else None

    def eta_us(self) -> int | None:
        """How long the tasks that are known to come will take at this rate."""
        rate = self.rate()
        left = self.total - self.done - self.failed
        return int(left / rate * 1_000_000) if rate and left > 0 else None

    def slowest_running(self) -> tuple[TaskKey, int] | None:
        """The task in flight that was launched first, and for how long it has run, in us."""
        if not self._started:
            return None
        # Insertion order is launch order, so the first is the oldest.
        task, at_us = next(iter(self._started.items()))
        return task, self.now_us - at_us

    def _done(self, event: TaskDone) -> None:
        count = self.step(event.task.step)
        count.done += 1
        if event.reused:  # never launched here; its times are those of the run that did the work
            count.reused += 1
        else:
            self._ended(event.task, count, event.ended_us)
            if event.ended_us - event.started_us > count.slowest_us:
                count.slowest_us = event.ended_us - event.started_us
                count.slowest = event.task.task_id
        children = 1 if event.transition.fanout is None else event.transition.fanout
        for name in self._inside.get(event.task.step, ()):
            self.steps[name].expected += children

    def _failed(self, event: TaskAttemptFailed) -> None:
        count = self.step(event.task.step)
        self._ended(event.task, count, event.ended_us)
        if event.retry_in_s is not None:
            count.retried += 1
            return
        if event.failure.code == CANCELLED:
            count.cancelled += 1
            return
        count.failed += 1
        if len(self.failures) < _FIRST_FAILURES:
            self.failures.append((event.task, event.failure))

    def _ended(self, task: TaskKey, count: StepCount, at_us: int) -> None:
        if self._started.pop(task, None) is not None:
            count.running -= 1
        self.now_us = max(self.now_us, at_us)
        second = at_us // 1_000_000
        if self._recent and self._recent[-1][0] >= second:
            self._recent[-1][1] += 1
            return
        self._recent.append([second, 1])
        while self._recent[0][0] < second - _RATE_WINDOW_S:
            self._recent.popleft()
