"""Runs a Scheduler against the real world: performs its commands, feeds it events.

The driver decides nothing about tasks; such an `if` belongs in machine.py. Its laws:

1. what an event leads to is performed after the journal has the event, so that a crash in between
   loses a command, which a resumed run gives again, and never a fact;
2. whatever goes wrong outside is an event: a job that cannot be made fails its attempt, an executor
   that raises is lost. What goes wrong inside (a bug, a full disk) ends the run, and is raised;
3. `run` ends only when no job is in flight, unless it is cancelled twice or the executor is lost.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress

from msgspec import Struct, field
from msgspec.structs import replace

from engine import crashpoints
from engine.errors import ExecutorError, Failure, StoreError, TaskFailedError
from engine.executors.base import Executor, Job, JobEnded, JobOutput, JobStarted, JobUpdate
from engine.ids import TaskKey
from engine.scheduler.commands import CancelTask, Command, FinishRun, Launch, StartTimer
from engine.scheduler.events import (
    CancelRequested,
    ExecutorLost,
    RetryDue,
    RunStarted,
    TaskFailed,
    TaskSucceeded,
)
from engine.scheduler.flights import Ended, Flights, GetBlob
from engine.scheduler.gangs import tasks_of
from engine.scheduler.jobs import JobFactory
from engine.scheduler.journal import (
    CancelRequestedRecord,
    ExecutorLostRecord,
    FailedRecord,
    JournalWriter,
    RetryDueRecord,
    RunBeganRecord,
    Seal,
    SucceededRecord,
)
from engine.scheduler.ledger import Clock, Ledger, began_event, done_record
from engine.scheduler.machine import Scheduler
from engine.scheduler.memo import Memo
from engine.scheduler.musters import Musters
from engine.scheduler.outcomes import refusal
from engine.scheduler.progress import (
    Observer,
    RunDone,
    TaskAttemptFailed,
    TaskDone,
    TaskLaunched,
)
from engine.stores.manifest import Outline, outline

_BATCHES_AHEAD = 4  # not yet looked at; bounds memory when tasks print faster than we read
_NEWS_A_TURN = 100  # handled before other tasks of the loop get their turn: under 10 ms


class DriverParts(Struct, frozen=True):
    """What a driver joins.

    `get_blob` reads a manifest too large for the worker's channel. `seal` is asked at the end, when
    nothing more is printed, for what the run's last frame says of the run's files. `sync` lets the
    journal survive a loss of power; see Ledger. `on_cancel` is told first when the run is
    cancelled. `lineage` are the runs whose jobs in flight this one may adopt.
    """

    scheduler: Scheduler
    executor: Executor
    journal: JournalWriter
    jobs: JobFactory
    began: RunBeganRecord
    clock: Clock
    get_blob: GetBlob
    observers: Sequence[Observer] = ()
    memo: Memo | None = None
    seal: Callable[[], Seal] = dict
    sync: Callable[[], None] | None = None
    warnings: tuple[str, ...] = ()
    on_cancel: Callable[[], None] | None = None
    lineage: Collection[str] = ()


_News = JobUpdate | Ended | RunStarted | RetryDue | CancelRequested | ExecutorLost


class _Orders(Struct):
    """Commands gathered while a batch of news is handled, to be performed together."""

    launches: list[Launch] = field(default_factory=list)
    cancels: dict[str, list[str]] = field(default_factory=dict)  # names by reason


class Driver:
    """One run from its first frame to its last. Use once."""

    def __init__(self, parts: DriverParts) -> None:
        self._parts = parts
        self._scheduler = parts.scheduler
        self._ledger = Ledger(parts.journal, parts.observers, parts.clock, parts.sync)
        self._inbox: asyncio.Queue[Sequence[_News]] = asyncio.Queue()
        self._todo: deque[_News] = deque()  # taken from the inbox, and not handled
        self._emptied = asyncio.Event()
        self._flights = Flights(parts.get_blob)
        self._musters = Musters(parts.scheduler.graph)
        self._timers: dict[tuple[TaskKey, int], asyncio.TimerHandle] = {}
        self._failure: Failure | None = None
        self._is_interrupted, self._cancelled = False, "by the caller"
        self._done: RunDone | None = None
        self._broken: Exception | None = None

    async def run(self) -> RunDone:
        """Run to the end and say how it went.

        Cancelling this coroutine cancels every task in flight, waits for them to end, journals the
        run as interrupted and then lets the cancellation go on. Cancelling it again stops waiting.
        The message of the cancellation, if it has one, is the reason that is journaled.

        Raises:
            StoreError: the journal could not be written.
            InvariantError: a bug. Whatever an observer raises is one too, and is raised as it is.
        """
        async with asyncio.TaskGroup() as group:
            conductor = group.create_task(self._conduct(), name="driver")
            pump = group.create_task(self._pump(), name="executor updates")
            try:
                # wait() leaves the conductor alone when we are cancelled: a submit that is under
                # way is not torn, and the cancel reaches the machine as an event like any other.
                await asyncio.wait({conductor})
            except asyncio.CancelledError as cancelled:
                self._cancelled = str(cancelled) or self._cancelled
                if self._parts.on_cancel is not None:
                    self._parts.on_cancel()
                self.cancel(self._cancelled)
                await asyncio.wait({conductor})
                raise
            finally:
                pump.cancel()
        if self._broken is not None:
            raise self._broken
        return conductor.result()

    def cancel(self, reason: str) -> None:
        """Ask for the run to be cancelled; `run` then returns when its tasks have ended."""
        self._inbox.put_nowait([CancelRequested(reason)])

    # -- the two tasks -------------------------------------------------------------------------

    async def _pump(self) -> None:
        # A child of the group that raised would cancel `run` itself, which could not tell that
        # from its caller's cancellation. So an executor's failure is an event like any other.
        lost = ExecutorLost("the executor stopped telling of its jobs")
        try:
            async for batch in self._parts.executor.updates():
                self._inbox.put_nowait(batch)
                while self._inbox.qsize() >= _BATCHES_AHEAD:
                    self._emptied.clear()
                    await self._emptied.wait()
        except Exception as error:  # noqa: BLE001 - any failure of a plugin ends the run, cleanly
            lost = _lost(error)
        finally:
            self._inbox.put_nowait([lost])

    async def _conduct(self) -> RunDone:
        try:
            began = self._parts.began
            parameters = self._ledger.record(began)
            self._ledger.emit(began_event(began, self._parts.warnings))
            await self._settle([RunStarted(parameters)])
            while self._done is None:
                await self._settle(await self._receive())
            return self._done
        except Exception as error:  # noqa: BLE001 - kept, and raised by `run` when all has ended
            self._broken = error
            return await self._abandon(error)
        finally:
            for timer in self._timers.values():
                timer.cancel()
            if self._done is None:
                reason = f"cancelled twice, {self._cancelled}: tasks may still be ending"
                self._done = self._outcome("interrupted", reason)
                self._ledger.close_anyhow(self._done)

    async def _receive(self) -> Sequence[_News]:
        """Wait for news and take all there is."""
        news = list(await self._inbox.get())
        while not self._inbox.empty():
            news += self._inbox.get_nowait()
        self._emptied.set()
        return news

    async def _settle(self, news: Iterable[_News]) -> None:
        """Handle news in order and perform what follows, until nothing more follows at once."""
        todo, orders, handled = self._todo, _Orders(), 0
        todo.extend(news)
        while todo and self._done is None:
            item: _News | None = todo.popleft()
            if isinstance(item, JobEnded):
                item = await self._flights.land(item)
            for command in self._handle(item):
                todo.extend(self._take(command, orders))
            if not todo and self._done is None:
                # Only now, so that a batch of ends makes one batch of jobs.
                todo.extend(await self._perform(orders))
                orders = _Orders()
            handled += 1
            if handled % _NEWS_A_TURN == 0:
                await asyncio.sleep(0)
        await self._ledger.settle()

    # -- news: into the journal, then the machine, then to those who watch ---------------------

    def _handle(self, news: _News | None) -> Sequence[Command]:
        match news:
            case Ended():
                return self._on_ended(news)
            case JobOutput():
                if output := self._flights.hear(news):
                    self._ledger.emit(output)
                return ()
            case RetryDue():
                self._timers.pop((news.task, news.attempt), None)
                self._ledger.record(RetryDueRecord(self._ledger.now_us(), news.task, news.attempt))
            case CancelRequested():
                self._ledger.record(CancelRequestedRecord(self._ledger.now_us(), news.reason))
                self._is_interrupted = True
            case ExecutorLost():
                self._ledger.record(ExecutorLostRecord(self._ledger.now_us(), news.reason))
                self._failure = self._failure or Failure(ExecutorError.code, news.reason)
                self._flights.clear()
                self._musters.clear()
            case JobStarted() | JobEnded() | None:
                return ()  # a second end of a job is none
            case RunStarted():
                pass
        return self._scheduler.handle(news)

    def _on_ended(self, ended: Ended) -> Sequence[Command]:
        if not self._scheduler.awaits(ended.task, ended.attempt):
            return ()
        if not isinstance(ended.outcome, Failure):
            head = ended.head or _commit_of(ended, ended.outcome, self._parts)
            is_fit = isinstance(head, Outline)
            ended = replace(ended, head=head) if is_fit else replace(ended, outcome=head)
        # Of a gang nothing is told before it is known what all of it comes to, then all at once.
        return [command for each in self._musters.take(ended) for command in self._tell(each)]

    def _tell(self, ended: Ended | CancelTask) -> Sequence[Command]:
        if isinstance(ended, CancelTask):
            return (ended,)
        if isinstance(ended.outcome, Failure):
            return self._fail(ended, ended.outcome)
        assert ended.head is not None  # `_on_ended` has read it
        return self._commit(ended, ended.outcome, ended.head)

    def _commit(self, ended: Ended, manifest: bytes, head: Outline) -> Sequence[Command]:
        task, attempt = ended.task, ended.attempt
        times = ended.started_us, ended.ended_us
        reused = ended.reused or head.run_id != self._parts.began.run_id
        record = SucceededRecord(self._ledger.now_us(), task, attempt, *times, manifest, reused)
        result = self._ledger.record(record)
        if self._parts.memo is not None:
            self._parts.memo.note(result, head.run_id, is_reused=reused)
        commands = self._scheduler.handle(TaskSucceeded(task, attempt, head.transition, result))
        self._ledger.emit(
            TaskDone(
                task,
                attempt,
                *times,
                transition=head.transition,
                result=result,
                result_size=len(manifest),
                reused=reused,
                caught=head.caught,
            )
        )
        return commands

    def _fail(self, ended: Ended, failure: Failure) -> Sequence[Command]:
        task, attempt = ended.task, ended.attempt
        times = ended.started_us, ended.ended_us
        self._ledger.record(FailedRecord(self._ledger.now_us(), task, attempt, *times, failure))
        self._parts.jobs.note(task, failure.code)
        commands = self._scheduler.handle(
            TaskFailed(task, attempt, failure.summary, failure.retryable)
        )
        if self._failure is None and self._scheduler.failed_task == task:
            self._failure = failure
        again_s = self._scheduler.retry_in_s(task)
        self._ledger.emit(TaskAttemptFailed(task, attempt, *times, failure, again_s))
        return commands

    # -- commands ------------------------------------------------------------------------------

    def _take(self, command: Command, orders: _Orders) -> Sequence[_News]:
        """Perform a command, or put it with the `orders`; return the news that it makes at once."""
        match command:
            case Launch():
                if reused := self._reuse(command):
                    return reused
                orders.launches.append(command)
            case StartTimer(task, attempt, delay_s):
                post, loop = self._inbox.put_nowait, asyncio.get_running_loop()
                timer = loop.call_later(delay_s, post, [RetryDue(task, attempt)])
                self._timers[task, attempt] = timer
            case CancelTask(task, attempt, reason):
                orders.cancels.setdefault(reason, []).append(self._parts.jobs.name(task, attempt))
            case FinishRun(is_ok, reason):
                status = "interrupted" if self._is_interrupted else "failed"
                done = self._outcome("succeeded" if is_ok else status, reason)
                crashpoints.RUN_BEFORE_DONE.passed()
                self._ledger.record(done_record(done, self._parts.seal()))
                crashpoints.RUN_AFTER_DONE.passed()
                self._done = done
                self._ledger.emit(done)
        return ()

    def _reuse(self, launch: Launch) -> Sequence[Ended]:
        """Answer a first attempt by what the memo has and the flow can go on from; a gang whole."""
        memo = self._parts.memo
        if memo is None or launch.attempt:
            return ()
        ends: list[Ended] = []
        for task in tasks_of(launch):
            found = memo.take(task, launch.inputs)
            if found is None:
                return ()
            at = task, launch.attempt, found.started_us, found.ended_us
            ended = Ended(*at, found.manifest, reused=True)
            head = _commit_of(ended, found.manifest, self._parts)
            if not isinstance(head, Outline):
                return ()  # the flow was edited since: what leads elsewhere now is done again
            ends.append(replace(ended, head=head))
        return ends

    async def _perform(self, orders: _Orders) -> Sequence[_News]:
        """Submit, then cancel; return the news that failures make."""
        if not orders.launches and not orders.cancels:
            return ()
        jobs, launched, news = await self._make_jobs(orders.launches)
        for job, (task, attempt) in zip(jobs, launched, strict=True):
            self._flights.add(job.name, task, attempt)
        try:
            if jobs:
                await self._parts.executor.submit(jobs)
            for reason, names in orders.cancels.items():
                await self._parts.executor.cancel(self._flights.among(names), reason=reason)
        except Exception as error:  # noqa: BLE001 - any failure of a plugin ends the run, cleanly
            return [*news, _lost(error)]
        for task, attempt in launched:
            self._ledger.emit(TaskLaunched(task, attempt, self._ledger.now_us()))
        return news

    async def _make_jobs(
        self, launches: Sequence[Launch]
    ) -> tuple[list[Job], list[tuple[TaskKey, int]], list[_News]]:
        """Make what jobs can be made, gangs whole, beside their attempts; the rest have failed."""
        jobs: list[Job] = []
        launched: list[tuple[TaskKey, int]] = []
        news: list[_News] = []
        for launch in launches:
            tasks = tasks_of(launch)
            try:
                jobs += [await self._parts.jobs.make(launch, task) for task in tasks]
                launched += [(task, launch.attempt) for task in tasks]
            except (StoreError, ExecutorError) as error:
                now_us, failure = self._ledger.now_us(), Failure.from_error(error)
                news += [Ended(task, launch.attempt, now_us, now_us, failure) for task in tasks]
        return jobs, launched, news

    # -- the end -------------------------------------------------------------------------------

    def _outcome(self, status: str, reason: str | None) -> RunDone:
        failed_task = self._scheduler.failed_task
        return RunDone(status, self._ledger.now_us(), reason, self._failure, failed_task)

    async def _abandon(self, error: Exception) -> RunDone:
        """End what is in flight without the machine, which may be broken, and commit none of it."""
        if self._done is not None:
            return self._done
        reason = f"aflow failed: {type(error).__name__}: {error}"
        with suppress(Exception):  # the executor may be broken too; the first error is raised
            await self._parts.executor.cancel(self._flights.names(), reason=reason)
            while self._flights:
                for news in self._todo or await self._receive():
                    if isinstance(news, JobEnded):
                        self._flights.drop(news.name)
                    elif isinstance(news, ExecutorLost):
                        self._flights.clear()
                self._todo.clear()
        self._done = self._outcome("failed", reason)
        self._ledger.close_anyhow(self._done)
        return self._done


def _lost(error: Exception) -> ExecutorLost:
    return ExecutorLost(f"the executor failed: {type(error).__name__}: {error}")


def _commit_of(ended: Ended, manifest: bytes, parts: DriverParts) -> Outline | Failure:
    """Read the head of the manifest that an attempt wants to commit, or say why it may not."""
    try:
        head = outline(manifest)
    except StoreError as error:
        return Failure.from_error(error)
    task = ended.task
    is_mine = (head.step, head.task_id) == (task.step, task.task_id)
    if parts.scheduler.graph[task.step].is_parallel and not ended.reused:
        is_mine &= head.attempt == ended.attempt  # the others of its gang are of this one
    if not is_mine or not (ended.reused or _is_of_run(head, ended, parts)):
        return Failure(TaskFailedError.code, "the worker reported another task's result")
    objection = parts.scheduler.objection(task.step, head.transition)
    if objection is not None:
        return refusal(objection, is_limit=parts.scheduler.is_too_wide(head.transition))
    return head


def _is_of_run(head: Outline, ended: Ended, parts: DriverParts) -> bool:
    """Whether this attempt, or one that was given up, has made a manifest; or a job that one of
    the runs which this one goes on from had left in flight."""
    is_own = head.run_id == parts.began.run_id and head.attempt <= ended.attempt
    return is_own or head.run_id in parts.lineage
