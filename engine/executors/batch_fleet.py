"""The jobs of a BatchExecutor that have not ended: what was submitted as what, and what is known.

Pure: it is told what was asked and answered, and says what to ask next and who has ended. An array
job is asked about as one; its children only when it says that more of them have ended than are
known to have.
"""

from collections.abc import Collection, Iterable

from msgspec import Struct, field
from msgspec.structs import replace

from engine.executors.base import Job
from engine.executors.batch_requests import Submission
from engine.executors.batch_states import Seen, as_node, later

MISSES = 3
MISSING_S = 20.0
"""A job that is not described so often, and so long after it was accepted, is forgotten."""


class Unit(Struct, eq=False):
    """One accepted SubmitJob. `live` are the indices of its jobs that have not ended.

    Of an array that an earlier process has submitted (`is_adopted`), all children are asked for
    once: what they said was heard by that process.
    """

    submission: Submission
    job_id: str
    accepted_s: float
    live: set[int]
    is_array: bool
    is_adopted: bool = False
    seen: Seen | None = None
    misses: int = 0
    looked: int = 0  # how many ends the parent told of when its children were last asked for
    is_torn: bool = False  # one of its jobs has ended without a word
    going: set[int] = field(default_factory=set)  # the indices of those that are to end

    @property
    def containers(self) -> list[int]:
        """The indices of those with jobs that have not ended."""
        return sorted({index // self.submission.pack for index in self.live})

    def id_of(self, container: int) -> str:
        """Its id with Batch."""
        return self.submission.id_of(self.job_id, container)

    def live_in(self, container: int) -> list[int]:
        """The indices of the jobs of a container that have not ended."""
        first = container * self.submission.pack
        return [i for i in range(first, first + self.submission.pack) if i in self.live]

    def to_end(self, going: set[int]) -> list[str]:
        """The ids to terminate for these jobs to end: none of a container that has others yet.

        A gang ends as a whole, whichever of its jobs is to end.
        """
        self.going |= going
        if self.submission.is_gang or self.going >= self.live:
            return [self.job_id]
        theirs = sorted({index // self.submission.pack for index in going})
        return [self.id_of(c) for c in theirs if self.going.issuperset(self.live_in(c))]

    def idle(self) -> list[str]:
        """The ids to terminate for no job of theirs is left; a gang's own if one of its is not."""
        idle = sorted(set(range(self.submission.size)).difference(self.containers))
        if self.submission.is_gang:
            return [self.job_id] if idle else []
        return [self.id_of(container) for container in idle]


class Flight(Struct, eq=False):
    """One job. `unit` is None until Batch has taken it."""

    job: Job
    unit: Unit | None = None
    index: int = 0
    seen: Seen | None = None
    started_us: int | None = None
    cancelled: str | None = None
    is_silent: bool = False  # how it ended was not said by itself

    @property
    def is_of_broken_gang(self) -> bool:
        """Whether others of its gang have ended."""
        unit = self.unit
        return (
            unit is not None
            and unit.submission.is_gang
            and len(unit.live) < len(unit.submission.names)
        )

    @property
    def job_id(self) -> str | None:
        """The id of its container with Batch."""
        unit = self.unit
        return None if unit is None else unit.id_of(self.index // unit.submission.pack)


class Findings(Struct):
    """What some answers of Batch say that was not known: the names of jobs that have ended, and
    of those that run, with since when (microseconds since 1970)."""

    ended: list[str] = field(default_factory=list)
    running: list[tuple[str, int]] = field(default_factory=list)
    has_changed: bool = False


class Fleet:
    """Jobs from `add` to `remove`.

    `husks` are the ids of gangs that are over for us, and may not be for Batch: a main node waits
    for each other one to say that it has ended.
    """

    def __init__(self) -> None:
        self.flights: dict[str, Flight] = {}
        self.husks: list[str] = []
        self._units: dict[str, Unit] = {}

    @property
    def units(self) -> list[Unit]:
        return list(self._units.values())

    def is_untaken(self, name: str) -> bool:
        """Whether Batch has not taken a job yet."""
        return (flight := self.flights.get(name)) is not None and flight.unit is None

    def add(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            self.flights[job.name] = Flight(job)

    def accept(
        self, submission: Submission, job_id: str, now_s: float, *, is_adopted: bool = False
    ) -> Unit:
        """Batch has taken a submission, now or before this program began; one of then may be
        adopted in parts, as its jobs are submitted here."""
        here = [i for i, name in enumerate(submission.names) if name in self.flights]
        is_array = submission.size > 1 and not submission.is_gang
        unit = self._units.get(job_id) or Unit(submission, job_id, now_s, set(), is_array)
        names = [a or b for a, b in zip(submission.names, unit.submission.names, strict=True)]
        unit.submission = replace(unit.submission, names=names)
        unit.live.update(here)
        unit.is_adopted = is_adopted
        for index in here:
            flight = self.flights[submission.names[index]]
            flight.unit, flight.index = unit, index
        if here:
            self._units[job_id] = unit
        return unit

    def remove(self, name: str) -> Flight | None:
        """Forget a job, which has ended; None if it had before."""
        flight = self.flights.pop(name, None)
        if flight is not None and (unit := flight.unit) is not None:
            unit.live.discard(flight.index)
            unit.is_torn |= flight.is_silent
            if not unit.live:
                self._units.pop(unit.job_id, None)
                if unit.is_torn and unit.submission.is_gang:
                    self.husks.append(unit.job_id)
        return flight

    def to_ask(self) -> list[str]:
        """The ids to describe next: each submission's, and of arrays the children in question."""
        ids: list[str] = []
        for unit in self._units.values():
            if unit.submission.is_gang:
                # The job as a whole runs on when one node has died: each is asked for.
                ids += [unit.id_of(container) for container in unit.containers]
                continue
            if not unit.is_array:
                ids.append(unit.job_id)
                continue
            if self._has_unknown_states(unit):
                ids += [unit.id_of(container) for container in unit.containers]
                unit.looked = unit.seen.children_ended if unit.seen else 0
            if unit.seen is None or not unit.seen.is_ended:
                ids.append(unit.job_id)
        return ids

    def _has_unknown_states(self, unit: Unit) -> bool:
        if unit.is_adopted:
            unit.is_adopted = False
            return True
        if unit.seen is None:
            return False
        if unit.seen.is_ended:
            return True
        known = unit.submission.size - len(unit.containers)
        return unit.seen.children_ended > max(known, unit.looked)

    def observe(self, answers: Iterable[Seen]) -> Findings:
        """Take what Batch said of jobs, in whatever order and however often."""
        found = Findings()
        for news in answers:
            parent, index = _split(news.job_id)
            unit = self._units.get(parent)
            if unit is None:
                continue
            if unit.submission.is_gang:
                news = as_node(news)
            if unit.is_array and not index:
                self._observe_array(unit, news, found)
            else:
                for each in unit.live_in(int(index or 0)):
                    self._observe_job(unit, each, news, found)
        return found

    def _observe_array(self, unit: Unit, news: Seen, found: Findings) -> None:
        known = unit.seen
        unit.seen = later(known, news)
        unit.misses = 0
        found.has_changed |= unit.seen != known

    def _observe_job(self, unit: Unit, index: int, news: Seen, found: Findings) -> None:
        name = unit.submission.names[index]
        flight = self.flights[name]
        known = flight.seen
        flight.seen = later(known, news)
        unit.misses = 0
        if flight.seen == known and not news.is_ended:
            return
        found.has_changed = True
        if flight.seen.is_ended:
            found.ended.append(name)
        elif unit.submission.pack > 1:
            return  # one of the jobs of the container runs: it says itself which
        elif flight.seen.started_us is not None and flight.started_us is None:
            found.running.append((name, flight.seen.started_us))

    def miss(self, asked: Collection[str], answers: Iterable[Seen], now_s: float) -> list[str]:
        """Note which jobs Batch did not describe; return those that it must have forgotten."""
        answered = {seen.job_id for seen in answers}
        gone: list[str] = []
        # In the order asked: the first node of a gang counts for all of it.
        for job_id in (each for each in asked if each not in answered):
            parent, index = _split(job_id)
            unit = self._units.get(parent)
            if unit is None:
                continue
            if not index or index == str(unit.containers[0]):
                unit.misses += 1
            if unit.misses >= MISSES and now_s - unit.accepted_s >= MISSING_S:
                indices = unit.live_in(int(index)) if index else sorted(unit.live)
                gone += [unit.submission.names[i] for i in indices]
        return gone


def _split(job_id: str) -> tuple[str, str]:
    """The id of what was submitted, and the index of its child or node, if it is one."""
    parent, _, index = job_id.replace("#", ":").partition(":")
    return parent, index


def ids_to_end(flights: Iterable[Flight]) -> list[str]:
    """The ids to terminate for these jobs to end: of a whole array its own."""
    going: dict[str, tuple[Unit, set[int]]] = {}
    for flight in flights:
        if (unit := flight.unit) is not None:
            going.setdefault(unit.job_id, (unit, set()))[1].add(flight.index)
    return [job_id for unit, indices in going.values() for job_id in unit.to_end(indices)]
