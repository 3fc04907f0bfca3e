"""How many jobs share a container, and which of them wait for others to share one with. Pure.

A container takes seconds to start, so jobs of a second each are better done several in one, one
after the other. What waits, waits for siblings that are still to come: only while others of its
group are in Batch, and never for long.
"""

from collections import deque
from collections.abc import Collection, Sequence
from statistics import median

from msgspec import Struct, field

from engine.executors.base import Job
from engine.executors.batch_requests import AUTO_PACK, Needs

TARGET_S = 60.0
"""How long a container is to be busy, of a group whose jobs are packed by how long they take."""

AUTO_MAX = 100
MEASURED_MIN = 3
"""So many jobs have to have ended before it is said how long they take."""

CONTAINERS_LEAST = 8
"""Jobs are not packed into fewer containers than this by how long they take: they run at once."""

HOLD_S = 5.0
"""The longest that a job waits for others."""

_REMEMBERED = 50


class _Group(Struct):
    in_batch: set[str] = field(default_factory=set)  # names
    since_s: float | None = None  # when the oldest of those that wait began to
    took_s: deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))


class Load(Struct, frozen=True):
    """Jobs for Batch now, so many to a container."""

    jobs: Sequence[Job]
    pack: int = 1


class Packing:
    """Knows of each group of jobs how many are in Batch, and how long those took that ended."""

    def __init__(self) -> None:
        self._groups: dict[str, _Group] = {}

    def loads(
        self, needs: Needs, jobs: Sequence[Job], now_s: float
    ) -> tuple[list[Load], list[Job]]:
        """Decide on jobs with equal needs; they count as in Batch once they are in a load.

        Args:
            needs: what each of them needs.
            jobs: all that are to be submitted, the oldest first.
            now_s: by a clock that does not go back.

        Returns:
            what is to be submitted now, and what waits.
        """
        if needs.pack == 1:
            return [Load(jobs)], []
        group = self._groups.setdefault(needs.group, _Group())
        pack = self._size(needs, group, len(jobs))
        whole = len(jobs) - len(jobs) % pack
        ready, rest = jobs[:whole], list(jobs[whole:])
        group.in_batch.update(job.name for job in ready)
        loads = [Load(ready, pack)] if ready else []
        if not rest:
            group.since_s = None
        elif group.in_batch and (group.since_s is None or now_s - group.since_s < HOLD_S):
            group.since_s = now_s if group.since_s is None else group.since_s
        else:
            group.since_s = None
            group.in_batch.update(job.name for job in rest)
            loads.append(Load(rest, len(rest)))
            rest = []
        return loads, rest

    def ended(self, needs: Needs, name: str, took_s: float | None) -> None:
        """A job has ended, of a load or not; `took_s` is None if that says nothing of others."""
        if needs.pack != 1 and (group := self._groups.get(needs.group)):
            group.in_batch.discard(name)
            if took_s is not None:
                group.took_s.append(took_s)

    def begin(self, groups: Collection[str]) -> None:
        """Begin to decide about all that is to be submitted, which is of these groups."""
        for name, group in self._groups.items():
            if name not in groups:
                group.since_s = None

    def wait_s(self, now_s: float) -> float | None:
        """In how many seconds to decide again, if nothing comes; None if nothing waits."""
        since = [g.since_s for g in self._groups.values() if g.since_s is not None]
        return max(0.0, min(since) + HOLD_S - now_s) if since else None

    def _size(self, needs: Needs, group: _Group, count: int) -> int:
        if needs.pack != AUTO_PACK:
            return needs.pack
        if len(group.took_s) < MEASURED_MIN:
            return 1
        wanted = int(TARGET_S / max(median(group.took_s), TARGET_S / AUTO_MAX))
        return max(1, min(wanted, (len(group.in_batch) + count) // CONTAINERS_LEAST))
