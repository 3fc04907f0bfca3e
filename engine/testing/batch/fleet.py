"""What happens to jobs. Pure: it is told the time and what containers did, and gives commands.

A job is in one of Batch's seven states and leaves it by a timer, by a container's news or by a
request. Each timer carries the attempt that it was set for, so one that comes late does nothing.

Source: AWS Batch User Guide, "Job states", "Array jobs", "Multi-node parallel jobs", "Job
timeouts", "Job dependencies" and "Jobs stuck in a RUNNABLE status" (read 2026-11).
"""

from collections import defaultdict
from collections.abc import Callable, Iterable

from msgspec import Struct

from engine.testing.batch import retries
from engine.testing.batch.capacity import Capacity
from engine.testing.batch.faults import Plans, Rule
from engine.testing.batch.jobs import Attempt, Job, Outcome, Status, Work
from engine.testing.batch.limits import ApiError
from engine.testing.batch.news import Announce, News
from engine.testing.batch.timers import Timers

TASK_ENDED = "Essential container in task exited"
TASK_NOT_STARTED = "Task failed to start"
TIMED_OUT = "Job attempt duration exceeded timeout"
DEPENDENCY_FAILED = "Dependent Job failed"
CHILD_FAILED = "Array Child Job failed"
OUT_OF_MEMORY = Outcome(137, "OutOfMemoryError: Container killed due to memory usage")
SIGTERM, SIGKILL = 15, 9


class Settings(Struct, frozen=True):
    """`delay_s` passes between states. What AWS promises in seconds is multiplied by `time_scale`:
    time-outs, the grace of a job that is stopped, and how long an ended job is remembered.
    """

    delay_s: float = 0.05
    time_scale: float = 1.0
    grace_s: float = 30.0
    remembered_s: float = 86_400.0


class Start(Struct, frozen=True):
    """Start the container of a node; then `started` and `ended` are to be told."""

    job: Job
    node: int
    attempt: int
    log_stream: str


class Stop(Struct, frozen=True):
    """Send a signal to the container of a node, if it is still there."""

    job: Job
    node: int
    attempt: int
    signal: int


Command = Start | Stop | Announce


