"""What the scheduler asks the outside world to do. Orders, in the imperative. Pure values."""

from collections.abc import Sequence

from msgspec import Struct

from engine.ids import TaskKey
from engine.scheduler.events import ResultRef


class Launch(Struct, frozen=True):
    """Start an attempt; of a gang all of it, or nothing.

    `inputs` are the manifests it reads: one, or for a join one per sibling in index order.
    `scope` are the manifests of the foreach splits open around the task, outermost first: the
    task's items are found there. `fallback` asks for no user code: only the @catch of `fallback`,
    the reason that the last attempt failed for, is committed. `gang` is how many tasks a gang has,
    0 for a task of none; `task` is its first, and the others differ in their last frame's index.
    """

    task: TaskKey
    attempt: int
    inputs: Sequence[ResultRef]
    scope: tuple[ResultRef, ...] = ()
    fallback: str | None = None
    gang: int = 0


class StartTimer(Struct, frozen=True):
    task: TaskKey
    attempt: int
    delay_s: float


class CancelTask(Struct, frozen=True):
    task: TaskKey
    attempt: int
    reason: str


class FinishRun(Struct, frozen=True):
    ok: bool
    reason: str | None = None


Command = Launch | StartTimer | CancelTask | FinishRun
