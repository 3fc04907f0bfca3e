"""What Batch says of jobs, read and put in order. Pure.

News of a job may come twice, late, out of order, or not at all. A job only moves forward, and its
first end is its end; so what is known of it is the same whatever way the news came.
"""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

SUBMITTED, PENDING, RUNNABLE = "SUBMITTED", "PENDING", "RUNNABLE"
STARTING, RUNNING = "STARTING", "RUNNING"
SUCCEEDED, FAILED = "SUCCEEDED", "FAILED"

ACTIVE_STATES = (SUBMITTED, PENDING, RUNNABLE, STARTING, RUNNING)

_RANKS = {
    name: rank
    for rank, name in enumerate((SUBMITTED, PENDING, RUNNABLE, STARTING, RUNNING, SUCCEEDED))
} | {FAILED: 5}
_ENDED = 5


class Seen(Struct, frozen=True):
    """One job as Batch describes it. Times are microseconds since 1970, UTC.

    `summary` of an array job says how many of its children are in which state. `attempt` counts
    Batch's own attempts, from 1.
    """

    job_id: str
    state: str
    status_reason: str = ""
    container_reason: str = ""
    exit_code: int | None = None
    started_us: int | None = None
    stopped_us: int | None = None
    log_stream: str = ""
    attempt: int = 0
    is_array: bool = False
    summary: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_ended(self) -> bool:
        return self.state in (SUCCEEDED, FAILED)

    @property
    def children_ended(self) -> int:
        """How many children of an array job have ended."""
        return self.summary.get(SUCCEEDED, 0) + self.summary.get(FAILED, 0)


def read_job(wire: Mapping[str, Any]) -> Seen:  # Any: as the SDK gives it
    """Read an entry of DescribeJobs, or of ListJobs, which has fewer fields.

    Source: API Reference, JobDetail and JobSummary (read 2026-11-24).
    """
    container = wire.get("container") or {}
    attempts = wire.get("attempts") or []
    array = wire.get("arrayProperties") or {}
    if attempts and container.get("exitCode") is None and not container.get("reason"):
        container = {**(attempts[-1].get("container") or {}), **container}
    return Seen(
        job_id=wire["jobId"],
        state=wire.get("status", SUBMITTED),
        status_reason=wire.get("statusReason") or "",
        container_reason=container.get("reason") or "",
        exit_code=container.get("exitCode"),
        started_us=_micros(wire.get("startedAt")),
        stopped_us=_micros(wire.get("stoppedAt")),
        log_stream=container.get("logStreamName") or "",
        attempt=len(attempts),
        is_array=bool(array.get("size")),
        summary=array.get("statusSummary") or {},
    )


def as_node(seen: Seen) -> Seen:
    """A node of a multi-node job: its container may have ended while the job goes on."""
    if seen.is_ended or seen.exit_code is None:
        return seen
    return replace(seen, state=FAILED if seen.exit_code else SUCCEEDED)


def later(known: Seen | None, news: Seen) -> Seen:
    """What is known of a job after some news of it, old or new.

    A job whose machine was taken away goes back from RUNNING to RUNNABLE under a higher attempt.
    """
    if known is None:
        return news
    if known.is_ended:
        return known
    if news.is_ended or news.attempt > known.attempt:
        return news
    is_newer = _RANKS.get(news.state, 0) >= _RANKS.get(known.state, 0)
    if news.is_array and is_newer:
        return news if news.children_ended >= known.children_ended else known
    return news if is_newer and news.attempt == known.attempt else known


def _micros(milliseconds: object) -> int | None:
    return int(milliseconds) * 1000 if isinstance(milliseconds, int | float) else None
