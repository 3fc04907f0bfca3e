"""The judge's word on one epoch: what came of it must be what its faults account for."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from engine.errors import StoreError
from engine.scheduler.journal import (
    CancelRequestedRecord,
    ExecutorLostRecord,
    RunBeganRecord,
    RunDoneRecord,
)
from engine.scheduler.machine import Scheduler
from engine.scheduler.progress import RunDone, RunEvent, TaskOutput
from tests.sim.faults import Epoch
from tests.sim.oracle import (
    Journal,
    ViolationError,
    commits_of,
    demand,
    judge_cause,
    judge_end,
    judge_gangs,
    judge_journal,
    judge_resume,
    judge_told,
    records_of,
)
from tests.sim.stores import FaultyJournal, FaultyMetadata
from tests.sim.world import FaultyExecutor

CANCEL_TAKES_S = 20.0  # a submit under way, manifests that are slow to read, the cancelling itself


class ObserverError(Exception):
    """A watcher has a bug."""


@dataclass
class Lived:
    """What happened to a driver, and what it left."""

    epoch: Epoch
    journal: FaultyJournal
    machine: Scheduler
    executor: FaultyExecutor | None = None
    told: list[RunEvent] = field(default_factory=list)
    told_at_s: float = 0.0
    heard: int = 0  # events, by the watcher that has a bug
    logs: int = 0  # writes of the log
    lines_kept: int = 0  # pieces of output that the log took
    metadata_failures: int = 0
    is_metadata_down: bool = False  # it refused its last write
    cancelled_at_s: float | None = None
    raised: Exception | None = None
    strays: list[str] = field(default_factory=list)  # errors that nobody caught

    @property
    def end(self) -> RunDone:
        demand(bool(self.told), "watchers were told nothing")
        end = self.told[-1]
        if not isinstance(end, RunDone):
            raise ViolationError("watchers were not told of the end")
        return end

    @property
    def started(self) -> list[str]:
        return list(self.executor.started) if self.executor else []

    @property
    def is_fenced(self) -> bool:
        """Whether the run was taken over."""
        lease = self.epoch.faults.lease_lost_at
        return lease is not None and self.journal.appends >= lease

    @property
    def has_lost_journal(self) -> bool:
        """Whether the journal took no more, so that it may lack its end."""
        return self.journal.failures > 0 or self.is_fenced

    @property
    def has_refused_log(self) -> bool:
        full_at = self.epoch.faults.log_full_at
        return full_at is not None and self.logs >= full_at

    @property
    def has_lost_log(self) -> bool:
        """Whether something was printed that the log does not have."""
        return self.lines_kept < sum(isinstance(event, TaskOutput) for event in self.told)

    @property
    def has_stumbled(self) -> bool:
        raises_at = self.epoch.faults.observer_raises_at
        return raises_at is not None and self.heard >= raises_at

    @property
    def is_success(self) -> bool:
        """Whether the run succeeded, and a resumed one has nothing to do."""
        is_done = bool(self.told) and isinstance(self.told[-1], RunDone)
        return is_done and self.end.status == "succeeded" and not self.has_lost_journal


def ending_of(lived: Lived, *, was_cancelled: bool) -> str:
    """What became of the driver, in a word or two."""
    if lived.raised is not None:
        return f"raised {type(lived.raised).__name__}"
    records = records_of(lived.journal)
    last = records[-1]
    if was_cancelled:
        is_hasty = isinstance(last, RunDoneRecord) and "twice" in str(last.reason)
        return "cancelled twice" if is_hasty else "cancelled"
    if any(isinstance(record, ExecutorLostRecord) for record in records):
        return "executor lost"
    return lived.end.status


def judge(lived: Lived, ending: str, *, twin: Scheduler, before: Sequence[Journal]) -> None:
    """Hold an epoch to the guarantee.

    Args:
        lived: what happened.
        ending: as `ending_of` says, or "killed".
        twin: a fresh machine.
        before: the journals that earlier epochs left, the latest first.

    Raises:
        ViolationError: the guarantee was broken.
    """
    demand(not lived.strays, f"nobody caught {lived.strays}")
    _judge_raised(lived)
    is_whole = ending != "killed" and not lived.has_lost_journal
    judge_journal(lived.journal, is_whole=is_whole)
    # A driver that fell over a bug has written as much of a gang as a killed one.
    judge_gangs(lived.journal, is_whole=is_whole and lived.raised is None)
    if lived.is_fenced:
        frames = len(records_of(lived.journal))
        demand(frames < (lived.epoch.faults.lease_lost_at or 0), "a stale driver committed")
    finish = judge_cause(twin, lived.started, lived.told, lived.journal)
    if before:
        judge_resume(before, lived.started, lived.journal)
    if ending == "killed":
        return
    judge_told(lived.told, lived.end)
    if lived.cancelled_at_s is not None and lived.raised is None:
        _judge_cancel(lived, lived.cancelled_at_s, ending)
    if ending not in ("cancelled twice", "executor lost"):
        is_idle = lived.executor is None or lived.executor.in_flight == 0
        demand(is_idle, "jobs were left in flight")
    if ending in ("succeeded", "failed", "cancelled"):
        judge_end(finish, lived.end)
        lived.machine.check()
        demand(lived.machine.in_flight == 0, "the machine still waits for tasks")
    if lived.epoch.is_calm:
        demand(ending == "succeeded", f"a run in a calm world ended as {ending}")


def _judge_raised(lived: Lived) -> None:
    """What is raised was put in by the epoch; what it put in is raised."""
    error = lived.raised
    if isinstance(error, ObserverError):
        demand(lived.has_stumbled, "a watcher raised by itself")
    elif isinstance(error, StoreError):
        is_put_in = lived.has_lost_journal or lived.metadata_failures or lived.has_refused_log
        demand(bool(is_put_in), f"raised {error!r}, and no store had failed")
    elif error is not None:
        raise ViolationError(f"the driver raised {error!r}") from error
    elif lived.told and isinstance(lived.told[-1], RunDone) and lived.cancelled_at_s is None:
        demand(not lived.has_lost_journal, "the journal failed, and nobody was told")
        demand(not lived.has_lost_log, "the log failed, and nobody was told")
        demand(not lived.is_metadata_down, "metadata failed, and nobody was told")


def _judge_cancel(lived: Lived, cancelled_at_s: float, ending: str) -> None:
    late_s = lived.told_at_s - cancelled_at_s
    records = records_of(lived.journal)
    has_heard = any(isinstance(record, CancelRequestedRecord) for record in records)
    # It may have ended of itself before it heard: at work on what had come before.
    is_said = lived.end.status == "interrupted" or late_s <= 0 or not has_heard
    demand(is_said or ending == "executor lost", "a cancelled run does not say so")
    demand(late_s <= CANCEL_TAKES_S, f"a cancel took {late_s} s")


async def judge_metadata(lived: Lived, metadata: FaultyMetadata, run_id: str) -> None:
    """What was recorded agrees with what was told, if it could be written."""
    if metadata.is_down:
        return
    run = await metadata.run("Flow", run_id)
    if not any(isinstance(record, RunBeganRecord) for record in records_of(lived.journal)):
        demand(run is None, "a run that never began is listed")
        return
    # What the journal does not have is not said to have ended; readers see that nobody drives it.
    expected = lived.end.status if lived.end.is_journaled else "running"
    demand(run is not None and run.status == expected, "the end was not recorded")
    for task, record in commits_of(lived.journal).items():
        row = await metadata.task("Flow", run_id, task.step, task.task_id)
        is_right = row is not None and row.status == "succeeded" and row.reused is record.reused
        demand(is_right, f"the commit of {task} was not recorded")
