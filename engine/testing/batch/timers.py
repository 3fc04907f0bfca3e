"""What is to be done when. Pure: the time is told."""

import heapq
from collections.abc import Callable

from msgspec import Struct, field

Act = Callable[[float], None]


class _Timer(Struct, order=True):
    due: float
    number: int  # of equal times, the first set is the first done
    act: Act


class Timers(Struct):
    """Instants are seconds since 1970."""

    _heap: list[_Timer] = field(default_factory=list)
    _count: int = 0

    def at(self, due: float, act: Act) -> None:
        """Do something when it is `due`; the time is then told to `act`."""
        self._count += 1
        heapq.heappush(self._heap, _Timer(due, self._count, act))

    def due(self) -> float | None:
        """When the next thing is to be done."""
        return self._heap[0].due if self._heap else None

    def advance(self, now: float) -> None:
        """Do what is due, and what becomes due by that."""
        while self._heap and self._heap[0].due <= now:
            heapq.heappop(self._heap).act(now)
