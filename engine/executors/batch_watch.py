"""Notices jobs that wait for a machine for long, and asks why; each reason is told once.

What the answer is, batch_waiting says. Jobs that need the same of the same queue wait for the same
reason, so one of them speaks for all.
"""

from collections.abc import Awaitable, Callable, Iterator

from msgspec import Struct

from engine.errors import EngineError
from engine.executors.batch_fleet import Fleet, Unit
from engine.executors.batch_requests import Needs
from engine.executors.batch_states import RUNNABLE, RUNNING, STARTING
from engine.executors.batch_submit import needs_of
from engine.executors.batch_waiting import Why

AskWhy = Callable[[Needs, str], Awaitable[Why]]
_Alike = tuple[str, float, int, int, str]


class _Group(Struct):
    """Jobs that wait for the same."""

    name: str  # of the one that speaks
    needs: Needs
    told: str
    count: int = 0
    since_s: float = float("inf")


class WaitWatch:
    """Watches the jobs of one executor.

    Args:
        why: finds out why a job that needs so much waits, given what Batch says of it.
        after_s: how long a job may wait before that is asked.
    """

    def __init__(self, why: AskWhy, after_s: float) -> None:
        self._why = why
        self._after_s = after_s
        self._since: dict[str, float] = {}  # by job id of the submission
        self._told: dict[_Alike, str] = {}

    async def look(self, fleet: Fleet, now_s: float) -> list[tuple[str, str]]:
        """What there is to tell now: names of jobs, each with a line. Nothing, where Batch does not
        say: the jobs do not depend on that.
        """
        groups = self._groups(fleet, now_s)
        self._told = {alike: text for alike, text in self._told.items() if alike in groups}
        found: list[tuple[str, str]] = []
        for alike, group in groups.items():
            if now_s - group.since_s < self._after_s:
                continue
            try:
                why = str(await self._why(group.needs, group.told))
            except EngineError:
                continue
            if self._told.get(alike) == why:
                continue
            self._told[alike] = why
            many = f"{group.count:,} tasks wait" if group.count > 1 else "the task waits"
            waited_s = now_s - group.since_s
            found.append((group.name, f"{many} in AWS Batch for {waited_s:.0f} s: {why}"))
        return found

    def _groups(self, fleet: Fleet, now_s: float) -> dict[_Alike, _Group]:
        waiting = list(_waiting(fleet))
        ids = {unit.job_id for unit, *_ in waiting}
        self._since = {job_id: s for job_id, s in self._since.items() if job_id in ids}
        groups: dict[_Alike, _Group] = {}
        for unit, name, told, count in waiting:
            since_s = self._since.setdefault(unit.job_id, now_s)
            needs = needs_of(fleet.flights[name].job)
            alike = needs.queue, needs.cpu, needs.memory_mib, needs.gpu, told
            group = groups.setdefault(alike, _Group(name, needs, told))
            group.count += count
            group.since_s = min(group.since_s, since_s)
        return groups


def _waiting(fleet: Fleet) -> Iterator[tuple[Unit, str, str, int]]:
    """What was submitted and has no machine: a job's name, what Batch says of it, how many tasks.

    An array of which some run is on its way.
    """
    for unit in fleet.units:
        name = unit.submission.names[min(unit.live)]
        seen = unit.seen if unit.is_array else fleet.flights[name].seen
        if seen is None:
            continue
        if not unit.is_array:
            count = unit.submission.size if seen.state == RUNNABLE else 0
        elif seen.summary.get(STARTING, 0) + seen.summary.get(RUNNING, 0):
            count = 0
        else:
            count = seen.summary.get(RUNNABLE, 0)
        if count:
            yield unit, name, seen.status_reason, min(count * unit.submission.pack, len(unit.live))
