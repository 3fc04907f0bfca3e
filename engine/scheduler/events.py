"""What the outside world tells the scheduler. Facts, in the past tense. Pure values."""

from typing import NewType

from msgspec import Struct

from engine.flow.graph import Transition
from engine.ids import TaskKey

ResultRef = NewType("ResultRef", int)
"""Where a task's committed manifest lies: the offset of its frame in the run's journal."""


class RunStarted(Struct, frozen=True):
    """`parameters` is the frame that holds the run's parameters and constants."""

    parameters: ResultRef


class TaskSucceeded(Struct, frozen=True):
    """The attempt committed; `result` is its manifest's frame."""

    task: TaskKey
    attempt: int
    transition: Transition
    result: ResultRef


class TaskFailed(Struct, frozen=True):
    """The attempt ended without a commit. A retry is considered only if `retryable`."""

    task: TaskKey
    attempt: int
    reason: str
    retryable: bool = True


class RetryDue(Struct, frozen=True):
    task: TaskKey
    attempt: int


class CancelRequested(Struct, frozen=True):
    reason: str


class ExecutorLost(Struct, frozen=True):
    """No further news of any task in flight will come."""

    reason: str


Event = RunStarted | TaskSucceeded | TaskFailed | RetryDue | CancelRequested | ExecutorLost
