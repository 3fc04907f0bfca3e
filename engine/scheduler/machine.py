"""The scheduler: a state machine that is told events and answers with commands.

Rule 1: everything that decides what runs next lives here. Nothing here waits, reads a clock, draws
        a random number, opens a file or imports asyncio.
Rule 2: `_move` is the only place that changes a task's state, and `LEGAL_MOVES` the only place that
        says which changes exist. docs/ARCHITECTURE.md draws its diagram from this table.

What runs next: tasks that are ready, oldest first, before new children of a fan-out, and of the
open fan-outs the one opened last. So an item is carried through to its join before another is
begun, and the number of tasks and fan-outs alive follows the slots, not the width of the flow.

A gang is one `Task` that takes several slots. The line waits for it: nothing passes it by, or it
might wait for ever. One that has more members than there are slots runs when nothing else does.

What is kept: a `Task` for each task that is ready, running or backing off; for each open fan-out a
cursor and 8 bytes a child. A finished task leaves its result's offset in its join and no more, so
news of a task that is not alive is stale by definition and is ignored.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Literal, Never, assert_never

from msgspec import Struct

from engine.errors import InvariantError
from engine.flow.graph import FANS_OUT, Graph, Kind, Node, Transition
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
from engine.scheduler.gangs import Roll, leader, member
from engine.scheduler.joins import Fanout
from engine.scheduler.retry import Again, after_failure

OnFailure = Literal["finish", "cancel"]

STORY_LINES = 200  # how much history an InvariantError carries; bounds memory, nothing else


class State(StrEnum):
    """Where a task stands between its first launch being possible and its end."""

    READY = "ready"
    RUNNING = "running"
    BACKOFF = "backoff"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


LEGAL_MOVES: Mapping[State, frozenset[State]] = {
    State.READY: frozenset({State.RUNNING, State.CANCELLED}),
    State.RUNNING: frozenset({State.SUCCEEDED, State.BACKOFF, State.FAILED, State.CANCELLED}),
    State.BACKOFF: frozenset({State.READY, State.CANCELLED}),
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
}


class Task(Struct, eq=False):
    """A task that is alive, or a gang; then `key` is that of its first member.

    `fanout` is the innermost open split around it. `again` is what follows the attempt, once it is
    known to fail; None if nothing does.
    """

    key: TaskKey
    inputs: Sequence[ResultRef]
    fanout: Fanout | None
    state: State = State.READY
    attempt: int = 0
    fallback: str | None = None  # the failure to catch, once user code is out of attempts
    fallbacks: int = 0  # attempts so far that were fallbacks
    again: Again | None = None
    gang: int = 0  # how many members; 0 for a task that is no gang
    roll: Roll | None = None  # of the gang's attempt in flight

    @property
    def slots(self) -> int:
        """How many of them it takes."""
        return self.gang or 1

    @property
    def is_broken(self) -> bool:
        """Whether a member has failed, so that the others are to end."""
        return self.roll is not None and self.roll.is_broken

    def launch(self) -> Launch:
        """Begin an attempt."""
        self.again = None
        self.roll = Roll.of(self.gang) if self.gang else None
        scope = self.fanout.scope if self.fanout else ()
        return Launch(self.key, self.attempt, self.inputs, scope, self.fallback, self.gang)

    def awaits(self, key: TaskKey, attempt: int) -> bool:
        """Whether an attempt, or a member of the gang's, is in flight."""
        if self.state is not State.RUNNING or self.attempt != attempt:
            return False
        return self.roll is None or key.frames[-1].index in self.roll.missing

    def end(self, key: TaskKey, result: ResultRef | None) -> bool:
        """Note the end of a member, None for a failure; whether nothing is in flight any more."""
        return self.roll is None or self.roll.end(key.frames[-1].index, result)

    def judge(self, node: Node, event: TaskFailed) -> None:
        """Find what is to follow a failure."""
        self.again = after_failure(
            node,
            attempt=self.attempt,
            fallbacks=self.fallbacks,
            retryable=event.retryable,
        )
        if self.again is not None and self.again.is_fallback and self.fallback is None:
            self.fallback = event.reason  # later failures are those of catching this one

    def in_flight(self) -> list[TaskKey]:
        """What of it has not ended."""
        if self.roll is None:
            return [self.key]
        return [member(self.key, index) for index in sorted(self.roll.missing)]