class Fleet:
    """All jobs. Each method takes `now`, in seconds since 1970; `commands` collects what to do."""

    def __init__(
        self, settings: Settings, capacity: Capacity, new_id: Callable[[], str], plans: Plans
    ) -> None:
        self.settings, self.plans = settings, plans
        self.jobs: dict[str, Job] = {}  # by id, children and parents
        self.commands: list[Command] = []
        self.timers = Timers()
        self.news = News(self.timers, lambda told: self.commands.append(told))
        self._capacity, self._new_id = capacity, new_id
        self._dependents: dict[str, list[Job]] = defaultdict(list)
        self._queues: dict[str, list[Job]] = defaultdict(list)

    # -- requests ---------------------------------------------------------------------------------

    def submit(self, name: str, work: Work, size: int | None, now: float) -> Job:
        """Take a job, or an array of `size` jobs.

        Raises:
            ApiError: it depends on a job that there is not.
        """
        for each in work.depends_on:
            if each.get("jobId") and each["jobId"] not in self.jobs:
                raise ApiError(f"Job dependency {each['jobId']} does not exist.")
        job = Job(self._new_id(), name, work, now)
        if size is not None:
            job.children = tuple(
                Job(f"{job.id}:{i}", name, work, now, parent=job, index=i) for i in range(size)
            )
            job.counts = {**dict.fromkeys(Status, 0), Status.SUBMITTED: size}
        self.jobs[job.id] = job
        for child in job.children or (job,):
            self.jobs[child.id] = child
            self._after(self.settings.delay_s, now, self._to_pending, child)
        return job

    def cancel(self, job: Job, reason: str, now: float) -> None:
        """Give up a job that has no machine yet; one that has is let be."""
        for each in job.children or (job,):
            if not each.status.is_end and not each.status.has_machine:
                each.is_cancelled = True
                self._fail(each, reason, now)

    def terminate(self, job: Job, reason: str, now: float) -> None:
        """Give up a job; its containers get SIGTERM, and SIGKILL when their grace is over."""
        for each in job.children or (job,):
            if each.status.is_end:
                continue
            each.is_terminated = True
            if each.status.has_machine:
                self._stop(each, reason, now, retry=False)
            else:
                self._fail(each, reason, now)

    # -- news of containers -----------------------------------------------------------------------

    def started(self, job: Job, node: int, attempt: int, now: float) -> None:
        """A container runs."""
        if attempt != job.attempt or node in job.ended:
            return
        job.live |= {node}
        if job.stopping or job.work.main_node in job.ended:
            self._signal(job, now)
        elif node == job.work.main_node:
            self._to_running(job, now)

    def ended(self, job: Job, node: int, attempt: int, outcome: Outcome, now: float) -> None:
        """A container is gone, or did not start. The main node's end is that of the others too."""
        if attempt != job.attempt or job.status.is_end:
            return
        if job.outcome is not None and node == job.work.main_node:
            outcome = job.outcome  # a fault said so before
        job.live -= {node}
        job.ended = {**job.ended, node: outcome}
        if len(job.ended) == len(job.work.nodes):
            self._attempt_over(job, now)
        elif node == job.work.main_node:
            self._signal(job, now)

    def place(self, now: float) -> None:
        """Give machines to the jobs that wait, the first first; who does not fit is in the way."""
        for queue, waiting in self._queues.items():
            taken = 0
            for job in waiting:
                if job.status is not Status.RUNNABLE:
                    taken += 1
                    continue
                place, why_not = self._capacity.take(queue, job.work)
                job.reason = why_not
                if not place:
                    break
                taken += 1
                self._to_starting(job, place, now)
            del waiting[:taken]

    # -- from state to state ----------------------------------------------------------------------

    def _to_pending(self, job: Job, now: float) -> None:
        if job.status is not Status.SUBMITTED:
            return None
        self._move(job, Status.PENDING, now)
        for needed in self._needed(job):
            if needed.status is Status.FAILED:
                return self._fail_dependent(job, now)
            if not needed.status.is_end:
                job.waits_for += 1
                self._dependents[needed.id].append(job)
        if not job.waits_for:
            self._after(self.settings.delay_s, now, self._to_runnable, job)
        return None

    def _needed(self, job: Job) -> Iterable[Job]:
        for each in job.work.depends_on:
            kind, wanted = each.get("type"), each.get("jobId")
            if kind == "SEQUENTIAL" and not wanted:
                if job.parent and job.index:
                    yield job.parent.children[job.index - 1]
            elif kind == "N_TO_N" and job.index is not None and wanted in self.jobs:
                yield self.jobs.get(f"{wanted}:{job.index}", self.jobs[wanted])
            elif wanted in self.jobs:
                yield self.jobs[wanted]

    def _to_runnable(self, job: Job, now: float) -> None:
        if job.status not in (Status.PENDING, Status.STARTING, Status.RUNNING):
            return
        job.started_at = None
        self._move(job, Status.RUNNABLE, now)
        if job.parent and job.parent.status is Status.SUBMITTED:
            self._move(job.parent, Status.PENDING, now)
        self._queues[job.work.queue_arn].append(job)
        self.place(now)

    def _to_starting(self, job: Job, place: str, now: float) -> None:
        job.place, job.attempt = place, job.attempt + 1
        job.live, job.ended, job.outcome = frozenset(), {}, None
        job.stopping, job.may_retry = "", True
        job.log_streams = tuple(
            f"{node.log_prefix}/default/{self._new_id().replace('-', '')}"
            for node in job.work.nodes
        )
        self._move(job, Status.STARTING, now)
        self._after(self.settings.delay_s, now, self._start, job)

    def _start(self, job: Job, now: float) -> None:
        if job.status is not Status.STARTING:
            return None
        if job.stopping:
            return self._attempt_over(job, now)
        if self._strike("unpullable", job):
            main = job.work.nodes[job.work.main_node]
            why = f"CannotPullContainerError: pull image manifest: {main.image}: not found"
            job.outcome = Outcome(None, why)
            return self._attempt_over(job, now)
        if job.work.no_op_s is not None:
            job.live = frozenset(range(len(job.work.nodes)))
            self._to_running(job, now)
            return self._after(job.work.no_op_s, now, self._no_op_over, job)
        for node, stream in enumerate(job.log_streams):
            self.commands.append(Start(job, node, job.attempt, stream))
        return None

    def _to_running(self, job: Job, now: float) -> None:
        job.started_at = now
        self._move(job, Status.RUNNING, now)
        if job.work.timeout_s is not None:
            limit_s = job.work.timeout_s * self.settings.time_scale
            self._after(limit_s, now, self._time_out, job)
        if rule := self._strike("reclaim", job):
            self._after(rule.after_s, now, self._reclaim, job)
        if rule := self._strike("oom", job):
            self._after(rule.after_s, now, self._out_of_memory, job)

    def _no_op_over(self, job: Job, now: float) -> None:
        if job.status is Status.RUNNING and not job.stopping:
            for node in range(len(job.work.nodes)):
                self.ended(job, node, job.attempt, Outcome(0), now)

    def _time_out(self, job: Job, now: float) -> None:
        self._stop(job, TIMED_OUT, now, retry=False)

    def _reclaim(self, job: Job, now: float) -> None:
        instance = "i-" + self._new_id().replace("-", "")[:17]
        self._stop(job, f"Host EC2 (instance {instance}) terminated.", now, retry=True)

    def _out_of_memory(self, job: Job, now: float) -> None:
        if job.live and not job.stopping:
            job.outcome = OUT_OF_MEMORY
            self._signal(job, now, SIGKILL)

    # -- the end of an attempt --------------------------------------------------------------------

    def _stop(self, job: Job, reason: str, now: float, *, retry: bool) -> None:
        if job.status.has_machine and not job.stopping:
            job.stopping, job.may_retry = reason, retry
            self._signal(job, now)

    def _signal(self, job: Job, now: float, signal: int = SIGTERM) -> None:
        if job.work.no_op_s is not None:
            for node in sorted(job.live):
                self.ended(job, node, job.attempt, Outcome(128 + signal), now)
            return
        for node in sorted(job.live):
            self.commands.append(Stop(job, node, job.attempt, signal))
        if signal != SIGKILL and job.live:
            self._after(self.settings.grace_s * self.settings.time_scale, now, self._kill, job)

    def _kill(self, job: Job, now: float) -> None:
        self._signal(job, now, SIGKILL)

    def _attempt_over(self, job: Job, now: float) -> None:
        outcome = job.ended.get(job.work.main_node) or job.outcome or Outcome(None)
        by_itself = TASK_NOT_STARTED if outcome.exit_code is None else TASK_ENDED
        reason = job.stopping or by_itself
        job.outcome = outcome
        job.over = (
            *job.over,
            Attempt(outcome, reason, job.log_stream, job.started_at, now),
        )
        self._capacity.give_back(job.place, job.work)
        if outcome.exit_code == 0 and not job.stopping:
            self._end(job, Status.SUCCEEDED, reason, now)
        elif (
            job.may_retry
            and job.attempt < job.work.attempts
            and retries.again(job.work.evaluate, outcome, reason)
        ):
            job.reason = ""
            self._to_runnable(job, now)
        else:
            self._end(job, Status.FAILED, reason, now)
        self.place(now)

    def _fail(self, job: Job, reason: str, now: float) -> None:
        self._end(job, Status.FAILED, reason, now)
        self.place(now)  # it may have stood in the way

    def _fail_dependent(self, job: Job, now: float) -> None:
        if not job.status.is_end:
            self._fail(job, DEPENDENCY_FAILED, now)

    def _end(self, job: Job, status: Status, reason: str, now: float) -> None:
        job.reason, job.stopped_at = reason, now
        self._move(job, status, now)
        for dependent in self._dependents.pop(job.id, ()):
            dependent.waits_for -= 1
            if dependent.status is not Status.PENDING:
                continue
            if status is Status.FAILED:
                self._after(0.0, now, self._fail_dependent, dependent)
            elif not dependent.waits_for:
                self._after(self.settings.delay_s, now, self._to_runnable, dependent)
        self._forget_later(job, now)
        parent = job.parent
        if parent and parent.counts and _all_ended(parent):
            failed = parent.counts[Status.FAILED] > 0
            end = Status.FAILED if failed else Status.SUCCEEDED
            self._end(parent, end, CHILD_FAILED if failed else "", now)

    def _forget_later(self, job: Job, now: float) -> None:
        rule = self._strike("aged_out", job)
        if rule:
            self._after(rule.after_s, now, self._forget, job)
        elif job.parent is None:
            remembered_s = self.settings.remembered_s * self.settings.time_scale
            self._after(remembered_s, now, self._forget, job)

    def _forget(self, job: Job, now: float) -> None:
        for each in (job, *job.children):
            self.jobs.pop(each.id, None)
            self.news.forget(each)

    # -- small things -----------------------------------------------------------------------------

    def _move(self, job: Job, status: Status, now: float) -> None:
        if job.parent and job.parent.counts:
            job.parent.counts[job.status] -= 1
            job.parent.counts[status] += 1
        self.news.move(job, status, self.plans, now)

    def _strike(self, fault: str, job: Job) -> Rule | None:
        return self.plans.strike(fault, job.name, str(job.index), attempt=job.attempt)

    def _after(
        self, delay_s: float, now: float, act: Callable[[Job, float], None], job: Job
    ) -> None:
        attempt = job.attempt

        def act_if_current(then: float) -> None:
            if job.attempt == attempt:
                act(job, then)

        self.timers.at(now + delay_s, act_if_current)


def _all_ended(parent: Job) -> bool:
    counts = parent.counts or {}
    return counts[Status.SUCCEEDED] + counts[Status.FAILED] == len(parent.children)
