"""Tells the consumer of an executor what becomes of its jobs in AWS Batch."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress

from engine.errors import EngineError, Failure
from engine.executors.base import Exit, ExitKind, JobEnded, JobOutput, JobStarted
from engine.executors.batch_fleet import Fleet, Flight
from engine.executors.batch_states import Seen
from engine.executors.updates import Updates

ReadLog = Callable[[str], Awaitable[Sequence[tuple[int, str]]]]


def taken_over(count: int) -> str:
    """What to say of jobs that an earlier process had sent."""
    many = f"{count:,} tasks are" if count > 1 else "the task is"
    return f"{many} in AWS Batch already, and taken over"


class Teller:
    """Knows what has been told: a job starts once and ends once.

    Args:
        fleet: the jobs; one that ends leaves it.
        updates: where it is told.
        clock: microseconds since 1970, UTC.
        on_end: is told of each end, and of one that Batch had how long it took, in microseconds.
        read_log: reads the log of a container.
    """

    def __init__(
        self,
        fleet: Fleet,
        updates: Updates,
        clock: Callable[[], int],
        on_end: Callable[[Flight, Exit, int | None], None],
        read_log: ReadLog | None = None,
    ) -> None:
        self._read_log = read_log
        self._fleet = fleet
        self._updates = updates
        self._clock = clock
        self._on_end = on_end
        self._has_ended = asyncio.Event()

    def say(self, name: str, text: str) -> None:
        """Say something of a job to people, in its log."""
        self._updates.tell(JobOutput(name, "stderr", ((self._clock(), f"aflow: {text}"),)))

    def start(self, name: str, at_us: int | None, pid: int | None = None) -> None:
        """A job runs, since `at_us` if that is known."""
        flight = self._fleet.flights.get(name)
        if flight is not None and flight.started_us is None:
            flight.started_us = at_us or self._clock()
            self._updates.tell(JobStarted(name, flight.started_us, pid))

    async def tell_log(self, name: str, seen: Seen) -> None:
        """What a container printed that could not say so itself."""
        if self._read_log is None or not seen.log_stream:
            return
        with suppress(EngineError):
            if lines := await self._read_log(seen.log_stream):
                self.start(name, seen.started_us)
                self._updates.tell(JobOutput(name, "stderr", tuple(lines)))

    def end(
        self,
        name: str,
        exit: Exit,
        *,
        outcome: bytes | None = None,
        times: tuple[int | None, int | None] = (None, None),
    ) -> None:
        """A job has ended; `times` are its start and end, as far as they are known."""
        flight = self._fleet.remove(name)
        if flight is None:
            return
        ended_us = times[1] or self._clock()
        started_us = flight.started_us or times[0] or ended_us
        if outcome is not None and flight.started_us is None:
            self._updates.tell(JobStarted(name, started_us))
        self._updates.tell(JobEnded(name, exit, min(started_us, ended_us), ended_us, outcome))
        self._on_end(flight, exit, ended_us - started_us if flight.unit else None)
        self._has_ended.set()

    async def hear_out(self, flights: Sequence[Flight], limit_s: float) -> None:
        """Wait until jobs of a broken gang have ended, but no longer than that.

        Whoever was heard to fail first may only have lost one of them. That one says so a moment
        later, or Batch does if it died without a word.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while any(flight.job.name in self._fleet.flights for flight in flights):
                    self._has_ended.clear()
                    await self._has_ended.wait()

    def fail(self, names: Iterable[str], error: EngineError) -> None:
        """Jobs could not be run."""
        failure = Failure.from_error(error)
        for name in names:
            self.end(name, Exit(ExitKind.LOST, detail=error.message, failure=failure))
