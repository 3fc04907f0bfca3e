"""What a run tells those who watch it: terminals, notebooks, metadata, logs. Pure values.

Observers get each of these in the order in which the driver learned of it, after the journal has
it. Times are microseconds since 1970, UTC.
"""

from collections.abc import Callable

from msgspec import Struct

from engine.errors import Failure
from engine.flow.graph import Transition
from engine.ids import TaskKey
from engine.scheduler.events import ResultRef


class RunBegan(Struct, frozen=True):
    """`warnings` tell people what was found damaged of the run to go on from."""

    flow: str
    run_id: str
    at_us: int
    origin_run_id: str | None = None
    warnings: tuple[str, ...] = ()


class TaskLaunched(Struct, frozen=True):
    """The attempt was handed to the executor."""

    task: TaskKey
    attempt: int
    at_us: int


class TaskDone(Struct, frozen=True):
    """The attempt committed. `reused` says that another run had done the work."""

    task: TaskKey
    attempt: int
    started_us: int
    ended_us: int
    transition: Transition
    result: ResultRef
    result_size: int
    reused: bool = False
    caught: bool = False


class TaskAttemptFailed(Struct, frozen=True):
    """The attempt failed. `retry_in_s` is None when it was the last one."""

    task: TaskKey
    attempt: int
    started_us: int
    ended_us: int
    failure: Failure
    retry_in_s: float | None = None


class TaskOutput(Struct, frozen=True):
    """Lines an attempt printed on `stream` ("stdout" or "stderr"), as (at_us, text) pairs."""

    task: TaskKey
    attempt: int
    stream: str
    lines: tuple[tuple[int, str], ...]


class RunDone(Struct, frozen=True):
    """`status` is "succeeded", "failed" or "interrupted".

    `is_journaled` is False if the journal took no more, and so does not know of this end.
    """

    status: str
    at_us: int
    reason: str | None = None
    failure: Failure | None = None
    failed_task: TaskKey | None = None
    is_journaled: bool = True


RunEvent = RunBegan | TaskLaunched | TaskDone | TaskAttemptFailed | TaskOutput | RunDone
Observer = Callable[[RunEvent], None]
