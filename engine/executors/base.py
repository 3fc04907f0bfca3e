"""The executor seam: run jobs somewhere and report how each one ended.

An executor knows nothing of flows or stores: a job is a name and opaque bytes for its worker.
"""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from enum import StrEnum
from typing import Protocol

from msgspec import Struct, field

from engine.errors import Failure

OUT_OF_MEMORY = "out-of-memory"
"""The code of the failure of a job that wanted more memory than it was given."""

NODE_ENDED = "node-ended"
"""The code of the failure of a gang's job that was ended with the others, by whoever ran them."""

KERNEL_HAD_NO_MEMORY = "the kernel ran out of memory"
"""What the detail of an Exit by SIGKILL begins with, if that was why."""


class ExitKind(StrEnum):
    """How a job's process ended."""

    RETURNED = "returned"  # the worker reported an outcome, of success or of failure
    CODE = "code"  # it exited by itself without an outcome (os._exit, sys.exit in a thread, ...)
    SIGNAL = "signal"  # a signal ended it: segfault, kill, out of memory
    TIMED_OUT = "timed-out"  # the executor killed it at its deadline
    CANCELLED = "cancelled"  # the executor killed it because `cancel` said so
    LOST = "lost"  # the executor cannot say


class Exit(Struct, frozen=True):
    """`code` is the exit status or the signal's number; `detail` says more, in words.

    `failure` is what the executor has found out about a job that reported nothing, if anything.
    """

    kind: ExitKind
    code: int = 0
    detail: str = ""
    failure: Failure | None = None


class GangPlace(Struct, frozen=True):
    """Which of a gang's jobs one is. The others have the same `name` and `size`, and `index` counts
    from 0; all of them are submitted together."""

    name: str
    index: int
    size: int


class Job(Struct, frozen=True):
    """One attempt at one task.

    `name` is derived from the attempt, so equal attempts collide. `spec` goes to the worker as it
    is. `deadline_s` counts from the start of the process; the executor kills it then.
    """

    name: str
    spec: bytes
    deadline_s: float | None = None
    resources: Mapping[str, object] = field(default_factory=dict)
    gang: GangPlace | None = None


class JobStarted(Struct, frozen=True):
    name: str
    at_us: int
    pid: int | None = None


class JobOutput(Struct, frozen=True):
    """Complete lines a job wrote to `stream` ("stdout" or "stderr"), as (at_us, text) pairs."""

    name: str
    stream: str
    lines: tuple[tuple[int, str], ...]


class JobEnded(Struct, frozen=True):
    """The one end of a job. `outcome` is what its worker reported, unread, if it did."""

    name: str
    exit: Exit
    started_us: int
    ended_us: int
    outcome: bytes | None = None


JobUpdate = JobStarted | JobOutput | JobEnded


class Executor(Protocol):
    """Laws, checked for every executor by `engine.testing.contracts.ExecutorContract`:

    1. every submitted job yields exactly one `JobEnded`, after all of its output;
    2. submitting a name again does not start it again;
    3. cancelling is idempotent, and a cancelled job still yields its `JobEnded`;
    4. after `aclose` nothing the executor started is left running.
    """

    async def submit(self, jobs: Sequence[Job]) -> None:
        """Start the jobs; return when the executor has taken them, not when they run."""
        ...

    def updates(self) -> AsyncIterator[Sequence[JobUpdate]]:
        """Yield what happened, in order, in batches as they come. One consumer."""
        ...

    async def cancel(self, names: Collection[str], *, reason: str) -> None: ...

    async def aclose(self) -> None: ...