class Scheduler:
    """Decides what runs next.

    Args:
        graph: the flow's static shape, linted.
        slots: how many tasks may be in flight at once, at least 1; a gang of more runs alone.
        on_failure: whether a failed task lets those in flight finish, or cancels them. Either way
            nothing new starts.
        max_splits: the widest foreach that is let through; None for no limit.
    """

    def __init__(
        self,
        graph: Graph,
        *,
        slots: int,
        on_failure: OnFailure = "finish",
        max_splits: int | None = None,
    ) -> None:
        if slots < 1:
            raise ValueError(f"slots must be at least 1, not {slots}")
        self.graph = self._graph = graph
        self._slots = slots
        self._on_failure = on_failure
        self._max_splits = max_splits
        self._live: dict[TaskKey, Task] = {}
        self._ready: deque[Task] = deque()
        self._cursors: list[Fanout] = []  # those with children not yet issued, innermost last
        self._open: dict[TaskKey, Fanout] = {}  # by split, until the last child arrives
        self._in_flight = 0
        self._started = False
        self._ended = False  # the end step has committed
        self._finished = False
        self._stopped: str | None = None  # why nothing new starts
        self._cancelling = False
        self._failed_task: TaskKey | None = None
        self._story: deque[Event | tuple[TaskKey, int, State, State]] = deque(maxlen=STORY_LINES)

    # -- what the driver asks ------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """How many tasks have been launched and have not ended."""
        return self._in_flight

    @property
    def kept(self) -> int:
        """How many tasks and open fan-outs are held: what memory goes by."""
        return len(self._live) + len(self._open)

    @property
    def failed_task(self) -> TaskKey | None:
        """The task whose failure stopped the run."""
        return self._failed_task

    def awaits(self, task: TaskKey, attempt: int) -> bool:
        """Tell whether news of this attempt would count: it is the one in flight."""
        return self._current(task, attempt) is not None

    def retry_in_s(self, task: TaskKey) -> float | None:
        """In how many seconds after its end a failed attempt is tried again; None if it is not."""
        found = self._live.get(leader(self._graph, task))
        return found.again.delay_s if found and found.again and self._stopped is None else None

    def objection(self, step: str, transition: Transition) -> str | None:
        """Say what is wrong with where a task of `step` wants to go, or None."""
        return _objection(self._graph[step], transition, self._max_splits)

    def is_too_wide(self, transition: Transition) -> bool:
        """Whether a foreach has more items than one may."""
        return self._max_splits is not None and (transition.fanout or 0) > self._max_splits

    def handle(self, event: Event) -> list[Command]:
        """Take one event and return the commands that follow from it, in order.

        Raises:
            InvariantError: the event cannot be: a bug here or in the driver.
        """
        self._story.append(event)
        if self._finished:
            return []
        commands = self._on(event)
        self._fill_slots(commands)
        self._maybe_finish(commands)
        return commands

    # -- one handler per event -----------------------------------------------------------------

    def _on(self, event: Event) -> list[Command]:
        match event:
            case TaskSucceeded():
                return self._on_succeeded(event)
            case TaskFailed():
                return self._on_failed(event)
            case RetryDue():
                return self._on_retry_due(event)
            case RunStarted():
                return self._on_started(event)
            case CancelRequested(reason):
                return self._stop(reason, cancel=True)
            case ExecutorLost(reason):
                return self._on_executor_lost(reason)
        assert_never(event)

    def _on_started(self, event: RunStarted) -> list[Command]:
        if not self._started:
            self._started = True
            if self._stopped is None:
                self._spawn(Task(TaskKey(self._graph.start), (event.parameters,), None))
        return []

    def _on_succeeded(self, event: TaskSucceeded) -> list[Command]:
        task = self._current(event.task, event.attempt)
        if task is None:
            return []
        if objection := self.objection(task.key.step, event.transition):
            return self._fail(task, event.task, objection)
        if not task.end(event.task, event.result):
            return []
        if task.is_broken:
            return self._end_attempt(task)
        self._move(task, State.SUCCEEDED)
        if self._stopped is None:
            self._follow(task, event.transition, event.result)
        return []

    def _on_failed(self, event: TaskFailed) -> list[Command]:
        task = self._current(event.task, event.attempt)
        if task is None:
            return []
        if self._stopped is None and not task.is_broken:
            task.judge(self._graph[task.key.step], event)
            if task.again is None:
                return self._fail(task, event.task, event.reason)
        return self._lose(task, event.task, event.reason)

    def _on_retry_due(self, event: RetryDue) -> list[Command]:
        task = self._live.get(event.task)
        if task and task.state is State.BACKOFF and task.attempt == event.attempt:
            self._move(task, State.READY)
        return []

    def _on_executor_lost(self, reason: str) -> list[Command]:
        self._stop(reason, cancel=False)
        for task in list(self._live.values()):
            self._move(task, State.FAILED)
        return []

    # -- how an attempt fails ------------------------------------------------------------------

    def _lose(self, task: Task, key: TaskKey, reason: str) -> list[Command]:
        """Take the failure of an attempt, or of one of a gang: the others are no use without it."""
        is_first = not task.is_broken
        if task.end(key, None):
            return self._end_attempt(task)
        if not is_first or self._cancelling:
            return []
        return _cancels(task, f"{key} failed: {reason}")

    def _end_attempt(self, task: Task) -> list[Command]:
        """What follows a failed attempt, of which nothing is in flight any more."""
        if task.again is None or self._stopped is not None:
            self._move(task, State.CANCELLED if self._cancelling else State.FAILED)
            return []
        self._move(task, State.BACKOFF)
        task.attempt += 1
        task.fallbacks += task.again.is_fallback
        return [StartTimer(task.key, task.attempt, task.again.delay_s)]

    def _fail(self, task: Task, key: TaskKey, reason: str) -> list[Command]:
        """End the task for good, and with it the run; `key` is that of whoever failed."""
        task.again = None
        commands = self._lose(task, key, reason)
        if self._stopped is None:
            self._failed_task = key
        cancel = self._on_failure == "cancel"
        return [*commands, *self._stop(f"{key} failed: {reason}", cancel=cancel)]

    # -- decisions -----------------------------------------------------------------------------

    def _follow(self, task: Task, transition: Transition, result: ResultRef) -> None:
        """Spawn what `task` leads to: one successor, a fan-out, or an arrival at a join."""
        kind = self._graph[task.key.step].kind
        if kind is Kind.END:
            self._ended = True
        elif kind is Kind.LINEAR:
            (target,) = transition.targets
            if self._graph[target].is_join:
                self._arrive(target, task, result)
            else:
                self._spawn(Task(TaskKey(target, task.key.frames), (result,), task.fanout))
        else:
            total = len(transition.targets) if transition.fanout is None else transition.fanout
            has_items = kind in FANS_OUT
            fanout = Fanout(task.key, result, transition.targets, total, has_items, task.fanout)
            self._open[task.key] = fanout
            if kind is Kind.GANG:
                self._spawn(Task(fanout.issue_all(), (result,), fanout, gang=total))
            else:
                self._cursors.append(fanout)

    def _arrive(self, join: str, task: Task, result: ResultRef) -> None:
        fanout = task.fanout
        if fanout is None or self._graph[join].join_of != fanout.split.step:
            around = fanout.split.step if fanout else "no split"
            self._contradiction(f"{task.key} arrived at {join} from inside {around}")
        results = (result,) if task.roll is None else task.roll.refs()
        # A gang is named by its first member, and all of it arrives.
        for index, ref in enumerate(results, task.key.frames[-1].index):
            if fanout.arrive(index, ref):
                del self._open[fanout.split]
                key = TaskKey(join, fanout.split.frames)
                self._spawn(Task(key, fanout.inputs(), fanout.parent))

    def _spawn(self, task: Task) -> None:
        self._ready.append(self._adopt(task))

    def _adopt(self, task: Task) -> Task:
        if task.key in self._live:
            self._contradiction(f"{task.key} was started twice")
        self._live[task.key] = task
        return task

    def _fill_slots(self, commands: list[Command]) -> None:
        while task := self._next():
            self._move(task, State.RUNNING)
            commands.append(task.launch())

    def _next(self) -> Task | None:
        """Take the task to start now, if there is room for it; see the header for the order."""
        if self._ready:
            return self._ready.popleft() if self._has_room(self._ready[0].slots) else None
        if not self._cursors or not self._has_room(1):
            return None
        fanout = self._cursors[-1]
        task = self._adopt(Task(fanout.issue(), (fanout.result,), fanout))
        if fanout.is_exhausted:
            self._cursors.pop()
        return task

    def _has_room(self, slots: int) -> bool:
        return self._in_flight + slots <= self._slots or not self._in_flight

    def _stop(self, reason: str, *, cancel: bool) -> list[Command]:
        """Start nothing more; with `cancel`, end what is in flight too. The first reason stands."""
        if self._stopped is None:
            self._stopped = reason
            self._ready.clear()
            self._cursors.clear()
            for task in [t for t in self._live.values() if t.state is not State.RUNNING]:
                self._move(task, State.CANCELLED)
        if not cancel or self._cancelling:
            return []
        self._cancelling = True
        whole = [t for t in self._live.values() if not t.is_broken]  # the others have been told
        return [command for task in whole for command in _cancels(task, reason)]

    def _maybe_finish(self, commands: list[Command]) -> None:
        if self._live or self._cursors or not (self._started or self._stopped):
            return
        self._finished = True
        if self._stopped is None and not self._ended:
            self._contradiction(f"nothing is left to run before {self._graph.end} was reached")
        commands.append(FinishRun(ok=self._stopped is None, reason=self._stopped))

    # -- state ---------------------------------------------------------------------------------

    def _current(self, key: TaskKey, attempt: int) -> Task | None:
        """The task, or its gang; None when the news is of an attempt that is over."""
        task = self._live.get(leader(self._graph, key))
        return task if task is not None and task.awaits(key, attempt) else None

    def _move(self, task: Task, to: State) -> None:
        came = task.state
        if to not in LEGAL_MOVES[came]:
            self._contradiction(f"{task.key} cannot go from {came} to {to}")
        self._story.append((task.key, task.attempt, came, to))
        task.state = to
        if to is State.RUNNING:
            self._in_flight += task.slots
        elif came is State.RUNNING:
            self._in_flight -= task.slots
        if to is State.READY:
            self._ready.append(task)
        elif not LEGAL_MOVES[to]:
            del self._live[task.key]

    def _contradiction(self, message: str) -> Never:
        raise InvariantError(message, story=self.story())

    def story(self) -> list[str]:
        """The latest events and moves, oldest first, for people."""
        return [_line(entry) for entry in self._story]

    def check(self) -> None:
        """Raise InvariantError unless all indexes agree; costs O(alive). Tests call it last."""
        for claim, holds in _claims(self).items():
            if not holds:
                self._contradiction(f"not so: {claim}")


