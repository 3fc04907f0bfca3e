"""What the outside world tells the scheduler. Facts, in the past tense. Pure values."""

from dataclasses import dataclass
from typing import NewType

from engine.flow.graph import Transition
from engine.ids import TaskKey

ResultRef = NewType("ResultRef", int)
"""Where a task's committed manifest lies: the offset of its frame in the run's journal."""


@dataclass(frozen=True, slots=True)
class RunStarted:
    """`parameters` is the frame that holds the run's parameters and constants."""

    parameters: ResultRef


@dataclass(frozen=True, slots=True)
class TaskSucceeded:
    """The attempt committed; `result` is its manifest's frame."""

    task: TaskKey
    attempt: int
    transition: Transition
    result: ResultRef


@dataclass(frozen=True, slots=True)
class TaskFailed:
    """The attempt ended without a commit. A retry is considered only if `retryable`."""

    task: TaskKey
    attempt: int
    reason: str
    retryable: bool = True


@dataclass(frozen=True, slots=True)
class RetryDue:
    task: TaskKey
    attempt: int


@dataclass(frozen=True, slots=True)
class CancelRequested:
    reason: str


@dataclass(frozen=True, slots=True)
class ExecutorLost:
    """No further news of any task in flight will come."""

    reason: str


Event = RunStarted | TaskSucceeded | TaskFailed | RetryDue | CancelRequested | ExecutorLost
