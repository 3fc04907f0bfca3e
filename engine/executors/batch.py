"""Runs jobs in AWS Batch, thousands of them from one loop; implements `base.Executor`.

Batch is asked as little as may be. Jobs that become ready together are one array job. How they do
is told by the jobs themselves, in the object store, where one list finds all that is new; what
Batch says matters for those that can no longer speak, so it is asked more and more rarely. Nothing
is decided here about what an answer means: see batch_fleet, batch_states and batch_reasons.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import suppress

from msgspec import Struct

from engine.errors import EngineError, ExecutorError
from engine.executors import batch_reasons, batch_requests, batch_submit
from engine.executors.base import (
    Exit,
    ExitKind,
    Job,
    JobEnded,
    JobStarted,
    JobUpdate,
)
from engine.executors.batch_client import BatchClient
from engine.executors.batch_fleet import Fleet, Flight, Unit, ids_to_end
from engine.executors.batch_requests import Submission
from engine.executors.batch_submit import Accepted, Post, Submitter, submission
from engine.executors.batch_teller import Teller, taken_over
from engine.executors.batch_watch import AskWhy, WaitWatch
from engine.executors.updates import Updates

_CLOSE_S = 30.0
_SETTLES_AT_ONCE = 32


def wall_clock_us() -> int:
    """Microseconds since 1970, UTC."""
    return time.time_ns() // 1000


class BatchExecutorConfig(Struct, frozen=True):
    """`command` starts a container. Times are seconds.

    Words are looked for every `listen_min_s` to `listen_max_s`. Batch is asked every `ask_min_s`
    while states change, up to `ask_max_s` while they do not, and never for more than
    `pages_s` hundreds of jobs a second. Jobs that come within `gather_s` are submitted together, in
    arrays of at most `array_max`. What fails is tried again for `patience_s`. With `is_detached`
    jobs are left running at the end. `read_log` reads the log of a container that left no word.
    Of a job that waits for a machine for `waits_s`, `why` finds out why. Those of a gang that
    broke are heard out for `last_words_s`.
    """

    command: Sequence[str]
    listen_min_s: float = 0.5
    listen_max_s: float = 2.0
    ask_min_s: float = 1.0
    ask_max_s: float = 30.0
    pages_s: float = 4.0
    gather_s: float = 0.1
    array_max: int = 10_000
    patience_s: float = 600.0
    is_detached: bool = False
    clock: Callable[[], int] = wall_clock_us
    read_log: Callable[[str], Awaitable[Sequence[tuple[int, str]]]] | None = None
    why: AskWhy | None = None
    waits_s: float = 60.0
    last_words_s: float = 10.0


class BatchExecutor:
    """Bound to the loop of its first call."""

    def __init__(self, client: BatchClient, post: Post, config: BatchExecutorConfig) -> None:
        self._client = client
        self._post = post
        self._config = config
        self._submitter = Submitter(client, post, config.command, config.array_max)
        self._fleet = Fleet()
        self._names: set[str] = set()  # of all jobs ever: a name starts once
        self._queue: list[Job] = []
        self._updates = Updates()
        self._teller = teller = Teller(
            self._fleet, self._updates, config.clock, self._note_end, config.read_log
        )
        self._say, self._start = teller.say, teller.start
        self._end, self._fail = teller.end, teller.fail
        self._wake_submitter = asyncio.Event()
        self._wake_asker = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._group: asyncio.TaskGroup | None = None
        self._is_closed = False
        self._is_detached = config.is_detached
        self._watch = WaitWatch(config.why, config.waits_s) if config.why else None

    # -- the seam --------------------------------------------------------------------------------

    async def submit(self, jobs: Sequence[Job]) -> None:
        if self._updates.error or self._is_closed:
            raise self._updates.error or ExecutorError("the executor is closed")
        fresh = {job.name: job for job in jobs if job.name not in self._names}
        self._names.update(fresh)
        self._fleet.add(fresh.values())
        self._queue += fresh.values()
        if self._running is None:  # the task is ours, and ends in `aclose`
            self._running = asyncio.get_running_loop().create_task(self._run(), name="Batch")
        self._wake_submitter.set()

    async def updates(self) -> AsyncIterator[Sequence[JobUpdate]]:
        """See `base.Executor`.

        Raises:
            ExecutorError: Batch or the store have not answered for too long.
        """
        async for batch in self._updates.batches():
            yield batch

    async def cancel(self, names: Collection[str], *, reason: str) -> None:
        taken: list[Flight] = []
        for name in names:
            flight = self._fleet.flights.get(name)
            if flight is None or flight.cancelled is not None:
                continue
            flight.cancelled = reason
            if flight.unit is None or self._stays(flight.job):
                self._end(name, Exit(ExitKind.CANCELLED, detail=reason))
            else:
                taken.append(flight)
        if taken and self._group is not None:
            self._group.create_task(self._terminate(taken, reason))

    def detach(self) -> list[str]:
        """From now on, leave jobs to Batch: who cancels them only stops hearing of them. Gangs are
        not left, for nobody can take one over.

        Returns:
            The names of those that Batch has. One that is just being sent may get there too.
        """
        self._is_detached = True
        return [n for n, f in self._fleet.flights.items() if f.unit and self._stays(f.job)]

    def _stays(self, job: Job) -> bool:
        return self._is_detached and job.gang is None

    async def aclose(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])
            left = [f for f in self._fleet.flights.values() if not self._stays(f.job)]
            with suppress(TimeoutError, EngineError):
                async with asyncio.timeout(_CLOSE_S):
                    await self._terminate([f for f in left if f.unit], "aflow ends")
                    await self._submitter.end_leftovers(self._fleet.husks)
        self._updates.close()

    # -- the tasks -------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                group.create_task(self._submitting(group), name="Batch submissions")
                group.create_task(self._listening(), name="words of Batch jobs")
                group.create_task(self._asking(), name="states of Batch jobs")
        except Exception as error:  # noqa: BLE001 - raised by `updates`, which ends the run
            first = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
            told = first.message if isinstance(first, EngineError) else repr(first)
            hint = first.hint if isinstance(first, EngineError) else None
            self._updates.fail(ExecutorError(f"AWS Batch: {told}", hint=hint))
        finally:
            self._group = None

    async def _submitting(self, group: asyncio.TaskGroup) -> None:
        while True:
            # Or until those that wait for others have waited for long enough.
            with suppress(TimeoutError):
                async with asyncio.timeout(self._submitter.packing.wait_s(_now_s())):
                    await self._wake_submitter.wait()
            await asyncio.sleep(self._config.gather_s)
            self._wake_submitter.clear()
            queued, self._queue = self._queue, []
            jobs = [job for job in queued if job.name in self._fleet.flights]
            try:
                # A gang is begun anew as a whole: of an earlier one, parts may have ended.
                await self._adopt([job for job in jobs if job.gang is None])
                left = [job for job in jobs if self._fleet.is_untaken(job.name)]
                submissions, waiting = self._submitter.submissions(left, _now_s())
                self._queue += waiting
            except EngineError as error:
                self._fail((job.name for job in jobs if self._fleet.is_untaken(job.name)), error)
                continue
            for what in submissions:
                group.create_task(self._send(what))

    async def _adopt(self, jobs: Sequence[Job]) -> None:
        """Take up what an earlier process left: what has ended, then what Batch still has."""
        sent = await self._submitter.sent(jobs)
        if not sent:
            return
        await self._collect()
        names = [n for what in sent for n in what.names if self._fleet.is_untaken(n)]
        await self._settle(names, is_over=False)
        for what in sent:
            is_wanted = any(self._fleet.is_untaken(name) for name in what.names)
            if is_wanted and (accepted := await self._submitter.find(what)):
                self._accept(accepted, is_adopted=True)

    async def _send(self, what: Submission) -> None:
        jobs = [f.job for name in what.names if (f := self._fleet.flights.get(name))]
        if not jobs:
            return  # all were cancelled meanwhile
        if len(jobs) < len(what.names) and not what.is_gang:
            what = submission(jobs, min(what.pack, len(jobs)))
        try:
            accepted = await self._submitter.submit(what, jobs)
        except EngineError as error:
            self._fail(what.names, error)
            return
        unit = self._accept(accepted)
        # Those that were cancelled while Batch took them have ended here; now they end there.
        for job_id in () if self._stays(jobs[0]) else unit.idle():
            with suppress(EngineError):
                await self._client.terminate(job_id, "cancelled before it began")

    def _accept(self, accepted: Accepted, *, is_adopted: bool = False) -> Unit:
        what = accepted.submission
        unit = self._fleet.accept(what, accepted.job_id, _now_s(), is_adopted=is_adopted)
        self._wake_asker.set()
        here = [name for name in what.names if name in self._fleet.flights]
        if is_adopted and here:
            self._say(here[0], taken_over(len(here)))
        return unit

    async def _terminate(self, flights: Sequence[Flight], reason: str) -> None:
        """Have jobs ended by Batch, whole arrays by one call. When it agrees, they have ended."""
        for job_id in ids_to_end(flights):
            await self._client.terminate(job_id, reason)
        if not self._is_closed and any(flight.is_of_broken_gang for flight in flights):
            self._wake_asker.set()
            await self._teller.hear_out(flights, self._config.last_words_s)
        for flight in flights:
            self._end(flight.job.name, Exit(ExitKind.CANCELLED, detail=reason))

    # -- what is heard ---------------------------------------------------------------------------

    async def _listening(self) -> None:
        config, wait_s = self._config, self._config.listen_min_s
        patience = _Patience(config.patience_s)
        while True:
            await asyncio.sleep(wait_s)
            if not self._fleet.units:
                continue
            try:
                has_news = await self._collect()
                patience.is_well()
            except EngineError as error:
                patience.bear(error)
                has_news = False
            wait_s = config.listen_min_s if has_news else min(config.listen_max_s, wait_s * 1.5)

    async def _collect(self) -> bool:
        updates = await self._post.collect()
        for update in updates:
            if update.name not in self._fleet.flights:
                continue  # it has ended, or is another copy's
            if isinstance(update, JobEnded):
                times = (update.started_us, update.ended_us)
                self._end(update.name, update.exit, outcome=update.outcome, times=times)
            elif isinstance(update, JobStarted):
                self._start(update.name, update.at_us, update.pid)
            else:
                self._start(update.name, update.lines[0][0] if update.lines else None)
                self._updates.tell(update)
        return bool(updates)

    async def _asking(self) -> None:
        config, wait_s = self._config, self._config.ask_min_s
        patience = _Patience(config.patience_s)
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake_asker.wait()
                    await asyncio.sleep(config.ask_min_s)
            self._wake_asker.clear()
            if not (self._fleet.units or self._fleet.husks):
                continue
            try:
                has_changed, pages = await self._ask()
                await self._submitter.end_leftovers(self._fleet.husks)
                await self._tell_waiting()
                patience.is_well()
            except EngineError as error:
                patience.bear(error)
                has_changed, pages = False, 1
            wait_s = config.ask_min_s if has_changed else min(config.ask_max_s, wait_s * 1.6)
            wait_s = max(wait_s, pages / config.pages_s)

    async def _ask(self) -> tuple[bool, int]:
        """Ask Batch once for all that has to be asked; settle what has ended."""
        now_s = _now_s()
        pages = batch_requests.describe_pages(self._fleet.to_ask())
        has_changed = False
        for page in pages:
            answers = await self._client.describe(page)
            gone = self._fleet.miss(page, answers, now_s)
            found = self._fleet.observe(answers)
            for name, started_us in found.running:
                self._start(name, started_us)
            if found.ended or gone:
                await self._settle([*found.ended, *gone])
            has_changed |= found.has_changed
        return has_changed, len(pages)

    async def _settle(self, names: Sequence[str], *, is_over: bool = True) -> None:
        """End jobs by what they have left; if they are over as Batch says, by what that says."""
        if is_over:
            await self._collect()
        at_once = asyncio.Semaphore(_SETTLES_AT_ONCE)

        async def settle(flight: Flight) -> None:
            async with at_once:
                await self._settle_one(flight, is_over)

        async with asyncio.TaskGroup() as group:
            for name in names:
                if flight := self._fleet.flights.get(name):
                    group.create_task(settle(flight))

    async def _settle_one(self, flight: Flight, is_over: bool) -> None:
        seen, name, gang = flight.seen, flight.job.name, flight.job.gang
        times = (seen.started_us, seen.stopped_us) if seen else (None, None)
        outcome = await self._post.settle(flight.job)
        flight.is_silent = is_over
        if outcome is not None:
            self._end(name, Exit(ExitKind.RETURNED), outcome=outcome, times=times)
        elif not is_over:
            return
        elif seen is None or not seen.is_ended:
            self._end(name, batch_reasons.gone(), times=times)
        else:
            exit = batch_reasons.exit_of(seen, cancelled=flight.cancelled, in_gang=bool(gang))
            if batch_reasons.has_lost_host(exit) and self._move(flight):
                return
            await self._teller.tell_log(name, seen)
            self._end(name, exit, times=times)

    def _move(self, flight: Flight) -> bool:
        """Send a job again whose machines were taken away, where they are not, if that is named."""
        moved = batch_submit.moved(flight.job)
        if moved is None or self._group is None or self._is_detached or flight.job.gang:
            return False
        queue = batch_submit.needs_of(moved).queue
        self._say(moved.name, f"its machines were taken away; it goes on in queue {queue}")
        self._fleet.remove(moved.name)
        self._fleet.add([moved])
        self._group.create_task(self._send(self._submitter.again(moved)))
        return True

    async def _tell_waiting(self) -> None:
        """Say of jobs that have long waited for a machine why they do."""
        for name, text in await self._watch.look(self._fleet, _now_s()) if self._watch else ():
            self._say(name, text)

    def _note_end(self, flight: Flight, exit: Exit, took_us: int | None) -> None:
        self._submitter.note_end(flight.job, exit, took_us)
        if self._queue:  # it waits for others, of which this may have been the last
            self._wake_submitter.set()


def _now_s() -> float:
    return asyncio.get_running_loop().time()


class _Patience:
    """Bears with failures of one kind of call, for so many seconds in a row."""

    def __init__(self, most_s: float) -> None:
        self._most_s = most_s
        self._since_s: float | None = None

    def is_well(self) -> None:
        self._since_s = None

    def bear(self, error: EngineError) -> None:
        """Raise `error` if it has gone on for too long, or cannot pass."""
        now_s = _now_s()
        self._since_s = now_s if self._since_s is None else self._since_s
        if now_s - self._since_s >= self._most_s:
            raise error