def _claims(machine: Scheduler) -> dict[str, bool]:
    """What is so of a machine's state, whenever it has handled an event."""
    live, line, slots = list(machine._live.values()), machine._ready, machine._slots
    ready = [t.key for t in live if t.state is State.READY]
    flying = [t.slots for t in live if t.state is State.RUNNING]
    running, is_stopped = sum(flying), machine._stopped is not None
    is_idle = not (line or machine._cursors)
    needed = line[0].slots if line else 1
    return {
        "in flight is counted right": machine._in_flight == running,
        "no more in flight than slots": running <= slots or len(flying) == 1,
        "a free slot is used": running + needed > slots or is_idle,
        "what is over is dropped": all(LEGAL_MOVES[t.state] for t in live),
        "each ready task waits in line once": sorted(t.key for t in line) == sorted(ready),
        "a cursor has something left": all(not f.is_exhausted for f in machine._cursors),
        "arrivals are counted right": all(f.is_consistent() for f in machine._open.values()),
        "a finished run has nothing alive": not machine._finished or (is_idle and not live),
        "a stopped run starts nothing": not is_stopped or is_idle,
        "no branch is lost or doubled": is_stopped or _is_conserved(machine),
    }


def _is_conserved(machine: Scheduler) -> bool:
    """Every child issued and not yet back is one task, or one fan-out inside it; no more."""
    fanouts = list(machine._open.values())
    parts = [t.fanout for t in machine._live.values() for _ in range(t.slots)]
    parts += [f.parent for f in fanouts]
    is_root_open = machine._started and not machine._ended
    return parts.count(None) == is_root_open and all(
        f.issued - f.arrived == parts.count(f) for f in fanouts
    )


def _objection(node: Node, transition: Transition, max_splits: int | None) -> str | None:
    if transition.targets != node.next:
        said, written = ", ".join(transition.targets), ", ".join(node.next)
        return f"{node.name} went on to [{said}]; its self.next names [{written}]"
    if node.kind not in FANS_OUT:
        return None if transition.fanout is None else f"{node.name} is no foreach, but fanned out"
    what, of = ("gang", "tasks") if node.kind is Kind.GANG else ("foreach", "items")
    width = transition.fanout or 0
    if width < 1:
        return f"the {what} of {node.name} has no {of}"
    if max_splits is not None and width > max_splits:
        return f"the {what} of {node.name} has {width:,} {of}; at most {max_splits:,} may be"
    return None


def _cancels(task: Task, reason: str) -> list[Command]:
    return [CancelTask(key, task.attempt, reason) for key in task.in_flight()]


def _line(entry: Event | tuple[TaskKey, int, State, State]) -> str:
    if isinstance(entry, tuple):
        key, attempt, came, to = entry
        return f"{key}#{attempt}: {came} -> {to}"
    return f"event {entry}"
