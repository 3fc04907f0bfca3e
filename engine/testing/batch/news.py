"""How changes of state become known, and how they fail to. Pure.

Whoever asks (DescribeJobs) may be shown an old state for a while; whoever listens (EventBridge) may
hear of a change late, twice or never.
"""

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct, field

from engine.testing.batch.faults import Plans
from engine.testing.batch.jobs import Job, Status
from engine.testing.batch.timers import Timers
from engine.testing.batch.views import Shown, job_detail


class Announce(Struct, frozen=True):
    """Tell a change of state to whoever listens; `detail` is the job as DescribeJobs has it."""

    detail: Mapping[str, Any]  # Any: JSON


class News(Struct):
    """`listens` says whether anyone listens; `announce` takes what they are to hear."""

    timers: Timers
    announce: Callable[[Announce], None]
    listens: bool = False
    _old: dict[str, tuple[float, Shown]] = field(default_factory=dict)

    def move(self, job: Job, to: Status, plans: Plans, now: float) -> None:
        """Move the job, and let it be known as the plans have it."""
        key, was = f"{job.index}/{to}", job.attempt
        late = plans.strike("late", job.name, key, attempt=was)
        lost = plans.strike("lost", job.name, key, attempt=was)
        self._old.pop(job.id, None)
        if late or (lost and not to.is_end):
            until = now + late.after_s if late else float("inf")
            self._old[job.id] = (until, job_detail(job))
        job.status = to
        if lost or not self.listens:
            return
        told = Announce(job_detail(job))
        self._tell(told, now + late.after_s if late else now, now)
        if twice := plans.strike("duplicate", job.name, key, attempt=was):
            self._tell(told, now + twice.after_s, now)

    def shown(self, job: Job, now: float) -> Shown:
        """The job as DescribeJobs shows it now."""
        until, old = self._old.get(job.id, (now, {}))
        if now < until:
            return old
        self._old.pop(job.id, None)
        return job_detail(job)

    def forget(self, job: Job) -> None:
        self._old.pop(job.id, None)

    def _tell(self, told: Announce, at: float, now: float) -> None:
        if at > now:
            self.timers.at(at, lambda _: self.announce(told))
        else:
            self.announce(told)
