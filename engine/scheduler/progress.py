"""What a run tells those who watch it: terminals, notebooks, metadata, logs. Pure values.

Observers get each of these in the order in which the driver learned of it, after the journal has
it. Times are microseconds since 1970, UTC.
"""

from collections.abc import Callable, Mapping

from msgspec import Struct, field

from engine.errors import Failure
from engine.flow.graph import Transition
from engine.ids import TaskKey
from engine.scheduler.events import ResultRef

DETACHED = "detached "
"""What the reason of a run begins with whose jobs were left running."""


class StepPlan(Struct, frozen=True):
    """What a resumed run does with one step.

    Args:
        step: its name.
        reused: how many of its tasks are taken over.
        again: how many run, by why. Those that no run has come to are counted once: how wide a
            foreach is that has yet to run, nobody knows.
        tasks: the ids of the first few that run.
        is_open: the step is inside of a foreach that has yet to run, so there may be more.
        of_old_code: how many are reused though the step's source has changed since they ran.
    """

    step: str
    reused: int = 0
    again: Mapping[str, int] = field(default_factory=dict)
    tasks: tuple[str, ...] = ()
    is_open: bool = False
    of_old_code: int = 0


class ResumePlanned(Struct, frozen=True):
    """What a resumed run will do, told before it begins: an entry for each step it may come to."""

    flow: str
    origin_run_id: str
    steps: tuple[StepPlan, ...]

    @property
    def reused(self) -> int:
        return sum(step.reused for step in self.steps)

    @property
    def again(self) -> int:
        return sum(sum(step.again.values()) for step in self.steps)


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


RunEvent = (
    ResumePlanned | RunBegan | TaskLaunched | TaskDone | TaskAttemptFailed | TaskOutput | RunDone
)
Observer = Callable[[RunEvent], None]
