"""The attempts in flight: which job is whose, what it printed last, and what it came to."""

from collections import deque
from collections.abc import Awaitable, Callable, Iterable

from msgspec import Struct

from engine.errors import Failure, StoreError
from engine.executors.base import JobEnded, JobOutput
from engine.ids import TaskKey
from engine.scheduler.outcomes import TAIL_LINES, read_report, tail_line
from engine.scheduler.progress import TaskOutput
from engine.stores.manifest import Outline

GetBlob = Callable[[str], Awaitable[bytes]]


class Ended(Struct, frozen=True):
    """How an attempt ended: with the manifest that it wants to commit, or with a failure.

    `head` is the manifest's outline, if it has been read and found fit to be committed.
    """

    task: TaskKey
    attempt: int
    started_us: int
    ended_us: int
    outcome: bytes | Failure
    reused: bool = False
    head: Outline | None = None


class _Flight(Struct):
    task: TaskKey
    attempt: int
    tail: "deque[str] | None" = None  # most tasks print nothing


class Flights:
    """Jobs that were handed to the executor and have not ended.

    Args:
        get_blob: reads a manifest that was too large for the worker's channel.
    """

    def __init__(self, get_blob: GetBlob) -> None:
        self._get_blob = get_blob
        self._flights: dict[str, _Flight] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def names(self) -> list[str]:
        return list(self._flights)

    def among(self, names: Iterable[str]) -> list[str]:
        """Those of the names that are in flight: of a gang all may have ended before the machine,
        which is told of one after the other, has heard of all."""
        return [name for name in names if name in self._flights]

    def add(self, name: str, task: TaskKey, attempt: int) -> None:
        self._flights[name] = _Flight(task, attempt)

    def drop(self, name: str) -> None:
        """Forget a job, if it is here, whatever it came to."""
        self._flights.pop(name, None)

    def clear(self) -> None:
        self._flights.clear()

    def hear(self, output: JobOutput) -> TaskOutput | None:
        """Keep the last lines of a job; None if it is not in flight."""
        flight = self._flights.get(output.name)
        if flight is None:
            return None
        if flight.tail is None:
            flight.tail = deque(maxlen=TAIL_LINES)
        flight.tail.extend(tail_line(text) for _, text in output.lines[-TAIL_LINES:])
        return TaskOutput(flight.task, flight.attempt, output.stream, output.lines)

    async def land(self, ended: JobEnded) -> Ended | None:
        """Take a job's end and find what its attempt came to; None if it had ended before."""
        flight = self._flights.pop(ended.name, None)
        if flight is None:
            return None
        report = read_report(ended)
        outcome = report.failure or report.manifest
        if outcome is None:
            try:
                outcome = await self._get_blob(report.manifest_digest or "")
            except StoreError as error:
                outcome = Failure.from_error(error)
        if isinstance(outcome, Failure) and flight.tail and not outcome.log_tail:
            outcome = outcome.with_log_tail(tuple(flight.tail))
        # The clock of whoever ran it may have been set back meanwhile.
        ended_us = max(ended.started_us, ended.ended_us)
        return Ended(flight.task, flight.attempt, ended.started_us, ended_us, outcome)
