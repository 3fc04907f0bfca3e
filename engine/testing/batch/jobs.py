"""What a job is: what was asked for, and how far it has come. Pure.

Ten thousand children of an array share one `Work`, so a child is a dozen fields.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from msgspec import Struct, field


class Status(StrEnum):
    SUBMITTED = "SUBMITTED"
    PENDING = "PENDING"
    RUNNABLE = "RUNNABLE"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"

    @property
    def is_end(self) -> bool:
        return self in (Status.SUCCEEDED, Status.FAILED)

    @property
    def has_machine(self) -> bool:
        return self in (Status.STARTING, Status.RUNNING)


class Container(Struct, frozen=True):
    """What one container is told; `properties` is what DescribeJobs shows of it."""

    image: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    vcpus: float
    memory_mib: int
    log_group: str
    log_prefix: str
    properties: Mapping[str, Any]  # Any: JSON


class Work(Struct, frozen=True):
    """What was submitted, after the job definition and the overrides were joined.

    `nodes` has one container, or one for each node of a multi-node job. `no_op_s` is how long a job
    takes that runs nothing, in seconds; None for one that runs.
    """

    definition_arn: str
    definition_name: str
    queue_arn: str
    nodes: tuple[Container, ...]
    main_node: int = 0
    is_multinode: bool = False
    attempts: int = 1
    evaluate: tuple[Mapping[str, str], ...] = ()
    timeout_s: int | None = None
    no_op_s: float | None = None
    depends_on: tuple[Mapping[str, str], ...] = ()
    shown: Mapping[str, Any] = field(
        default_factory=dict
    )  # Any: JSON; DescribeJobs has it as it is

    @property
    def vcpus(self) -> float:
        return sum(node.vcpus for node in self.nodes)

    @property
    def memory_mib(self) -> int:
        """Of the largest container: a container has to fit on one machine."""
        return max(node.memory_mib for node in self.nodes)


class Outcome(Struct, frozen=True):
    """How a container ended; `exit_code` is None for one that never ran."""

    exit_code: int | None
    reason: str = ""


class Attempt(Struct, frozen=True):
    """An attempt that is over. Instants are seconds since 1970."""

    outcome: Outcome
    status_reason: str
    log_stream: str
    started_at: float | None
    stopped_at: float


class Job(Struct, eq=False):
    """A job, a child of an array, or an array's parent. Instants are seconds since 1970."""

    id: str
    name: str
    work: Work
    created_at: float
    parent: "Job | None" = None
    index: int | None = None
    children: tuple["Job", ...] = ()
    status: Status = Status.SUBMITTED
    reason: str = ""
    started_at: float | None = None
    stopped_at: float | None = None
    attempt: int = 0  # counted from 1, as Batch does
    over: tuple[Attempt, ...] = ()
    outcome: Outcome | None = None
    log_streams: tuple[str, ...] = ()
    waits_for: int = 0
    place: str = ""  # the compute environment that it runs in
    live: frozenset[int] = frozenset()  # nodes with a running container
    ended: Mapping[int, Outcome] = field(default_factory=dict)  # nodes of this attempt
    stopping: str = ""  # why it is being stopped
    may_retry: bool = True
    is_cancelled: bool = False
    is_terminated: bool = False
    counts: dict[str, int] | None = None  # of an array's children, by status

    @property
    def is_array(self) -> bool:
        return bool(self.children)

    @property
    def log_stream(self) -> str:
        return self.log_streams[self.work.main_node] if self.log_streams else ""
